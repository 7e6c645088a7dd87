"""What is the same in every chapter: the Colab badge and the set-up cell, from settings.ini, and the minutes at its head; and the bar's link to the repository.

The minutes to read are counted (200 words or 10 visible lines of code a minute), the minutes to run are those of results/chapters.json.

usage: python .ci/cells.py     rewrites them in nbs/*.ipynb and _quarto.yml
"""
import json
import re
import sys
from pathlib import Path

import nbformat
from nbdev.config import get_config

WITHOUT = 'index', 'glossary', 'reference', 'teaching', 'results', 'promises', 'try'  # pages that nobody runs in Colab
PLACEHOLDER = 'cifar-resnet'  # the owner in settings.ini while the repository has no address
MINUTES = re.compile(r'to read: \d+ · to run: \d+ on a CPU with two cores \(measured\)')


def badge(cfg, name):
    where = f'https://colab.research.google.com/github/{cfg.user}/{cfg.repo}/blob/{cfg.branch}/nbs/{name}'
    note = ' (opens in Colab once `user` in `settings.ini` names the repository\'s owner)' if cfg.user == PLACEHOLDER else ''
    return f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({where}){note}'


def count_words(nb):
    "Count the words of prose and captions that are not folded away"
    text = '\n'.join(c.source if c.cell_type == 'markdown' else '\n'.join(re.findall(r'^#\| fig-cap: (.*)', c.source, re.M)) for c in nb.cells)
    text = re.sub(r'<details>[\s\S]*?</details>|\]\([^)]*\)|^\|.*$', ' ', text, flags=re.M)
    return len(re.findall(r"[A-Za-z][\w'’-]*", text))


def count_lines(nb):
    "Count the lines of code that a reader sees"
    folded = re.compile(r'^#\|\s*(hide|exports?\b|default_exp|echo: false|code-fold: true)', re.M)
    return sum(bool(line.strip()) and not line.startswith('#|') for c in nb.cells if c.cell_type == 'code' and not folded.search(c.source) for line in c.source.splitlines())


def minutes(nb, seconds):
    "Return the line at the head of a chapter that says how long it takes"
    to_read, to_run = count_words(nb)/200 + count_lines(nb)/10, seconds/60
    return f'to read: {max(1, round(to_read))} · to run: {max(1, round(to_run))} on a CPU with two cores (measured)'


def setup(cfg):
    raw = f'https://raw.githubusercontent.com/{cfg.user}/{cfg.repo}/{cfg.branch}/.ci/colab.py'
    return f'''#| code-fold: true
#| code-summary: set up Colab (does nothing where the package is installed)
import importlib.util, urllib.request
if getattr(importlib.util.find_spec('cifar_resnet'), 'origin', None) is None:
    exec(urllib.request.urlopen('{raw}').read(), dict(repository='{cfg.git_url}', branch='{cfg.branch}'))'''


def generated(nb, cfg, name):
    "Yield (cell, what it should say) for the badge and the set-up cell, found by how they begin"
    for cell in nb.cells:
        if cell.cell_type == 'markdown' and cell.source.startswith(('[![Open in Colab]', 'BADGE')): yield cell, badge(cfg, name)
        if cell.cell_type == 'code' and (cell.source == 'SETUP' or 'code-summary: set' in cell.source and 'Colab' in cell.source.split('\n')[1]): yield cell, setup(cfg)


def main():
    cfg, missing = get_config(), []
    seconds = json.loads((cfg.config_path/'results'/'chapters.json').read_text(encoding='utf-8'))['run_seconds']
    for path in sorted(Path(cfg.nbs_path).glob('*.ipynb')):
        nb = nbformat.read(path, 4)
        cells = list(generated(nb, cfg, path.name))
        if len(cells) != 2 and path.stem not in WITHOUT: missing.append(path.name)
        cells += [(c, MINUTES.sub(minutes(nb, seconds.get(path.stem, 0)), c.source)) for c in nb.cells if c.cell_type == 'markdown' and MINUTES.search(c.source)]
        if all(cell.source == text for cell, text in cells): continue
        for cell, text in cells: cell.source = text
        path.write_text(nbformat.writes(nb) + '\n', encoding='utf-8')
    site = cfg.config_path/'_quarto.yml'
    text = site.read_text(encoding='utf-8')
    if (now := re.sub(r'(icon: github\n(?: +text: .*\n)? +href: )\S+', lambda m: m[1] + cfg.git_url, text)) != text: site.write_text(now, encoding='utf-8')
    if missing: sys.exit(f"one badge and one set-up cell are missing in {', '.join(missing)}: add a markdown cell BADGE and a code cell SETUP after the title")


if __name__ == '__main__': main()
