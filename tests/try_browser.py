"""Try the tool of the page "Try it" in a real browser, against PyTorch and `read_image`: `pytest -rs tests/try_browser.py`, after the site is built."""
import io

import numpy as np
import pytest
from browser import PHONE, SITE, TOO_WIDE, WIDE, too_pale, wait_for_rest, wait_for_theme
import try_tool  # browser.py puts .ci on the path
from PIL import Image
from processes import HANG

from cifar_resnet.analysis import percent, predict
from cifar_resnet.cams import cam_maps, overlay
from cifar_resnet.data import NotFound, Split, get_data
from cifar_resnet.images import read_image
from cifar_resnet.model import load_weights

PAGE = SITE/'try.html'


@pytest.fixture(scope='module', autouse=True)
def built():
    if not PAGE.exists(): pytest.fail('the site is not built: make docs', pytrace=False)
    if 'src="try/tool.js"' in PAGE.read_text(encoding='utf-8'): return
    try: try_tool.install_runtime()
    except try_tool.Unavailable as e: pytest.skip(f'the page "Try it" was NOT tested in a browser: {e}')
    pytest.fail('the site was built without the tool of the page "Try it": make docs says why', pytrace=False)


@pytest.fixture(scope='module')
def recorded(): return load_weights('one_cycle_24')


@pytest.fixture(scope='module')
def ten():
    "Ten test images: of CIFAR-10 where it is on this machine, else of digits"
    try: return get_data('cifar10', download=False).test.images[:10]
    except NotFound: return get_data('digits').test.images[:10]


@pytest.fixture(scope='module')
def classify(recorded):
    "Return a function of images (N, 32, 32, 3): what PyTorch predicts"
    model, notes = recorded
    def classify(images): return predict(model, Split(images, np.zeros(len(images), int), np.arange(len(images)), *(tuple(notes[k]) for k in ('classes', 'mean', 'std'))), precision='float32', progress=False)
    return classify


@pytest.fixture(scope='module')
def open_page(chromium, address):
    "Return a function that opens the page; the tab notes what it asked for. At the end, nothing was logged as an error"
    contexts, wrong = [], []

    def go(load=True, **kwargs):
        context = chromium.new_context(**{'viewport': WIDE, 'color_scheme': 'light'} | kwargs)
        contexts.append(context)
        context.set_default_timeout(1000*HANG)
        tab = context.new_page()
        tab.asked = []
        tab.on('request', lambda r: tab.asked.append(r.url))
        tab.on('pageerror', lambda e: wrong.append(str(e)))
        tab.on('console', lambda m: wrong.append(m.text) if m.type == 'error' and m.location['url'].startswith(address) else None)
        tab.route(lambda url: not url.startswith((address, 'data:', 'blob:')), lambda route: route.abort())
        tab.goto(f'{address}/try.html', wait_until='load')
        if load: load_network(tab)
        return tab
    yield go
    for context in contexts: context.close()
    assert not wrong, wrong


@pytest.fixture(scope='module')
def tab(open_page): return open_page()


def load_network(tab):
    tab.get_by_role('button', name='Load the network').click()
    tab.get_by_role('button', name='Choose a picture').wait_for()
    assert status(tab) == 'The network is ready.'


def status(tab): return tab.get_by_role('status').inner_text()


def as_file(image, kind='PNG', name='picture.png', **options):
    held = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(held, kind, **options)
    return dict(name=name, mimeType=f'image/{kind.lower()}', buffer=held.getvalue())


def choose(tab, file):
    "Give the file to the tool, as the button does, and wait for its answer"
    tab.get_by_role('status').evaluate('e => e.textContent = ""')
    tab.locator('#try-tool input[type=file]').set_input_files(file)
    return answer(tab)


def answer(tab):
    tab.wait_for_function('["", "Reading the picture …"].indexOf(document.querySelector("#try-tool [role=status]").textContent) < 0')
    return status(tab)


def probabilities(tab, classes):
    found = tab.locator('#try-tool label').evaluate_all('labels => labels.map(l => [l.querySelector(".name").textContent, +l.dataset.probability, l.querySelector(".percent").textContent])')
    assert [p for _, p, _ in found] == sorted((p for _, p, _ in found), reverse=True) and [t for *_, t in found] == [percent(p) for _, p, _ in found]
    return np.array([{name: p for name, p, _ in found}[name] for name in classes])


def canvas(tab, kind):
    data = tab.locator(f'#try-tool canvas.{kind}').evaluate('c => [c.width, ...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]')
    pixels = np.array(data[1:], np.uint8).reshape(data[0], data[0], 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3]


def test_ten_images(tab, tmp_path, ten, classify, recorded):
    "Probabilities and maps of ten PNG files are those of PyTorch and of `overlay`"
    preds, classes = classify(ten), recorded[1]['classes']
    own, others = (cam_maps(preds, target) for target in ('prediction', 'frog'))
    for i, image in enumerate(ten):
        Image.fromarray(image).save(tmp_path/f'{i}.png')
        predicted = classes[preds.predicted[i]]
        assert choose(tab, tmp_path/f'{i}.png') == f'{predicted}, {percent(preds.confidence[i])}'
        assert (canvas(tab, 'pixels') == image).all()
        np.testing.assert_allclose(probabilities(tab, classes), preds.probs[i], atol=1e-3)
        for name, heat in (predicted, own[i]), ('frog', others[i]):
            tab.get_by_role('radio', name=name).check()
            caption = tab.locator('figcaption').nth(1).inner_text()
            assert caption == (f'HiResCAM: what supports {name} (red: strongly; blue: weakly)' if heat.max() > 0 else f'No pixel supports {name}')
            difference = abs(canvas(tab, 'map').astype(int) - overlay(image, heat, 256))
            assert difference.mean() < .5 and (difference > 6).mean() < .001, (i, name, difference.max())


def test_large_pictures_become_what_read_image_makes_of_them(tab, tmp_path, classify, recorded):
    "Central square, Lanczos, white behind transparent pixels; wide, high, odd and tiny pictures"
    rng = np.random.default_rng(0)
    for width, height, mode in (640, 427, 'RGB'), (300, 301, 'RGB'), (33, 32, 'RGB'), (1, 1, 'RGB'), (5, 9, 'RGB'), (90, 70, 'RGBA'), (48, 64, 'L'), (2001, 1999, 'RGB'):
        few = Image.fromarray(rng.integers(0, 256, (9, 13, 4), dtype=np.uint8))
        picture = few.resize((width, height), Image.Resampling.BICUBIC).convert(mode)
        if mode == 'RGBA': picture.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (height, width//2))))
        picture.save(tmp_path/'p.png')
        right = read_image(tmp_path/'p.png')
        choose(tab, tmp_path/'p.png')
        assert abs(canvas(tab, 'pixels').astype(int) - right).max() <= 1, (width, height, mode)
    np.testing.assert_allclose(probabilities(tab, recorded[1]['classes']), classify(right[None]).probs[0], atol=.05)


def test_orientation(tab, tmp_path):
    "A photograph that its camera marked as turned is upright"
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.repeat(np.repeat(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8), 16, 0), 16, 1))
    turned.save(tmp_path/'p.jpg', exif=exif, quality=100, subsampling=0)
    choose(tab, tmp_path/'p.jpg')
    found, right = canvas(tab, 'pixels').astype(int), read_image(tmp_path/'p.jpg').astype(int)
    assert abs(found - right).max() <= 6 and tuple(right[4, 4] > 128) == (False, False, True)


@pytest.mark.parametrize('name, content', [('notes.txt', b'hello'), ('empty.png', b''), ('cut.png', None), ('drawing.svg', b'<svg xmlns="http://www.w3.org/2000/svg"/>')])
def test_a_file_that_is_not_a_picture(tab, ten, name, content):
    "One line; the next picture works"
    good = as_file(ten[0])
    assert choose(tab, dict(name=name, mimeType='image/png', buffer=good['buffer'][:60] if content is None else content)) == f'{name} is not a picture that this browser can read.'
    assert '%' in choose(tab, good)


DROP = """
([bytes, type]) => {
  const data = new DataTransfer();
  if (bytes) data.items.add(new File([new Uint8Array(bytes)], 'own.png', {type: 'image/png'})); else data.items.add('hello', 'text/plain');
  const event = type == 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}) : new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true});
  document.querySelector('#try-tool [role=status]').textContent = '';
  document.querySelector('#try-tool').dispatchEvent(event);
  return event.defaultPrevented;
}
"""


def test_drop_and_paste(tab, ten, classify, recorded):
    preds, classes = classify(ten[:2]), recorded[1]['classes']
    for i, way in enumerate(('drop', 'paste')):
        stopped = tab.evaluate(DROP, [list(as_file(ten[i])['buffer']), way])
        assert answer(tab) == f'{classes[preds.predicted[i]]}, {percent(preds.confidence[i])}' and (canvas(tab, 'pixels') == ten[i]).all()
        assert stopped == (way == 'drop')  # the browser does not open the file
    assert tab.evaluate(DROP, [None, 'drop']) and status(tab).startswith('What you dropped is not a file')
    tab.evaluate(DROP, [None, 'paste'])
    assert status(tab) == 'The clipboard holds no picture.'


def test_only_the_last_of_many_pictures_is_shown(tab, ten, classify, recorded):
    preds = classify(ten)
    for image in ten: tab.locator('#try-tool input[type=file]').set_input_files(as_file(image))
    last = f'{recorded[1]["classes"][preds.predicted[9]]}, {percent(preds.confidence[9])}'
    tab.wait_for_function('text => document.querySelector("#try-tool [role=status]").textContent == text', arg=last)
    assert (canvas(tab, 'pixels') == ten[9]).all()


def test_nothing_is_loaded_before_the_click_and_nothing_is_needed_after(open_page, address, ten):
    tab = open_page(load=False)
    before = [url for url in tab.asked if url.startswith(address)]
    assert not [url for url in before if url.endswith(('.onnx', '.wasm', 'ort.wasm.bundle.min.mjs'))]
    load_network(tab)
    loaded = [url.rpartition('/')[2] for url in tab.asked if url.startswith(address) and url not in before]
    loaded = [name for name in loaded if name != 'favicon.svg']  # the browser asks for it when it likes
    assert len(loaded) == 3 and {name.rpartition('.')[2] for name in loaded} == {'onnx', 'wasm', 'mjs'}, loaded
    tab.context.set_offline(True)
    del tab.asked[:]
    assert '%' in choose(tab, as_file(ten[0]))
    tab.get_by_role('radio').nth(3).check()
    assert not [url for url in tab.asked if not url.endswith('/favicon.svg')]


def test_progress_and_a_failed_download(open_page, address):
    "While it loads, a bar shows how far; a failure is one line, and the button works again"
    tab = open_page(load=False)
    tab.route('**/*.onnx', lambda route: route.fulfill(body=b'x'))
    tab.get_by_role('button', name='Load the network').click()
    tab.wait_for_function('document.querySelector("#try-tool [role=status]").textContent.startsWith("The network could not be loaded")')
    assert 'is incomplete' in status(tab) and tab.get_by_role('button', name='Load the network').is_enabled() and not tab.locator('#try-tool progress').is_visible()
    tab.unroute('**/*.onnx')
    tab.evaluate('() => { window.steps = []; new MutationObserver(() => steps.push(document.querySelector("#try-tool progress").value)).observe(document.querySelector("#try-tool progress"), {attributes: true}) }')
    load_network(tab)
    steps = tab.evaluate('steps')
    assert len(steps) > 3 and max(steps) <= 1 and any(0 < s < 1 for s in steps), steps
    assert not tab.locator('#try-tool progress').is_visible()


def test_by_keyboard(open_page, ten):
    "Load, choose a file, and walk through the classes without a mouse"
    tab = open_page(load=False)
    tab.get_by_role('button', name='Load the network').focus()
    tab.keyboard.press('Enter')
    tab.get_by_role('button', name='Choose a picture').wait_for()
    assert tab.evaluate('document.activeElement.textContent') == 'Choose a picture'
    with tab.expect_file_chooser() as chooser: tab.keyboard.press('Enter')
    chooser.value.set_files(as_file(ten[0]))
    tab.get_by_role('radio').first.wait_for()
    tab.keyboard.press('Tab')
    assert tab.get_by_role('radio').first.evaluate('r => r == document.activeElement && r.checked')
    before = canvas(tab, 'map')
    tab.keyboard.press('ArrowDown')
    assert tab.get_by_role('radio').nth(1).is_checked() and (canvas(tab, 'map') != before).any()
    second = tab.locator('#try-tool .name').nth(1).inner_text()
    assert second in tab.locator('#try-tool canvas.map').get_attribute('aria-label')


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_it_is_readable(open_page, ten, theme):
    "Contrast in both themes, with the answer on the page; nothing sticks out on a phone, and targets are large enough for a finger"
    tab = open_page(color_scheme=theme)
    choose(tab, as_file(ten[0]))
    if theme == 'dark': wait_for_theme(tab, theme)
    assert not too_pale(tab, '#try-tool *')
    tab.set_viewport_size(PHONE)
    wait_for_rest(tab)
    assert not tab.evaluate(TOO_WIDE)
    assert not tab.evaluate('[...document.querySelectorAll("#try-tool button, #try-tool label")].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 40).map(e => e.textContent)')
