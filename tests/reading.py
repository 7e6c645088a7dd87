"""Measure how pages read: where the first picture begins, how much code stands before it, length, weight, headings, sentences.

`make test-site` builds the site first and then runs this file with pytest. `python tests/reading.py` prints a table, page × measures.
"""
import ast
import contextlib
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from browser import PAGES, SITE, page_of, serve, start, wait_for_rest

NOTEBOOKS = Path(__file__).resolve().parent.parent/'nbs'
# A new notebook goes into one of these two lists.
MEASURED = ['index.ipynb', 'quickstart.ipynb', '00_data.ipynb', '01_model.ipynb', '02_lr_finder.ipynb', '03_one_cycle.ipynb', 'probing.ipynb', '05_recipes.ipynb',
            '07_scale.ipynb', 'own_images.ipynb', 'exercises.ipynb', 'glossary.ipynb', 'pitfalls.ipynb', 'results.ipynb', 'teaching.ipynb']
NOT_YET = {'04_analysis.ipynb', '06_speed.ipynb', 'anatomy.ipynb', 'cams.ipynb', 'card.ipynb', 'checkpoint.ipynb', 'cli.ipynb', 'commands.ipynb',
           'compare.ipynb', 'console.ipynb', 'core.ipynb', 'datasets.ipynb', 'device.ipynb', 'embed.ipynb', 'explore.ipynb', 'export.ipynb', 'fetch.ipynb',
           'hub.ipynb', 'interactive.ipynb', 'loggers.ipynb', 'promises.ipynb', 'published.ipynb', 'questions.ipynb', 'records.ipynb', 'reference.ipynb',
           'report.ipynb', 'settings.ipynb', 'try.ipynb'}
WIDTH = 1400
MOST = {'first picture': 1000, 'code before it': 35, 'height': 14_000, 'weight': 2.0, 'words': 35}
UNITS = {'first picture': 'px from the top', 'code before it': 'lines', 'height': 'px', 'weight': 'MB'}
TICS = ['mended', 'anew', 'owed', 'whoever', 'thereby', 'images a second', 'is none', 'is no file', 'of no use any more', 'what spoke for', 'to the bit', 'stands there', 'on its way']
TIC = re.compile(r'\b(' + '|'.join(t.replace(' ', r'\s+') for t in TICS).replace('none', '(?-i:none)') + r')\b', re.I)  # `is None` is code


# --- the sources --------------------------------------------------------------------------------------------------

def prose(markdown):
    "Return the paragraphs and list items of a Markdown text: without code, tables and HTML, links as their text"
    text = re.sub(r'(?ms)^\s*(```|~~~).*?^\s*\1\s*$', '\n\n', markdown)
    text = re.sub(r'<!--.*?-->', '', text, flags=re.S)
    text = re.sub(r'</?(summary|details|p|div|li|br|figcaption)\b[^>]*>', '\n\n', text)
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', text)
    text = re.sub(r'`[^`]*`', 'code', text)
    text = re.sub(r'<[^>]+>', '', text)
    lines = ['' if line.lstrip().startswith('|') else line for line in text.splitlines()]
    text = '\n'.join(re.sub(r'^\s*(#+|>|[-*+]|\d+[.)])\s+', '\n\n', line) + ('\n' if line.startswith('#') else '') for line in lines)
    return [' '.join(block.split()) for block in re.split(r'\n\s*\n', text) if block.strip()]


def sentences(markdown):
    "Yield the sentences of a Markdown text, split at . ! ? :"
    for block in prose(markdown):
        for sentence in re.split(r'(?<=[.!?:])["\')*_”]*\s+', block):
            if re.search(r'\w', sentence): yield sentence


def words(sentence): return len(re.findall(r'[^\W_](?:[\w’\'.,×%-]*\w)?', sentence))


def texts_of_code(source):
    "Yield (what it is, text) for the captions, docstrings, docments and messages of a code cell"
    options = '\n'.join(line[2:] for line in source.splitlines() if line.startswith('#|') and ':' in line)
    with contextlib.suppress(yaml.YAMLError):
        for name, value in (yaml.safe_load(options) or {}).items():
            if name in ('fig-cap', 'fig-alt', 'tbl-cap', 'code-summary'): yield name, str(value)
    try: tree = ast.parse(source)
    except SyntaxError: return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if doc := ast.get_docstring(node): yield f'docstring of {node.name}', doc
            inner = isinstance(node, ast.ClassDef)
            marked = {n.end_lineno for n in node.body if isinstance(n, ast.AnnAssign)} if inner else set(range(node.lineno, node.body[0].lineno + 1))
            for i in sorted(marked):
                if comment := re.search(r'(?:^|\s)#(?!\|) ?(.+)', lines[i - 1]): yield f'docment of {node.name}', comment[1]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for arg in node.exc.args:
                parts = [n.value if isinstance(n, ast.Constant) else 'x' for n in (arg.values if isinstance(arg, ast.JoinedStr) else [arg])]
                if all(isinstance(p, str) for p in parts) and ' ' in (text := ''.join(parts)): yield 'message', text


def texts(nb):
    "Yield (place, text) for all that a notebook says in words"
    for n, cell in enumerate(nb['cells']):
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': yield f'cell {n}', source
        elif cell['cell_type'] == 'code': yield from ((f'cell {n}, {what}', text) for what, text in texts_of_code(source))


def long_sentences(nb):
    "Return the sentences of a notebook that are too long, with their places"
    found = ((place, words(s), s) for place, text in texts(nb) for s in sentences(text))
    return [f'{place}: a sentence of {n} words: {s[:70]}…' for place, n, s in found if n > MOST['words']]


def tics(nb):
    "Return the tics of a notebook, in words and in code, with their places"
    return [f'cell {n}: “{m[0]}”' for n, cell in enumerate(nb['cells']) for m in TIC.finditer(''.join(cell['source']))]


def read(name): return json.loads((NOTEBOOKS/name).read_text(encoding='utf-8'))


# --- the page -----------------------------------------------------------------------------------------------------

def soup(html):
    from bs4 import BeautifulSoup
    return BeautifulSoup(html, 'html.parser')


def is_heading(tag): return bool(re.fullmatch(r'h[1-6]', tag.name or ''))


def heading_faults(html):
    "Return what is wrong with the API headings of a page: one that heads nothing, or stands below its code"
    page, faults = soup(html), []
    tags = list(page.find_all(True))
    at = {id(tag): i for i, tag in enumerate(tags)}
    for heading in page.select('.cell-output-markdown h2, .cell-output-markdown h3, .cell-output-markdown h4'):
        name = heading.get_text().strip()
        following = heading.find_next_sibling(lambda tag: tag.get_text().strip() != '')
        if following is None or is_heading(following): faults.append(f'“{name}” heads nothing')
        if not re.fullmatch(r'\w+', name): continue
        code = next((pre for pre in page.select('pre') if re.search(rf'^(?:async )?(?:def|class) {name}\b', pre.get_text(), re.M)), None)
        if code is not None and at[id(code)] < at[id(heading)]: faults.append(f'“{name}” stands below its code')
    return faults


def is_picture(tag):
    if tag.name == 'img': return 'colab-badge' not in tag.get('src', '')
    return tag.name in ('svg', 'canvas', 'iframe') or tag.name == 'form' and tag.find_parent(class_='cell-output-display') is not None


def code_before_picture(html):
    "Return how many lines of code are visible before the first picture, folds closed; all of them where there is no picture"
    page, lines = soup(html), 0
    for tag in (page.find('main') or page).find_all(True):
        if any(p.name == 'details' and not p.has_attr('open') for p in tag.parents): continue
        if is_picture(tag): break
        if tag.name == 'pre' and 'sourceCode' in tag.get('class', []): lines += len(tag.get_text().strip('\n').splitlines())
    return lines


FIRST = """
() => {
  const shown = e => { const b = e.getBoundingClientRect(); return e.checkVisibility() && b.width >= 100 && b.height >= 60 };
  const tops = [...document.querySelectorAll('main img, main svg, main canvas, main iframe, main .cell-output-display form')]
    .filter(e => !(e.src || '').includes('colab-badge') && shown(e)).map(e => e.getBoundingClientRect().top + scrollY);
  return tops.length ? Math.min(...tops) : null;
}
"""
SCROLL = """
async () => {  // lazy pictures load when they come into view
  const pause = ms => new Promise(r => setTimeout(r, ms));
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight/2) { scrollTo({top: y, behavior: 'instant'}); await pause(40) }
  scrollTo({top: 0, behavior: 'instant'});
  const late = () => [...document.images].filter(i => i.src.startsWith(location.origin) && i.checkVisibility() && !i.complete);
  for (let n = 0; n < 100 && late().length; n++) await pause(50);
}
"""


def measure(browser, base, page):
    "Return the measures of a built page, folds closed"
    context = browser.new_context(viewport={'width': WIDTH, 'height': 900}, color_scheme='light')
    try:
        context.route(lambda url: not url.startswith((base, 'data:')), lambda route: route.abort())
        tab, sizes = context.new_page(), []
        tab.on('response', lambda r: sizes.append(int(r.headers.get('content-length', 0))) if r.url.startswith(base) else None)
        tab.goto(f'{base}/{page}', wait_until='load')
        tab.evaluate(SCROLL)
        wait_for_rest(tab)
        html = (SITE/page).read_text(encoding='utf-8')
        return {'first picture': tab.evaluate(FIRST), 'code before it': code_before_picture(html), 'height': tab.evaluate('document.documentElement.scrollHeight'),
                'weight': sum(sizes)/1e6, 'headings': heading_faults(html)}
    finally: context.close()


def too_much(page, found):
    "Return what is over its limit, each with page, place and number"
    lines = [f'{page}: {what}: {found[what]:,.6g} {UNITS[what]}, at most {MOST[what]:,g}' for what in UNITS if found[what] is not None and found[what] > MOST[what]]
    if found['first picture'] is None: lines.append(f'{page}: no picture')
    return lines + [f'{page}: heading {fault}' for fault in found['headings']]


@pytest.mark.parametrize('page', PAGES)
def test_headings(page):
    if found := heading_faults((SITE/page).read_text(encoding='utf-8')): pytest.fail('\n'.join(f'{page}: heading {f}' for f in found), pytrace=False)


@pytest.mark.parametrize('name', MEASURED)
def test_words(name):
    nb = read(name)
    if found := long_sentences(nb) + tics(nb): pytest.fail('\n'.join(f'{name}, {f}' for f in found), pytrace=False)


@pytest.mark.parametrize('name', MEASURED)
def test_page(chromium, address, name):
    if found := too_much(page_of(name), measure(chromium, address, page_of(name))): pytest.fail('\n'.join(found), pytrace=False)


def main(names):
    from playwright.sync_api import sync_playwright
    names, faults = names or MEASURED, []
    print(f'{"page":<20}{"picture, px":>12}{"code before":>12}{"height, px":>12}{"MB":>7}{"headings":>10}{"long":>6}{"tics":>6}')
    with serve() as base, sync_playwright() as p:
        try: browser = start(p)
        except pytest.skip.Exception as e: return print(e)
        for name in names:
            if not (SITE/page_of(name)).exists() or not (NOTEBOOKS/name).exists():
                print(f'{page_of(name):<20} not built')
                continue
            found, nb = measure(browser, base, page_of(name)), read(name)
            long, habits = long_sentences(nb), tics(nb)
            first = '–' if found['first picture'] is None else f"{found['first picture']:.0f}"
            print(f"{page_of(name):<20}{first:>12}{found['code before it']:>12}{found['height']:>12,}{found['weight']:>7.2f}{len(found['headings']):>10}{len(long):>6}{len(habits):>6}")
            faults += too_much(page_of(name), found) + [f'{name}, {f}' for f in long + habits]
        browser.close()
    print('\n'.join(['', *faults]) if faults else '\nevery measure is within its limit')
    return bool(faults)


if __name__ == '__main__':
    every = {page_of(p.name): p.name for p in NOTEBOOKS.glob('*.ipynb')}
    sys.exit(main([every.get(page_of(name), name) for name in (sorted(every) if sys.argv[1:] == ['all'] else sys.argv[1:])]))
