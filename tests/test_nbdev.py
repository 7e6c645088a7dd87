"""nbdev's own commands work in a fresh clone, without the Makefile, and leave README.md and the tree as they were.

The clone keeps a few notebooks, so that the commands take seconds; a stand-in for Quarto notes what it is asked to render.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

SCRIPTS = Path(sys.executable).parent
KEPT = 'index', 'core', 'embed'
QUARTO = '''#!/bin/sh
echo "$@" >> "$QUARTO_LOG"
mkdir -p _docs && echo "<html></html>" > _docs/index.html
'''


@pytest.fixture(scope='module')
def clone(root, tmp_path_factory):
    "A clone whose package and index of names are those of the notebooks that it keeps, with everything committed"
    folder = tmp_path_factory.mktemp('clone')/'cifar_resnet'
    subprocess.run(['git', 'init', '-q', folder], check=True)
    listed = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if name.startswith('tests/') or name.endswith('.ipynb') and Path(name).stem not in KEPT or not (root/name).exists(): continue
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/name, folder/name, follow_symlinks=False)
    call(folder, 'nbdev_export')
    git(folder, 'add', '-A')
    git(folder, '-c', 'user.name=test', '-c', 'user.email=test@example.org', 'commit', '-qm', 'all')
    return folder


def git(folder, *args): return subprocess.run(['git', *args], cwd=folder, capture_output=True, text=True, check=True).stdout


def call(folder, *command):
    "Run a command with the stand-in for Quarto on the path, and a home of its own"
    tools, home = folder.parent/'tools', folder.parent/'home'
    home.mkdir(exist_ok=True)
    if not tools.exists():
        tools.mkdir()
        (tools/'quarto').write_text(QUARTO)
        (tools/'quarto').chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'IN_TEST')}
    env |= dict(PATH=f"{tools}{os.pathsep}{SCRIPTS}{os.pathsep}{env['PATH']}", HOME=str(home), QUARTO_LOG=str(tools/'log'), CIFAR_RESNET_QUICK='1')
    done = subprocess.run([SCRIPTS/command[0], *command[1:]], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return (tools/'log').read_text().splitlines() if (tools/'log').exists() else []


def unchanged(folder): return git(folder, 'status', '--porcelain') == ''


def test_the_renderer_is_on_the_path_of_an_installed_checkout(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, '-c', 'import shown; print(shown.__file__)'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and Path(done.stdout.strip()).parent.name == '.ci', f'install the checkout again, as `make setup` does: {done.stderr}'


def test_nbdev_proc_nbs(clone):
    "The pages have the entries that .ci/shown.py makes"
    call(clone, 'nbdev_proc_nbs', '--n_workers', '1')
    page = nbformat.read(clone/'_proc'/'core.ipynb', 4)
    shown = ''.join(o.data['text/markdown'] for c in page.cells if c.cell_type == 'code' for o in c.outputs if 'text/markdown' in o.get('data', {}))
    assert '<details class="api"' in shown and '### check_number' in shown and unchanged(clone)
    assert (clone/'_proc'/'favicon.svg').is_file() and (clone/'_proc'/'card.png').is_file()


def test_nbdev_docs(clone):
    "Quarto renders the site and no README"
    assert call(clone, 'nbdev_docs', '--n_workers', '1') == ['render --no-cache']
    assert (clone/'_docs'/'index.html').is_file() and unchanged(clone)


def test_nbdev_test(clone):
    call(clone, 'nbdev_test', '--n_workers', '1', '--path', 'nbs/embed.ipynb')
    assert unchanged(clone)


def test_nbdev_prepare(clone):
    os.utime(clone/'nbs'/'index.ipynb')  # newer than README.md, as git may leave it
    call(clone, 'nbdev_prepare')
    assert unchanged(clone)


def test_nbdev_install_hooks(clone):
    "The files that it writes into the tree are committed"
    call(clone, 'nbdev_install_hooks')
    assert unchanged(clone) and (clone/'.git'/'hooks'/'post-merge').is_file()
    assert git(clone, 'config', 'merge.nbdev-merge.driver').startswith('nbdev_merge') and 'nbdev-merge' in git(clone, 'check-attr', 'merge', 'nbs/core.ipynb')
