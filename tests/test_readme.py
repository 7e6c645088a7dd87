"""The commands and the code that the home page shows: they run, and their options exist."""
import re

import nbformat
import pytest

from cifar_resnet.cli import make_parser
from cifar_resnet.core import load_record

QUICK = {"get_data('cifar10')": "get_data('digits')", 'CustomResNet(logit_scale': 'CustomResNet(8, logit_scale', 'CustomResNet(16,': 'CustomResNet(8,',
         'find_lr(model, data)': 'find_lr(model, data, batch_size=64, steps=40)', 'find_lr(model, data, batch_size=64)': 'find_lr(model, data, batch_size=64, steps=40)',
         'epochs=24, peak_epoch=5': 'epochs=2, peak_epoch=1', 'epochs=16, peak_epoch=3': 'epochs=2, peak_epoch=1', 'cycle, out=': 'cycle, batch_size=64, out='}


@pytest.fixture(scope='module')
def page(root): return '\n'.join(c.source for c in nbformat.read(root/'nbs'/'index.ipynb', 4).cells if c.cell_type == 'markdown')


def blocks(page, language): return re.findall(rf'```{language}\n(.*?)```', page, re.S)


def test_the_python_code_runs(page, tmp_path, monkeypatch):
    "On digits, with a narrow network, small batches and two epochs; nothing else is changed"
    monkeypatch.chdir(tmp_path)
    shown, names = blocks(page, 'python'), {}
    for text in QUICK: assert any(text in block for block in shown), f'the page no longer says {text}: change QUICK'
    for block in shown:
        for text, quick in QUICK.items(): block = block.replace(text, quick)
        exec(block, names)
        assert len(names['run'].history) == 2 and names['run'].test_acc > .2
    assert names['preds'].split.classes == names['data'].classes
    assert {'last.pt', 'final.safetensors', 'run.json'} <= {p.name for p in (tmp_path/'runs'/'mine').iterdir()}


def test_eight_lines(page):
    "As the page calls them; the import comes before"
    first = blocks(page, 'python')[0].strip().splitlines()
    assert 'takes eight lines' in page and len([line for line in first if line]) == 1 + 8


def test_the_commands_exist_with_these_options(page):
    lines = [line.split('#')[0].split() for block in blocks(page, 'sh') for line in block.splitlines()]
    lines = [line for line in lines if line and line[0].startswith('cifar_')]
    assert len(lines) == 10
    for command, *args in lines:
        if command != 'cifar_resnet': args = [command.removeprefix('cifar_'), *args]
        make_parser().parse_args(args)  # exits where an option is not known


def test_targets_of_make_exist(root, page):
    makefile = (root/'Makefile').read_text(encoding='utf-8')
    text = page + (root/'CONTRIBUTING.md').read_text(encoding='utf-8')
    targets = set(re.findall(r'(?:`|^|, )make ([a-z-]+)', text, re.M))
    assert {'demo', 'test', 'train', 'lab', 'help'} <= targets
    for target in targets: assert re.search(rf'^{target}:', makefile, re.M), f'make {target}'


def test_the_versions_that_were_tested(root, page):
    "Those of the lock, and no others"
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)(?: ; python_full_version < '3.12')?$", (root/'requirements.lock').read_text(), re.M))
    assert f"PyTorch {lock['torch']}, torchvision {lock['torchvision']} and NumPy {lock['numpy']}, the versions in `requirements.lock`" in page


def test_every_promise_was_tried(root):
    "The record behind the page of promises names every test of them"
    tests = '\n'.join((root/'tests'/name).read_text() for name in ('test_promises.py', 'test_faults.py'))
    assert set(re.findall(r'^def (test_\w+)', tests, re.M)) == load_record('promises')['cases'].keys()
