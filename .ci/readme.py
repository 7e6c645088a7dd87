"""README.md and its picture from nbs/index.ipynb, by nbconvert, CITATION.cff from settings.ini, and the model card of the weights from their record; run as a script it writes the files."""
import base64
import re
import sys

import nbformat
import yaml
from nbconvert import MarkdownExporter
from nbdev.config import get_config

from cifar_resnet.card import model_card
from cifar_resnet.core import load_record

ROOT = get_config().config_path
NOTE = '<!-- made from nbs/index.ipynb by `make readme`: edit the notebook, not this file -->\n\n'


PICTURE = 'nbs/images/first_page.png'
LICENSES = {'apache2': 'Apache-2.0'}


def for_readers(cell):
    return cell.cell_type == 'markdown' or not re.match(r'#\|\s*(hide|export|default_exp|echo)', cell.source)


def option(cell, name): return re.search(rf'^#\| {name}: "?(.+?)"?$', cell.source, re.M)[1]


def render():
    "(text, picture)"
    nb = nbformat.read(ROOT/'nbs'/'index.ipynb', 4)
    figure = next(c for c in nb.cells if '#| label: fig-glance' in c.source)
    shown = next((o.data['image/png'] for o in figure.outputs if 'image/png' in o.get('data', {})), None)
    if shown is None: sys.exit('nbs/index.ipynb has no saved picture: make run-chapters CHAPTERS=nbs/index.ipynb')
    picture = nbformat.v4.new_markdown_cell(f"![{option(figure, 'fig-alt')}]({PICTURE.removeprefix('nbs/')})\n\n*{option(figure, 'fig-cap')}*")
    nb.cells = [picture if c is figure else c for c in nb.cells if c is figure or for_readers(c)]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'\]\((?!https?:|#)([^)]+)\)', r'](nbs/\1)', text)  # links are relative to nbs/
    return NOTE + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n', base64.b64decode(shown)


def citation():
    "Return CITATION.cff: what GitHub shows under “Cite this repository”"
    cfg = get_config()
    facts = {'cff-version': '1.2.0', 'message': 'If you use this software, please cite it as below.', 'type': 'software', 'title': cfg.title, 'abstract': cfg.description,
             'authors': [{'name': cfg.author}], 'version': cfg.version, 'license': LICENSES[cfg.license], 'repository-code': cfg.git_url,
             'url': cfg.doc_host + cfg.doc_baseurl, 'keywords': cfg.keywords.split()}
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=1000)


if __name__ == '__main__':
    text, picture = render()
    (ROOT/'README.md').write_text(text, encoding='utf-8')
    (ROOT/PICTURE).parent.mkdir(exist_ok=True)
    (ROOT/PICTURE).write_bytes(picture)
    (ROOT/'CITATION.cff').write_text(citation(), encoding='utf-8')
    (ROOT/'results'/'MODEL_CARD.md').write_text(model_card(load_record('one_cycle_24'), mistakes=load_record('mistakes')), encoding='utf-8')
