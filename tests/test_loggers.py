"""Where the figures of a run go: each tool gets every epoch once, with its number, and the run is closed when training fails."""
import sys
from contextlib import contextmanager
from types import ModuleType

import pytest
from test_train import digits, few, short  # noqa: F401

from cifar_resnet.core import Diverged
from cifar_resnet.loggers import check_logger, to_csv


@pytest.fixture
def tools(monkeypatch):
    "Put modules in the place of wandb and mlflow that note what they are asked for"
    noted, wandb, mlflow = [], ModuleType('wandb'), ModuleType('mlflow')

    class WandbRun:
        def log(self, figures, step): noted.append(('log', step, figures))

    @contextmanager
    def run(kind, value=None, **about):
        noted.append(('start', kind, about))
        try: yield value
        finally: noted.append(('end',))
    wandb.init = lambda **about: run('wandb', WandbRun(), **about)
    mlflow.start_run = lambda **about: run('mlflow', **about)
    mlflow.log_params = lambda params: noted.append(('params', params))
    mlflow.log_metrics = lambda figures, step: noted.append(('log', step, figures))
    for module in wandb, mlflow:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr('cifar_resnet.loggers.find_spec', lambda name: type('Spec', (), dict(origin='here')))
    return noted


@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_every_epoch_is_sent_once(few, tools, tmp_path, name):  # noqa: F811
    run = short(few, logger=name, out=tmp_path/'mine')
    sent = [entry for entry in tools if entry[0] == 'log']
    assert [step for _, step, _ in sent] == [1, 2] and tools[-1] == ('end',)
    assert [figures['train_loss'] for *_, figures in sent] == [epoch['train_loss'] for epoch in run.history] and 'epoch' not in sent[0][2]
    assert tools[0][2].get('name', tools[0][2].get('run_name')) == 'mine' and any('batch_size' in str(entry) for entry in tools[:2])


def test_a_resumed_run_sends_the_epochs_that_are_left(few, tools, tmp_path, monkeypatch):  # noqa: F811
    import cifar_resnet.train as train
    real, calls = train.train_epoch, []
    def fail_in_the_second(*args):
        calls.append(1)
        if len(calls) == 2: raise Diverged('the loss became nan')
        return real(*args)
    monkeypatch.setattr(train, 'train_epoch', fail_in_the_second)
    with pytest.raises(Diverged): short(few, logger='wandb', out=tmp_path)
    assert [entry[1] for entry in tools if entry[0] == 'log'] == [1] and tools[-1] == ('end',)
    monkeypatch.setattr(train, 'train_epoch', real)
    run = short(few, logger='wandb', out=tmp_path, resume=tmp_path/'last.pt')
    assert [entry[1] for entry in tools if entry[0] == 'log'] == [1, 2]
    assert (tmp_path/'epochs.csv').read_bytes() == to_csv(run.history)


def test_a_folder_is_not_a_package(tmp_path, monkeypatch):
    "wandb leaves a folder of its name behind, which Python would import"
    (tmp_path/'wandb').mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'wandb', raising=False)
    with pytest.raises(ValueError, match='the logger wandb needs one more package: pip install wandb'): check_logger('wandb')
