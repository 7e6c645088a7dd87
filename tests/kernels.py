"""Run every cell of every notebook in a real Jupyter kernel: in an empty folder, without the developers' tools, with quick settings, on digits."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
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


@pytest.fixture(scope='module')
def runs(root, tmp_path_factory):
    "Run them side by side, one for each core; return what each printed to stderr, and its exit code"
    code = f'import sys, nbformat; from nbclient import NotebookClient; NotebookClient(nbformat.read(sys.argv[1], 4), timeout=None, startup_timeout={HANG}, kernel_name="python3", resources={{"metadata": {{"path": "."}}}}).execute()'
    absent = tmp_path_factory.mktemp('absent')
    (absent/'sitecustomize.py').write_text(WITHOUT)
    env = {**os.environ, 'CIFAR_RESNET_QUICK': '1', 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(absent)}
    env.pop('IN_TEST', None)

    def run(name):
        done = subprocess.run([sys.executable, '-c', code, root/'nbs'/f'{name}.ipynb'], cwd=tmp_path_factory.mktemp(name), env=env, stderr=subprocess.PIPE, text=True, timeout=HANG)
        return done.stderr, done.returncode
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool: return dict(zip(NOTEBOOKS, pool.map(run, NOTEBOOKS)))


def test_the_page_of_results_shows_the_records(root):
    "It only reads results/, so running it again must give the tables that are saved"
    def tables(nb): return [o['data']['text/markdown'] for c in nb.cells if c.cell_type == 'code' for o in c.outputs if 'text/markdown' in o.get('data', {})]
    saved = nbformat.read(root/'nbs'/'results.ipynb', 4)
    shown = tables(saved)
    NotebookClient(saved, timeout=HANG, startup_timeout=HANG, kernel_name='python3').execute()
    assert len(shown) == 7 and tables(saved) == shown


def test_developers_tools_are_absent(tmp_path):
    (tmp_path/'sitecustomize.py').write_text(WITHOUT)
    done = subprocess.run([sys.executable, '-c', 'import nbdev'], env={**os.environ, 'PYTHONPATH': str(tmp_path)}, stderr=subprocess.PIPE, text=True)
    assert done.returncode and 'does not come with the package' in done.stderr


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_in_a_kernel(runs, name):
    errors, code = runs[name]
    assert code == 0, errors[-3000:]
