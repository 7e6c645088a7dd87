"""Make slides from chapters, with nbconvert and reveal.js: a heading, its first paragraph, the figures, the short code.

The rest of the text goes into the speaker's notes (press S), and each chapter ends with its recall questions, without the answers.

usage: python .ci/slides.py [nbs/00_data.ipynb …]     all chapters when none is named; they go into _slides/
"""
import ast
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CODE_LINES, OUTPUT_LINES, WORDS = 16, 14, 60  # of one slide
LEFT_OUT = 'Exercises', 'Further reading', 'The code of this chapter', 'Save and load weights'
NO_PLACE = 'hide', 'export', 'exports', 'exporti', 'default_exp'
STYLE = '''<style>
.reveal .slides { text-align: left; font-size: 26px }
.reveal .slides img, .reveal .slides svg { max-height: 540px; max-width: 100%; width: auto; height: auto; margin: 0 auto; display: block }
.reveal .slides .caption { font-size: 20px }
.reveal .slides table { font-size: 20px }
.reveal h1 { font-size: 46px; text-transform: none } .reveal h2 { font-size: 34px; text-transform: none }
.jp-InputPrompt, .jp-OutputPrompt { display: none }
</style>'''


def directives(source):
    "Return the directives of a code cell, `#| name: value`, and its code without them"
    found = dict((line[2:].partition(':')[::2]) for line in source.splitlines() if line.startswith('#|'))
    code = '\n'.join(line for line in source.splitlines() if not line.startswith('#|'))
    return {name.strip(): value.strip().strip('"') for name, value in found.items()}, code.strip('\n')


def only_checks(code):
    "Return whether a cell only asserts or imports"
    try: body = ast.parse(code).body
    except SyntaxError: return False
    def checks(node): return isinstance(node, (ast.Assert, ast.Import, ast.ImportFrom)) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and getattr(node.value.func, 'id', '').startswith('test_')
    return all(map(checks, body))


def plain(text):
    "Return Markdown that needs no site: links as their text, callouts without their marks"
    text = re.sub(r'(?m)^:::.*$', '', text)
    return re.sub(r'(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!http)[^)\s]*\)', r'\1', text)


def is_short(paragraph): return len(paragraph.split()) <= WORDS


def recall(text):
    "Return the numbered questions of a section, without the answers; chapter 06 folds each answer below its question"
    folded = re.findall(r'<summary>(\d\. .*?)</summary>', text)
    return folded or re.findall(r'(?m)^(\d\. .*)$', text.partition('<details>')[0])


def slide(kind, source, cell='markdown', **more):
    made = (nbformat.v4.new_code_cell if cell == 'code' else nbformat.v4.new_markdown_cell)(source, **more)
    made.metadata.slideshow = {'slide_type': kind}
    return made


def of_text(section):
    "Yield the slides of a section of Markdown that begins with its heading"
    heading, _, text = section.partition('\n')
    title = heading.lstrip('#').strip()
    heading = ('# ' if heading.startswith('# ') else '## ') + title
    if title in ('Recall', 'Questions'):
        yield slide('slide', '## Five questions\n\n' + '\n'.join(recall(text)))
        return
    paragraphs = [p for p in re.split(r'\n\s*\n', plain(text).strip()) if p.strip()]
    shown = [p.lstrip('> ') for p in paragraphs[:1] if is_short(p)]
    if title in ('Summary', 'What we saw'): shown = paragraphs
    yield slide('slide', '\n\n'.join([heading, *shown]))
    if rest := paragraphs[len(shown):]: yield slide('notes', '\n\n'.join(rest))


def of_code(cell):
    "Yield the slides of a code cell: its code where that is short and shown on the page, and what it shows"
    marks, code = directives(cell.source)
    if any(name in marks for name in NO_PLACE): return
    figures = [o for o in cell.outputs if 'image/png' in o.get('data', {})]
    texts = ''.join(o.text for o in cell.outputs if o.output_type == 'stream' and o.name == 'stdout').rstrip()
    shows_code = 'code-fold' not in marks and marks.get('echo') != 'false' and len(code.splitlines()) <= CODE_LINES and not only_checks(code)
    for figure in figures:
        outputs = [nbformat.v4.new_output('display_data', {'image/png': figure.data['image/png']})]
        yield slide('subslide', code, 'code', outputs=outputs, metadata={'tags': [] if shows_code and len(code.splitlines()) <= 4 else ['no-input']})
        if caption := marks.get('fig-cap'): yield slide('-', f'<p class="caption">{caption}</p>')
    if figures or not (shows_code or texts): return
    outputs = [nbformat.v4.new_output('stream', name='stdout', text=texts + '\n')] if texts and len(texts.splitlines()) <= OUTPUT_LINES else []
    if shows_code or outputs: yield slide('subslide', code, 'code', outputs=outputs, metadata={'tags': [] if shows_code else ['no-input']})


def sections(text):
    "Split Markdown before its headings; a heading inside a callout is not one of them"
    text = re.sub(r'(?m)^(:::.*\n)## (.*)$', r'\1**\2.** ', text)
    return [part for part in re.split(r'(?m)^(?=#{1,3} )', text) if part.strip()]


def slides_of(nb):
    "Return a notebook of slides made from a chapter"
    cells, left_out = [], False
    for cell in nb.cells:
        if cell.cell_type == 'code':
            if not left_out: cells += of_code(cell)
            continue
        if cell.cell_type != 'markdown' or 'colab-badge' in cell.source: continue
        for section in sections(cell.source):
            if section.startswith('#'):
                title = section.partition('\n')[0].lstrip('#').strip()
                left_out = title in LEFT_OUT
                if not left_out: cells += of_text(section)
            elif not left_out: cells.append(slide('notes', plain(section)))
    return nbformat.v4.new_notebook(cells=cells, metadata={'title': re.search(r'# (.*)', nb.cells[0].source)[1], **{k: v for k, v in nb.metadata.items() if k in ('kernelspec', 'language_info')}})


def render(nb):
    "Return slides as one HTML page; reveal.js comes from the network"
    from nbconvert import SlidesExporter
    from traitlets.config import Config
    config = Config({'TagRemovePreprocessor': {'enabled': True, 'remove_input_tags': {'no-input'}}, 'SlidesExporter': {'reveal_number': 'c/t', 'reveal_scroll': True, 'exclude_input_prompt': True, 'exclude_output_prompt': True}})
    page, _ = SlidesExporter(config=config).from_notebook_node(nb)
    return page.replace('</head>', f'{STYLE}\n</head>', 1)


def make(path, folder):
    "Write the slides of one chapter into a folder, and return their file"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder/f'{path.stem}.slides.html'
    file.write_text(render(slides_of(nbformat.read(path, 4))), encoding='utf-8')
    return file


def main(names):
    paths = [Path(name) for name in names] or sorted((ROOT/'nbs').glob('[0-9][0-9]_*.ipynb'))
    if lost := [str(path) for path in paths if not path.is_file()]: sys.exit(f'{lost[0]} not found')
    for path in paths: print(make(path, ROOT/'_slides'))


if __name__ == '__main__': main(sys.argv[1:])
