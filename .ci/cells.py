"""The cells that are the same in every chapter, made from settings.ini: the Colab badge and the set-up cell.

usage: python .ci/cells.py     rewrites them in nbs/*.ipynb
"""
import sys
from pathlib import Path

import nbformat
from nbdev.config import get_config

WITHOUT = 'index', 'glossary', 'reference', 'teaching', 'results'  # pages that nobody runs in Colab


def badge(cfg, name):
    where = f'https://colab.research.google.com/github/{cfg.user}/{cfg.repo}/blob/{cfg.branch}/nbs/{name}'
    return f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({where})'


def setup(cfg):
    raw = f'https://raw.githubusercontent.com/{cfg.user}/{cfg.repo}/{cfg.branch}/.ci/colab.py'
    return f'''#| code-fold: true
#| code-summary: set up Colab (does nothing where the package is installed)
import importlib.util, urllib.request
if getattr(importlib.util.find_spec('cifar_resnet'), 'origin', None) is None:
    exec(urllib.request.urlopen('{raw}').read(), dict(repository='{cfg.git_url}', branch='{cfg.branch}'))'''


def generated(nb, cfg, name):
    "Yield (cell, what it should say) for the two cells, found by how they begin"
    for cell in nb.cells:
        if cell.cell_type == 'markdown' and cell.source.startswith(('[![Open in Colab]', 'BADGE')): yield cell, badge(cfg, name)
        if cell.cell_type == 'code' and (cell.source == 'SETUP' or 'code-summary: set' in cell.source and 'Colab' in cell.source.split('\n')[1]): yield cell, setup(cfg)


def main():
    cfg, missing = get_config(), []
    for path in sorted(Path(cfg.nbs_path).glob('*.ipynb')):
        nb = nbformat.read(path, 4)
        cells = list(generated(nb, cfg, path.name))
        if len(cells) != 2 and path.stem not in WITHOUT: missing.append(path.name)
        if all(cell.source == text for cell, text in cells): continue
        for cell, text in cells: cell.source = text
        path.write_text(nbformat.writes(nb) + '\n', encoding='utf-8')
    if missing: sys.exit(f"one badge and one set-up cell are missing in {', '.join(missing)}: add a markdown cell BADGE and a code cell SETUP after the title")


if __name__ == '__main__': main()
