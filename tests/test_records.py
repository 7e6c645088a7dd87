"""The planned runs: their names, what they see, and what an interrupt leaves."""
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from cifar_resnet import records as R
from cifar_resnet.core import record_names
from cifar_resnet.data import get_data
from cifar_resnet.model import load_weights
from cifar_resnet.recipes import ABOUT, ONE_CYCLE, change, controls, recipes, single_faults
from cifar_resnet.records import (PUBLISHED, Planned, compare_speed, fault_runs, is_recorded, make, make_all, make_missing, missing, missing_runs, plan, plan_table, rate_runs, recipe_runs,
                                  speed_table, summarize)
from cifar_resnet.train import OneCycle, Trainer


@pytest.fixture(scope='module')
def few():
    digits = get_data('digits')
    return replace(digits, train=digits.train[:256], valid=digits.valid[:64], test=digits.test[:64])


def small(epochs=2, **changes):
    return change(ONE_CYCLE, 'small', schedule=OneCycle(.01, .2, epochs, epochs/2), **dict(augment=None, batch_size=64, network=dict(width=8, logit_scale=.125)) | changes)


# ---- the plan ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', ['cpu', 'gpu'])
def test_every_planned_run_has_a_name_of_its_own(kind):
    runs = plan(kind)
    assert len({p.name for p in runs}) == len(runs)
    for p in runs: assert p.name == 'one_cycle_24' or p.name.endswith(f'-{p.seed}')
    assert [p.name for p in missing(kind)] == [p.name for p in runs if p.name not in record_names()]


def test_a_plan_of_another_machine():
    with pytest.raises(ValueError, match=r"kind must be one of cpu, gpu \(got 'tpu'\)"): plan('tpu')
    with pytest.raises(ValueError, match='kind'): make_missing('tpu')


def test_where_something_is_chosen_the_test_set_is_not_seen():
    for kind in 'cpu', 'gpu':
        for p in plan(kind):
            chosen_by = p.name.startswith(('rates/', 'faults/', 'controls/', 'tricks/'))
            assert p.test is not chosen_by
            if chosen_by: assert p.settings == dict(full=False)


def test_recipe_runs():
    chosen = [recipes()['era_s10'], ONE_CYCLE]
    assert [p.name for p in recipe_runs(chosen, range(2))] == ['recipes/era_s10-0', 'recipes/one_cycle-0', 'recipes/era_s10-1', 'recipes/one_cycle-1']
    assert [p.name for p in recipe_runs(chosen[:1], [3], 2, 'digits')] == ['recipes/era_s10-digits-2ep-3']
    assert [p.name for p in recipe_runs(chosen[:1], [3], data='digits')] == ['recipes/era_s10-digits-3']
    assert set(PUBLISHED) == {name for name, about in ABOUT.items() if about.published}


def test_rate_runs():
    runs = {p.name: p.recipe for p in rate_runs('cpu', 16, 4, [0])}
    s = runs['rates/cpu-peak0.8-end0.01-0'].schedule
    assert len(runs) == 9 and (s.lr_min, s.lr_max, s.final, s.epochs, s.peak_epoch) == (.008, .8, pytest.approx(.008), 4, 4*5/24)
    assert runs['rates/cpu-peak0.4-end0-0'].schedule.final == 0 and all(r.network == dict(width=16, logit_scale=.125) for r in runs.values())


def test_fault_runs():
    runs = fault_runs([2])
    assert len(runs) == 1 + len(single_faults()) + len(controls()) and all(p.seed == 2 and p.epochs == 4 and p.recipe.network['width'] == 16 for p in runs)
    assert runs[0].recipe == replace(ONE_CYCLE, network=dict(width=16, logit_scale=.125))


def test_records_are_those_of_the_plan():
    "A record whose recipe was changed since would be found here"
    for p in plan('cpu'):
        if p.name not in record_names(): continue
        record = R.load_record(p.name)
        schedule = p.recipe.schedule if p.epochs is None else p.recipe.schedule.stretch(p.epochs)
        assert record['seed'] == p.seed and len(record['epochs']) == schedule.epochs, p.name
        assert record['schedule']['lr_max'] == schedule.lr_max and record['schedule']['peak_epoch'] == pytest.approx(schedule.peak_epoch), p.name
        assert record['images'] == (50_000 if p.settings.get('full', p.recipe.config.full) else 45_000) and (record['test_acc'] is not None) == p.test, p.name


# ---- make ----------------------------------------------------------------------------------------------------------------------------------

def test_a_record_and_its_weights(few, tmp_path):
    tiny = Planned('deep/tiny', small(), seed=3, weights=True)
    record = make(tiny, few, 'cpu', tmp_path/'runs', tmp_path/'results')
    file = tmp_path/'results'/'deep'/'tiny.safetensors'
    assert record == json.loads(file.with_suffix('.json').read_text()) and not list((tmp_path/'runs'/'deep').iterdir())
    assert record['weights'] == dict(file='tiny.safetensors', sha256=hashlib.sha256(file.read_bytes()).hexdigest(), size=file.stat().st_size)
    assert (record['name'], record['recipe'], record['seed'], record['images'], record['trained_on']) == ('deep/tiny', 'small', 3, 320, 'cpu')
    model, notes = load_weights(file)
    assert notes['test_acc'] == record['test_acc'] and notes['classes'] == list(few.classes)
    assert all(v.half().float().equal(v) for v in model.parameters())


def test_without_the_test_set(few, tmp_path):
    record = make(Planned('a', small(), settings=dict(full=False), test=False), few, 'cpu', tmp_path/'runs', tmp_path)
    assert record['test_acc'] is record['test_loss'] is None and record['images'] == 256 and record['epochs'][-1]['valid_acc'] is not None
    assert summarize(record).startswith('valid ') and 'test' not in summarize(record)


def test_another_length(few, tmp_path):
    record = make(Planned('a', small(4), epochs=2), few, 'cpu', tmp_path/'runs', tmp_path)
    assert len(record['epochs']) == 2 and record['schedule']['peak_epoch'] == 1


def test_a_run_that_diverges_is_a_result(few, tmp_path, capsys):
    wild = replace(small(4), schedule=OneCycle(1, 1e12, 4, 1), network=dict(width=8))
    todo = [Planned('wild', wild, 5), Planned('tame', small())]
    assert make_all(todo, few, 'cpu', runs=tmp_path/'runs', results=tmp_path) == ['wild', 'tame']
    record = json.loads((tmp_path/'wild.json').read_text())
    assert 'the loss became nan' in record['diverged'] and (record['settings']['schedule']['lr_max'], record['seed'], record['recipe']) == (1e12, 5, 'small')
    assert summarize(record) == 'diverged' and 'wild: diverged' in capsys.readouterr().out
    assert not list((tmp_path/'runs').iterdir())


def test_results_without_a_checkout(few, tmp_path, monkeypatch):
    "They go into results/ in the working folder, not into the installed package"
    monkeypatch.setattr('cifar_resnet.core.results_folders', lambda: [tmp_path/'site-packages'])
    monkeypatch.chdir(tmp_path)
    make(Planned('a', small(), weights=True), few, 'cpu')
    assert sorted(p.name for p in (tmp_path/'results').iterdir()) == ['a.json', 'a.safetensors'] and not (tmp_path/'site-packages').exists()


def interrupt_at(monkeypatch, epoch):
    "Ctrl-C in the given epoch, counted over all runs; return the list of epochs that were started"
    usual, started = Trainer.one_epoch, []

    def one_epoch(self, progress=None):
        started.append(self.epoch + 1)
        if len(started) == epoch: raise KeyboardInterrupt
        return usual(self, progress)
    monkeypatch.setattr(Trainer, 'one_epoch', one_epoch)
    return started


def test_interrupted_and_continued(few, tmp_path, monkeypatch, capsys):
    todo = [Planned(f'tiny-{seed}', small(3), seed) for seed in range(2)]
    folders = dict(runs=tmp_path/'runs', results=tmp_path/'results')
    started = interrupt_at(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt, match=r'stopped after 2 of 3 epochs; .*last.pt holds the first 2 epochs'): make_all(todo, few, 'cpu', **folders)
    assert 'made 1: tiny-0\nleft 1: tiny-1' in capsys.readouterr().out and [p.name for p in (tmp_path/'results').iterdir()] == ['tiny-0.json']
    first = list(started)
    assert make_all(todo[1:], few, 'cpu', **folders) == ['tiny-1']
    assert first == [1, 2, 3, 1, 2, 3] and started[6:] == [3]  # only the epoch that was lost
    assert len(json.loads((tmp_path/'results'/'tiny-1.json').read_text())['epochs']) == 3 and not list((tmp_path/'runs').iterdir())


def test_make_missing(few, tmp_path, monkeypatch):
    monkeypatch.setattr(R, 'plan', lambda kind: [Planned(name, small(1)) for name in ('there', 'not there')])
    monkeypatch.setattr(R, 'record_names', lambda: ['there'])
    assert make_missing('cpu', few, runs=tmp_path/'runs', results=tmp_path/'results') == ['not there']


# ---- tables --------------------------------------------------------------------------------------------------------------------------------

def test_summaries():
    assert summarize(dict(test_acc=.5, epochs=[dict(valid_acc=None)], seconds=1234.4)) == 'test 50.00%, 1,234 s'
    assert summarize(dict(test_acc=.5, epochs=[dict(valid_acc=.25)], seconds=1)) == 'valid 25.00%, test 50.00%, 1 s'


def test_plan_table():
    lines, there = plan_table().splitlines(), set(record_names())
    settings = {(kind, p.name.removesuffix(f'-{p.seed}')) for kind in ('cpu', 'gpu') for p in plan(kind) if p.name in there}
    assert len(lines) == 1 + len(settings) and all(len(line) < 140 for line in lines) and 'not run yet' not in plan_table()
    rows = {tuple(line.split()[:2]): line.split()[2] for line in lines[1:]}
    assert set(rows) == {(name, kind) for kind, name in settings}
    assert rows['rates/cpu-peak0.4-end0.01', 'cpu'] == f"{sum(n.startswith('rates/cpu-peak0.4-end0.01-') for n in there)}/3"


def test_missing_runs(monkeypatch):
    lacking = {(kind, name) for (kind, _), (_, names) in missing_runs().items() for name in names}
    assert lacking == {(kind, p.name) for kind in ('cpu', 'gpu') for p in missing(kind)}
    assert all(name.startswith(topic) and len(names) <= planned for (_, topic), (planned, names) in missing_runs().items() for name in names)
    monkeypatch.setattr(R, 'record_names', lambda: [p.name for p in plan('cpu')])
    assert not [kind for kind, _ in missing_runs() if kind == 'cpu']
    monkeypatch.setattr(R, 'record_names', list)
    assert sum(planned for planned, _ in missing_runs().values()) == sum(len(names) for _, names in missing_runs().values()) == len(plan('cpu')) + len(plan('gpu'))


# ---- speed ---------------------------------------------------------------------------------------------------------------------------------

def test_compare_speed(few):
    "Longer than an epoch: every turn trains on as many batches"
    trained = []
    usual = R.train_epoch

    def train_epoch(trainer):
        trained.append(trainer.step)
        usual(trainer)
        assert trainer.step == trained[-1] + 2
    with pytest.MonkeyPatch.context() as m:
        m.setattr(R, 'train_epoch', train_epoch)
        record = compare_speed(few, rounds=3, steps=2, batch_size=100, workers=0, width=8)
    rates = record['images_per_second']
    assert len(trained) == 4 and all(len(r) == 3 and min(r) > 0 for r in rates.values()) and record['ratio'] == [o/b for o, b in zip(rates['ours'], rates['baseline'])]
    assert len(speed_table(record).splitlines()) == 3 and speed_table(record).endswith('n=3)')
    for batch_size in 0, 257:
        with pytest.raises(ValueError, match='batch_size must be a whole number from 1 to 256'): compare_speed(few, batch_size=batch_size)


def test_the_table_of_the_recorded_speed():
    record = R.load_record('bench_cpu')
    assert f"ours is {np.mean(record['ratio']):.2f} times as fast" in speed_table(record) and 'baseline' in speed_table(record)


def test_damaged_files_of_one_run_do_not_stop_the_others(few, tmp_path, capsys):
    "A broken record, a folder of its name, a damaged checkpoint: each is named, left as it is, and the rest is made"
    runs, results = tmp_path/'runs', tmp_path/'results'
    todo = [Planned(name, small()) for name in ('broken', 'folder', 'checkpoint', 'whole')]
    (results/'folder.json').mkdir(parents=True)
    (results/'broken.json').write_text('{')
    (runs/'checkpoint').mkdir(parents=True), (runs/'checkpoint'/'last.pt').write_bytes(b'PK')
    assert not any(is_recorded(results/f'{p.name}.json') for p in todo)
    assert make_all(todo, few, 'cpu', runs=runs, results=results) == ['whole']
    err = capsys.readouterr().err
    for name, says in ('broken', 'broken.json is not a record that can be read: move it away'), ('folder', 'folder.json is not a record'), ('checkpoint', 'last.pt is not a valid checkpoint'):
        assert sum(line.startswith(f'{name} was not made: ') and says in line for line in err.splitlines()) == 1, err
    assert (results/'broken.json').read_text() == '{' and (runs/'checkpoint'/'last.pt').read_bytes() == b'PK' and is_recorded(results/'whole.json')
