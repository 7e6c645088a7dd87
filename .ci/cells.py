"""The cells that are the same in every chapter, made from settings.ini: the Colab badge and the set-up cell.

usage: python .ci/cells.py [--check]     rewrites them in nbs/*.ipynb, or says which are not as they should be
"""
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = 'index', 'glossary', 'reference', 'teaching'  # pages that nobody runs in Colab


def settings():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def badge(cfg, name):
    where = f"https://colab.research.google.com/github/{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/nbs/{name}"
    return f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({where})'


def setup(cfg):
    return f'''#| code-fold: true
#| code-summary: set-up for Colab (elsewhere it does nothing)
import importlib.util, sys
found = importlib.util.find_spec('cifar_resnet')
if found is None or found.origin is None:  # None: a folder of that name
    import os, subprocess
    from importlib.metadata import version
    home, branch = '{cfg['git_url']}', '{cfg['branch']}'
    def call(*command): return subprocess.run(command, capture_output=True, text=True, env=os.environ | {{'GIT_TERMINAL_PROMPT': '0'}})
    if call('git', 'ls-remote', '--exit-code', home, branch).returncode:
        raise SystemExit(f'There is no repository at {{home}} (branch {{branch}}) that can be read. Its address is made from settings.ini: '
                         'whoever keeps this copy of the course puts its owner there and runs `make badges readme`. You can also write the address into this cell.')
    kept = [f'{{name}}=={{version(name)}}' for name in ('torch', 'torchvision', 'numpy') if importlib.util.find_spec(name)]
    with open('kept_versions.txt', 'w') as f: f.write('\\n'.join(kept))  # what this runtime has stays as it is
    done = call(sys.executable, '-m', 'pip', 'install', '-q', '-c', 'kept_versions.txt', f'git+{{home}}@{{branch}}')
    if done.returncode: raise SystemExit('The package could not be installed: ' + done.stderr[-1500:])
    importlib.invalidate_caches()
if 'google.colab' in sys.modules:
    import torch
    if not torch.cuda.is_available():
        print('This runtime has no GPU. Everything runs, but training is slow: Runtime, Change runtime type, T4 GPU; then Run all.')'''


def wanted(nb, cfg, name):
    "(cell, what it should say) for the two cells, found by how they begin"
    for cell in nb.cells:
        if cell.cell_type == 'markdown' and cell.source.startswith(('[![Open in Colab]', 'BADGE')): yield cell, badge(cfg, name)
        if cell.cell_type == 'code' and (cell.source == 'SETUP' or 'code-summary: set-up for Colab' in cell.source): yield cell, setup(cfg)


def main(check):
    cfg, stale = settings(), []
    for path in sorted((ROOT/'nbs').glob('*.ipynb')):
        nb = nbformat.read(path, 4)
        changes = [(cell, text) for cell, text in wanted(nb, cfg, path.name) if cell.source != text]
        if not changes: continue
        stale.append(path.name)
        for cell, text in changes: cell.source = text
        if not check: path.write_text(nbformat.writes(nb) + '\n', encoding='utf-8')
    bare = [p.name for p in (ROOT/'nbs').glob('*.ipynb') if p.stem not in WITHOUT and len(list(wanted(nbformat.read(p, 4), cfg, p.name))) != 2]
    if bare: sys.exit(f"a badge and a set-up cell, one of each, are missing in {', '.join(bare)}")
    if check and stale: sys.exit(f"badge or set-up cell is not what settings.ini says in {', '.join(stale)}: make badges")


if __name__ == '__main__': main('--check' in sys.argv)
