"""`make slides`: what .ci/slides.py makes of a chapter."""
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT/'.ci'))
slides = pytest.importorskip('slides')
CHAPTERS = sorted((ROOT/'nbs').glob('0*.ipynb'))


def kinds(nb): return [cell.metadata.slideshow.slide_type for cell in nb.cells]


def shown(nb): return [cell for cell in nb.cells if cell.metadata.slideshow.slide_type != 'notes']


@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: p.stem)
def test_slides_of_a_chapter(path):
    chapter, made = nbformat.read(path, 4), slides.slides_of(nbformat.read(path, 4))
    assert kinds(made)[0] == 'slide' and made.cells[0].source.startswith('# ') and kinds(made).count('slide') >= 6
    figures = [o for cell in made.cells if cell.cell_type == 'code' for o in cell.outputs if 'image/png' in o.get('data', {})]
    assert len(figures) >= 3
    text = '\n'.join(cell.source for cell in shown(made))
    for left_out in 'colab', '#|', ':::', '.ipynb', 'default_exp', 'Further reading', '</details>': assert left_out not in text, left_out
    words = [len(re.sub(r'(?m)^(\||\s*[-*] |\d\. ).*$', '', cell.source).split()) for cell in shown(made) if cell.cell_type == 'markdown' and '## Summary' not in cell.source]
    assert max(words) <= slides.WORDS + 15
    lines = [len(cell.source.splitlines()) for cell in made.cells if cell.cell_type == 'code' and 'no-input' not in cell.metadata.get('tags', [])]
    assert max(lines, default=0) <= slides.CODE_LINES
    if re.search(r'(?m)^## (Recall|Questions)$', '\n'.join(cell.source for cell in chapter.cells)):
        quiz = next(cell.source for cell in made.cells if cell.source.startswith('## Five questions'))
        assert len(re.findall(r'(?m)^\d\. ', quiz)) == 5


def chapter(*cells):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# Title\n\n> Subtitle'), *cells])


def code(source, **data): return nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output('display_data', data)] if data else [])


def test_prose_goes_into_the_notes():
    long = 'word '*(slides.WORDS + 1)
    made = slides.slides_of(chapter(nbformat.v4.new_markdown_cell(f'## A\n\nShort, with [a link](01_model.ipynb#x).\n\nMore.\n\n## B\n\n{long}')))
    assert [(kind, cell.source) for kind, cell in zip(kinds(made), made.cells)][1:] == [
        ('slide', '## A\n\nShort, with a link.'), ('notes', 'More.'), ('slide', '## B'), ('notes', long.strip())]


def test_what_is_no_slide():
    cells = [code('#| export\ndef f(): pass'), code('#| hide\nx = 1'), code('assert True\ntest_eq(1, 1)'), code('import os')]
    assert len(slides.slides_of(chapter(*cells)).cells) == 1


def test_code_and_figures():
    png = {'image/png': 'iVBORw0KGgo='}
    made = slides.slides_of(chapter(code('x = 1'), code('#| echo: false\n#| fig-cap: What to notice\nplot()', **png), code('\n'.join(f'x = {i}' for i in range(99)))))
    assert [cell.source for cell in made.cells[1:]] == ['x = 1', 'plot()', '<p class="caption">What to notice</p>']
    assert made.cells[2].metadata.tags == ['no-input']


def test_the_command(tmp_path):
    missing = subprocess.run([sys.executable, ROOT/'.ci'/'slides.py', 'nbs/none.ipynb'], capture_output=True, text=True, cwd=ROOT)
    assert missing.returncode == 1 and missing.stderr == 'nbs/none.ipynb not found\n'
    pytest.importorskip('nbconvert')
    page = slides.make(CHAPTERS[-1], tmp_path).read_text(encoding='utf-8')
    assert page.count('<section') >= 12 and page.count('data:image/png;base64') >= 3 and 'class="caption"' in page and 'Reveal.initialize' in page
    assert 'plot_exchange()' not in page  # a figure without its code


def test_the_quiz_has_five_questions_of_every_chapter(root):
    "As it is saved on the page for teachers"
    saved = next(c for c in nbformat.read(root/'nbs'/'teaching.ipynb', 4).cells if c.id == 'tch-quiz-t').outputs[0].data['text/markdown']
    for path in sorted((root/'nbs').glob('0*.ipynb')): assert re.search(rf'\]\({path.name}#\w+\)\*\*\n\n1\. (.*\n){{4}}5\. ', saved + '\n'), path.name
