"""Run the scripts of the figures to touch in a real browser, against the package's own numbers: `pytest -rs tests/interactive_browser.py`."""
import re

import numpy as np
import pytest
import torch
from browser import CONTRAST
from processes import HANG
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from cifar_resnet.analysis import confusion, errors, label_and_prediction, predict
from cifar_resnet.anatomy import receptive_fields
from cifar_resnet.augment import MEAN_COLOR, Crop, Cutout, Flip, Steps
from cifar_resnet.cams import cam_maps, overlay
from cifar_resnet.data import get_data
from cifar_resnet.interactive import augmentation_figure, confusion_figure, one_cycle_figure, receptive_field_figure
from cifar_resnet.model import CustomResNet
from cifar_resnet.train import OneCycle

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
MODEL = CustomResNet(8)
THEMES = {'light': 'background: #fff; color: #212529', 'dark': 'background: #222; color: #fff'}


@pytest.fixture
def visit(chromium):
    "Open figures in a page of their own; at the end, nothing was logged and nothing was requested"
    contexts, wrong = [], []

    def go(*figures, width=1200, theme='light', **kwargs):
        context = chromium.new_context(viewport={'width': width, 'height': 900}, **kwargs)
        contexts.append(context)
        context.set_default_timeout(1000*HANG)
        tab = context.new_page()
        tab.on('pageerror', lambda e: wrong.append(str(e)))
        tab.on('console', lambda m: None if 'getImageData' in m.text else wrong.append(m.text))  # that is what this test reads with
        tab.on('request', lambda r: None if r.url.startswith('data:') else wrong.append(r.url))
        body = ''.join(f'<div class="host">{figure.data}</div>' for figure in figures)
        tab.set_content(f'<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>t</title><body style="margin: 12px; font: 16px sans-serif; {THEMES[theme]}"><main>{body}</main>')
        return tab
    yield go
    for context in contexts: context.close()
    assert not wrong, wrong


def slide(tab, name, value, at=0):
    "Move a slider to a position, as a hand does"
    tab.get_by_label(name, exact=True).nth(at).evaluate('(input, value) => { input.value = value; input.dispatchEvent(new Event("input")) }', value)


def position(tab, name): return int(tab.get_by_label(name, exact=True).input_value())


def status(tab, at=0): return tab.locator('[aria-live]').nth(at).inner_text()


# ------------------------------------------------------------------------------------------------ one cycle

def curve(tab, kind, at=0): return tab.locator(f'path.{kind}').nth(at).evaluate('path => path.points')


def check_curves(tab, schedule, per_epoch):
    "The points that are drawn are those of OneCycle.at; first, last and peak are among them"
    rates, momenta = curve(tab, 'rate'), curve(tab, 'momentum')
    assert rates[0][0] == 0 and rates[-1][0] == schedule.epochs*per_epoch - 1
    for (step, rate), (_, momentum) in zip(rates, momenta):
        expected = schedule.at(step, per_epoch)
        assert rate == pytest.approx(expected[0], rel=1e-9, abs=1e-15) and momentum == pytest.approx(expected[1] or .9, rel=1e-9), step
    if schedule.peak_epoch*per_epoch % 1 == 0: assert max(rate for _, rate in rates) == pytest.approx(schedule.lr_max)
    assert tab.locator('path.rate').evaluate('path => path.getAttribute("d").match(/[-\\d.]+ [-\\d.]+/g).length') == len(rates)


@pytest.mark.parametrize('schedule,per_epoch', [
    (OneCycle(.02, .4), 98), (OneCycle(.02, .4, anneal='cos', final=1e-4), 98), (OneCycle(1e-5, 3.7e-3, epochs=7, peak_epoch=2.5), 13), (OneCycle(.1, .1, epochs=3, peak_epoch=0), 98),
    (OneCycle(.02, .4, epochs=1, peak_epoch=.5, momentum=None), 98), (OneCycle(.01, 1, epochs=60, peak_epoch=20, momentum=(.8, .9), final=0, anneal='cos'), 391), (OneCycle(0, .4, epochs=2, peak_epoch=1), 1)])
def test_curves(visit, schedule, per_epoch):
    tab = visit(one_cycle_figure(schedule, per_epoch))
    check_curves(tab, schedule, per_epoch)
    tab.get_by_label('logarithmic').check()
    check_curves(tab, schedule, per_epoch)
    assert 'NaN' not in tab.locator('svg.plot').inner_html()


def test_sliders_of_the_cycle(visit):
    tab = visit(one_cycle_figure())
    def shown(): return {name: float(tab.get_by_label(name, exact=True).get_attribute('aria-valuetext')) for name in ('LRMIN', 'LRMAX', 'Last rate', 'Peak epoch', 'Epochs')}
    def check(anneal='linear'):
        v = shown()
        check_curves(tab, OneCycle(v['LRMIN'], v['LRMAX'], int(v['Epochs']), v['Peak epoch'], anneal, final=v['Last rate']), 98)
        return v
    slide(tab, 'LRMIN', 60)
    assert (v := check())['LRMIN'] == v['Last rate'] != .02  # the last rate follows until it is moved
    slide(tab, 'Last rate', 20)
    slide(tab, 'LRMIN', 80)
    assert (v := check())['LRMIN'] != v['Last rate']
    slide(tab, 'LRMAX', 40)
    assert (v := check())['LRMIN'] == v['LRMAX'] > v['Last rate']  # LRMAX takes the others along
    slide(tab, 'Last rate', 130)
    assert (v := check())['Last rate'] == v['LRMAX'] > v['LRMIN']
    slide(tab, 'Peak epoch', 20)
    slide(tab, 'Epochs', 10)
    assert check()['Peak epoch'] == 9.5
    tab.get_by_label('cosine').check()
    check('cos')
    slide(tab, 'Epochs', 1)
    slide(tab, 'Peak epoch', 0)
    slide(tab, 'Last rate', 0)
    assert check('cos')['Last rate'] == 0
    tab.get_by_text('Reset').click()
    check_curves(tab, OneCycle(.02, .4), 98)


def torch_cycle(s, steps, per_epoch=98, **kwargs):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=.1, momentum=.9)
    cycle, seen = OneCycleLR(optimizer, s.lr_max, total_steps=s.epochs*per_epoch, pct_start=s.peak_epoch/s.epochs, anneal_strategy=s.anneal, div_factor=s.lr_max/s.lr_min, **kwargs), []
    for _ in range(steps):
        seen.append([optimizer.param_groups[0][name] for name in ('lr', 'momentum')])
        optimizer.step(), cycle.step()
    return np.array(seen)


@pytest.mark.parametrize('anneal', ['linear', 'cos'])
def test_mistakes_are_those_of_pytorch(visit, anneal):
    s = OneCycle(.02, .4, anneal=anneal)
    tab, total = visit(one_cycle_figure(s)), s.epochs*98
    assert tab.locator('path.wrong').count() == 0
    tab.get_by_label('stepped once an epoch').check()
    slow = torch_cycle(s, s.epochs, final_div_factor=1)
    for which in (0, 1):
        for step, value in curve(tab, 'wrong', which): assert value == pytest.approx(slow[step//98, which], rel=1e-9)
    assert f'24 of its 2,352 steps: the learning rate never exceeds {slow[:, 0].max():.3g}' in status(tab)
    tab.get_by_label('final_div_factor = div_factor').check()
    twice = torch_cycle(s, total, final_div_factor=20)
    for step, value in curve(tab, 'wrong'): assert value == pytest.approx(twice[step, 0], rel=1e-6, abs=1e-9)
    assert tab.locator('path.wrong').count() == 1 and tab.get_by_label('logarithmic').is_checked()
    assert 'div_factor = 20, it divides twice: the run ends at 0.001.' in status(tab)
    check_curves(tab, s, 98)
    tab.get_by_label('cycle_momentum forgotten').check()
    overwritten = torch_cycle(s, total, final_div_factor=1)
    for step, value in curve(tab, 'wrong'): assert value == pytest.approx(overwritten[step, 1], rel=1e-9)
    assert {value for _, value in curve(tab, 'momentum')} == {.9} and 'your 0.9 (solid) is overwritten' in status(tab)
    assert status(tab).startswith('First 0.02, peak 0.4 at step 489, last 0.02 at step 2,351.')


# ------------------------------------------------------------------------------------------------ augmentation

def canvas(tab, which):
    side, values = tab.locator('canvas').nth(which).evaluate('c => [c.width, [...c.getContext("2d").getImageData(0, 0, c.width, c.width).data]]')
    return np.array(values, np.uint8).reshape(side, side, 4)


def check_augmentation(tab, image, fill=MEAN_COLOR):
    pad, side, row, col, top, left = (position(tab, name) for name in ('Padding', 'Cutout side', 'Crop row', 'Crop column', 'Cutout row', 'Cutout column'))
    flip, steps = tab.get_by_label('Flip left and right').is_checked(), [(Crop(pad), torch.tensor([[row, col]]))]
    steps.append((Flip(), torch.tensor([int(flip)])))
    if side: steps.append((Cutout(side, fill=fill), torch.tensor([[top, left]])))
    expected = Steps([step for step, _ in steps]).apply(torch.from_numpy(image)[None], [draw for _, draw in steps])[0].numpy()
    assert (canvas(tab, 1)[..., :3] == expected).all() and (canvas(tab, 1)[..., 3] == 255).all(), (pad, side, row, col, flip, top, left)
    assert (canvas(tab, 0)[..., :3] == np.pad(image, [(pad, pad), (pad, pad), (0, 0)], mode='reflect')).all()
    assert [int(tab.locator('.over .frame').get_attribute(name)) for name in ('x', 'y', 'width', 'height')] == [col, row, 32, 32]
    return pad, side, row, col, flip, top, left


def test_random_draws(visit):
    tab, drawn, rng = visit(augmentation_figure(NOISE, fill=(1, 2, 3))), set(), np.random.default_rng(1)
    first = check_augmentation(tab, NOISE, (1, 2, 3))
    for pad in range(9):
        slide(tab, 'Padding', pad)
        slide(tab, 'Cutout side', int(rng.integers(0, 17)))
        for _ in range(3):
            tab.get_by_text('Draw at random').click()
            drawn.add(check_augmentation(tab, NOISE, (1, 2, 3)))
    assert len(drawn) == 27 and {flip for *_, flip, _, _ in drawn} == {True, False}
    tab.get_by_text('Reset').click()
    assert check_augmentation(tab, NOISE, (1, 2, 3)) == first


def test_the_ends_of_every_slider(visit):
    tab = visit(augmentation_figure(NOISE))
    for pad, side in [(8, 16), (0, 0), (8, 1), (3, 16)]:
        slide(tab, 'Padding', pad), slide(tab, 'Cutout side', side)
        for end in (0, 99):  # the browser stops at the end
            for name in ('Crop row', 'Crop column', 'Cutout row', 'Cutout column'): slide(tab, name, end)
            _, _, row, col, _, top, left = check_augmentation(tab, NOISE)
            assert (row, col, top, left) == ((0,)*4 if not end else (2*pad, 2*pad, 32 - side, 32 - side))
    slide(tab, 'Padding', 6), slide(tab, 'Crop row', 6), slide(tab, 'Crop column', 7)
    tab.get_by_label('Flip left and right').uncheck()
    slide(tab, 'Cutout side', 0)
    check_augmentation(tab, NOISE)
    assert status(tab) == 'The crop moves the image 1 pixel left; it is not mirrored; no square is painted.'


# ------------------------------------------------------------------------------------------------ receptive fields

def check_field(tab, model, image, name, row, col):
    side, step, center = receptive_fields(model)[name]
    top, left = (int(center + step*i - side/2) for i in (row, col))
    said = status(tab).replace('−', '-')
    assert said.startswith(f'{name}, row {row}, column {col} sees {side} × {side} pixels: rows {top} to {top + side - 1}, columns {left} to {left + side - 1}. '), said
    assert [float(tab.locator('.over .frame').nth(1).get_attribute(k)) for k in ('x', 'y', 'width', 'height')] == [left, top, side, side]
    assert [float(tab.locator('.over .frame').nth(0).get_attribute(k)) for k in ('x', 'y', 'width')] == [col*step, row*step, step]
    first = int(tab.locator('.over').nth(1).get_attribute('viewBox').split()[0])
    shown, seen = canvas(tab, 1), np.zeros((32, 32), bool)
    seen[max(top, 0):top + side, max(left, 0):left + side] = True
    inside = shown[-first:32 - first, -first:32 - first]
    assert (inside[seen][:, :3] == image[seen]).all() and ((inside[..., 3] == 255) == seen).all()
    padding = (shown[..., 3] == 150).sum()  # gray within the square
    assert padding == side**2 - seen.sum()
    share = round(100*padding/side**2)
    assert said.endswith('All of them lie in the image.' if not padding else f'{share} % of them lie outside the image: padding.'), said


@pytest.mark.parametrize('model', [MODEL, CustomResNet(8, skip=False)])
def test_fields(visit, model):
    tab = visit(receptive_field_figure(model, NOISE))
    check_field(tab, model, NOISE, 'layer2', 3, 5)
    box = tab.get_by_role('application').bounding_box()
    for name, (_, step, _) in receptive_fields(model).items():
        tab.get_by_label(name, exact=True).check()
        n = 32//step
        assert f'{n} × {n} values' in tab.get_by_role('application').get_attribute('aria-label')
        for row, col in [(0, 0), (n - 1, n - 1), (n//2, n//3)]:
            tab.mouse.move(box['x'] + (col + .5)/n*box['width'], box['y'] + (row + .5)/n*box['height'])
            check_field(tab, model, NOISE, name, row, col)


def test_arrow_keys_choose_a_value(visit):
    tab = visit(receptive_field_figure(MODEL, NOISE))
    tab.get_by_role('application').focus()
    for key, row, col in [('ArrowUp', 2, 5), ('ArrowLeft', 2, 4), ('ArrowDown', 3, 4), ('ArrowRight', 3, 5), *[('ArrowRight', 3, min(col, 7)) for col in range(6, 10)]]:
        tab.keyboard.press(key)
        check_field(tab, MODEL, NOISE, 'layer2', row, col)
    tab.get_by_label('layer2', exact=True).focus()
    tab.keyboard.press('ArrowRight')
    check_field(tab, MODEL, NOISE, 'layer3', 1, 3)  # the value over the same place
    tab.keyboard.press('ArrowRight')
    check_field(tab, MODEL, NOISE, 'pool', 0, 0)


def test_touch(visit):
    tab = visit(receptive_field_figure(MODEL, NOISE), width=390, has_touch=True)
    box = tab.get_by_role('application').bounding_box()
    tab.touchscreen.tap(box['x'] + box['width']*.9, box['y'] + box['height']*.1)
    check_field(tab, MODEL, NOISE, 'layer2', 0, 7)


# ------------------------------------------------------------------------------------------------ confusion matrix

@pytest.fixture(scope='module')
def preds():
    torch.manual_seed(0)
    return predict(CustomResNet(8), get_data('digits').test[:200], precision='float32', progress=False)


def cell(tab, label, predicted): return tab.locator('tr').nth(label + 1).locator('td').nth(predicted)


def tiles(tab):
    "Return the words and pixels of the images that are shown"
    tab.wait_for_selector('.tile canvas')
    shown = tab.locator('.tile').evaluate_all('tiles => tiles.map(t => [[...t.querySelectorAll("div")].map(d => d.textContent), [...t.querySelector("canvas").getContext("2d").getImageData(0, 0, 96, 96).data]])')
    return [words for words, _ in shown], [np.array(values, np.uint8).reshape(96, 96, 4)[..., :3].astype(int) for _, values in shown]


def largest(preds):
    counts = confusion(preds)
    np.fill_diagonal(counts, 0)
    return np.unravel_index(counts.argmax(), counts.shape)


def test_cells_show_their_images(visit, preds):
    tab, counts = visit(confusion_figure(preds, quality=100)), confusion(preds)
    shown = tab.locator('td[tabindex]').evaluate_all('cells => cells.map(c => +c.textContent)')
    assert np.array(shown).reshape(counts.shape).tolist() == counts.tolist()
    i, j = largest(preds)
    assert status(tab).startswith(f'{counts[i, j]} of {counts[i].sum()} images of {preds.classes[i]}')
    expected = preds[errors(preds, 12, 'confidence', preds.classes[i], preds.classes[j])]
    for view, name in enumerate(['image', 'map for the prediction', 'map for the label']):
        tab.get_by_label(name, exact=True).check()
        words, pixels = tiles(tab)
        titles = [[label, f'→ {predicted}'] for label, predicted in label_and_prediction(expected)]
        assert [w[:2] for w in words] == titles and len(words) == len(expected)
        heats = view and cam_maps(expected, ['prediction', 'label'][view - 1])
        for k, image in enumerate(expected.split.images):
            drawn = overlay(image, heats[k], 96) if view else image.repeat(3, 0).repeat(3, 1)
            assert abs(pixels[k] - drawn).mean() < 6, (name, k)
            assert view == 0 or (heats[k].max() > 0) == ('empty map' not in words[k])


def test_more_images_of_a_cell(visit, preds):
    tab, counts, (i, j) = visit(confusion_figure(preds)), confusion(preds), largest(preds)
    assert counts[i, j] > 12
    assert len(tiles(tab)[0]) == 12 and 'Shown: the 12 most confident.' in status(tab)
    tab.get_by_text('Show 12 more').click()
    assert len(tiles(tab)[0]) == min(24, counts[i, j])
    empty = next((a, b) for a in range(10) for b in range(10) if not counts[a, b])
    cell(tab, *empty).click()
    assert status(tab) == f'No {preds.classes[empty[0]]} was predicted as {preds.classes[empty[1]]}.' and tab.locator('.tile').count() == 0 and not tab.get_by_text('Show 12 more').is_visible()


def test_the_matrix_by_keyboard(visit, preds):
    tab, (i, j) = visit(confusion_figure(preds)), largest(preds)
    assert tab.locator('td[tabindex="0"]').count() == 1
    cell(tab, i, j).focus()
    row, column = i, j
    for key, down, right in [('ArrowDown', 1, 0), ('ArrowRight', 0, 1), ('ArrowUp', -1, 0), ('ArrowLeft', 0, -1), *[('ArrowLeft', 0, -1)]*12]:
        tab.keyboard.press(key)
        row, column = min(max(row + down, 0), 9), min(max(column + right, 0), 9)
        assert cell(tab, row, column).get_attribute('aria-selected') == 'true' and tab.locator('td[aria-selected]').count() == 1
        assert tab.evaluate('document.activeElement.getAttribute("aria-label")') == f'{confusion(preds)[row, column]} {preds.classes[row]} predicted as {preds.classes[column]}'


@pytest.mark.parametrize('theme', THEMES)
@pytest.mark.parametrize('width', [390, 1200])
def test_the_matrix_fits(visit, preds, width, theme):
    tab = visit(confusion_figure(preds), width=width, theme=theme, has_touch=width == 390)
    tiles(tab)
    assert tab.evaluate('document.documentElement.scrollWidth') == width
    assert not tab.evaluate('[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))')
    sizes = tab.locator('td[tabindex]').evaluate_all('cells => cells.map(c => [c.clientWidth, c.clientHeight, c.scrollWidth])')
    assert min(w for w, _, _ in sizes) >= 22 and min(h for _, h, _ in sizes) >= 32 and all(inner <= w for w, _, inner in sizes)
    looked, poor = tab.evaluate(CONTRAST, 'main *')
    assert looked > 100 and not poor, poor


def test_the_matrix_without_scripts(visit, preds):
    tab = visit(confusion_figure(preds), java_script_enabled=False)
    assert tab.locator('figure img').is_visible() and tab.locator('table').count() == 0


# ------------------------------------------------------------------------------------------------ all three

@pytest.fixture(scope='module')
def figures(): return one_cycle_figure(), augmentation_figure(NOISE), receptive_field_figure(MODEL, NOISE)


def test_without_scripts_the_pictures_stay(visit, figures):
    tab = visit(*figures, java_script_enabled=False)
    assert tab.locator('figure img').count() == 3 and tab.locator('form').count() == 0
    for i in range(3): assert tab.locator('figure img').nth(i).is_visible() and tab.locator('figcaption').nth(i).is_visible()


def test_with_scripts_the_controls_take_their_place(visit, figures):
    tab = visit(*figures)
    assert tab.locator('img').count() == 0 and tab.locator('form').count() == 3 and tab.locator('.caption').count() == 3


def test_figures_do_not_clash(visit, figures):
    other = one_cycle_figure(OneCycle(.01, .2))
    tab = visit(*figures, *figures, other)
    assert tab.locator('form').count() == 7
    slide(tab, 'LRMAX', 60, at=1)
    tab.get_by_label('cosine').nth(1).check()
    assert max(r for _, r in curve(tab, 'rate', 0)) == .4 and max(r for _, r in curve(tab, 'rate', 1)) < .01 and max(r for _, r in curve(tab, 'rate', 2)) == .2
    assert [tab.get_by_label('straight line').nth(i).is_checked() for i in range(3)] == [True, False, True]
    tab.get_by_label('prep', exact=True).nth(1).check()
    assert tab.get_by_label('layer2', exact=True).nth(0).is_checked() and status(tab, 2).startswith('layer2') and status(tab, 5).startswith('prep')
    ids = tab.evaluate('[...document.querySelectorAll("[id]")].map(e => e.id)')
    assert len(ids) == len(set(ids))


def test_by_keyboard_alone(visit, figures):
    tab, stops = visit(*figures), []
    for _ in range(40):
        tab.keyboard.press('Tab')
        stop = tab.evaluate('(() => { const e = document.activeElement, s = getComputedStyle(e); return [e.ariaLabel || e.labels?.[0]?.textContent || e.textContent, s.outlineStyle == "solid" && parseFloat(s.outlineWidth) >= 2, e.tagName] })()')
        if stop[2] == 'BODY': break
        stops.append(stop[:2])
    names = [name for name, _ in stops]
    assert names[:5] == ['Epochs', 'Peak epoch', 'LRMIN', 'LRMAX', 'Last rate'] and len(names) == len({*names}) + 1 == 5 + 4 + 9 + 2, names  # Reset twice
    assert all(name for name, _ in stops) and all(marked for _, marked in stops), stops

    def press(name, key, at=0):
        tab.get_by_label(name, exact=True).nth(at).focus()
        tab.keyboard.press(key)
    press('Epochs', 'ArrowRight')
    assert curve(tab, 'rate')[-1][0] == 25*98 - 1
    press('LRMAX', 'Home')
    assert 'peak 1.0e-6' in status(tab)
    press('none', 'ArrowRight')
    assert 'Stepped once an epoch' in status(tab)
    tab.get_by_role('button', name='Reset').first.focus()
    tab.keyboard.press('Enter')
    check_curves(tab, OneCycle(.02, .4), 98)
    before = canvas(tab, 1)
    press('Flip left and right', 'Space')
    assert not tab.get_by_label('Flip left and right').is_checked() and (canvas(tab, 1) != before).any()


def test_every_control_has_a_label(visit, figures):
    tab = visit(*figures)
    assert tab.evaluate('[...document.querySelectorAll("input")].filter(i => !i.ariaLabel && !i.labels.length).length') == 0
    assert tab.evaluate('[...document.querySelectorAll("canvas, svg")].filter(e => !e.closest("[aria-label], [aria-hidden]")).length') == 0
    assert tab.locator('[aria-live=polite]').count() == 3


@pytest.mark.parametrize('width', [390, 820, 1200])
def test_it_fits(visit, figures, width):
    tab = visit(*figures, width=width, has_touch=width == 390)
    assert tab.evaluate('document.documentElement.scrollWidth') == width
    sticking_out = tab.evaluate('[...document.querySelectorAll("main *:not(.over, .over *)")].filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))')
    assert not sticking_out, sticking_out
    heights = tab.evaluate('[...document.querySelectorAll("label, button, input[type=range], [role=application]")].map(e => e.getBoundingClientRect().height)')
    assert len(heights) > 30 and min(heights) >= 40, heights
    assert tab.evaluate('[...document.querySelectorAll("canvas")].every(c => getComputedStyle(c).imageRendering == "pixelated" && c.getBoundingClientRect().width >= 135)')
    overlaps = tab.evaluate('''[...document.querySelectorAll("svg.plot")].flatMap(s => { const texts = [...s.querySelectorAll("text")].map(t => t.getBoundingClientRect());
      return texts.flatMap((a, i) => texts.slice(i + 1).filter(b => a.left < b.right && b.left < a.right && a.top + 4 < b.bottom && b.top + 4 < a.bottom)) }).length''')
    assert overlaps == 0


@pytest.mark.parametrize('theme', THEMES)
def test_contrast(visit, figures, theme):
    tab = visit(*figures, theme=theme)
    tab.get_by_label('stepped once an epoch').check()
    looked, poor = tab.evaluate(CONTRAST, 'main *')
    assert looked > 40 and not poor, poor
    ink = tab.evaluate('getComputedStyle(document.querySelector("svg.plot text")).fill')
    assert ink == ('rgb(33, 37, 41)' if theme == 'light' else 'rgb(255, 255, 255)')  # the page's own
    lines = tab.evaluate('["rate", "momentum", "wrong"].map(c => getComputedStyle(document.querySelector("path." + c)).stroke)')

    def light(color):
        parts = [v/255 for v in map(int, re.findall(r'\d+', color)[:3])]
        r, g, b = (v/12.92 if v <= .03928 else ((v + .055)/1.055)**2.4 for v in parts)
        return .2126*r + .7152*g + .0722*b
    ground = 1 if theme == 'light' else light('34 34 34')
    for line in lines:
        a, b = sorted([light(line), ground])
        assert (b + .05)/(a + .05) >= 3, (line, theme)


def test_a_hidden_figure_is_drawn_when_it_is_shown(visit):
    hidden = one_cycle_figure()
    hidden.data = f'<details><summary>more</summary>{hidden.data}</details>'
    tab = visit(hidden)
    tab.locator('summary').click()
    tab.wait_for_selector('path.rate')
    check_curves(tab, OneCycle(.02, .4), 98)
    tab.set_viewport_size({'width': 390, 'height': 800})
    tab.wait_for_function('document.querySelector("path.rate").getBoundingClientRect().right < 390')
