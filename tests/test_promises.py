"""What the package promises when things go wrong, tried on random cases: a few here, many in `make test-faults`.

Each test is a promise of the page `nbs/promises.ipynb`; `record_property('cases', n)` counts what was tried.
"""
import gc
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import tarfile
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import Mirror
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from test_commands import NARROW
from test_download import FOLDER, NAME, archive, files, known, remote, tarball  # noqa: F401  fixtures

from cifar_resnet import cli, report
from cifar_resnet.checkpoint import read_checkpoint
from cifar_resnet.core import DataError, DataWarning, Diverged, TrainingError
from cifar_resnet.data import get_data
from cifar_resnet.images import read_image
from cifar_resnet.settings import read_config
from cifar_resnet.fetch import BATCHES, fetch, read_pickled
from cifar_resnet.model import CustomResNet, load_weights
from cifar_resnet.train import OneCycle, Trainer, fit

LONG = os.environ.get('CIFAR_RESNET_LONG') == '1'
SEED = int(os.environ.get('CIFAR_RESNET_SEED', '0'))


def cases(quick, long): return long if LONG else quick


def generated(quick, long, **strategies):
    "Decorate a test: call it with that many generated cases, the same ones each time, and count them"
    def decorate(test):
        run = seed(SEED)(settings(max_examples=cases(quick, long), deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))(given(**strategies)(test)))
        return run
    return decorate


@pytest.fixture(autouse=True)
def count(record_property, request):
    "Return a function that counts one case"
    tried = []
    yield lambda n=1: tried.append(n)
    record_property('cases', sum(tried))
    record_property('promise', request.node.originalname)


@pytest.fixture(scope='module')
def few():
    digits = get_data('digits')
    return replace(digits, train=digits.train[:64], valid=digits.valid[:32], test=digits.test[:32])


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    "The folder of a finished run of the command"
    folder = tmp_path_factory.mktemp('finished')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cli.main('train --data digits --width 8 --lr-max .2 --epochs 2 --out run'.split())
    return folder/'run'


def tree(folder): return {p.relative_to(folder).as_posix(): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in folder.rglob('*') if '.lock' not in p.name}


def one_line(call, *kinds):
    "Return the message of an error of one of these kinds; None if there was none"
    try: call()
    except kinds or (DataError, ValueError) as e:
        assert str(e) and '\n' not in str(e) and len(str(e)) < 2000, repr(str(e))[:500]
        return str(e)


# ---- killed, interrupted, continued ----------------------------------------------------------------------------------------------------

def check_whole(folder):
    "Every file that can be seen is complete"
    for path in (p for p in folder.rglob('*') if p.is_file() and not any(part.startswith('.') for part in p.relative_to(folder).parts)):
        if path.suffix == '.json': json.loads(path.read_text())
        elif path.suffix == '.pt': read_checkpoint(path)
        elif path.suffix == '.safetensors': load_weights(path)
        elif path.suffix == '.png': Image.open(path).verify()
        elif path.suffix == '.csv': assert path.read_text().startswith('epoch,') and path.read_text().endswith('\n')
        elif path.suffix == '.toml': read_config(path)
        elif path.suffix == '.html': assert path.read_text().endswith('</html>\n')
        else: raise AssertionError(f'{path} was not expected')


def result(folder, name):
    "Return what must be equal bit for bit, however often the command was killed"
    if name == 'train':
        rows = [{k: v for k, v in row.items() if k not in ('seconds', 'images_per_second')} for row in json.loads((folder/'run'/'run.json').read_text())['epochs']]
        return (folder/'run'/'final.safetensors').read_bytes(), (folder/'run'/'best.safetensors').read_bytes(), rows
    if name == 'recipes':
        record = json.loads((folder/'out'/'recipes'/'one_cycle-digits-2ep-0.json').read_text())
        return record['test_acc'], record['test_loss'], [(row['train_loss'], row['valid_loss']) for row in record['epochs']]
    if name == 'lr': return (folder/'lr.png').read_bytes()
    return (folder/'page.html').read_text()


KILLED = {
    'train': ['cifar_train', '--data', 'digits', '--width', 8, '--lr-max', '.2', '--epochs', 3, '--out', 'run'],
    'recipes': ['-c', NARROW, *'--only one_cycle --data digits --epochs 2 --seeds 1 --out out'.split()],
    'lr': ['cifar_lr', '--data', 'digits', '--width', 8, '--steps', 60, '--out', 'lr.png'],
    'report': ['cifar_report', 'run', '--sample', 10, '--out', 'page.html']}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.mark.parametrize('name', KILLED)
def test_killed_at_random_moments(name, tmp_path, start, finished, count):
    "Nothing is half-written; called again, the command ends with bit-identical results"
    rng, command = random.Random(f'{SEED} {name}'), KILLED[name]
    def prepare(folder):
        folder.mkdir()
        if name == 'report': shutil.copytree(finished, folder/'run')
        return folder
    whole = prepare(tmp_path/'whole')
    began = time.monotonic()
    assert start(*command, cwd=whole).wait().returncode == 0
    lasted, expected = time.monotonic() - began, result(whole, name)
    for trial in range(cases(1, dict(train=48, recipes=24, lr=24, report=16)[name])):
        folder, again, sig = prepare(tmp_path/f'{trial}'), command, SIGNALS[trial % 4]
        for kill in range(rng.choice([1, 1, 2])):  # some are killed twice
            child = start(*again, cwd=folder)
            time.sleep(rng.uniform(0, lasted))
            if child.returncode is None: child.send_signal(sig)
            child.wait()
            check_whole(folder)
            if sig != signal.SIGKILL and child.returncode not in (0, -sig):
                last = child.stderr.splitlines()[-1]
                assert child.returncode == 128 + sig and 'Traceback' not in child.stderr and f'stopped by {"Ctrl-C" if sig == signal.SIGINT else sig.name}' in last, child
                assert not list(folder.rglob('.*.part')), child
                if name == 'train' and (folder/'run'/'last.pt').exists() and not (folder/'run'/'run.json').exists(): assert last.endswith('continue with: cifar_train --resume run'), child
            if name == 'train' and (folder/'run'/'settings.json').exists(): again = ['cifar_train', '--resume', 'run']
            count()
        ended = start(*again, cwd=folder).wait()
        assert ended.returncode == 0, ended
        assert result(folder, name) == expected, f'trial {trial} of {name}, killed by {sig!r}'
        shutil.rmtree(folder)


# ---- full disks, read-only folders -----------------------------------------------------------------------------------------------------

@pytest.fixture
def mount(tmp_path):
    "Return a function that makes a small disk"
    made = []

    def mount(size, *options):
        disk = tmp_path/f'disk{len(made)}'
        disk.mkdir()
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', ','.join([f'size={size}', *options]), 'tmpfs', str(disk)], capture_output=True, text=True)
        if done.returncode: pytest.skip(f'cannot mount a small disk here: {done.stderr.strip()}')
        made.append(disk)
        return disk
    yield mount
    for disk in made: subprocess.run(['umount', '-l', str(disk)], check=True)


def test_full_disks(mount, few, finished, archive, count, monkeypatch):  # noqa: F811
    "One line, the last good file stays, nothing half-written; with space again, it goes on"
    rng = random.Random(SEED)
    disk, filler = mount('3m'), None
    model = CustomResNet(8)
    straight = fit(CustomResNet(8), few, OneCycle(.01, .1, 3, 1), batch_size=16, progress=False, device='cpu')
    for trial in range(cases(1, 20)):
        filler = disk/'filler'
        filler.write_bytes(b'x'*rng.randrange(2_000_000, 3_000_000))
        torch.manual_seed(trial)
        said = one_line(lambda: fit(model, few, OneCycle(.01, .1, 3, 1), batch_size=16, out=disk/'run', progress=False, device='cpu'), TrainingError, DataError)
        check_whole(disk/'run') if (disk/'run').exists() else None
        assert said is None or 'No space left on device' in said, said
        filler.unlink()
        last = disk/'run'/'last.pt'
        fit(model, few, OneCycle(.01, .1, 3, 1), batch_size=16, out=disk/'run', resume=last if last.exists() else None, progress=False, device='cpu')
        assert len(read_checkpoint(last)['history']) == len(straight.history)
        shutil.rmtree(disk/'run'), count()
    for trial in range(cases(1, 10)):  # a report, over an older one
        (disk/'page.html').write_text('older')
        (disk/'filler').write_bytes(b'x'*rng.randrange(2_950_000, 3_100_000)) if trial else (disk/'filler').write_bytes(b'x'*2_990_000)
        monkeypatch.setattr(report, '_figure', lambda fig, caption: 'x'*200_000)
        code, said = call_in(finished.parent, f'report run --sample 5 --out {disk}/page.html')
        assert code == 2 and 'page.html could not be written: No space left on device; the previous file, if any, is unchanged' in said and (disk/'page.html').read_text() == 'older', said
        (disk/'filler').unlink(), count()
    small = mount(max(len(archive)//2//4096, 1)*4096)
    with Mirror(archive) as mirror:  # a download
        said = one_line(lambda: fetch(remote(mirror, 'good'), small))
        assert 'no space left' in said and archive.startswith((small/f'{NAME}.part').read_bytes())
    count()


def call_in(folder, line):
    "Call a command in this process; return (exit code, what it printed as an error)"
    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr('sys.stderr', err), patch.setattr('sys.stdout', io.StringIO())
        try: cli.main(line if isinstance(line, list) else line.split())
        except SystemExit as e: return e.code or 0, err.getvalue()
    return 0, err.getvalue()


def test_read_only_folders(mount, finished, tmp_path, count, monkeypatch):
    "Refused before any work, with one line"
    disk = mount('3m', 'ro')
    for line in (f'train --data digits --width 8 --lr-max .2 --epochs 1 --out {disk}/run', f'lr --data digits --width 8 --out {disk}/lr.png', f'report run --out {disk}/page.html',
                 f'recipes --only one_cycle --data digits --out {disk}/out'):
        code, said = call_in(finished.parent, line)
        assert code == 2 and said.count('\n') == 1 and 'Read-only file system' in said, said
        count()
    monkeypatch.delenv('CIFAR_RESNET_DATA', raising=False), monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    said = one_line(lambda: get_data('cifar10', root=disk/'data'))
    assert 'cannot be written to: Read-only file system' in said
    count()


# ---- bad input -------------------------------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=30).filter(lambda s: '\0' not in s)
NUMBER = st.one_of(st.integers(), st.integers(min_value=10**30, max_value=10**400), st.floats(), st.just(-0.)).map(str)
OPTIONS = ['data', 'root', 'device', 'batch-size', 'width', 'logit-scale', 'optimizer', 'weight-decay', 'label-smoothing', 'precision', 'seed', 'epochs', 'peak-epoch', 'lr-max', 'lr-min', 'anneal',
           'ema', 'accumulate', 'out', 'resume', 'steps', 'start', 'end', 'only', 'seeds', 'sample', 'top', 'cam', 'recipe']


@pytest.fixture
def nothing_trains(monkeypatch):
    "Commands stop where the work would begin"
    def reached(*args, **kwargs): raise TrainingError('the work would begin here')
    for name in 'cifar_resnet.cli._train_in', 'cifar_resnet.cli.find_rates', 'cifar_resnet.records.make_all', 'cifar_resnet.report.write_report': monkeypatch.setattr(name, reached)


@generated(5, 400, command=st.sampled_from(list(cli.COMMANDS)), options=st.lists(st.tuples(st.sampled_from(OPTIONS), st.one_of(NUMBER, TEXT)), min_size=1, max_size=3), words=st.lists(TEXT, max_size=2))
def test_arguments(command, options, words, nothing_trains, tmp_path_factory, count):
    "Any option with any value: one line and a code, no traceback, and nothing outside of the folder"
    folder = tmp_path_factory.mktemp('arguments')
    given = [command, *words, '--data', 'digits', *[part for name, value in options for part in (f'--{name}', value)]]
    code, said = call_in(folder, given)
    assert code in (0, 1, 2) and 'Traceback' not in said and (code == 0 or said.count('\n') in (1, 2)) and len(said) < 3000, (given, said)
    assert all(c.isprintable() or c == '\n' for c in said), said
    count()


PLAIN = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-10**20, 10**20), st.floats(), st.text(max_size=10)), lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)), max_leaves=4)


def change_somewhere(value, where, new):
    "Replace one leaf or branch of nested plain values, chosen by the random generator `where`"
    if isinstance(value, dict) and value and where.random() < .85:
        key = where.choice(sorted(value))
        if where.random() < .1: return {k: v for k, v in value.items() if k != key}
        return value | {key: change_somewhere(value[key], where, new)}
    if isinstance(value, list) and value and where.random() < .85:
        i = where.randrange(len(value))
        return value[:i] + [change_somewhere(value[i], where, new)] + value[i + 1:]
    return new


@generated(4, 300, where=st.randoms(use_true_random=False), new=PLAIN)
def test_settings_of_a_run(where, new, finished, nothing_trains, tmp_path_factory, count):
    folder = tmp_path_factory.mktemp('settings')
    (folder/'run').mkdir()
    changed = change_somewhere(json.loads((finished/'settings.json').read_text()), where, new)
    (folder/'run'/'settings.json').write_text(json.dumps(changed))
    code, said = call_in(folder, 'train --resume run')
    assert code in (1, 2) and 'Traceback' not in said and said.count('\n') == 1 and len(said) < 3000, (changed, said)
    count()


@generated(3, 300, where=st.randoms(use_true_random=False), new=PLAIN)
def test_records(where, new, finished, tmp_path_factory, count):
    "A report is written from what the record says, or one line says what it lacks"
    folder = tmp_path_factory.mktemp('record')
    (folder/'run').mkdir()
    changed = change_somewhere(json.loads((finished/'run.json').read_text()), where, new)
    (folder/'run'/'run.json').write_text(json.dumps(changed))
    (folder/'run'/'final.safetensors').write_bytes((finished/'final.safetensors').read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        sections = report._sections
        patch.setattr(report, '_sections', lambda *args: {'The run': sections(*args)['The run']})
        patch.setattr(report, '_figure', lambda fig, caption: '')
        code, said = call_in(folder, 'report run')
    assert code in (0, 1, 2) and 'Traceback' not in said and (code == 0 or said.count('\n') == 1), (changed, said)
    count()


@generated(3, 200, where=st.randoms(use_true_random=False), new=PLAIN)
def test_notes_of_weights(where, new, finished, tmp_path_factory, count):
    from safetensors import safe_open
    from safetensors.torch import save_file
    folder = tmp_path_factory.mktemp('notes')
    with safe_open(finished/'final.safetensors', 'pt') as f: about, tensors = json.loads(f.metadata()['cifar_resnet']), {k: f.get_tensor(k) for k in f.keys()}
    del about['sha256']
    about = change_somewhere(about, where, new)
    save_file(tensors, folder/'w.safetensors', {'cifar_resnet': json.dumps(about)})
    Image.fromarray(get_data('digits').test.images[0]).save(folder/'a.png')
    code, said = call_in(folder, 'predict w.safetensors a.png --json')
    assert code in (0, 1, 2) and 'Traceback' not in said and (code == 0 or said.count('\n') == 1), (about, said)
    count()


@generated(10, 400, where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans(), kind=st.sampled_from(['final.safetensors', 'last.pt']))
def test_damaged_files(where, bit, cut, kind, finished, tmp_path_factory, count):
    "A flipped bit or a cut is noticed, wherever it is"
    folder = tmp_path_factory.mktemp('damaged')
    content = bytearray((finished/kind).read_bytes())
    place = int(where*len(content))
    if cut: del content[place:]
    else: content[place] ^= 1 << bit
    (folder/kind).write_bytes(content)
    try: found = load_weights(folder/kind)[0].state_dict() if kind == 'final.safetensors' else read_checkpoint(folder/kind)['state']['model']
    except DataError as e: assert '\n' not in str(e) and len(str(e)) < 2000
    else:  # bytes that nothing reads, such as the dates of an archive's entries: the content is equal
        whole = load_weights(finished/kind)[0].state_dict() if kind == 'final.safetensors' else read_checkpoint(finished/kind)['state']['model']
        assert found.keys() == whole.keys() and all(v.equal(whole[k]) for k, v in found.items()), f'bit {bit} of byte {place}'
    count()


class Payload:
    "Runs code when it is unpickled by a careless program"
    def __init__(self, marker): self.marker = marker
    def __reduce__(self): return os.system, (f'touch {self.marker}',)


@generated(3, 30, where=st.randoms(use_true_random=False), how=st.sampled_from(['checkpoint', 'plain pickle', 'batch']), again=st.integers(0, 10**6))
def test_pickles_that_would_run_code(where, how, again, finished, tmp_path_factory, count):
    folder = tmp_path_factory.mktemp('pickle')
    payload, marker = Payload(folder/'owned'), folder/'owned'
    if how == 'batch':
        content = pickle.dumps({'data': payload, 'labels': [0]*10_000})
        for name in BATCHES: (folder/name).write_bytes(content)
        said = one_line(lambda: read_pickled(folder, {name: hashlib.md5(content).hexdigest() for name in BATCHES}))
    else:
        held = torch.load(finished/'last.pt', weights_only=True)
        if how == 'checkpoint': torch.save({**held, where.choice(sorted(held)): payload}, folder/'last.pt')
        else: (folder/'last.pt').write_bytes(pickle.dumps(payload))
        said = one_line(lambda: read_checkpoint(folder/'last.pt'))
    assert said and not marker.exists()
    count()


@generated(3, 200, where=st.randoms(use_true_random=False), part=st.sampled_from(['state', 'history', 'identity', 'randomness']), new=PLAIN, shape=st.lists(st.integers(0, 5), max_size=3))
def test_checkpoints_of_another_shape(where, part, new, shape, finished, few, tmp_path_factory, count):
    folder = tmp_path_factory.mktemp('shape')
    held = torch.load(finished/'last.pt', weights_only=True)
    held[part] = change_somewhere(held[part], where, torch.zeros(shape) if where.random() < .5 else new)
    torch.save(held, folder/'last.pt')
    shutil.copy(finished/'settings.json', folder/'settings.json')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, 'one_epoch', lambda *args: pytest.fail('it went on'))
        patch.setattr('cifar_resnet.train.finish', lambda *args: (_ for _ in ()).throw(Diverged('it would go on')))
        code, said = call_in(folder, f'train --resume {folder}')
    assert code in (1, 2) and 'Traceback' not in said and 'last.pt' in said.splitlines()[-1] or 'it would go on' in said, (part, said)
    count()


MEMBERS = st.sampled_from(['../owned', '/tmp/owned', f'{FOLDER}/../../owned', f'{FOLDER}/a/../../../owned', 'other/owned', f'{FOLDER}\\..\\owned'])


@generated(3, 40, name=MEMBERS, kind=st.sampled_from(['file', 'link', 'hard link', 'device', 'pipe', 'bomb']), garbage=st.binary(max_size=200), cut=st.floats(.1, 1))
def test_archives(name, kind, garbage, cut, tmp_path_factory, count):
    "Nothing is written outside, whatever an archive holds"
    outer = tmp_path_factory.mktemp('archive')
    folder = outer/'in'/'data'
    folder.mkdir(parents=True)
    info = tarfile.TarInfo(name if kind != 'bomb' else f'{FOLDER}/data_batch_1')
    content = garbage
    if kind in ('link', 'hard link'): info.type, info.linkname, info.name = tarfile.SYMTYPE if kind == 'link' else tarfile.LNKTYPE, '../../owned', f'{FOLDER}/link'
    if kind == 'device': info.type, info.name = tarfile.CHRTYPE, f'{FOLDER}/null'
    if kind == 'pipe': info.type, info.name = tarfile.FIFOTYPE, f'{FOLDER}/pipe'
    packed = tarball({info.name: b'\0'*70_000_000} if kind == 'bomb' else {f'{FOLDER}/data_batch_1': b'x', info.name: info if info.type != tarfile.REGTYPE else content})
    if cut < .5: packed = packed[:int(cut*len(packed))] + garbage
    (outer/'in'/'watched').write_bytes(b'before')
    with Mirror(packed) as mirror, pytest.MonkeyPatch.context() as patch:
        patch.delenv('CIFAR_RESNET_DATA', raising=False), patch.setenv('XDG_CACHE_HOME', str(outer/'cache'))
        said = one_line(lambda: get_data('cifar10', root=folder, archive=remote(mirror, 'good')))
    assert said and not Path('/tmp/owned').exists()
    assert {p.name for p in outer.rglob('*') if p.is_file() and folder not in p.parents} == {'watched'}, said
    count()


@generated(3, 40, where=st.randoms(use_true_random=False), change=st.sampled_from(['cut', 'long', 'label', 'missing', 'folder', 'pipe', 'empty', 'zeros']))
def test_data_files(where, change, tmp_path_factory, count, binary_files):
    place = tmp_path_factory.mktemp('data')/'cifar-10-batches-bin'
    place.mkdir()
    for name, content in binary_files.items(): os.link(content, place/name)
    path = place/where.choice(sorted(binary_files))
    content = bytearray(path.read_bytes())
    path.unlink()
    if change == 'cut': path.write_bytes(content[:where.randrange(len(content))])
    if change == 'long': path.write_bytes(content + b'x'*where.randrange(1, 5000))
    if change == 'empty': path.write_bytes(b'')
    if change == 'folder': path.mkdir()
    if change == 'pipe': os.mkfifo(path)
    if change == 'zeros': path.write_bytes(bytes(len(content)))
    if change == 'label':
        content[where.randrange(10_000)*3073] = where.randrange(10, 256)
        path.write_bytes(content)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        said = one_line(lambda: get_data('cifar10', root=place.parent))
    assert (path.name in said and str(place) in said) if said else any(w.category is DataWarning for w in seen) and change == 'zeros', (change, said)
    shutil.rmtree(place), count()


@pytest.fixture(scope='module')
def binary_files(tmp_path_factory):
    "Six files of the binary layout, random pixels: {name: path}"
    folder, rng = tmp_path_factory.mktemp('binary'), np.random.default_rng(SEED)
    for name in BATCHES:
        rows = rng.integers(0, 256, (10_000, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        (folder/f'{name}.bin').write_bytes(rows.tobytes())
    return {p.name: p for p in folder.iterdir()}


@generated(5, 300, kind=st.sampled_from(['PNG', 'JPEG', 'BMP', 'GIF', 'TIFF', 'WEBP']), where=st.floats(0, 1, exclude_max=True), garbage=st.binary(max_size=100), cut=st.booleans(), name=TEXT.filter(lambda s: s.strip('. ') and '/' not in s))
def test_image_files(kind, where, garbage, cut, name, tmp_path_factory, count):
    "Damaged image files are read, or named in one line"
    folder, held = tmp_path_factory.mktemp('images'), io.BytesIO()
    Image.fromarray(get_data('digits').test.images[0]).resize((50, 40)).save(held, kind)
    content = bytearray(held.getvalue())
    place = int(where*len(content))
    if cut: content = content[:place]
    content[place:place + len(garbage)] = garbage
    try: path = folder/name.encode('utf-8', 'replace').decode()[:20]
    except ValueError: return
    try: path.write_bytes(content)
    except (OSError, UnicodeError): return  # no name for a file here
    said = one_line(lambda: read_image(path))
    assert said is None or all(c.isprintable() for c in said), said
    count()


# ---- numbers ---------------------------------------------------------------------------------------------------------------------------------

@generated(3, 30, lr=st.floats(1e3, 1e30), precision=st.sampled_from(['float32', 'bfloat16', 'float16']), peak=st.floats(.1, 2.9), scale=st.sampled_from([.125, 1., 1e4]))
def test_numbers_that_explode(lr, precision, peak, scale, few, tmp_path_factory, count):
    "A run whose numbers explode ends within the epoch, and its last good state is kept"
    out = tmp_path_factory.mktemp('explode')/'run'
    said = one_line(lambda: fit(CustomResNet(8, logit_scale=scale), few, OneCycle(.01, lr, 3, peak, momentum=None), batch_size=16, precision=precision, out=out, progress=False, device='cpu'), TrainingError)
    if (out/'last.pt').exists():
        held = read_checkpoint(out/'last.pt')
        assert all(v.isfinite().all() for v in held['state']['model'].values()) and all(np.isfinite(row['train_loss']) for row in held['history'])
    assert said is None or 'start again with a smaller lr_max' in said, said
    count()


# ---- long use ------------------------------------------------------------------------------------------------------------------------------------

def resident(): return psutil.Process().memory_info().rss/1e6


def opened(): return len(os.listdir('/proc/self/fd'))


def test_long_training(few, tmp_path, count):
    "Many epochs: memory, files, threads and hooks stay as they were"
    data = get_data('digits') if LONG else few
    epochs, model, seen = cases(12, 200), CustomResNet(8), []
    class Watched(Trainer):
        def one_epoch(self, progress=None):
            row = super().one_epoch(progress)
            gc.collect()
            seen.append((resident(), opened(), threading.active_count()))
            return row
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('cifar_resnet.train.Trainer', Watched)
        fit(model, data, OneCycle(.01, .1, epochs, 2), batch_size=64, out=tmp_path/'run', progress=False, device='cpu')
    third = len(seen)//3
    memory = np.array([m for m, *_ in seen])
    assert len(seen) == epochs and np.median(memory[-third:]) < np.median(memory[third:2*third]) + 25, memory
    assert len({(files, threads) for _, files, threads in seen[third:]}) == 1, seen
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    count(epochs)


def test_many_maps(few, count):
    "HiResCAM over many images: memory stays flat, and no hook remains"
    from cifar_resnet.analysis import predict
    from cifar_resnet.cams import cam_maps
    model, memory = CustomResNet(8), []
    split = get_data('digits').full
    preds = predict(model, split[np.arange(cases(600, 10_000)) % len(split)], progress=False)
    step = len(preds)//20
    for i in range(0, len(preds), step):
        assert np.isfinite(cam_maps(preds[i:i + step])).all()
        gc.collect()
        memory.append(resident())
    assert np.median(memory[-6:]) < np.median(memory[6:12]) + 25, memory
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    count(len(preds))
