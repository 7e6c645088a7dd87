"""Try the built site in a real browser: errors, links, search, themes, keyboard, copying, widths, weight.

`make test-site` builds it first; `make check-site` takes the one in _docs, or in the folder that CIFAR_RESNET_SITE names.
"""
import contextlib
import functools
import html
import http.server
import io
import os
import pprint
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from nbdev.config import get_config
from PIL import Image
from processes import HANG

ROOT = Path(__file__).resolve().parent.parent
SITE = Path(os.environ.get('CIFAR_RESNET_SITE') or ROOT/'_docs')
sys.path.insert(0, str(ROOT/'.ci'))
import cells  # noqa: E402
import figures  # noqa: E402

PAGES = sorted(p.name for p in SITE.glob('*.html') if p.name != '404.html')
REFERENCE = [p for p in PAGES if p.startswith('reference-')]  # a page for each module, beside those of notebooks
BASE = f'{get_config().doc_baseurl.rstrip("/")}/'
WIDE, PHONE = {'width': 1280, 'height': 900}, {'width': 375, 'height': 800}
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']


def page_of(notebook):
    "Return the page of a notebook: 00_data.ipynb → data.html"
    return re.sub(r'^\d+[a-z]?_', '', notebook).replace('.ipynb', '.html')


def in_order():
    "Return the pages in the order of _quarto.yml"
    def hrefs(entries):
        for e in entries:
            if 'href' in e: yield page_of(e['href'])
            yield from hrefs(e.get('contents', []))
    return list(hrefs(yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']))


def installed_by_debian():
    if not (shutil.which('apt-get') and os.geteuid() == 0): return None
    for command in (['apt-get', '-qq', 'update'], ['apt-get', '-qq', '-y', 'install', 'chromium']):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}, timeout=HANG)
    return shutil.which('chromium')


def installed_by_playwright():
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([sys.executable, '-m', 'playwright', 'install', 'chromium-headless-shell'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=HANG)


def start(playwright):
    "Start Chromium: an installed one, or install Debian's, or Playwright's"
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
    path = next(filter(None, map(shutil.which, names)), None) or installed_by_debian()
    from playwright.sync_api import Error
    if path:
        with contextlib.suppress(Error): return playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=1000*HANG)
    for attempt in lambda: None, installed_by_playwright:
        attempt()
        with contextlib.suppress(Error): return playwright.chromium.launch(args=FLAGS, timeout=1000*HANG)
    pytest.skip('Chromium not found, and it could not be installed: the site was NOT tested in a browser')


class Quiet(http.server.SimpleHTTPRequestHandler):
    "Serve the site as it is published: also below the name of the repository, and with its own page for addresses that lead nowhere"
    def log_message(self, *args): pass

    def translate_path(self, path): return super().translate_path('/' + path.removeprefix(BASE))

    def send_error(self, code, *args):
        if code != 404 or not (SITE/'404.html').exists(): return super().send_error(code, *args)
        page = (SITE/'404.html').read_bytes()
        self.send_response(404)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.send_header('Content-Length', str(len(page)))
        self.end_headers()
        self.wfile.write(page)


@contextlib.contextmanager
def serve():
    "Serve the built site; give its address"
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown()


@pytest.fixture
def visit(chromium, address):
    "Open a page, without the internet; the tab collects errors in our own files, and their size"
    contexts = []

    def go(page, theme='light'):
        context = chromium.new_context(viewport=WIDE, color_scheme=theme)
        contexts.append(context)
        context.set_default_timeout(1000*HANG)
        context.grant_permissions(['clipboard-read', 'clipboard-write'], origin=address)
        context.route(lambda url: not url.startswith((address, 'data:')), lambda route: route.abort())
        tab = context.new_page()
        tab.wrong, tab.weight = [], 0

        def seen(response):
            if response.status >= 400: tab.wrong.append(f'{response.status} {response.url}')
            elif response.url.startswith(address): tab.weight += int(response.headers.get('content-length', 0))
        tab.on('pageerror', lambda e: tab.wrong.append(str(e)))
        tab.on('console', lambda m: tab.wrong.append(f"{m.text} {m.location['url']}") if m.type == 'error' and m.location['url'].startswith(address) else None)
        tab.on('response', seen)
        tab.goto(f'{address}/{page}', wait_until='load')
        return tab
    yield go
    for context in contexts: context.close()


def test_there_is_a_page_for_every_notebook():
    notebooks = sorted(page_of(p.name) for p in (ROOT/'nbs').glob('*.ipynb'))
    assert sorted(set(PAGES) - set(REFERENCE)) == notebooks == sorted(in_order())


def wait_for_rest(tab):
    "Wait until the page is laid out and its transitions are over"
    tab.evaluate("""async () => {
      for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
      await Promise.allSettled(document.getAnimations().filter(a => a instanceof CSSTransition).map(a => a.finished));
    }""")


def wait_for_theme(tab, theme):
    tab.wait_for_function(f'document.documentElement.classList.contains("quarto-{theme}")')
    wait_for_rest(tab)


def background(tab): return tab.evaluate('getComputedStyle(document.body).backgroundColor')


def brightness(color): return sum(map(int, re.findall(r'\d+', color)[:3]))/3


CLEAR = """
async () => {  // share of the pixels of each figure that a page behind it would shine through, or that are not readable on white
  const bad = [];
  for (const img of document.querySelectorAll(".cell-output-display img.img-fluid:not(.figure-dark)")) {
    img.loading = "eager"; await img.decode();
    const c = document.createElement("canvas"); c.width = img.naturalWidth; c.height = img.naturalHeight;
    const g = c.getContext("2d"); g.drawImage(img, 0, 0);
    const p = g.getImageData(0, 0, c.width, c.height).data;
    let holes = 0;
    for (let i = 3; i < p.length; i += 4) if (p[i] < 255) holes++;
    if (holes) bad.push(img.alt.slice(0, 40));
  }
  return bad;
}
"""


TEXTS = 'main *, nav a, nav span, nav button, #TOC a'
CONTRAST = r"""
which => {
  const parse = c => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4 }); return .2126*r + .7152*g + .0722*b };
  const over = (top, alpha, below) => top.map((v, i) => alpha*v + (1 - alpha)*below[i]);
  const behind = e => { const seen = []; for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor), a = c.length < 4 ? 1 : c[3]; if (a > 0) seen.push([c.slice(0, 3), a]); if (a > .99) break } return seen.reduceRight((below, [c, a]) => over(c, a, below), [255, 255, 255]) };
  const opacity = e => { let o = 1; for (; e; e = e.parentElement) o *= parseFloat(getComputedStyle(e).opacity); return o };
  const poor = new Set(); let looked = 0;
  for (const e of document.querySelectorAll(which)) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    looked++;
    const style = getComputedStyle(e), ground = behind(e), ink = parse(style.color);
    const seen = over(ink.slice(0, 3), (ink.length > 3 ? ink[3] : 1)*opacity(e), ground), a = light(seen), b = light(ground);
    const ratio = (Math.max(a, b) + .05)/(Math.min(a, b) + .05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.add(`${ratio.toFixed(1)} ${e.tagName}.${e.className} ${seen.map(Math.round)} on ${ground.map(Math.round)}`);
  }
  return [looked, [...poor].slice(0, 12)];
}
"""


BROKEN = '[...document.images].filter(i => i.complete && !i.naturalWidth && (i.src.startsWith("data:") || i.src.startsWith(location.origin))).map(i => i.src.slice(0, 80))'
SILENT = '[...document.querySelectorAll("main img, #quarto-document-content img")].filter(i => !i.alt.trim()).map(i => i.src.slice(0, 60))'
BARE = '[...document.querySelectorAll(".cell-output-display img")].filter(i => !i.closest("figure")?.querySelector("figcaption")?.innerText.trim()).map(i => i.alt.slice(0, 60))'
FADED = '[...document.querySelectorAll(".cell-output-display img")].filter(i => getComputedStyle(i).filter.includes("invert") || getComputedStyle(i).opacity != "1").map(i => i.alt.slice(0, 60))'


TOO_WIDE = """
(() => {  // what sticks out, and cannot be scrolled to inside a frame of its own
  const scrolls = e => { for (; e && e.tagName != "MAIN" && e.tagName != "BODY"; e = e.parentElement) if (["auto", "scroll"].includes(getComputedStyle(e).overflowX)) return true; return false };
  return [...document.querySelectorAll("main *")].filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e)).map(e => e.tagName + ": " + e.textContent.slice(0, 30)).slice(0, 5);
})()
"""


SMALL = """
[...document.querySelectorAll("figure.figure img.img-fluid")].filter(i => i.checkVisibility()).filter(i => {  // on a phone: too small to read, or cut off without a hint
  const frame = i.parentElement, hint = getComputedStyle(i.closest("figure").querySelector("figcaption") || frame, "::after").content;
  return i.getBoundingClientRect().width < .65*i.getAttribute("width") || frame.scrollWidth > frame.clientWidth + 1 && !(["auto", "scroll"].includes(getComputedStyle(frame).overflowX) && hint.includes("→"));
}).map(i => i.alt.slice(0, 60))
"""
WRAPPED = '[...document.querySelectorAll("main pre.sourceCode code")].filter(c => c.checkVisibility() && getComputedStyle(c).whiteSpace != "pre").map(c => c.textContent.slice(0, 40)).slice(0, 5)'


def broken_links(tab, address):
    links = {l for l in tab.evaluate('[...document.querySelectorAll("a[href]")].map(a => a.href)') if l.startswith(address)}
    def leads_nowhere(link):
        target, _, anchor = link[len(address) + 1:].partition('#')
        file = SITE/(target or 'index.html')
        return not file.exists() or anchor and f'id="{anchor}"' not in file.read_text(encoding='utf-8')
    return ['hardly a link'] if len(links) < 10 else sorted(filter(leads_nowhere, links))


def too_pale(tab, which=TEXTS):
    looked, poor = tab.evaluate(CONTRAST, which)
    return ['hardly a word'] if looked < 15 else poor


@pytest.mark.parametrize('page', PAGES)
def test_page(visit, page, address):
    tab, found = visit(page), {}
    found['broken images'] = tab.evaluate(BROKEN)
    found['links that lead nowhere'] = broken_links(tab, address)
    found['figures without a description'] = tab.evaluate(SILENT)
    found['figures that the page shines through, so not legible in the dark'] = tab.evaluate(CLEAR)
    found['contrast below AA, light'] = too_pale(tab)
    tab.emulate_media(color_scheme='dark')
    wait_for_theme(tab, 'dark')
    found['not dark'] = [background(tab)] if brightness(background(tab)) > 80 else []
    found['contrast below AA, dark'] = too_pale(tab)
    found['figures that fade in the dark'] = tab.evaluate(FADED)
    tab.set_viewport_size(PHONE)
    tab.wait_for_function(f'innerWidth == {PHONE["width"]}')
    wait_for_rest(tab)
    found['wider than a phone'] = tab.evaluate(TOO_WIDE)
    found['figures that cannot be read on a phone'] = tab.evaluate(SMALL)
    found['code that loses its indentation on a phone'] = tab.evaluate(WRAPPED)
    found['megabytes'] = [] if 5e3 < tab.weight < 2e6 else [tab.weight/1e6]
    if page not in REFERENCE and page.removesuffix('.html') not in cells.WITHOUT: found['badges'] = [] if tab.locator('a[href^="https://colab.research.google.com/github/"] img').count() == 1 else ['not one']
    if page not in REFERENCE and page.removesuffix('.html') not in ('index', 'glossary', 'reference', 'teaching'): found['figures without a caption'] = tab.evaluate(BARE)
    found['errors'] = tab.wrong
    if found := {what: where for what, where in found.items() if where}: pytest.fail(pprint.pformat(found), pytrace=False)


def seen(tab, image, apart=False):
    "Return the pixels of an image as the browser shows it: in its place, or `apart`, at its own size in the corner of the window"
    image.evaluate('async i => { i.loading = "eager"; i.scrollIntoView({block: "center", behavior: "instant"}); await i.decode() }')
    if apart: image.evaluate('i => { i.style.cssText += "; position: fixed; top: 0; left: 0; z-index: 9999; width: auto; max-width: none" }')
    wait_for_rest(tab)
    pixels = np.asarray(Image.open(io.BytesIO(image.screenshot())).convert('RGB')).astype(int)
    if apart: image.evaluate('i => { i.style.position = i.style.top = i.style.left = i.style.zIndex = i.style.width = i.style.maxWidth = "" }')
    return pixels


@pytest.mark.parametrize('page', [p for p in PAGES if 'figure-dark' in (SITE/p).read_text(encoding='utf-8')])
def test_figures_are_at_home_in_both_themes(visit, page):
    "No white slab in the dark; a photograph is the same in both themes; one of the two pictures loads"
    light, dark = visit(page), visit(page, theme='dark')
    for tab in light, dark: tab.set_viewport_size({'width': 1600, 'height': 1600})  # the frames scroll, the bars stay out of the way
    wait_for_theme(dark, 'dark')
    assert not light.locator('.figure-dark:visible').count() and not dark.locator('.figure-light:visible').count()
    page_color = np.array([int(v) for v in re.findall(r'\d+', background(dark))[:3]])
    assert abs(page_color - figures.GROUND).max() <= 1
    pairs = list(zip(light.locator('.figure-light').all(), dark.locator('.figure-dark').all(), strict=True))
    for bright, dim in pairs:
        files = [SITE/i.get_attribute('src') for i in (bright, dim)]
        before, after = (np.asarray(Image.open(f).convert('RGB')).astype(int) for f in files)
        boxes = figures.boxes_of(files[0].read_bytes())
        for x0, y0, x1, y1 in boxes: assert (before[y0:y1, x0:x1] == after[y0:y1, x0:x1]).all()
        in_place = seen(dark, dim)
        for corner in (2, 2), (2, -3), (-3, 2), (-3, -3):
            assert abs(in_place[corner] - page_color).max() <= 3, (dim.get_attribute('alt'), corner, in_place[corner])
        on_white, on_dark = seen(light, bright, apart=True), seen(dark, dim, apart=True)
        assert on_white.shape == on_dark.shape == before.shape
        for x0, y0, x1, y1 in boxes: assert (on_white[y0:y1, x0:x1] == on_dark[y0:y1, x0:x1]).all(), dim.get_attribute('alt')


def test_an_entry_of_the_api(visit):
    "A link leads to its heading; below it one line, and a fold with the parameters and then the source"
    tab = visit('model.html#save_weights')
    heading = tab.locator('h3[data-anchor-id="save_weights"]')
    tab.wait_for_function('(h => h && h.getBoundingClientRect().top >= 0 && h.getBoundingClientRect().top < innerHeight)(document.getElementById("save_weights"))')  # it scrolls smoothly
    assert heading.count() == 1
    fold = heading.locator('xpath=following-sibling::details[1]')
    assert fold.locator('summary').inner_text().startswith('save_weights(model, path') and not fold.evaluate('d => d.open')
    assert not fold.locator('pre').is_visible() and heading.locator('xpath=following-sibling::p[1]').is_visible()
    fold.locator('summary').focus()
    tab.keyboard.press('Enter')
    table, source = fold.locator('table'), fold.locator('pre')
    assert 'def save_weights(' in source.inner_text() and table.locator('tbody tr').count() >= 4
    assert table.bounding_box()['y'] < source.bounding_box()['y']


def test_next_and_previous_follow_the_sidebar(visit):
    order = in_order()
    for page, following in zip(order, order[1:]):
        assert visit(page).locator('.nav-page-next a').get_attribute('href').removeprefix('./') == following
    assert visit(order[-1]).locator('.nav-page-previous a').get_attribute('href').removeprefix('./') == order[-2]


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_search_finds_grad_cam(visit, theme):
    tab = visit('index.html', theme=theme)
    tab.keyboard.press('/')  # by keyboard alone
    tab.keyboard.type('Grad-CAM')
    # every key starts a search; only the search for the whole word marks the whole word
    tab.wait_for_function('[...document.querySelectorAll(".smalldocs-search-results mark")].some(m => m.textContent.toLowerCase() == "grad-cam")')
    found = tab.evaluate('[...document.querySelectorAll(".smalldocs-search-results a")].map(a => a.getAttribute("href"))')
    assert too_pale(tab, '.smalldocs-search-results *') == []
    assert any('analysis.html' in f for f in found), found
    tab.keyboard.press('ArrowDown')
    tab.keyboard.press('Enter')
    tab.wait_for_url(lambda url: not url.endswith('index.html'), wait_until='load')
    assert './' + tab.url.rpartition('/')[2] in found and 'Grad-CAM' in tab.inner_text('body')


def test_search_finds_nothing_where_nothing_is(visit):
    tab = visit('index.html')
    tab.fill('input[type=search]', 'xylophone')
    tab.wait_for_selector('.search-none')


def test_the_switch_changes_the_theme(visit):
    tab = visit('data.html')
    light = background(tab)
    tab.click('.quarto-color-scheme-toggle')
    wait_for_theme(tab, 'dark')
    dark = background(tab)
    assert brightness(light) > 200 > 80 > brightness(dark)
    tab.reload()
    wait_for_rest(tab)
    assert background(tab) == dark  # the site remembers the choice


def test_every_stop_of_the_keyboard_can_be_seen(visit):
    tab = visit('data.html')
    stops = []
    for _ in range(25):
        tab.keyboard.press('Tab')
        stops.append(tab.evaluate('(() => { const e = document.activeElement, s = getComputedStyle(e); return [e.tagName + "." + e.className, s.outlineStyle != "none" && parseFloat(s.outlineWidth) > 0 || s.boxShadow != "none", e.getBoundingClientRect().width > 0] })()'))
    assert all(marked and shown for _, marked, shown in stops), stops
    assert any('color-scheme-toggle' in name for name, *_ in stops) and any(name.startswith('INPUT') for name, *_ in stops)


def test_a_folded_cell_opens(visit):
    tab = visit('data.html')
    fold = tab.locator('details').first
    assert not fold.evaluate('d => d.open')
    fold.locator('summary').focus()
    tab.keyboard.press('Enter')
    assert fold.evaluate('d => d.open')


def test_copy(visit):
    tab = visit('index.html')
    code = tab.locator('pre.sourceCode, div.sourceCode pre').first
    code.hover()
    tab.locator('.code-copy-button').first.click()
    copied = tab.wait_for_function('async () => (await navigator.clipboard.readText()).trim()').json_value()
    assert copied in code.inner_text()


@pytest.mark.parametrize('page', PAGES)
def test_formulas_can_be_read_without_the_internet(page):
    text = (SITE/page).read_text(encoding='utf-8')
    assert 'math inline' not in text and 'math display' not in text and 'katex' not in text


@pytest.mark.parametrize('typed, page', [
    ('predict my own image', 'questions.html#predict-my-own-image'), ('custom dataset', 'questions.html#train-on-a-custom-dataset'), ('resume training', 'questions.html#resume-training'),
    ('early stopping', 'questions.html#early-stopping'), ('gpu', 'questions.html#use-a-gpu'), ('colab', 'questions.html#use-colab'), ('Grad-CAM', None)])
def test_search_answers_what_people_type(visit, typed, page):
    tab = visit('index.html')
    with tab.expect_response('**/search.json'): tab.click('input[type=search]')
    tab.fill('input[type=search]', typed)
    tab.wait_for_selector('.smalldocs-search-results a')
    found = tab.evaluate('[...document.querySelectorAll(".smalldocs-search-results a")].map(a => a.getAttribute("href").replace("./", ""))')
    if page: assert found[0] == page, found[:5]
    assert tab.evaluate(CONTRAST, '.smalldocs-search-results *')[1] == []


def test_every_page_has_a_card_an_icon_and_a_description():
    icons, cards = set(), set()
    for page in PAGES:
        head = (SITE/page).read_text(encoding='utf-8').partition('</head>')[0]
        def meta(name): return html.unescape((re.search(rf'<meta [^>]*(?:property|name)="{name}"[^>]*>', head) or [''])[0].partition('content="')[2].partition('"')[0])
        assert len(meta('og:title')) > 2 and len(meta('og:description')) > 15 and meta('description') == meta('og:description'), page
        icons.add(re.search(r'<link [^>]*rel="icon"[^>]*>', head)[0].partition('href="')[2].partition('"')[0])
        cards.add(meta('og:image'))
    (icon,), (card,) = icons, cards
    assert '<svg' in (SITE/icon).read_text() and card.startswith(get_config().doc_host + BASE)
    with Image.open(SITE/card.removeprefix(get_config().doc_host + BASE)) as image: assert image.size == (1200, 630)
    assert (SITE/card.removeprefix(get_config().doc_host + BASE)).stat().st_size < 200_000


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_the_first_stop_of_the_keyboard_skips_to_the_content(visit, theme):
    tab = visit('data.html', theme=theme)
    tab.keyboard.press('Tab')
    wait_for_rest(tab)
    link = tab.locator('a.skip-link')
    assert link.evaluate('a => a == document.activeElement && a.getBoundingClientRect().top >= 0') and link.inner_text() == 'Skip to content'
    assert tab.evaluate(CONTRAST, 'a.skip-link') == [1, []]
    tab.keyboard.press('Enter')
    tab.wait_for_function('document.activeElement.tagName == "MAIN"')
    tab.keyboard.press('Tab')
    assert tab.evaluate('document.activeElement.closest("main") != null')


def in_repository(address):
    "Return the path of a file that a link to the repository names"
    cfg = get_config()
    kind = re.match(rf'{re.escape(cfg.git_url)}/(?:edit|blob)/{cfg.branch}/(.+)', address)
    return kind and ROOT/kind[1]


@pytest.mark.parametrize('page', ['data.html', 'index.html', 'core.html', 'reference-train.html'])
def test_links_to_the_repository_name_files_that_exist(visit, page):
    tab = visit(page)
    assert tab.locator(f'nav.navbar a[href="{get_config().git_url}"]').get_attribute('aria-label')
    edit = tab.get_by_role('link', name='Edit this page')
    assert edit.count() == 1 and in_repository(edit.get_attribute('href')).is_file()
    if page == 'data.html': assert edit.get_attribute('href').endswith('/nbs/00_data.ipynb')


@pytest.mark.parametrize('page', REFERENCE)
def test_a_page_of_the_reference_is_the_api_alone(visit, page):
    "No code and no folds; beside each name its source and its place in the course; the contents list the names"
    tab = visit(page)
    assert tab.locator('main details, main pre').count() == 0
    names = tab.locator('main h3').all_inner_texts()
    assert [t.removeprefix('#') for t in tab.evaluate('[...document.querySelectorAll("#TOC a")].map(a => a.getAttribute("href"))')] == [n.lower() for n in names]
    links = tab.locator('main .entry-links')
    assert links.count() == len(names)
    for link in links.locator('a[aria-label^="source of"]').all(): assert in_repository(link.get_attribute('href')).is_file()
    assert tab.locator('main h1').inner_text() == 'cifar_resnet.' + page.removeprefix('reference-').removesuffix('.html')


def test_the_reference_lists_every_module(visit):
    tab = visit('reference.html')
    listed = {h for h in tab.evaluate('[...document.querySelectorAll("main table a")].map(a => a.getAttribute("href"))') if '#' not in h}
    modules = {p.stem for p in (ROOT/'cifar_resnet').glob('*.py') if p.stem[0] != '_'} - {'all'}
    assert set(REFERENCE) <= listed and tab.locator('main details, main pre').count() == 0
    assert {f'reference-{m}.html' for m in modules} == set(REFERENCE)


def test_older_links_to_a_function_lead_to_its_page(visit):
    visit('reference.html#fit').wait_for_url('**/reference-train.html#fit')


@pytest.mark.parametrize('lost', ['nowhere.html', 'far/away/nowhere.html'])
def test_an_address_that_leads_nowhere(visit, address, lost):
    tab = visit('index.html')
    assert tab.goto(f'{address}{BASE}{lost}').status == 404
    assert tab.locator('h1').inner_text() == 'Page not found' and brightness(background(tab)) > 200
    tab.wait_for_function('typeof window.smalldocsMath == "function"')
    assert all('nowhere' in w for w in tab.wrong), tab.wrong
    tab.get_by_role('link', name='The course begins here').click()
    tab.wait_for_url('**/index.html')
    assert tab.locator('h1').inner_text() != 'Page not found'


@pytest.mark.parametrize('module, function', [('data', 'get_data'), ('train', 'fit'), ('analysis', 'predict')])
def test_functions_have_tables_of_their_parameters(visit, module, function):
    tab = visit(f'reference-{module}.html')
    assert tab.locator(f'h3[data-anchor-id="{function}"]').count() == 1
    table = tab.locator(f'xpath=//h3[@data-anchor-id="{function}"]/following::table[1]')
    assert table.locator('th').all_inner_texts() == ['Parameter', 'Type', 'Default', 'What it is']
    rows = [row.locator('td').all_inner_texts() for row in table.locator('tbody tr').all()]
    assert len(rows) > 4 and all(kind for _, kind, *_ in rows), rows
