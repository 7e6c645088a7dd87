"""A wrong argument of `get_data`, or CIFAR-10 that was promised and is not there, raises a one-line error before any work."""
import os

import numpy as np
import pytest
from conftest import Mirror

from cifar_resnet.core import DataError
from cifar_resnet.data import choose_valid, course_data, get_data
from cifar_resnet.fetch import Remote, fetch


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
