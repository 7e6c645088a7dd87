"""What .ci/figures.py and .ci/shown.py make of figures and functions, without building the site."""
import base64
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT/'.ci'))
figures = pytest.importorskip('figures')
shown = pytest.importorskip('shown', reason='nbdev is not installed')


def drawn(kind, dpi=100):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from IPython.core.pylabtools import print_figure
    fig, axes = plt.subplots(2, 2, figsize=(5.3, 4.1), dpi=dpi, layout='constrained')
    for i, ax in enumerate(axes.flat):
        if kind == 'chart': sns.heatmap(np.eye(3), ax=ax) if i else ax.plot([1, 2])
        elif i < 3: ax.imshow(np.full((32, 32, 3), (200, 30, 10 + i), 'uint8'), interpolation='nearest')
        if kind == 'bar' and i == 2: fig.colorbar(ax.imshow(np.eye(4)), ax=ax)
    png = figures.print_with_boxes(fig, print_figure)
    plt.close(fig)
    return png


@pytest.mark.parametrize('dpi', [72, 100, 133])
def test_boxes_are_exact(dpi):
    png = drawn('photographs', dpi)
    pixels, boxes = np.asarray(Image.open(io.BytesIO(png)).convert('RGB')), figures.boxes_of(png)
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        ys, xs = np.nonzero((pixels == (200, 30, 10 + i)).all(-1))
        inside = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert max(abs(a - b) for a, b in zip(box, inside)) <= 1  # a line of the axes may lie over the edge


def test_a_chart_says_that_it_has_no_photographs(): assert figures.boxes_of(drawn('chart')) == []


def test_the_color_bar_of_a_photograph_stays_with_it(): assert len(figures.boxes_of(drawn('bar'))) == 5


def test_few_colors_keep_the_boxes():
    rng = np.random.default_rng(0)
    large = figures.saved(Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype='uint8')), [[1, 2, 30, 40]])
    small = figures.with_few_colors(large)
    assert len(small) < len(large) and figures.boxes_of(small) == [[1, 2, 30, 40]]
    assert figures.boxes_of(figures.with_few_colors(figures.saved(Image.new('RGB', (5, 5))))) is None


def test_dark():
    pixels = np.full((20, 30, 3), 255, 'uint8')
    pixels[2, :20], pixels[5:10, 5:10], pixels[12, 12] = 0, (31, 119, 180), (200, 0, 0)
    png = figures.saved(Image.fromarray(pixels), [[5, 5, 10, 10]])
    dark = np.asarray(Image.open(io.BytesIO(figures.dark(png))).convert('RGB')).astype(int)
    assert tuple(dark[0, 0]) == figures.GROUND and tuple(dark[2, 3]) == figures.INK
    assert (dark[5:10, 5:10] == pixels[5:10, 5:10]).all()
    assert dark[12, 12].argmax() == 0 and dark[12, 12][0] > 150  # red stays red


@pytest.mark.parametrize('boxes, tags', [(None, 1), ([], 2), ([[0, 0, 5, 5]], 2)])
def test_page(tmp_path, boxes, tags):
    png = figures.saved(Image.new('RGB', (900, 20), 'white'), boxes)
    tag = f'<img alt="a &amp; b" src="data:image/png;base64,{base64.b64encode(png).decode()}" class="img-fluid">'
    page = figures.both_themes(f'<p>{tag}</p><img src="data:image/png;base64,AAAA" class="mine">', tmp_path)
    assert page.count('class="img-fluid figure-') == tags and page.count('alt="a &amp; b"') == tags and 'AAAA' in page
    assert ('figure-paper' in page) == (boxes is None) and 'figure-wide' in page
    assert len(list((tmp_path/'figures').iterdir())) == tags


SOURCE = '''LIMIT = 3

def _helper(x): return x

def first(
    x,  # a number
    y=(1, 2),  # two
    **rest) -> int:
    "Return x"
    return _helper(x)

class Second:
    "Hold x"
    def __init__(self, x=LIMIT): self.x = x
'''


def test_every_line_of_a_cell_goes_with_a_definition():
    parts = shown.public('#| exports\n' + SOURCE)
    assert list(parts) == ['first', 'Second'] and '\n\n'.join(code for _, code in parts.values()) == SOURCE.strip()
    assert [shown.signature(node) for node, _ in parts.values()] == ['first(x, y=(1, 2), **rest) → int', 'class Second(x=LIMIT)']


def cell(source, **more):
    return SimpleNamespace(cell_type='code', source=source, directives_=more.pop('directives', {}), get=lambda name, default=None: more.get(name, default), **more)


def entries(source, docs, directives):
    texts = [cell(f'show_doc({name})', has_sd=True, outputs=[SimpleNamespace(data={'text/markdown': [text]}, get=lambda n, d=None, t=text: {'text/markdown': t})]) for name, text in docs]
    nb = SimpleNamespace(cells=[cell(source, directives=directives), *texts[::-1]])
    shown.Entries(nb).begin()
    return nb.cells


def test_entries_stand_above_their_folded_source(monkeypatch):
    monkeypatch.setattr(shown, 'add_links', lambda c: None)
    docs = [('first', f'### first\n\nReturn x\n\n{shown.FOLD}\n\n| a |\n'), ('Second', f'### Second\n\nHold x\n\n{shown.FOLD}\n\n')]
    for directive, details in ('export', '<details class="api">'), ('exports', '<details class="api" open>'):
        cells = entries(SOURCE, docs, {directive: []})
        text = '\n'.join(''.join(c.outputs[0].data['text/markdown']) for c in cells)
        assert [c.source for c in cells] == ['show_doc(first)', 'show_doc(Second)']
        table = ['| a |']*(directive == 'export')  # an open entry has the comments in its source instead
        order = [text.index(part) for part in ('### first', 'Return x', details, *table, 'LIMIT = 3', 'def first', '### Second', 'class Second:')]
        assert order == sorted(order) and text.count(details) == 2 and '### _helper' not in text and text.count('| a |') == len(table)


@pytest.mark.parametrize('source, directive, says', [
    ('import math', 'export', None), ('import math', 'hide', None), ('LIMIT = 3', 'exports', ''),
    ('def _f(): pass', 'export', 'Source: _f'), ('A = 1\n'*20, 'exports', 'Source'),
])
def test_cells_without_a_public_definition(source, directive, says):
    cells = entries(source, [], {directive: []})
    assert len(cells) == (says is not None)
    if says is not None: assert ('code-summary' in cells[0].source) == bool(says) and says in cells[0].source


def test_glossary():
    "Its entries are in order, each has an example, and the index links every letter"
    import re

    import nbformat
    text = '\n\n'.join(cell.source for cell in nbformat.read(ROOT/'nbs'/'glossary.ipynb', 4).cells if cell.cell_type == 'markdown')
    letters, entries = re.findall(r'(?m)^## (\w)$', text), re.findall(r'(?ms)^### (.*?)\n\n(.*?)(?=\n\n#|\Z)', text)
    terms = [re.sub(r'[^a-z ]', '', term.lower()) for term, _ in entries]
    assert terms == sorted(terms) and len(set(terms)) == len(terms) > 80
    assert letters == sorted({term[0].upper() for term in terms}) == re.findall(r'\[(\w)\]\(#\w\)', text)
    assert [term for term, said in entries if '*Example:*' not in said] == []
