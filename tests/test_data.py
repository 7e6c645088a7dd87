"""Splits, sources and image files: what a data set promises, and what is refused."""
import contextlib
import hashlib
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import Mirror
from PIL import Image
from test_download import python2_pickle, without_privileges

from cifar_resnet import data as D
from cifar_resnet import fetch as F
from cifar_resnet.core import DataError, DataWarning
from cifar_resnet.data import CIFAR100_CLASSES, CIFAR100_GROUPS, NotFound, choose_valid, course_data, get_data, make_data, needs_cifar10
from cifar_resnet.images import read_image
from cifar_resnet.fetch import BATCHES, CIFAR10, CIFAR100, Remote, data_places, download_official, find_official, read_binary, read_pickled


@pytest.fixture(scope='module')
def digits(): return get_data('digits')


def test_the_validation_split_is_the_same_on_every_machine():
    "The recorded runs depend on it"
    held_out = choose_valid(np.repeat(np.arange(10), 5000), 5000)
    assert hashlib.sha256(held_out.astype('<i8').tobytes()).hexdigest()[:16] == 'e66867c524bc075a'


@pytest.mark.parametrize('n', [0, 1, 9, 10, 11, 99, 100])
def test_held_out_as_evenly_as_possible(n):
    labels = np.random.default_rng(n).permutation(np.repeat(np.arange(10), 10))
    held_out = choose_valid(labels, n, seed=3)
    counts = np.bincount(labels[held_out], minlength=10)
    assert len(held_out) == n and np.ptp(counts) <= 1 and (np.diff(held_out) > 0).all()


def test_no_image_in_two_splits(digits):
    for seed in 0, 1:
        data = get_data('digits', valid=100, seed=seed)
        assert len(data.valid) == 100 and not set(data.train.ids) & set(data.valid.ids)
        assert np.array_equal(data.full.ids, np.arange(1437)) and np.array_equal(data.full.images, digits.full.images)
        assert data.test.ids.tolist() == digits.test.ids.tolist() and data.fingerprint == digits.fingerprint


def test_splits_are_indexed_like_arrays(digits):
    split = digits.train
    for which in 3, -1, np.int64(3), [1, 5], slice(2, 9, 3), split.labels == 4, np.array([], int):
        part = split[which]
        assert np.array_equal(part.images, split.images[np.atleast_1d(np.arange(len(split))[which])]) and len(part.ids) == len(part.labels) == len(part)
        assert (part.mean, part.std, part.classes) == (split.mean, split.std, split.classes)
    with pytest.raises(IndexError): split[len(split)]


def test_another_normalization_is_that_of_all_splits(digits):
    other = digits.normalized_by([.5, .5, .5], np.array([.25, .5, 1]))
    assert all(s.mean == (.5,)*3 and s.std == (.25, .5, 1.) for s in (other.train, other.valid, other.test, other.full))
    assert digits.mean != other.mean and other.fingerprint == digits.fingerprint


def test_only_digits_are_not_mirrored(digits):
    assert not digits.mirrors and replace(digits, name='cifar10').mirrors


def test_a_known_copy_is_recognized(digits, monkeypatch):
    parts = [(s.images, s.labels) for s in (digits.train, digits.test)]
    def make(): return make_data('x', *parts, digits.classes, digits.mean, digits.std, 'here', 10, 0)
    assert make().inexact is None
    monkeypatch.setitem(D.KNOWN_COPIES, make().fingerprint, 178)
    assert make().inexact == 178 and '178 images differ from the official ones' in repr(make())


def test_not_found_is_not_downloaded_when_that_is_forbidden(nowhere):
    with pytest.raises(NotFound, match='downloads it'): get_data(root=nowhere/'a', download=False)
    assert not (nowhere/'a').exists()


def test_needs_cifar10(digits, capsys):
    ran = []
    assert needs_cifar10(digits, 'the check')(ran.append) is None and not ran
    assert capsys.readouterr().out == 'skipped: the check (needs CIFAR-10; this run is on digits)\n'
    cifar = replace(digits, name='cifar10')
    needs_cifar10(cifar, 'the check')(ran.append)
    assert ran == [cifar]


def test_quick_pages_run_on_digits(nowhere, monkeypatch, capsys):
    monkeypatch.setenv('CIFAR_RESNET_QUICK', '1')
    assert course_data().name == 'digits' and 'CIFAR_RESNET_QUICK is set' in capsys.readouterr().out


def test_nothing_is_unpickled_before_its_md5_is_verified(tmp_path, monkeypatch):
    "A forged pickle can crash the process, or worse: it must not be opened at all"
    for name in BATCHES: (tmp_path/name).write_bytes(pickle.dumps({'data': np.zeros(3), 'labels': []}))
    def never(*args, **kwargs): raise AssertionError('it was opened')
    monkeypatch.setattr(F, '_ArrayUnpickler', never)
    with pytest.raises(DataError, match='data_batch_1 is damaged: its md5 is'): read_pickled(tmp_path)


@pytest.mark.parametrize('content', [
    b'', b'\x80\x02', pickle.dumps([1, 2], 2), pickle.dumps({'data': 1, 'labels': [1]}, 2), pickle.dumps({'labels': [1]}, 2), b'\x80\x04.',
    pickle.dumps({'data': [], 'labels': []}, 2)])
def test_a_pickle_of_something_else(tmp_path, content):
    (tmp_path/'data_batch_1').write_bytes(content)
    with pytest.raises(DataError, match='data_batch_1 is damaged: '): read_pickled(tmp_path, {'data_batch_1': hashlib.md5(content).hexdigest()})


@pytest.mark.parametrize('name', ['os.system', 'builtins.eval', 'numpy.core.multiarray.scalar', 'numpy.load'])
def test_a_pickle_that_asks_for_more_than_arrays(tmp_path, name):
    module, _, attribute = name.rpartition('.')
    content = f'c{module}\n{attribute}\n.'.encode()
    (tmp_path/'data_batch_1').write_bytes(content)
    with pytest.raises(DataError, match=f'asks for {name}: it holds more than arrays'): read_pickled(tmp_path, {'data_batch_1': hashlib.md5(content).hexdigest()})


def test_an_archive_of_unknown_size(nowhere):
    "There is no telling whether it fits on the disk, so it is tried"
    with Mirror(b'not an archive') as mirror:
        archive = Remote('a.tar.gz', (mirror.url('good'),), f"md5:{hashlib.md5(b'not an archive').hexdigest()}")
        with pytest.raises(DataError, match='could not be unpacked'): get_data(root=nowhere, archive=archive)
        assert len(mirror.requests) == 1


def test_another_process_was_faster(tmp_path):
    (tmp_path/'cifar-10-batches-bin').mkdir()
    assert download_official([tmp_path], replace(CIFAR10, archive=Remote('a', (), 'md5:0', 1))) == (tmp_path/'cifar-10-batches-bin', read_binary)


def test_both_layouts_and_files_without_a_folder_of_their_own(tmp_path):
    for name in 'cifar-10-batches-py', 'cifar-10-batches-bin': (tmp_path/name/name).mkdir(parents=True)
    (tmp_path/'plain').mkdir()
    (tmp_path/'plain'/'test_batch.bin').touch()
    places = [tmp_path/'none', tmp_path/'plain', tmp_path/'cifar-10-batches-py']
    assert find_official(places) == (tmp_path/'plain', read_binary)
    assert find_official(places[2:]) == (tmp_path/'cifar-10-batches-py'/'cifar-10-batches-py', read_pickled)
    assert find_official(places[:1]) is None


def test_a_home_that_does_not_exist(monkeypatch):
    for root in '~no_such_user/x', '~no_such_user':
        with pytest.raises(DataError, match='~no_such_user'): data_places(root)
    monkeypatch.setenv('CIFAR_RESNET_DATA', '~no_such_user')
    with pytest.raises(DataError, match='~no_such_user'): data_places()


PLAIN = np.full((60, 90, 3), 255, np.uint8)  # white, its left half black
PLAIN[:, :45] = 0


def disguises(folder):
    "Write one image in many kinds of files"
    photo = Image.fromarray(PLAIN)
    clear = Image.fromarray(np.dstack([np.zeros_like(PLAIN), 255 - PLAIN[..., 0]]))  # black where it is not transparent
    kinds = {'rgb.png': photo, 'rgb.webp': photo, 'rgb.jpg': photo, 'gray.png': photo.convert('L'), 'bits.png': photo.convert('1'), 'palette.png': photo.convert('P'),
             'cmyk.jpg': photo.convert('CMYK'), 'clear.png': clear, 'clear.gif': clear, 'sixteen.png': Image.fromarray(PLAIN[..., 0].astype(np.uint16)*257),
             'float.tiff': Image.fromarray(PLAIN[..., 0].astype(np.float32)/255)}
    for name, image in kinds.items(): image.save(folder/name)
    note = Image.Exif()
    note[0x0112] = 6  # the orientation: to be rotated clockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(folder/'rotated.jpg', exif=note)
    photo.save(folder/'film.gif', save_all=True, append_images=[Image.new('RGB', (90, 60), 'red')])
    photo.resize((9, 6), Image.Resampling.NEAREST).save(folder/'tiny.png')


def test_one_image_in_many_kinds_of_files(tmp_path):
    disguises(tmp_path)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 14
    for path in paths:
        image = read_image(path)
        assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
        assert image[:, 1:10].max() < 40 and image[:, 22:31].min() > 215, path.name
    assert read_image(paths[0], side=8).shape == (8, 8, 3)


@pytest.mark.parametrize('name,says', [
    ('text.png', 'is not an image that can be read'), ('empty.png', 'is not an image that can be read'), ('cut.png', 'cannot be read'),
    ('bomb.png', 'has more than 89 million pixels: it was not opened'), ('program.eps', 'is not an image that can be read'),
    ('none.png', 'was not found'), ('.', 'was not found'), ('~nobody.png', 'was not found'), ('x'*300 + '.png', 'File name too long'), ('new\nline', 'new\\nline was not found')])
def test_files_that_are_not_read(tmp_path, name, says):
    photo = Image.fromarray(PLAIN)
    (tmp_path/'text.png').write_text('not an image')
    (tmp_path/'empty.png').touch()
    photo.save(tmp_path/'whole.png')
    (tmp_path/'cut.png').write_bytes((tmp_path/'whole.png').read_bytes()[:60])
    if name == 'bomb.png': Image.new('1', (20_000, 20_000)).save(tmp_path/'bomb.png')
    photo.save(tmp_path/'program.eps')
    with pytest.raises(DataError) as e: read_image(tmp_path/name)
    assert says in str(e.value) and '\n' not in str(e.value)


def test_a_damaged_note_in_the_header(tmp_path):
    "It is an image or a DataError, and Pillow's warnings stay inside"
    photo, note = Image.fromarray(PLAIN), Image.Exif()
    note[0x0112] = 6
    photo.save(tmp_path/'a.jpg', exif=note)
    raw = (tmp_path/'a.jpg').read_bytes()
    at = raw.index(b'Exif')
    for i in range(at, at + 40):
        (tmp_path/'b.jpg').write_bytes(raw[:i] + b'\xff' + raw[i + 1:])
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            try: assert read_image(tmp_path/'b.jpg').shape == (32, 32, 3)
            except DataError as e: assert '\n' not in str(e)
        assert not seen


def save_classes(folder, **classes):
    "Write images of noise, the same at each call: {name of the class: how many}; an underscore stands for a space"
    for k, (name, n) in enumerate(classes.items()):
        place = folder/name.replace('_', ' ')
        place.mkdir(parents=True)
        for i in range(n):
            noise = np.random.default_rng([i, k]).integers(0, 256, (50, 30 + i, 3), dtype=np.uint8)
            Image.fromarray(noise).convert(('RGB', 'L', 'RGBA', 'P')[i % 4]).save(place/f'{i:03}.png')


def test_a_folder_of_classes_is_split_by_the_seed(tmp_path):
    save_classes(tmp_path/'pets', dog=40, black_cat=60)
    (tmp_path/'pets'/'.cache').mkdir()
    (tmp_path/'pets'/'dog'/'.DS_Store').touch()
    data, other = get_data(tmp_path/'pets'), get_data(f"{tmp_path/'pets'}/", seed=1)
    assert data.classes == ('black cat', 'dog') and [len(s) for s in (data.train, data.valid, data.test)] == [77, 8, 15]
    assert (data.fingerprint, data.name, data.inexact, data.warning) == (other.fingerprint, str(tmp_path/'pets'), 0, None)
    assert data.test.ids.tolist() == other.test.ids.tolist() and np.array_equal(data.test.images, other.test.images)
    assert data.valid.ids.tolist() != other.valid.ids.tolist() and not set(data.train.ids) & set(data.valid.ids)
    assert np.bincount(data.valid.labels).tolist() == [4, 4] and len(get_data(tmp_path/'pets', valid=20).valid) == 20
    pixels = np.concatenate([data.train.images, data.valid.images])/255
    assert np.allclose(data.mean, pixels.mean((0, 1, 2))) and np.allclose(data.std, pixels.std((0, 1, 2)))
    assert get_data(tmp_path/'pets', side=64).train.images.shape == (77, 64, 64, 3)


def test_the_splits_of_a_folder_are_kept(tmp_path):
    for split, n in dict(train=20, val=4, test=6).items(): save_classes(tmp_path/split, a=n, b=n + 1)
    save_classes(tmp_path/'runs', c=3)  # ignored
    with pytest.warns(DataWarning, match='13 of the 13 test images are training images too'): data = get_data(tmp_path)
    assert [np.bincount(s.labels).tolist() for s in (data.train, data.valid, data.test)] == [[20, 21], [4, 5], [6, 7]]
    assert 'the test accuracy is too high' in data.warning and data.full.ids.tolist() == list(range(50))
    with pytest.raises(ValueError, match='has a folder of validation images: leave valid out'): get_data(tmp_path, valid=3)


def test_a_split_without_one_of_the_classes(tmp_path):
    save_classes(tmp_path/'train', a=9, b=9), save_classes(tmp_path/'test', b=2)
    with pytest.warns(DataWarning): data = get_data(tmp_path)
    assert data.test.labels.tolist() == [1, 1] and len(data.valid) == 2


@pytest.mark.parametrize('make,says', [
    (lambda f: save_classes(f, a=9), r'at least two classes \(found: a\)'),
    (lambda f: None, r'at least two classes \(found: none\)'),
    (lambda f: save_classes(f, a=1, b=9), "no image of the class 'a' is left to train on"),
    (lambda f: (save_classes(f, a=9), (f/'b').mkdir()), "no image of the class 'b' is left to train on"),
    (lambda f: ((f/'a').mkdir(), (f/'b').mkdir()), 'holds no image that can be read'),
    (lambda f: save_classes(f/'test', a=3, b=3), 'has a folder test, and no train beside it'),
    (lambda f: (save_classes(f/'train', a=9, b=9), save_classes(f/'test', c=1)), "test has a class 'c', which train does not have")])
def test_folders_that_are_not_data(tmp_path, make, says):
    make(tmp_path)
    with pytest.raises(DataError, match=says) as e: get_data(tmp_path)
    assert '\n' not in str(e.value)


def test_damaged_and_foreign_files_of_a_folder(tmp_path):
    "They are named, counted and skipped; more than a tenth is an error"
    save_classes(tmp_path, a=20, b=20)
    whole = get_data(tmp_path)
    (tmp_path/'a'/'notes.txt').write_text('about a')
    (tmp_path/'b'/'cut.png').write_bytes((tmp_path/'b'/'000.png').read_bytes()[:50])
    (tmp_path/'b'/'new\nline.png').touch()
    with pytest.warns(DataWarning) as told: data = get_data(tmp_path)
    line = str(told[0].message)
    assert '3 of the 43 files' in line and 'a/notes.txt, b/cut.png, b/new line.png' in line and '\n' not in line
    assert data.fingerprint == whole.fingerprint and str(tmp_path) not in data.warning and '3 of the 43 files' in data.warning
    for i in range(2): (tmp_path/'b'/f'empty{i}.png').touch()
    with pytest.raises(DataError, match='5 of the 45 files .* more than a tenth'): get_data(tmp_path)


def test_names_that_are_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'file').touch()
    for name, kind, says in (('cifar', ValueError, "data must be cifar10, cifar100, cifar100-coarse, digits, or a folder of classes .got 'cifar'"),
                             ('cifar/', DataError, 'the folder cifar/ was not found'), ('file', DataError, 'file is not a folder'), (3, ValueError, 'got .3.'), (None, ValueError, 'got .None.')):
        with pytest.raises(kind, match=says): get_data(name)
    with pytest.raises(ValueError, match='side must be one of 32'): get_data('digits', side=64)
    with pytest.raises(ValueError, match='side must be one of 32, 64'): get_data(tmp_path, side=48)


def test_a_folder_that_may_not_be_read(tmp_path):
    save_classes(tmp_path, a=9, b=9)
    for p in (*tmp_path.parents, tmp_path):
        if str(p).startswith('/tmp/pytest'): p.chmod(0o755)
    (tmp_path/'a').chmod(0)
    try:
        with without_privileges(), pytest.raises(DataError, match='cannot be read: Permission denied'): get_data(tmp_path)
    finally: (tmp_path/'a').chmod(0o755)


def cifar100_files(folder, pickled):
    "Write the files of CIFAR-100 in one of its layouts, with pixels that tell which image they belong to"
    for name, n in dict(train=50_000, test=10_000).items():
        i = np.arange(n)
        rows = np.zeros((n, 3072), np.uint8)
        rows[:, 0], rows[:, 1], rows[:, 2] = i % 251, i//251, name == 'test'
        fine, coarse = (i % 100).astype(np.uint8), (i % 100//5).astype(np.uint8)
        content = (python2_pickle(rows, fine_labels=fine.tolist(), coarse_labels=coarse.tolist()) if pickled else
                   np.concatenate([coarse[:, None], fine[:, None], rows], 1).tobytes())
        (folder/(name if pickled else f'{name}.bin')).write_bytes(content)


def test_cifar100_in_both_layouts(nowhere, monkeypatch):
    from torchvision.datasets import CIFAR100 as listed
    fine = {}
    for layout in 'cifar-100-python', 'cifar-100-binary':
        place = nowhere/layout/layout
        place.mkdir(parents=True)
        cifar100_files(place, layout == 'cifar-100-python')
        if layout == 'cifar-100-python':
            with pytest.raises(DataError, match='train is damaged: its md5 is'): get_data('cifar100', root=place)
            for part in 'train', 'test': monkeypatch.setattr(listed, f'{part}_list', [[part, hashlib.md5((place/part).read_bytes()).hexdigest()]])
        with contextlib.nullcontext() if layout == 'cifar-100-python' else pytest.warns(DataWarning, match='unknown copy of CIFAR-100'):
            fine[layout] = get_data('cifar100', root=place.parent)
        assert fine[layout].classes == CIFAR100_CLASSES and [len(s) for s in (fine[layout].train, fine[layout].valid, fine[layout].test)] == [45_000, 5000, 10_000]
        assert fine[layout].full.labels[777] == 77 and fine[layout].full.images[777, 0, 1, 0] == 777//251
    assert len({data.fingerprint for data in fine.values()}) == 1
    coarse = get_data('cifar100-coarse', root=nowhere/'cifar-100-python')
    assert coarse.classes == CIFAR100_GROUPS and coarse.full.labels[777] == 77//5 and len(CIFAR100_GROUPS) == 20 and len(set(CIFAR100_CLASSES)) == 100
    with pytest.raises(NotFound, match=r"CIFAR-100 was not found in .*; get_data\('cifar100'\) downloads it"): get_data('cifar100', root=nowhere/'none', download=False)
    with pytest.raises(NotFound, match='CIFAR-10 was not found'): get_data('cifar10', root=nowhere/'cifar-100-python', download=False)


def test_a_folder_named_train_is_not_a_copy_of_cifar100(tmp_path):
    save_classes(tmp_path/'train', a=2, b=2)
    assert find_official([tmp_path], CIFAR100) is None
