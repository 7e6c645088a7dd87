"""Every chapter in a real Jupyter kernel, all of its cells, from an empty folder: quick settings, on digits."""
import os
import subprocess
import sys

import pytest

CHAPTERS = ['00_data', '01_model', '02_lr_finder', '03_one_cycle', '04_analysis', '05_recipes', '08_cli', '09_records']


@pytest.fixture(scope='module')
def runs(root, tmp_path_factory):
    "All chapters side by side"
    code = 'import sys, nbformat; from nbclient import NotebookClient; NotebookClient(nbformat.read(sys.argv[1], 4), timeout=600, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()'
    env = {**os.environ, 'CIFAR_RESNET_QUICK': '1', 'OMP_NUM_THREADS': '1'}
    env.pop('IN_TEST', None)
    running = {c: subprocess.Popen([sys.executable, '-c', code, root/'nbs'/f'{c}.ipynb'], cwd=tmp_path_factory.mktemp(c), env=env, stderr=subprocess.PIPE, text=True) for c in CHAPTERS}
    return {c: (p.communicate(timeout=900)[1], p.returncode) for c, p in running.items()}


def test_every_chapter_is_run(root): assert CHAPTERS == sorted(p.stem for p in (root/'nbs').glob('[0-9]*.ipynb'))


@pytest.mark.parametrize('chapter', CHAPTERS)
def test_in_a_kernel(runs, chapter):
    errors, code = runs[chapter]
    assert code == 0, errors[-3000:]
