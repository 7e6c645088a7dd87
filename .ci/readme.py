"""README.md from nbs/index.ipynb, by nbconvert. `render()` gives the text; run as a script it writes the file."""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
NOTE = '<!-- made from nbs/index.ipynb by `make readme`: edit the notebook, not this file -->\n\n'


def for_readers(cell):
    return cell.cell_type == 'markdown' or not re.match(r'#\|\s*(hide|export|default_exp)', cell.source)


def render():
    nb = nbformat.read(ROOT/'nbs'/'index.ipynb', 4)
    nb.cells = [c for c in nb.cells if for_readers(c)]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'\]\((?!https?:|#)([^)]+)\)', r'](nbs/\1)', text)  # links are relative to nbs/
    return NOTE + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


if __name__ == '__main__':
    (ROOT/'README.md').write_text(render(), encoding='utf-8')
