"""Fetch CIFAR-10 from faulty mirrors; unpack malicious archives; full disks, killed processes, damaged files."""
import contextlib
import hashlib
import io
import os
import pickle
import signal
import struct
import subprocess
import tarfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import Mirror
from processes import limit_file_size, wait_until

from cifar_resnet import fetch as fetch_module
from cifar_resnet.core import DataError, DataWarning
from cifar_resnet.data import KNOWN_COPIES, get_data
from cifar_resnet.fetch import BATCHES, Remote, fetch, read_binary, read_pickled

NAME = 'cifar-10-python.tar.gz'
FOLDER = 'cifar-10-batches-py'


def python2_pickle(data, **labels):
    "Return {'data': array, 'labels': list, …} byte for byte as Python 2 pickled it, like the official files"
    def text(s): return b'U' + bytes([len(s)]) + s.encode()
    def whole(n): return b'K' + bytes([n])
    def name(module, attr): return f'c{module}\n{attr}\n'.encode()
    shape = b''.join(b'J' + struct.pack('<i', n) for n in data.shape) + b'\x86'
    dtype = name('numpy', 'dtype') + text('u1') + whole(0) + whole(1) + b'\x87R(' + whole(3) + text('|') + b'NNN' + b'J\xff\xff\xff\xff'*2 + whole(0) + b'tb'
    empty = name('numpy.core.multiarray', '_reconstruct') + name('numpy', 'ndarray') + whole(0) + b'\x85' + text('b') + b'\x87R'
    array = empty + b'(' + whole(1) + shape + dtype + b'\x89' + b'T' + struct.pack('<i', data.nbytes) + data.tobytes() + b'tb'
    lists = b''.join(text(key) + b'](' + b''.join(map(whole, values)) + b'e' for key, values in labels.items())
    return b'\x80\x02}(' + text('data') + array + lists + b'u.'


def batch_files():
    "Return six files in the pickled layout; the first pixels of each image encode its number"
    files = {}
    for k, name in enumerate(BATCHES):
        data = np.zeros((10_000, 3072), dtype=np.uint8)
        data[:, 0], data[:, 1], data[:, 2] = np.arange(10_000) % 251, np.arange(10_000)//251, k
        files[name] = python2_pickle(data, labels=(np.arange(10_000) % 10).tolist())
    return files


def tarball(members):
    "Return a .tar.gz of {name: bytes or TarInfo}"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz', compresslevel=1) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo): tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope='session')
def files(): return batch_files()


@pytest.fixture(scope='session')
def archive(files): return tarball({f'{FOLDER}/{name}': content for name, content in files.items()})


@pytest.fixture
def known(files, monkeypatch):
    "Put the md5 sums of our six files into torchvision's list"
    from torchvision.datasets import CIFAR10
    sums = [[n, hashlib.md5(c).hexdigest()] for n, c in files.items()]
    monkeypatch.setattr(CIFAR10, 'train_list', sums[:5])
    monkeypatch.setattr(CIFAR10, 'test_list', sums[5:])


def remote(mirror, *manners, content=None):
    content = mirror.content if content is None else content
    return Remote(NAME, tuple(mirror.url(m) for m in manners), f'md5:{hashlib.md5(content).hexdigest()}', len(content))


def test_fetched_checked_unpacked_and_found_again(nowhere, archive, known):
    with Mirror(archive) as mirror:
        data = get_data(root=nowhere/'data', archive=remote(mirror, 'good'))
        assert len(data.train) == 45_000 and len(data.test) == 10_000 and data.inexact == 0
        assert sorted(p.name for p in (nowhere/'data').iterdir() if not p.name.endswith('.lock')) == [FOLDER]
        again = get_data(root=nowhere/'data', archive=remote(mirror, 'missing'))
        assert again.fingerprint == data.fingerprint and len(mirror.requests) == 1


def test_both_layouts_read_the_same(tmp_path, files):
    pickled, binary = tmp_path/FOLDER, tmp_path/'cifar-10-batches-bin'
    pickled.mkdir(), binary.mkdir()
    for name, content in files.items():
        (pickled/name).write_bytes(content)
        batch = pickle.loads(content, encoding='latin1')
        rows = np.concatenate([np.array(batch['labels'], dtype=np.uint8)[:, None], batch['data']], axis=1)
        (binary/f'{name}.bin').write_bytes(rows.tobytes())
    sums = {n: hashlib.md5(c).hexdigest() for n, c in files.items()}
    for (a, b), (c, d) in zip(read_pickled(pickled, sums), read_binary(binary)):
        assert np.array_equal(a, c) and np.array_equal(b, d)
    train = read_binary(binary)[0][0]
    assert train.shape == (50_000, 32, 32, 3) and train[777, 0, 0, 0] == 777 % 251 and train[777, 0, 1, 0] == 777//251


@pytest.mark.parametrize('bad', ['html', 'htmlbig', 'other', 'short', 'missing', 'busy', 'rude'])
def test_a_bad_mirror_is_passed_over(tmp_path, archive, bad):
    with Mirror(archive) as mirror:
        path = fetch(remote(mirror, bad, 'good'), tmp_path)
        assert path.read_bytes() == archive and not (tmp_path/f'{NAME}.part').exists()


def test_every_mirror_bad_says_why_of_each_and_what_to_do(nowhere, archive):
    with Mirror(archive) as mirror:
        with pytest.raises(DataError) as e: get_data(root=nowhere/'data', archive=remote(mirror, 'html', 'missing', 'other'))
        message = str(e.value)
        for part in ('answered with a web page', 'HTTP 404', 'md5 is wrong', str(nowhere/'data'), 'CIFAR_RESNET_DATA', "get_data('digits')"):
            assert part in message
        assert '\n' not in message
        assert not (nowhere/'data'/FOLDER).exists()


def test_a_cut_download_goes_on_where_it_stopped(nowhere, archive, known):
    with Mirror(archive) as mirror:
        for _ in range(2):
            with pytest.raises(DataError, match='stopped at .* \\(kept\\)'): get_data(root=nowhere/'d', archive=remote(mirror, 'cut'))
        part = nowhere/'d'/f'{NAME}.part'
        assert part.stat().st_size == len(archive)//2 + (len(archive) - len(archive)//2)//2
        assert part.read_bytes() == archive[:part.stat().st_size]
        with pytest.raises(DataError): get_data(root=nowhere/'d', download=False)  # a .part is not the data
        assert len(get_data(root=nowhere/'d', archive=remote(mirror, 'good')).test) == 10_000
        assert mirror.requests[-1] == ('/good', f'bytes={len(archive)//2 + (len(archive) - len(archive)//2)//2}-')


def test_another_mirror_continues_and_one_without_ranges_loses_nothing(tmp_path, archive):
    with Mirror(archive) as mirror:
        path = fetch(remote(mirror, 'cut', 'html', 'norange'), tmp_path)
        assert path.read_bytes() == archive
        assert mirror.requests[-1][1] == f'bytes={len(archive)//2}-'


def test_a_spoilt_part_is_noticed_and_thrown_away(tmp_path, archive):
    (tmp_path/f'{NAME}.part').write_bytes(b'?'*1000)
    with Mirror(archive) as mirror:
        assert fetch(remote(mirror, 'good', 'good'), tmp_path).read_bytes() == archive
    (tmp_path/f'{NAME}.part').write_bytes(b'?'*(len(archive) + 5))
    (tmp_path/NAME).write_bytes(b'stale')
    with Mirror(archive) as mirror:
        assert fetch(remote(mirror, 'good'), tmp_path).read_bytes() == archive


def link(name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info


@pytest.mark.parametrize('members', [
    {'../evil': b'x'}, {f'{FOLDER}/../../evil': b'x'}, {'/tmp/cifar_resnet_evil': b'x'}, {'elsewhere/file': b'x'},
    {f'{FOLDER}/link': link(f'{FOLDER}/link', '/etc/passwd')}], ids=['parent', 'inner parent', 'absolute', 'elsewhere', 'link'])
def test_an_archive_with_a_trap_is_not_unpacked(nowhere, members):
    content = tarball({f'{FOLDER}/data_batch_1': b'fine', **members})
    with Mirror(content) as mirror:
        with pytest.raises(DataError, match='does not belong to cifar-10-batches-py'): get_data(root=nowhere/'d', archive=remote(mirror, 'good'))
    assert not (nowhere/'d'/FOLDER).exists() and not list(nowhere.rglob('evil')) and not Path('/tmp/cifar_resnet_evil').exists()
    assert not (nowhere/'d'/'.unpacking').exists()


def test_an_archive_that_is_none(nowhere):
    with Mirror(b'no archive at all'*50) as mirror:
        with pytest.raises(DataError, match='could not be unpacked'): get_data(root=nowhere/'d', archive=remote(mirror, 'good'))


def test_a_tampered_file_is_refused_by_its_sum_and_by_the_unpickler(tmp_path, files):
    class Attack:
        def __reduce__(self): return os.system, (f'touch {tmp_path}/owned',)
    evil = pickle.dumps({'data': Attack(), 'labels': []}, protocol=2)
    for name, content in files.items(): (tmp_path/name).write_bytes(content)
    (tmp_path/'data_batch_4').write_bytes(evil)
    sums = {n: hashlib.md5(c).hexdigest() for n, c in files.items()}
    with pytest.raises(DataError, match='data_batch_4 is damaged: its md5'): read_pickled(tmp_path, sums)
    with pytest.raises(DataError, match='holds more than arrays'): read_pickled(tmp_path, {**sums, 'data_batch_4': hashlib.md5(evil).hexdigest()})
    truncated = files['data_batch_4'][:5000]
    (tmp_path/'data_batch_4').write_bytes(truncated)
    with pytest.raises(DataError, match='data_batch_4 is damaged'): read_pickled(tmp_path, {**sums, 'data_batch_4': hashlib.md5(truncated).hexdigest()})
    assert not (tmp_path/'owned').exists()


def test_a_root_that_is_a_file(nowhere):
    (nowhere/'file').write_text('')
    with pytest.raises(DataError, match='is a file, not a folder; name the folder'): get_data(root=nowhere/'file')
    with pytest.raises(DataError, match='cannot be written to: Not a directory'): get_data(root=nowhere/'file'/'below', archive=Remote(NAME, (), 'md5:0', 1))


@contextlib.contextmanager
def without_privileges():
    "Run the block as an ordinary user if root runs the tests"
    if os.geteuid() != 0: yield; return
    os.seteuid(65534)
    try: yield
    finally: os.seteuid(0)


def test_folders_that_cannot_be_read_or_written(nowhere, files):
    place = nowhere/'place'
    (place/FOLDER).mkdir(parents=True)
    for p in (*nowhere.parents, nowhere):
        if os.stat(p).st_uid == os.getuid() and os.geteuid() == 0 and str(p).startswith('/tmp/pytest'): os.chmod(p, 0o755)
    (place/FOLDER/'data_batch_1').write_bytes(b'')
    os.chmod(place/FOLDER/'data_batch_1', 0)
    with without_privileges(), pytest.raises(DataError, match='data_batch_1 cannot be read: Permission denied'): read_pickled(place/FOLDER, {'data_batch_1': ''})
    os.chmod(place, 0)
    try:
        with without_privileges(), pytest.raises(DataError, match='cannot be read'): get_data(root=place)
        os.chmod(place, 0o555)
        with without_privileges(), pytest.raises(DataError, match='cannot be written to'): fetch(Remote(NAME, (), 'md5:0', 1), place)
    finally: os.chmod(place, 0o755)


FETCH = """
import sys
from cifar_resnet.fetch import *; from cifar_resnet.core import DataError; from cifar_resnet.data import get_data
try: print(fetch(eval(sys.argv[1]), sys.argv[2]))
except DataError as e: sys.exit(str(e))
"""
WAITS = 'another process is working on'  # a process prints this when another one already fetches


def test_no_room_left_keeps_what_was_fetched(tmp_path, archive, start):
    "The kernel limits the file to half of its size"
    with Mirror(archive) as mirror:
        r = remote(mirror, 'good', 'good')
        child = start('-c', FETCH, repr(r), tmp_path, prepare=partial(limit_file_size, len(archive)//2)).wait()
        assert child.returncode == 1 and 'no space left for' in child.stderr and 'the downloaded part is kept' in child.stderr, child
        assert len(mirror.requests) == 1  # other mirrors would not help
        assert (tmp_path/f'{NAME}.part').read_bytes() == archive[:len(archive)//2]
        assert fetch(r, tmp_path).read_bytes() == archive


def test_a_really_full_disk(nowhere, archive):
    disk = nowhere/'disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={max(len(archive)//2//4096, 1)*4096}', 'tmpfs', str(disk)], capture_output=True, text=True)
    if mounted.returncode: pytest.skip(f'cannot mount a small disk here: {mounted.stderr.strip()}')
    try:
        with Mirror(archive) as mirror:
            with pytest.raises(DataError, match='MB free, and the download takes'): get_data(root=disk, archive=remote(mirror, 'good'))
            assert not mirror.requests  # the error comes before any request
            with pytest.raises(DataError, match='no space left'): fetch(remote(mirror, 'good'), disk)
            assert 0 < (disk/f'{NAME}.part').stat().st_size < len(archive)
    finally: subprocess.run(['umount', str(disk)], check=True)


@pytest.mark.parametrize('sig', [signal.SIGKILL, signal.SIGINT])
def test_stopped_while_fetching(tmp_path, archive, start, sig):
    "A kill or Ctrl-C keeps what was fetched; the next call requests only the rest"
    with Mirror(archive*8) as mirror:
        part = tmp_path/f'{NAME}.part'
        child = start('-c', FETCH, repr(remote(mirror, 'held')), tmp_path)
        wait_until(lambda: part.exists() and part.stat().st_size > 0, child)
        child.send_signal(sig)
        child.wait()
        if sig == signal.SIGINT: assert f'stopped: {part} is kept, and the next call continues it' in child.stderr
        had = part.stat().st_size
        assert child.returncode and 0 < had < len(mirror.content) and not (tmp_path/NAME).exists()
        assert fetch(remote(mirror, 'good'), tmp_path).read_bytes() == mirror.content
        assert mirror.requests[-1][1] == f'bytes={had}-'


def fetch_by_two(mirror, start, *command):
    "Start two processes; once one fetches and the other waits for it, let the mirror continue"
    both = [start('-c', *command) for _ in range(2)]
    wait_until(lambda: mirror.holding.is_set() and any(WAITS in p.stderr for p in both), *both)
    mirror.released.set()
    for p in both: p.wait()
    assert len(mirror.requests) == 1
    return both


def test_two_processes_fetch_once(tmp_path, archive, start):
    with Mirror(archive) as mirror:
        for p in fetch_by_two(mirror, start, FETCH, repr(remote(mirror, 'held')), tmp_path): assert p.stdout.strip() == str(tmp_path/NAME), p
        assert (tmp_path/NAME).read_bytes() == archive


def write_binary(path, first):
    "Write a file of the binary layout: the byte `first`, then zeros (a sparse file)"
    with open(path, 'wb') as f:
        f.write(bytes([first]))
        f.truncate(30_730_000)


@pytest.mark.parametrize('harm,says', [
    (lambda f: os.truncate(f, 30_729_999), 'it has 30,729,999 bytes, not 30,730,000'),
    (lambda f: os.truncate(f, 30_730_001), 'it has 30,730,001 bytes'),
    (lambda f: write_binary(f, 255), 'record 0 has label 255'),
    (lambda f: f.unlink(), 'is missing')], ids=['cut', 'long', 'label', 'missing'])
def test_a_damaged_binary_file_is_named_and_kept(nowhere, harm, says):
    folder = nowhere/'cifar-10-batches-bin'
    folder.mkdir()
    for b in BATCHES: write_binary(folder/f'{b}.bin', 0)
    harm(folder/'test_batch.bin')
    before = {p.name: p.stat().st_size for p in folder.iterdir()}
    with pytest.raises(DataError, match='test_batch.bin') as e: get_data(root=nowhere)
    assert says in str(e.value) and {p.name: p.stat().st_size for p in folder.iterdir()} == before


@pytest.mark.filterwarnings('ignore::cifar_resnet.core.DataWarning')
def test_search_order(nowhere, monkeypatch):
    "Search order: root, the variable, the cache; each in either layout or directly"
    def put(folder, mark):
        folder.mkdir(parents=True)
        for b in BATCHES: write_binary(folder/f'{b}.bin', mark)
    cache, named, chosen = nowhere/'cache'/'cifar_resnet', nowhere/'named', nowhere/'chosen'
    put(cache/'cifar-10-batches-bin', 1)
    assert get_data(download=False).source.startswith(str(cache))
    put(named, 2)
    monkeypatch.setenv('CIFAR_RESNET_DATA', str(named))
    assert get_data(download=False).source == str(named)
    put(chosen/'cifar-10-batches-bin', 3)
    assert get_data(root=chosen, download=False).source.startswith(str(chosen))


def test_no_network_names_every_place_and_digits(nowhere):
    nobody = Remote(NAME, ('http://127.0.0.1:9/x',), 'md5:0', 1000)
    with pytest.raises(DataError) as e: get_data(root=nowhere/'mine', archive=nobody)
    for part in (str(nowhere/'mine'), str(nowhere/'cache'/'cifar_resnet'), '127.0.0.1:9', 'refused', "get_data('digits')"): assert part in str(e.value)


@pytest.mark.parametrize('manner', ['chunked', 'endless'])
def test_an_answer_that_does_not_say_how_long_it_is(tmp_path, archive, manner):
    with Mirror(archive) as mirror: assert fetch(remote(mirror, manner), tmp_path).read_bytes() == archive


def test_a_spoilt_start_is_not_blamed_on_the_next_mirror(tmp_path, archive):
    with Mirror(archive) as mirror: assert fetch(remote(mirror, 'evilcut', 'good'), tmp_path).read_bytes() == archive


def test_a_whole_part_of_unknown_size_is_recognised(tmp_path, archive):
    (tmp_path/f'{NAME}.part').write_bytes(archive)
    with Mirror(archive) as mirror:
        r = remote(mirror, 'good')
        assert fetch(Remote(r.name, r.urls, r.digest), tmp_path).read_bytes() == archive and not mirror.requests


def test_two_processes_want_the_data_at_once(nowhere, archive, files, start):
    sums = [[n, hashlib.md5(c).hexdigest()] for n, c in files.items()]
    code = f"""
import sys
from torchvision.datasets import CIFAR10
CIFAR10.train_list, CIFAR10.test_list = {sums[:5]!r}, {sums[5:]!r}
from cifar_resnet.fetch import *; from cifar_resnet.core import DataError; from cifar_resnet.data import get_data
print(len(get_data(root=sys.argv[1], archive=eval(sys.argv[2])).train))"""
    with Mirror(archive) as mirror:
        for p in fetch_by_two(mirror, start, code, nowhere/'shared', repr(remote(mirror, 'held'))): assert p.stdout.strip() == '45000', p
        assert sorted(p.name for p in (nowhere/'shared').iterdir() if not p.name.endswith('.lock')) == [FOLDER]


def test_a_name_in_the_way(nowhere, archive):
    (nowhere/FOLDER).write_text('not a folder')
    with Mirror(archive) as mirror:
        with pytest.raises(DataError, match='is not a folder: move it away'): get_data(root=nowhere, archive=remote(mirror, 'good'))
        assert not mirror.requests


def test_a_mirror_that_talks_nonsense(tmp_path, archive):
    with Mirror(archive) as mirror:
        with pytest.raises(DataError) as e: fetch(remote(mirror, 'garbage', 'loop'), tmp_path)
        assert '\n' not in str(e.value) and '\x1b' not in str(e.value)


def test_a_mirror_that_drips_is_given_up(tmp_path, archive, monkeypatch):
    "Below the rate for too long: the next mirror continues with what came"
    monkeypatch.setattr(fetch_module, '_PATIENCE', 1)
    with Mirror(archive) as mirror:
        path = fetch(remote(mirror, 'drip', 'good'), tmp_path)
        assert path.read_bytes() == archive
        (_, first), (_, second) = mirror.requests
        assert first is None and 0 < int(second.removeprefix('bytes=').rstrip('-')) < 10_000
        with pytest.raises(DataError, match=r'drip sent only \d+\.\d kB/s for \d+ s \(kept\)'): fetch(remote(mirror, 'drip'), tmp_path/'again')


def test_a_mirror_that_cannot_continue_keeps_the_good_part(tmp_path, archive):
    part, half = tmp_path/f'{NAME}.part', archive[:len(archive)//2]
    part.write_bytes(half)
    with Mirror(archive) as mirror:
        with pytest.raises(DataError, match='does not continue a download .HTTP 416; the part is kept'): fetch(remote(mirror, 'unsatisfied'), tmp_path)
        assert part.read_bytes() == half
        assert fetch(remote(mirror, 'unsatisfied', 'good'), tmp_path).read_bytes() == archive
        assert [r for _, r in mirror.requests] == [f'bytes={len(half)}-']*3


def test_a_part_that_is_a_link_or_a_pipe(tmp_path, archive):
    "Neither followed nor waited for"
    part, elsewhere = tmp_path/f'{NAME}.part', tmp_path/'elsewhere'
    elsewhere.write_bytes(b'mine')
    with Mirror(archive) as mirror:
        part.symlink_to(elsewhere)
        with pytest.raises(DataError, match='part is not a regular file: move it away'): fetch(remote(mirror, 'good'), tmp_path)
        assert elsewhere.read_bytes() == b'mine'
        part.unlink(), os.mkfifo(part)
        with pytest.raises(DataError, match='part is not a regular file: move it away'): fetch(remote(mirror, 'good'), tmp_path)
        assert not mirror.requests


def test_data_files_that_are_no_files(nowhere):
    place = nowhere/'cifar-10-batches-bin'
    place.mkdir()
    os.mkfifo(place/'data_batch_1.bin')
    with pytest.raises(DataError, match='data_batch_1.bin is not a regular file'): get_data(root=nowhere)
    (place/'data_batch_1.bin').unlink()
    with open(place/'data_batch_1.bin', 'wb') as f: f.truncate(2_000_000_000)
    with pytest.raises(DataError, match='data_batch_1.bin has 2,000,000,000 bytes, more than the 61,460,000'): get_data(root=nowhere)


@pytest.fixture(scope='module')
def binary():
    "The six files of the binary layout, with random pixels"
    rng = np.random.default_rng(0)
    def content():
        rows = rng.integers(0, 256, (10_000, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        return rows
    return {f'{name}.bin': content() for name in BATCHES}


def put(place, binary):
    place.mkdir(parents=True, exist_ok=True)
    for name, rows in binary.items(): (place/name).write_bytes(rows.tobytes())


def test_a_copy_that_nobody_knows_is_a_loud_warning(nowhere, binary, monkeypatch):
    "Also with one pixel changed, one label changed, or zeros only; and the warning goes into the record"
    put(nowhere/'known', binary)
    with pytest.warns(DataWarning, match='known holds an unknown copy of CIFAR-10 .fingerprint [0-9a-f]{16}.: its pixels or labels may differ') as seen: first = get_data(root=nowhere/'known')
    assert len(seen) == 1 and first.warning in repr(first) and str(nowhere) not in first.warning and first.inexact is None
    monkeypatch.setitem(KNOWN_COPIES, first.fingerprint, 0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert get_data(root=nowhere/'known').warning is None
    def change(name, row, col, to):
        changed = {n: rows.copy() if n == name else rows for n, rows in binary.items()}
        changed[name][row, col] = to
        return changed
    for n, changed in enumerate((change('data_batch_3.bin', 17, 900, binary['data_batch_3.bin'][17, 900] ^ 1), change('test_batch.bin', 5, 0, (binary['test_batch.bin'][5, 0] + 1) % 10),
                                 change('data_batch_2.bin', slice(None), slice(None), 0))):
        put(nowhere/str(n), changed)
        with pytest.warns(DataWarning, match='an unknown copy of CIFAR-10'): get_data(root=nowhere/str(n))


def test_training_images_under_the_name_of_test_images(nowhere, binary):
    put(nowhere/'mixed', binary | {'test_batch.bin': binary['data_batch_1.bin']})
    with pytest.raises(DataError, match='mixed is not CIFAR-10: 10,000 of its test images are training images too, so its accuracy would mean nothing'): get_data(root=nowhere/'mixed')
