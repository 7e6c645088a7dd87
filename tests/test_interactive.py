"""The figures to touch, as Python makes them: size, names, contents, mistakes. tests/interactive_browser.py runs their scripts."""
import base64
import io
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from processes import modules_after

from cifar_resnet.analysis import confusion, errors, percent, predict
from cifar_resnet.anatomy import receptive_fields
from cifar_resnet.augment import MEAN_COLOR
from cifar_resnet.cams import cam_maps
from cifar_resnet.data import get_data
from cifar_resnet.interactive import augmentation_figure, confusion_figure, one_cycle_figure, receptive_field_figure
from cifar_resnet.model import CustomResNet
from cifar_resnet.train import OneCycle

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)  # compresses worst
torch.manual_seed(0)
PREDS = predict(CustomResNet(8), get_data('digits').test[:200], precision='float32', progress=False)
MAKERS = {'one cycle': one_cycle_figure, 'augmentation': lambda: augmentation_figure(NOISE), 'field': lambda: receptive_field_figure(CustomResNet(8), NOISE), 'confusion': lambda: confusion_figure(PREDS)}


def name_of(page): return re.search('<div class="([^"]+)"', page)[1]


def sent(page): return json.loads(re.search('^const data = (.*?);function build|^const data = (.*);$', page, re.M)[2])


@pytest.fixture(scope='module')
def pages(): return {name: make().data for name, make in MAKERS.items()}


def test_each_is_smaller_than_60_kB(pages):
    sizes = {name: len(page.encode()) for name, page in pages.items()}
    assert sizes.pop('confusion') < 600_000 and max(sizes.values()) < 60_000, sizes


def test_the_confusion_of_cifar10_is_smaller_than_600_kB():
    "As many images as the page shows, of the kind that compresses worst"
    rng, data = np.random.default_rng(0), get_data('digits').test
    split = replace(data[np.arange(760) % len(data)], images=rng.integers(0, 256, (760, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2))
    assert len(confusion_figure(predict(CustomResNet(8), split, precision='float32', progress=False)).data.encode()) < 600_000


def test_what_the_confusion_matrix_holds(pages):
    told = sent(pages['confusion'])
    assert told['counts'] == confusion(PREDS).tolist() and told['classes'] == list(PREDS.classes)
    label, predicted = told['start']
    assert told['counts'][label][predicted] == max(n for i, row in enumerate(told['counts']) for j, n in enumerate(row) if i != j)
    chosen = told['cells'][label][predicted]
    expected = PREDS[errors(PREDS, 80, 'confidence', PREDS.classes[label], PREDS.classes[predicted])]
    assert len(chosen) == len(expected) and [told['percents'][k] for k in chosen] == [[percent(p[label]), percent(p[predicted])] for p in expected.probs]
    with Image.open(io.BytesIO(base64.b64decode(told['sprite'].split(',')[1]))) as wall: wall = np.asarray(wall.convert('RGB')).astype(int)
    maps = np.frombuffer(base64.b64decode(told['maps']), np.uint8).reshape(-1, 2, 4, 4)
    by_camera = cam_maps(expected), cam_maps(expected, 'label')
    for k, image, *heats in zip(chosen, expected.split.images, *by_camera):
        row, column = divmod(k, told['columns'])
        assert abs(wall[32*row:32*row + 32, 32*column:32*column + 32] - image.astype(int)).mean() < 6
        for own, heat in zip(maps[k], heats):
            large = cv2.resize(own.astype(np.float32), (32, 32))
            assert (large - large.min())/max(np.ptp(large), 1e-6) == pytest.approx(heat, abs=.02)
    assert len(maps) == len(told['percents']) == sum(len(cell) for row in told['cells'] for cell in row)


def test_the_network_is_left_as_it_was():
    model = CustomResNet(8).bfloat16().train()
    confusion_figure(replace(PREDS, model=model))
    assert model.training and next(model.parameters()).dtype == torch.bfloat16


def test_the_same_call_gives_the_same_html(pages):
    assert pages == {name: make().data for name, make in MAKERS.items()}


def test_different_figures_have_different_names():
    others = one_cycle_figure(OneCycle(.02, .3)), one_cycle_figure(per_epoch=99), augmentation_figure(255 - NOISE), augmentation_figure(NOISE, fill=(0, 0, 0)), receptive_field_figure(CustomResNet(8), 255 - NOISE)
    names = [name_of(page) for page in [*(make().data for make in MAKERS.values()), *(other.data for other in others)]]
    assert len(set(names)) == len(names), names


@pytest.mark.parametrize('name', MAKERS)
def test_style_reaches_no_other_figure(pages, name):
    style = re.search('<style>(.*?)</style>', pages[name], re.S)[1]
    selectors = [one.strip() for rule in re.findall(r'([^{}]+)\{', style) for one in rule.split(',')]
    assert len(selectors) > 30 and all(one.startswith(f'.{name_of(pages[name])}') for one in selectors), selectors
    assert not re.search(r'\sid=', pages[name])


@pytest.mark.parametrize('name', MAKERS)
def test_it_loads_nothing(pages, name):
    assert not re.search(r'https?://(?!www\.w3\.org/)|\bimport\b|\bfetch\b|@import|url\(', pages[name])


@pytest.mark.parametrize('name', MAKERS)
def test_still_picture(pages, name):
    address, alt = re.search('<img src="([^"]+)" alt="([^"]+)">', pages[name]).groups()
    assert address.startswith('data:image/png;base64,') and len(alt) > 40
    with Image.open(io.BytesIO(base64.b64decode(address.split(',')[1]))) as image:
        assert image.format == 'PNG' and image.width >= 500 and 'transparency' not in image.info
    assert re.search('<figcaption>.{40,}</figcaption>', pages[name])


def test_what_the_scripts_are_told(pages):
    assert sent(pages['one cycle']) == dict(schedule=dict(lr_min=.02, lr_max=.4, epochs=24, peak_epoch=5, anneal='linear', momentum=[.85, .95], final=None), per_epoch=98)
    told = sent(pages['augmentation'])
    assert (np.frombuffer(base64.b64decode(told['pixels']), np.uint8).reshape(32, 32, 3) == NOISE).all() and tuple(told['fill']) == MEAN_COLOR
    assert {name: tuple(v) for name, v in sent(pages['field'])['stages'].items()} == receptive_fields(CustomResNet(8))


@pytest.mark.parametrize('make,says', [
    (lambda: one_cycle_figure(per_epoch=0), 'per_epoch must be a whole number of at least 1 (got 0)'), (lambda: augmentation_figure(NOISE/255), 'got float64 (32, 32, 3)'),
    (lambda: augmentation_figure(NOISE[..., 0]), 'image must be uint8 (32, 32, 3) (got uint8 (32, 32))'), (lambda: augmentation_figure(NOISE, fill=(0, 0, 256)), 'got 256'),
    (lambda: augmentation_figure(NOISE, fill=(0, 0)), 'fill has 2'), (lambda: confusion_figure(PREDS[PREDS.correct]), 'every prediction is correct'), (lambda: confusion_figure(PREDS, each=0), 'each must be a whole number of at least 1'),
    (lambda: confusion_figure(PREDS, quality=0), 'quality must be'), (lambda: confusion_figure(replace(PREDS, model=torch.nn.Flatten())), 'CustomResNet'), (lambda: receptive_field_figure(CustomResNet(8), NOISE[:28]), 'got uint8 (28, 32, 3)')])
def test_wrong_arguments(make, says):
    with pytest.raises(ValueError) as e: make()
    assert says in str(e.value)


def test_nothing_heavy_is_imported_until_asked():
    done, modules = modules_after('-c', 'import cifar_resnet.interactive')
    assert done.returncode == 0 and 'torch' in modules, done.stderr
    assert not modules & {'matplotlib', 'seaborn', 'IPython', 'PIL'}
