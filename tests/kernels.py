"""Run every cell of every notebook in a real Jupyter kernel: in an empty folder, without the developers' tools, with quick settings, on digits.

Then the same with the code alone that a reader can copy from the page: without hidden cells and without the definitions that the package has.
"""
import ast
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from processes import HANG

NOTEBOOKS = sorted(p.stem for p in (Path(__file__).resolve().parent.parent/'nbs').glob('*.ipynb'))
# Packages that settings.ini lists for developers only: an installation of the package alone, in Colab for example, lacks them.
WITHOUT = '''
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('nbdev', 'execnb', 'ghapi', 'smalldocs', 'nbconvert', 'pytest', 'xdist', 'playwright'): raise ModuleNotFoundError(f'No module named {name!r}: it does not come with the package', name=name)
sys.meta_path.insert(0, Absent())
'''


FOLLOWED = [n for n in NOTEBOOKS if re.match(r'\d\d_', n)] + ['quickstart', 'questions']


def visible(nb):
    "Return the code cells that a page shows, folded or not, and that the package does not export"
    hidden = re.compile(r'^#\|\s*(hide|exports?|exporti|default_exp)\b|^#\|\s*echo: false', re.M)
    return [c for c in nb.cells if c.cell_type == 'code' and not hidden.search(c.source)]


def begins_with_imports(cell):
    "Return whether a cell begins with imports"
    body = ast.parse(re.sub(r'^[%!].*$', '', cell.source, flags=re.M)).body
    return bool(body) and isinstance(body[0], (ast.Import, ast.ImportFrom))


@pytest.fixture(scope='module')
def run_all(tmp_path_factory):
    "Return a function that runs notebooks side by side, one for each core: {name: (what it printed to stderr, exit code)}"
    code = f'import sys, nbformat; from nbclient import NotebookClient; NotebookClient(nbformat.read(sys.argv[1], 4), timeout=None, startup_timeout={HANG}, kernel_name="python3", resources={{"metadata": {{"path": "."}}}}).execute()'
    absent = tmp_path_factory.mktemp('absent')
    (absent/'sitecustomize.py').write_text(WITHOUT)
    env = {**os.environ, 'CIFAR_RESNET_QUICK': '1', 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(absent)}
    env.pop('IN_TEST', None)

    def run(path):
        done = subprocess.run([sys.executable, '-c', code, path], cwd=tmp_path_factory.mktemp(path.stem), env=env, stderr=subprocess.PIPE, text=True, timeout=HANG)
        return done.stderr, done.returncode

    def run_each(paths):
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool: return dict(zip([p.stem for p in paths], pool.map(run, paths)))
    return run_each


@pytest.fixture(scope='module')
def runs(root, run_all): return run_all([root/'nbs'/f'{name}.ipynb' for name in NOTEBOOKS])


@pytest.fixture(scope='module')
def followed(root, run_all, tmp_path_factory):
    "Run what is left of a page when only its visible code is copied"
    folder = tmp_path_factory.mktemp('followed')
    for name in FOLLOWED:
        nb = nbformat.read(root/'nbs'/f'{name}.ipynb', 4)
        nb.cells = visible(nb)
        nbformat.write(nb, folder/f'{name}.ipynb')
    return run_all([folder/f'{name}.ipynb' for name in FOLLOWED])


def test_developers_tools_are_absent(tmp_path):
    (tmp_path/'sitecustomize.py').write_text(WITHOUT)
    done = subprocess.run([sys.executable, '-c', 'import nbdev'], env={**os.environ, 'PYTHONPATH': str(tmp_path)}, stderr=subprocess.PIPE, text=True)
    assert done.returncode and 'does not come with the package' in done.stderr


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_in_a_kernel(runs, name):
    errors, code = runs[name]
    assert code == 0, errors[-3000:]


@pytest.mark.parametrize('name', FOLLOWED)
def test_a_page_shows_its_imports_first(root, name):
    first = next(c for c in visible(nbformat.read(root/'nbs'/f'{name}.ipynb', 4)) if 'set up Colab' not in c.source)
    assert begins_with_imports(first), first.source


@pytest.mark.parametrize('name', FOLLOWED)
def test_a_reader_can_follow_by_copying(followed, name):
    errors, code = followed[name]
    assert code == 0, errors[-3000:]
