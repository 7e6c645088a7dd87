"""Compare the figures in the prose of the pages and README.md with the records in results/."""
import ast
import json
import re

import nbformat
import numpy as np
import pytest

from cifar_resnet.analysis import accuracy_interval
from cifar_resnet.compare import interval, training_minutes

# Percentages with decimals that are not in a record: published by others, or computed by the cell beside them
CITED = {'93.8', '89.23', '85.16', '90.31', '92.33', '91.44', '91.78', '3.3', '94.0', '94.6', '95.0', '95.1', '27.5', '44.6', '95.8'}


@pytest.fixture(scope='module')
def record(root): return lambda name: json.loads((root/'results'/f'{name}.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def prose(root):
    "Return the text of each page, without code"
    def told(cell): return cell.source if cell.cell_type == 'markdown' else '\n'.join(re.findall(r'^#\| fig-(?:cap|alt): (.*)', cell.source, re.M))
    def text(path): return '\n'.join(told(c) for c in nbformat.read(path, 4).cells)
    pages = {p.stem: text(p) for p in (root/'nbs').glob('*.ipynb')} | {'README': (root/'README.md').read_text(encoding='utf-8')}
    return {name: re.sub(r'```.*?```', '', page, flags=re.S).replace('\N{NO-BREAK SPACE}', ' ') for name, page in pages.items()}


@pytest.fixture(scope='module')
def cpu94(root, record): return [record(path.stem) for path in (root/'results').glob('cpu94-*.json')]


def percent(share): return f'{100*share:.2f} %'


@pytest.mark.parametrize('page', ['index', 'README'])
def test_home_page(prose, record, page):
    run = record('one_cycle_24')
    where = run['environment']
    says = prose[page]
    assert f"**{percent(run['test_acc'])}** of the 10,000 test images, {percent(run['test_acc_flip'])} with flips (n=1, {where['device']}, {where['cores']} cores" in says
    acc = run['test_acc']
    half = 1.96*(acc*(1 - acc)/10_000)**.5
    assert f"missed by {93.8 - 100*acc:.2f} points; the 95 % interval, {100*(acc - half):.1f} to {100*(acc + half):.1f}, holds both" in says


@pytest.mark.parametrize('page', ['index', 'README'])
def test_cpu94_on_the_home_page(prose, cpu94, page):
    one, two, six = (percent(np.mean([run[key] for run in cpu94])) for key in ('test_acc', 'test_acc_flip', 'test_acc_six'))
    minutes = np.mean(training_minutes(cpu94))
    mean, low, high = (100*v for v in interval([run['test_acc_six'] for run in cpu94]))
    assert mean >= 94 and f'A second recipe reaches **94 % in {minutes:.0f} minutes on two CPU cores**, with six views of each image.' in prose[page]
    assert f'takes {minutes:.0f} minutes on two CPU cores' in prose[page]
    assert (f'It names {one} of the test images, {two} with flips, and {six} with six views of each image '
            f'(means, n={len(cpu94)}, Intel Xeon). The 95 % interval of the last is {low:.2f} to {high:.2f}.') in prose[page]
    assert {(run['environment']['device'], run['environment']['cores']) for run in cpu94} == {('Intel(R) Xeon(R) Processor', 2)}


def test_the_recipe_of_the_recorded_run(record):
    "The home page says that `run_recipe('one_cycle', data)` made the record"
    from cifar_resnet.core import to_plain
    from cifar_resnet.recipes import ONE_CYCLE
    run = record('one_cycle_24')
    assert to_plain(ONE_CYCLE.schedule) == run['schedule'] and ONE_CYCLE.config.seed == run['seed'] and to_plain(ONE_CYCLE.config.augment) == run['augment']
    assert all(run['network']['config'][name] == value for name, value in ONE_CYCLE.make().config.items() if name in run['network']['config'])


def test_speed(prose, record):
    from cifar_resnet.compare import interval
    ratio = record('bench_cpu')['ratio']
    mean, low, high = interval(ratio)
    assert f'{mean:.2f} times as fast as the baseline on this CPU (95 % interval {low:.2f} to {high:.2f}, n={len(ratio)})' in prose['03_one_cycle']
    assert f"takes {np.mean(record('bench_cpu')['images_per_second']['ours']):.0f} images per second" in prose['00_data']


def test_feeding(prose, record):
    rates = {how: rate['mean'] for how, rate in record('feeding')['images_per_second'].items()}
    times = rates['Batches on the CPU']/rates['albumentations in two workers']
    assert 4.5 < times < 5.5 and 'about five times as fast' in prose['00_data']


def test_how_many_are_wrong(prose, record):
    run = record('mistakes')
    errors = run['images'] - run['correct']
    assert f'we make {errors} errors' in prose['04_analysis']
    assert round(10_000/errors) == 16 and 'one image in sixteen wrong' in prose['00_data']


def test_mistakes(prose, record):
    run, says = record('mistakes'), prose['04_analysis']
    near = run['near_copies']
    assert near['correct'] + near['others_correct'] == run['correct'] and near['images'] + near['others'] == run['images'] == 10_000
    assert f"Without them the accuracy is {percent(near['others_correct']/near['others'])} in place of {percent(run['correct']/run['images'])}" in says
    before, after = ([100*v for v in (run[name]['ece'], *run[name]['interval'])] for name in ('unscaled', 'scaled'))
    assert 'from {:.2f} % (95 % interval {:.2f} to {:.2f}) to {:.2f} % ({:.2f} to {:.2f})'.format(*before, *after) in says


def test_hours_of_a_run(prose, record):
    rate = np.mean(record('bench_cpu')['images_per_second']['ours'])
    assert f'take about {24*50_000/rate/3600:.1f} hours on that CPU (computed from the measured {rate:.0f} images per second)' in prose['03_one_cycle']


def test_parameters(prose, record):
    said = {n for text in prose.values() for n in re.findall(r'\b6,\d{3},\d{3}\b', text)}
    assert said == {f"{record('one_cycle_24')['n_params']:,}"}


def test_solutions_state_what_came_out(root):
    "The figures of a solution that spans chapters are in the outputs above it"
    cells, outputs, stated = nbformat.read(root/'nbs'/'exercises.ipynb', 4).cells, '', 0
    for cell in cells:
        if cell.cell_type == 'code': outputs += ''.join(o.get('text', '') for o in cell.outputs)
        elif cell.source.endswith(':::'):
            figures = re.findall(r'\d+\.\d+', cell.source)
            assert figures and set(figures) <= set(re.findall(r'\d+\.\d+', outputs)), cell.source
            stated += 1
    assert stated == 4


def test_the_tables_of_the_results_page_are_those_of_the_records(root, monkeypatch):
    "A new record needs a new page: make run-chapters CHAPTERS=nbs/results.ipynb"
    from IPython.display import Markdown
    monkeypatch.chdir(root/'nbs')
    names, compared = {}, 0
    for cell in nbformat.read(root/'nbs'/'results.ipynb', 4).cells:
        if cell.cell_type != 'code' or 'fig-cap' in cell.source: continue
        *body, last = ast.parse(cell.source).body
        if not isinstance(last, ast.Expr):
            exec(cell.source, names)
            continue
        exec(compile(ast.Module(body, []), cell.id, 'exec'), names)
        made = eval(compile(ast.Expression(last.value), cell.id, 'eval'), names)
        if not isinstance(made, Markdown) or "load_record('chapters')" in cell.source: continue  # the seconds of pages change with every run
        saved, = (o.data['text/markdown'] for o in cell.outputs if 'text/markdown' in o.get('data', {}))
        assert made.data == saved, f'{cell.id} is not up to date: make run-chapters CHAPTERS=nbs/results.ipynb'
        compared += 1
    assert compared >= 12


def test_no_figure_comes_from_nowhere(prose, record, cpu94):
    "Every percentage with decimals is in CITED or in a record"
    run, demo = record('one_cycle_24'), record('demo')
    known = CITED | {percent(a)[:-2] for a in (run['test_acc'], run['test_acc_flip'], demo['test_acc'][0])}
    known |= {f'{100*run["test_acc"]:.1f}', f'{100*run["test_acc"] + .2:.1f}'}  # a question for teachers compares two such networks
    known |= {percent(np.mean([run[key] for run in cpu94]))[:-2] for key in ('test_acc', 'test_acc_flip', 'test_acc_six')}
    mistakes = record('mistakes')
    known |= {percent(share)[:-2] for share in (mistakes['correct']/mistakes['images'], mistakes['near_copies']['others_correct']/mistakes['near_copies']['others'], mistakes['unscaled']['ece'], mistakes['scaled']['ece'])}
    known |= {percent(record('views')['test_acc'])[:-2]} | {percent(share)[:-2] for share in accuracy_interval(round(10_000*run['test_acc']), 10_000)}
    short = [*record('first_steps')['runs'].values(), *record('batch_norm')['runs'].values(), *record('optimizers')['runs'].values()]
    accs = [run['valid_acc'] for run in short] + list(record('single_shortcuts')['valid_acc'].values())
    known |= {f'{100*np.mean(a):.1f}' for a in accs}
    for name, text in prose.items():
        if name == 'exercises': continue  # test_solutions_state_what_came_out
        strange = set(re.findall(r'(?<![\w.])(\d+\.\d+)(?:\*\*)? ?%', text)) - known
        assert not strange, f'{name}: {strange}'
