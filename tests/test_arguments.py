"""A wrong argument or a spoilt file gets one clear line, before any work."""
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import Mirror
from torch import nn

from cifar_resnet import data as D
from cifar_resnet.data import BatchAugment, Batches, DataError, Remote, choose_valid, fetch, get_data, load_record, make_loaders, recorded, save_record, train_steps
from cifar_resnet.model import CustomResNet, conv_block, find_weights, load_weights, save_weights


@pytest.fixture(scope='module')
def digits(): return get_data('digits')


def one_clear_line(call, *parts):
    with pytest.raises((ValueError, DataError)) as e: call()
    message = str(e.value)
    assert message and '\n' not in message and len(message) < 900
    for part in parts: assert str(part) in message, message


@pytest.mark.parametrize('kwargs,says', [
    (dict(valid=0.1), 'valid=0.1'), (dict(valid='10'), "valid='10'"), (dict(valid=-1), 'from 0 to 49,999'), (dict(valid=50_000), 'from 0 to 49,999'),
    (dict(valid=True), 'valid=True'), (dict(seed=1.5), 'seed=1.5'), (dict(seed=-1), 'seed=-1'), (dict(seed=None), 'seed=None'), (dict(root=''), "root=''"),
    (dict(root=123), 'root=123'), (dict(root=b'x'), 'root='), (dict(root='~no_such_user/x'), '~no_such_user')])
def test_get_data_before_anything_is_fetched(nowhere, kwargs, says):
    with Mirror(b'x') as mirror:
        one_clear_line(lambda: get_data(archive=Remote('a', (mirror.url('good'),), 'md5:0', 1), **kwargs), says)
        assert not mirror.requests


@pytest.mark.parametrize('n,seed', [(-1, 0), (11, 0), (1.5, 0), (1, None)])
def test_choose_valid(n, seed): one_clear_line(lambda: choose_valid(np.zeros(10, int), n, seed))


@pytest.mark.parametrize('kwargs', [dict(pad=-1), dict(pad=32), dict(pad=1.5), dict(flip=-.1), dict(flip=1.1), dict(cutout=33), dict(cutout=-3)])
def test_augmentations(digits, kwargs):
    one_clear_line(lambda: BatchAugment(**kwargs))
    one_clear_line(lambda: train_steps(digits, **kwargs))


@pytest.mark.parametrize('shape,dtype', [((6, 32, 48, 3), torch.uint8), ((6, 3, 32, 32), torch.uint8), ((6, 32, 32, 1), torch.uint8), ((6, 32, 32, 3), torch.float32)])
def test_batch_augment_refuses_other_images(shape, dtype): one_clear_line(lambda: BatchAugment()(torch.zeros(shape, dtype=dtype)), 'BatchAugment takes uint8')


def test_batch_augment_of_nothing_and_on_another_device():
    assert len(BatchAugment()(torch.zeros(0, 32, 32, 3, dtype=torch.uint8))) == 0
    assert BatchAugment()(torch.zeros(4, 32, 32, 3, dtype=torch.uint8, device='meta')).device.type == 'meta'
    assert BatchAugment()(torch.zeros(4, 32, 32, 3, dtype=torch.uint8, device='meta'), torch.Generator()).shape == (4, 32, 32, 3)


@pytest.mark.parametrize('kwargs', [dict(batch_size=0), dict(batch_size=1.5), dict(batch_size=True), dict(batch_size='8'), dict(seed=-1), dict(seed=None)])
def test_batches_and_loaders(digits, kwargs):
    one_clear_line(lambda: Batches(digits.test, digits, **kwargs))
    one_clear_line(lambda: make_loaders(digits, **kwargs))


def test_whole_numbers_of_any_kind_are_welcome(digits):
    assert len(Batches(digits.test, digits, np.int64(64))) == 6
    assert CustomResNet(np.int64(8), classes=np.int32(3)).config['width'] == 8
    assert Batches(digits.test, digits).normalise(torch.zeros(1, 32, 32, 3)).dtype == torch.float32


def test_digits_are_not_mirrored_by_either_way(digits):
    assert D.default_augment(digits).flip == 0
    assert [t.p for t in train_steps(digits) if type(t).__name__ == 'HorizontalFlip'] == [0]


@pytest.mark.parametrize('make,says', [
    (lambda: CustomResNet(8.0), 'width=8.0'), (lambda: CustomResNet(129), 'from 8 to 128'), (lambda: CustomResNet(8, channels=2), 'channels=2'),
    (lambda: conv_block(3, 8, order='conv conv act'), 'twice'), (lambda: conv_block(3, 8, order='norm act'), "'conv' is missing"),
    (lambda: conv_block(3, 8, pool=True, order='conv act'), "'pool' is missing"), (lambda: conv_block(3, 8, drop=.1, order='conv act'), "'drop' is missing"),
    (lambda: CustomResNet(8)(np.zeros((1, 3, 32, 32))), 'a ndarray'), (lambda: CustomResNet(8).features(torch.zeros(1, 3, 64, 64)), 'resize them first')])
def test_networks(make, says): one_clear_line(make, says)


class Odd(nn.ReLU): pass


def test_weights_that_could_not_be_read_back_are_not_written(tmp_path):
    net = CustomResNet(8)
    one_clear_line(lambda: save_weights(nn.Linear(2, 2), tmp_path/'a.safetensors'), 'no CustomResNet')
    one_clear_line(lambda: save_weights(CustomResNet(8, act=Odd), tmp_path/'a.safetensors'), 'Odd is not in torch.nn')
    net.fc.weight.data[0, 0] = 1e6
    one_clear_line(lambda: save_weights(net, tmp_path/'a.safetensors', half=True), 'not finite in 16 bits')
    assert not list(tmp_path.iterdir())
    path = save_weights(torch.compile(net), tmp_path/'new folder'/'a.safetensors')
    assert load_weights(path)[0].fc.weight[0, 0] == 1e6


def test_weights_that_are_none(tmp_path):
    from safetensors.torch import save_file
    state, config = CustomResNet(8).state_dict(), CustomResNet(8).config
    def kept(state, meta): save_file(state, tmp_path/'w.safetensors', metadata=meta and {'cifar_resnet': meta if isinstance(meta, str) else json.dumps(meta)})
    whole = dict(config=config, notes={})
    for spoil in (lambda: kept(state, None), lambda: kept(state, '[]'), lambda: kept(state, '{'), lambda: kept(state, dict(notes={})),
                  lambda: kept(state, dict(config=dict(act='no such'), notes={})), lambda: kept(state, dict(config=config, notes=3)),
                  lambda: kept({'a': torch.zeros(1)}, whole), lambda: kept({k: v*float('nan') for k, v in state.items()}, whole),
                  lambda: (tmp_path/'w.safetensors').write_bytes(b'hello')):
        spoil()
        one_clear_line(lambda: load_weights(tmp_path/'w.safetensors'), tmp_path/'w.safetensors', 'holds no weights of this network: ')
    one_clear_line(lambda: find_weights('no_such_run'), 'there are: ')


def test_records(tmp_path, monkeypatch):
    monkeypatch.setattr(D, 'results_folders', lambda: [tmp_path])
    (tmp_path/'cut.json').write_text('{"n": ')
    one_clear_line(lambda: load_record('cut'), tmp_path/'cut.json', 'is damaged')
    one_clear_line(lambda: load_record('../cut'), 'no run is recorded')
    save_record('kinds', dict(a=np.float32(1.5), b=np.arange(2), c=torch.tensor(3)), tmp_path)
    assert {k: load_record('kinds')[k] for k in 'abc'} == {'a': 1.5, 'b': [0, 1], 'c': 3}
    monkeypatch.setenv('CIFAR_RESNET_RERUN', 'yes')
    monkeypatch.chdir(tmp_path)
    assert recorded('mine', lambda: dict(n='measured now'))['n'] == 'measured now'
    for odd in ('2', 'maybe'):
        monkeypatch.setenv('CIFAR_RESNET_QUICK', odd)
        one_clear_line(D.is_quick, f'CIFAR_RESNET_QUICK={odd}', 'say 1 or 0')
    monkeypatch.setenv('CIFAR_RESNET_QUICK', 'False')
    assert not D.is_quick()


def test_a_chapter_never_settles_for_digits_when_cifar10_was_promised(nowhere, monkeypatch, capsys):
    monkeypatch.setenv('IN_TEST', '1')
    assert D.course_data().name == 'digits' and 'runs on digits: CIFAR-10 is not in' in capsys.readouterr().out
    monkeypatch.setenv('CIFAR_RESNET_DATA', str(nowhere/'not here'))
    one_clear_line(D.course_data, 'not here')
    (nowhere/'cifar-10-batches-bin').mkdir()
    (nowhere/'cifar-10-batches-bin'/'data_batch_2.bin').write_bytes(b'x')
    monkeypatch.setenv('CIFAR_RESNET_DATA', str(nowhere))
    one_clear_line(D.course_data, 'data_batch_1.bin is missing')
    monkeypatch.setenv('CIFAR_RESNET_QUICK', '1')
    assert D.course_data().name == 'digits'


def test_a_pickle_cannot_reach_numpy_itself(tmp_path):
    "Object arrays with forged pointers would crash the process, or worse"
    class Rebuilt:
        def __init__(self, *parts): self.parts = parts
        def __reduce__(self): return self.parts
    make = np.empty(0).__reduce__()[0]
    objects = Rebuilt(np.dtype, ('O8', False, True), (3, '|', None, None, None, -1, -1, 0))
    array = Rebuilt(make, (np.ndarray, (0,), b'b'), (1, (1,), objects, False, b'\x41'*8))
    forged = pickle.dumps({'data': array, 'labels': [1]}, 4).replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    files = []
    for i, content in enumerate((forged, pickle.dumps([1, 2], 2), pickle.dumps({'data': 1}, 2), b'\x80\x04.', b'')):
        files.append(tmp_path/f'{i}')
        files[-1].write_bytes(content)
    code = """
import sys
from pathlib import Path
from cifar_resnet.data import DataError, _unpickle
for f in sys.argv[1:]:
    try: _unpickle(Path(f))
    except DataError as e: print('refused:', e)
"""
    run = subprocess.run([sys.executable, '-c', code, *files], capture_output=True, text=True)  # a process of its own: it may crash
    assert run.returncode == 0 and [line[:8] for line in run.stdout.splitlines()] == ['refused:']*len(files), run


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='needs root, to act as a user with fewer rights')
def test_a_whole_file_in_a_read_only_folder_is_used(tmp_path):
    (tmp_path/'f').write_bytes(b'x')
    for p in (tmp_path, *tmp_path.parents):
        if 'pytest' in str(p): p.chmod(0o755)
    os.seteuid(65534)
    try: assert fetch(Remote('f', (), 'md5:9dd4e461268c8034f5c8564e155c67a6', 1), tmp_path) == tmp_path/'f'
    finally: os.seteuid(0)
