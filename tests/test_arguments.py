"""A wrong argument of `get_data`, or CIFAR-10 that was promised and is not there, raises a one-line error before any work."""
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Mirror

from cifar_resnet.analysis import predict
from cifar_resnet.augment import Batches
from cifar_resnet.core import DataError, Diverged
from cifar_resnet.data import choose_valid, course_data, get_data
from cifar_resnet.device import Optim
from cifar_resnet.fetch import Remote, fetch
from cifar_resnet.lr_finder import find_lr
from cifar_resnet.model import CustomResNet
from cifar_resnet.train import FitConfig, OneCycle, evaluate, fit


def one_clear_line(call, *parts):
    with pytest.raises((ValueError, DataError)) as e: call()
    message = str(e.value)
    assert message and '\n' not in message and len(message) < 900
    for part in parts: assert str(part) in message, message


@pytest.mark.parametrize('kwargs,says', [
    (dict(valid=0.1), 'got 0.1'), (dict(valid='10'), "got '10'"), (dict(valid=-1), 'from 0 to 49,999'), (dict(valid=50_000), 'from 0 to 49,999'),
    (dict(valid=True), 'got True'), (dict(seed=1.5), 'got 1.5'), (dict(seed=-1), 'got -1'), (dict(seed=None), 'got None'), (dict(root=''), "got ''"),
    (dict(root=123), 'got 123'), (dict(root=b'x'), 'root must be'), (dict(root='~no_such_user/x'), '~no_such_user'), (dict(name='cifar'), "got 'cifar'")])
def test_get_data_before_anything_is_fetched(nowhere, kwargs, says):
    with Mirror(b'x') as mirror:
        one_clear_line(lambda: get_data(archive=Remote('a', (mirror.url('good'),), 'md5:0', 1), **kwargs), says)
        assert not mirror.requests


@pytest.mark.parametrize('n,seed', [(-1, 0), (11, 0), (1.5, 0), (1, None)])
def test_choose_valid(n, seed): one_clear_line(lambda: choose_valid(np.zeros(10, int), n, seed))


def test_a_chapter_never_settles_for_digits_when_cifar10_was_promised(nowhere, monkeypatch, capsys):
    monkeypatch.setenv('IN_TEST', '1')
    assert course_data().name == 'digits' and 'runs on digits: CIFAR-10 was not found in' in capsys.readouterr().out
    monkeypatch.setenv('CIFAR_RESNET_DATA', str(nowhere/'not here'))
    one_clear_line(course_data, 'not here')
    (nowhere/'cifar-10-batches-bin').mkdir()
    (nowhere/'cifar-10-batches-bin'/'data_batch_2.bin').write_bytes(b'x')
    monkeypatch.setenv('CIFAR_RESNET_DATA', str(nowhere))
    one_clear_line(course_data, 'data_batch_1.bin is missing')
    monkeypatch.setenv('CIFAR_RESNET_QUICK', '1')
    assert course_data().name == 'digits'


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='needs root, to act as a user with fewer rights')
def test_a_whole_file_in_a_read_only_folder_is_used(tmp_path):
    (tmp_path/'f').write_bytes(b'x')
    for p in (tmp_path, *tmp_path.parents):
        if 'pytest' in str(p): p.chmod(0o755)
    os.seteuid(65534)
    try: assert fetch(Remote('f', (), 'md5:9dd4e461268c8034f5c8564e155c67a6', 1), tmp_path) == tmp_path/'f'
    finally: os.seteuid(0)


# ---- what fit, find_lr and predict say at the start -------------------------------------------------------------------------------------

FEW = get_data('digits')
FEW = replace(FEW, train=FEW.train[:64], valid=FEW.valid[:32], test=FEW.test[:32])


def spoil(kind):
    "Return a network that is not fit to train or predict"
    model = CustomResNet(8)
    with torch.no_grad(): (model.fc.weight if kind == 'weight' else model.prep.norm.running_mean).fill_(torch.nan)
    return model


def odd(**fields): return lambda split: replace(split, **{name: change(getattr(split, name)) for name, change in fields.items()})


SPLITS = [
    (odd(labels=lambda v: v + 1), 'labels must be from 0 to 9 (got 1 to 10)'), (odd(labels=lambda v: v - 1), 'labels must be from 0 to 9 (got -1 to 8)'),
    (odd(labels=lambda v: v.astype(float)), 'labels must be whole numbers of shape (N,) (got float64 (N,))'), (odd(labels=lambda v: v[:-1]), 'labels must be whole numbers of shape (N,)'),
    (odd(labels=lambda v: v.tolist()), 'labels must be whole numbers of shape (N,) (got list)'), (odd(labels=lambda v: np.eye(10)[v]), 'labels must be whole numbers of shape (N,) (got float64 (N, 10))'),
    (odd(images=lambda v: v/255), 'images must be uint8 of shape (…, 32, 32, channels) or (…, 64, 64, channels) (got float64 (N, 32, 32, 3))'), (odd(images=lambda v: v.astype('float32') + np.nan), 'images must be uint8'),
    (odd(images=lambda v: v.transpose(0, 3, 1, 2)), 'images must be uint8 of shape (…, 32, 32, channels) or (…, 64, 64, channels) (got uint8 (N, 3, 32, 32))'), (odd(images=lambda v: v[:, :28, :28]), '(got uint8 (N, 28, 28, 3))'),
    (odd(images=torch.from_numpy), 'images must be uint8'), (odd(mean=lambda v: None), 'the split has no mean and std'), (odd(mean=lambda v: v[:1]), 'the images have 3 channels, and mean has 1'),
    (odd(mean=lambda v: (None, .5, .5)), 'mean must be a finite number (got None)'), (odd(std=lambda v: (0, .5, .5)), 'std must be a number above 0 (got 0)'), (odd(std=lambda v: (torch.nan,)*3), 'std must be')]


@pytest.mark.parametrize('part', ['train', 'valid', 'test'])
@pytest.mark.parametrize('change,says', SPLITS)
def test_splits_that_cannot_be_used(change, says, part):
    "Before the first step, also what only the last one would read"
    data, steps = replace(FEW, **{part: change(getattr(FEW, part))}), []
    model, says = CustomResNet(8), says.replace('N,', f'{len(getattr(FEW, part))},').replace('…', 'N')
    model.register_forward_pre_hook(lambda *args: steps.append(1))
    one_clear_line(lambda: fit(model, data, OneCycle(.01, .1, 1, .2), batch_size=16, progress=False), f'in data.{part}, ', says)
    one_clear_line(lambda: predict(model, getattr(data, part), progress=False), says)
    if part == 'train': one_clear_line(lambda: find_lr(model, data, batch_size=16), says)
    assert not steps


@pytest.mark.parametrize('kind,says', [('weight', 'the weights must be finite, and fc.weight has 640 values that are not'), ('statistics', 'the weights must be finite, and prep.norm.running_mean has 8 values')])
def test_weights_that_are_not_finite(kind, says):
    one_clear_line(lambda: fit(spoil(kind), FEW, OneCycle(.01, .1, 1, .2), batch_size=16, progress=False), says)
    one_clear_line(lambda: find_lr(spoil(kind), FEW, batch_size=16), says)
    one_clear_line(lambda: predict(spoil(kind), FEW.test, progress=False), says)


def test_logits_that_are_not_finite():
    class Explodes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3072, 10)

        def forward(self, x): return self.fc(x.flatten(1))/0
    one_clear_line(lambda: predict(Explodes(), FEW.test, progress=False), 'the network returns logits that are not finite for 32 of 32 images')
    with pytest.raises(Diverged, match='the loss on these images is nan'): evaluate(Explodes(), Batches(FEW.test, 32))


@pytest.mark.parametrize('call', [
    lambda: OneCycle(None, .1), lambda: OneCycle(.1, None), lambda: OneCycle(.01, .1, None), lambda: OneCycle(.01, .1, 2, None), lambda: FitConfig(batch_size=None), lambda: FitConfig(l1=None),
    lambda: FitConfig(seed=None), lambda: FitConfig(label_smoothing=None), lambda: FitConfig(accumulate=None), lambda: FitConfig(optim=None), lambda: FitConfig(precision=None), lambda: Optim(momentum=None),
    lambda: Optim(weight_decay=None), lambda: Optim(None), lambda: find_lr(CustomResNet(8), FEW, steps=None), lambda: find_lr(CustomResNet(8), FEW, start=None), lambda: find_lr(CustomResNet(8), FEW, end=None),
    lambda: find_lr(CustomResNet(8), FEW, batch_size=None), lambda: find_lr(CustomResNet(8), FEW, seed=None), lambda: find_lr(CustomResNet(8), FEW, precision=None), lambda: find_lr(CustomResNet(8), None),
    lambda: find_lr(None, FEW), lambda: fit(None, FEW, OneCycle(.01, .1)), lambda: fit(CustomResNet(8), None, OneCycle(.01, .1)), lambda: fit(CustomResNet(8), FEW, None), lambda: predict(None, FEW.test),
    lambda: predict(CustomResNet(8), None), lambda: predict(CustomResNet(8), FEW.test, batch_size=None), lambda: predict(CustomResNet(8), FEW.test, precision=None), lambda: predict(CustomResNet(8), FEW),
    lambda: CustomResNet(None), lambda: CustomResNet(8, None), lambda: CustomResNet(8, logit_scale=None), lambda: find_lr(CustomResNet(8), FEW, optim=None), lambda: fit(CustomResNet(8), FEW, OneCycle(.01, .1), 3)])
def test_none_and_other_things_for_an_argument(call): one_clear_line(call, 'must be')
