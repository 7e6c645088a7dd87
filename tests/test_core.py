"""The checks, files and records that every module relies on."""
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_resnet import core
from cifar_resnet.core import (DataError, check_choice, check_folder, check_int, check_number, fingerprint, from_plain, is_enabled, is_quick, load_or_measure,
                               load_record, one_line, prepare_folder, record_names, results_folders, save_record, styled, to_path, to_plain, write_atomic)
from cifar_resnet.recipes import ABOUT, KINDS, find_recipes, fix, recipes, single_faults


def refused(call, *parts):
    with pytest.raises((ValueError, DataError)) as e: call()
    message = str(e.value)
    assert message and '\n' not in message and len(message) < 900
    for part in parts: assert part in message, message


@pytest.mark.parametrize('value', [1.0, 1.5, '1', b'1', None, True, False, np.nan, np.float64(2), [1], 0, -1, 11, np.int64(11)])
def test_check_int_refuses(value): refused(lambda: check_int('n', value, 1, 10), f'n must be a whole number from 1 to 10 (got {value!r})')


@pytest.mark.parametrize('value', [1, 10, np.int8(3), np.uint64(3), torch.tensor(3)])
def test_check_int_accepts(value): assert check_int('n', value, 1, 10) == int(value) and type(check_int('n', value, 1, 10)) is int


@pytest.mark.parametrize('value', ['.5', True, None, float('nan'), float('inf'), 10**400, [.5], np.zeros(2), -1e-12, 1 + 1e-12])
def test_check_number_refuses(value): refused(lambda: check_number('x', value, least=0, most=1), 'x must be a number at least 0 and at most 1 (got ')


@pytest.mark.parametrize('value', [0, 1, .5, np.float32(.5), torch.tensor(.5)])
def test_check_number_accepts(value): assert check_number('x', value, least=0, most=1) == float(value)


def test_bounds_that_are_themselves_not_allowed():
    assert check_number('x', 1e-300, above=0) == 1e-300 and check_number('x', 1 - 1e-12, below=1) < 1
    refused(lambda: check_number('x', 0, above=0, below=1), 'above 0 and below 1 (got 0)')
    refused(lambda: check_number('x', 1, above=0, below=1), '(got 1)')
    refused(lambda: check_number('x', 'y'), "x must be a finite number (got 'y')")


def test_check_choice():
    assert check_choice('c', 'a', ('a', 'b')) == 'a' and check_choice('c', None, (None, 'b')) is None
    for value in 'c', 1, None, ['a'], np.zeros(2): refused(lambda: check_choice('c', value, ('a', 'b')), 'c must be one of a, b')
    refused(lambda: check_choice('c', 1, (True, False)), 'one of True, False (got 1)')


def test_one_line():
    assert one_line('a\r\n\x00b\x7f \u2028c\x1b[31m') == 'a b c [31m'
    assert one_line('é 🙂 x') == 'é 🙂 x' and len(one_line('x '*999)) == 300 and one_line('x'*999) == f'{"x"*150}… (999 characters)'
    assert one_line('a\u202eb\u200bc\ud800d') == 'a b c d'  # writes from right to left, is not seen, is half a character


def test_an_interrupted_write_leaves_the_previous_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path/'a'/'b', b'first')
    for e in KeyboardInterrupt(), OSError(28, 'No space left on device'):
        def fail(*args): raise e
        monkeypatch.setattr(os, 'fsync', fail)
        with pytest.raises((KeyboardInterrupt, DataError)): write_atomic(path, b'second')
        assert path.read_bytes() == b'first' and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('path', ['file/below/x', 'x'*300])
def test_a_file_that_cannot_be_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    refused(lambda: write_atomic(tmp_path/path, b''), 'could not be written: ')
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_folders(tmp_path, monkeypatch):
    "A check creates nothing; what is not a folder, or not below one, is refused by both"
    monkeypatch.chdir(tmp_path)
    assert check_folder('a/b') == Path('a/b') and not Path('a').exists()
    assert prepare_folder('a/b') == Path('a/b') and check_folder('a/b') == Path('a/b') and not list(Path('a/b').iterdir())
    Path('file').touch()
    for bad in 'file', 'file/below/deep', 'x'*300:
        for check in check_folder, prepare_folder: refused(lambda: check(bad), 'cannot be written to: ', 'name another folder')
    for check in check_folder, prepare_folder, to_path, lambda p: write_atomic(p, b''): refused(lambda: check('~no_such_user/x'), '~no_such_user')
    assert to_path('~') == Path.home()


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='needs root, to act as a user with fewer rights')
def test_a_folder_that_another_user_owns():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.seteuid(65534)
        try:
            for check in check_folder, prepare_folder: refused(lambda: check(f'{folder}/new'), 'Permission denied')
        finally: os.seteuid(0)


@pytest.mark.parametrize('value,meant', [('1', True), (' TRUE ', True), ('yes', True), ('on', True), ('0', False), ('', False), ('No', False), ('off', False), ('false', False)])
def test_switches(monkeypatch, value, meant):
    monkeypatch.setenv('CIFAR_RESNET_QUICK', value)
    assert is_enabled('CIFAR_RESNET_QUICK') is is_quick() is meant


@pytest.mark.parametrize('value', ['2', 'maybe', 'tru'])
def test_switches_that_say_neither(monkeypatch, value):
    monkeypatch.setenv('CIFAR_RESNET_QUICK', value)
    refused(is_quick, f"CIFAR_RESNET_QUICK must be 1 or 0 (got '{value}')")


def test_fingerprint():
    a = np.arange(12).reshape(3, 4)
    assert fingerprint(a) == fingerprint(a.copy()) == fingerprint(np.asfortranarray(a)) and len(fingerprint(a)) == 16
    assert len({fingerprint(a), fingerprint(a + 1), fingerprint(a.T), fingerprint(a, a), fingerprint(a.astype(np.int32))}) == 5


@dataclass(frozen=True)
class Part:
    n: int
    inner: object = None


def test_plain_values_and_back():
    value = dict(part=Part(1, Part(2)), parts=(Part(3), [Part(4)]), x=np.float32(1.5), t=torch.arange(2), none=None, yes=True)
    plain = to_plain(value)
    assert json.loads(json.dumps(plain)) == plain
    assert from_plain(plain, [Part]) == dict(part=Part(1, Part(2)), parts=[Part(3), [Part(4)]], x=1.5, t=[0, 1], none=None, yes=True)
    refused(lambda: from_plain(plain, []), "(got 'Part')")
    refused(lambda: from_plain(dict(kind=['Part'], n=1), [Part]), "(got ['Part'])")
    with pytest.raises(TypeError): from_plain(dict(kind='Part', m=1), [Part])


def test_every_recipe_is_its_plain_values():
    variants = [fix(r) for r in recipes().values() if r.name in ABOUT and ABOUT[r.name].faults]
    for recipe in [*recipes().values(), *single_faults().values(), *variants]:
        assert from_plain(json.loads(json.dumps(to_plain(recipe))), KINDS) == recipe == find_recipes(recipe.name)[0]


def test_styled_keeps_the_settings_of_the_reader():
    import matplotlib.pyplot as plt
    before = dict(plt.rcParams)

    @styled
    def draw(fail):
        if fail: raise ValueError('no')
        return plt.subplots()[0]
    assert draw(False).axes and not plt.get_fignums() and draw.__name__ == 'draw'
    with pytest.raises(ValueError): draw(True)
    assert dict(plt.rcParams) == before


@pytest.fixture
def records(tmp_path, monkeypatch):
    "An empty folder in the place of results/"
    monkeypatch.setattr(core, 'results_folders', lambda: [tmp_path/'results'])
    monkeypatch.chdir(tmp_path)
    for name in 'CIFAR_RESNET_RERUN', 'CIFAR_RESNET_QUICK': monkeypatch.delenv(name, raising=False)
    return tmp_path/'results'


def test_records_are_found_by_name_only(records):
    save_record('deep/one', dict(n=np.int64(1), x=torch.tensor(.5), path=Path('a')), records)
    assert record_names() == ['deep/one']
    record = load_record('deep/one')
    assert (record['name'], record['n'], record['x'], record['path']) == ('deep/one', 1, .5, 'a') and record['environment']['date']
    (records.parent/'secret.json').write_text('{}')
    for name in 'one', '../secret', str(records.parent/'secret'), '': refused(lambda: load_record(name), 'no run is recorded as', 'deep/one')


@pytest.mark.parametrize('content', [b'{"n": ', b'[1]', b'7', b'\xff', b''])
def test_a_damaged_record(records, content):
    records.mkdir()
    (records/'cut.json').write_bytes(content)
    refused(lambda: load_record('cut'), str(records/'cut.json'), 'is damaged')


def test_measure_only_when_asked(records, monkeypatch):
    "Without a checkout, a new record goes into results/ in the working folder"
    measured = []

    def measure():
        measured.append(1)
        return dict(n=len(measured))
    refused(lambda: load_or_measure('mine', measure), 'no run is recorded')
    monkeypatch.setenv('CIFAR_RESNET_RERUN', 'yes')
    monkeypatch.setenv('CIFAR_RESNET_QUICK', '1')
    assert load_or_measure('mine', measure)['n'] == 1 and not records.exists()  # a quick run is not recorded
    monkeypatch.setenv('CIFAR_RESNET_QUICK', '0')
    assert load_or_measure('mine', measure)['n'] == 2 and (records/'mine.json').exists()
    monkeypatch.setenv('CIFAR_RESNET_RERUN', '')
    assert load_or_measure('mine', measure)['n'] == 2 and len(measured) == 2


def test_records_of_the_checkout(root):
    assert results_folders()[0] == root/'results' and core.default_results_folder() == root/'results'
    assert all(load_record(name)['environment']['device'] for name in record_names())
