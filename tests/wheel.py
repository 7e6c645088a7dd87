"""The wheel as a user installs it: plain pip into a new environment, every command's --help, and a small run on digits.

The developers' pins (requirements.lock, the dev extra) play no part, so a release of a dependency that breaks the package shows here.
`make test-wheel` runs it; RESOLUTION=lowest-direct takes the lowest versions that settings.ini allows.
"""
import os
import shutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

RESOLUTION = os.environ.get('RESOLUTION', 'highest')
UV = Path(sys.executable).parent/'uv'
SMALL = '--data digits --width 8 --epochs 1 --lr-max .2 --device cpu'.split()


def call(*command, cwd=None, **env):
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV', 'CIFAR_RESNET_DATA')} | env
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=3600)


def ranges(): return [r for r in requires('cifar_resnet') if 'extra ==' not in r]


def constraints(folder):
    "Return the options of pip for the newest versions, or for the lowest of what settings.ini names"
    if RESOLUTION == 'highest': return []
    asked, held = folder/'ranges.txt', folder/'lowest.txt'
    asked.write_text('\n'.join(ranges()))
    done = call(UV, 'pip', 'compile', '-q', '--no-annotate', '--resolution', RESOLUTION, '--python', sys.executable, asked, '-o', held)
    assert done.returncode == 0, done.stderr
    return ['--constraint', held]


@pytest.fixture(scope='module')
def scripts(root, tmp_path_factory):
    "The folder of the scripts in an environment that has the wheel and what it asks for"
    folder = tmp_path_factory.mktemp('wheel')
    source = folder/'source'
    shutil.copytree(root, source, ignore=shutil.ignore_patterns('.venv', '.git', 'runs', '_docs', '_pages', '_proc', '_preview', '.cache', 'nbs', 'tests', 'build', '*.egg-info'))
    built = call(UV, 'build', '--wheel', '--out-dir', folder, source)
    if 'error sending request' in built.stderr or 'dns error' in built.stderr: pytest.skip(f'no package index can be reached: {built.stderr.strip().splitlines()[-1]}')
    assert built.returncode == 0, built.stderr
    wheel, = folder.glob('*.whl')
    assert call(sys.executable, '-m', 'venv', folder/'env').returncode == 0
    installed = call(folder/'env'/'bin'/'python', '-m', 'pip', 'install', '-q', '--disable-pip-version-check', wheel, *constraints(folder))
    assert installed.returncode == 0, installed.stderr
    return folder/'env'/'bin'


def test_versions_are_those_that_a_user_gets(scripts):
    assert call(scripts/'python', '-c', 'import nbdev').returncode  # nothing of the developers' tools
    names = [Requirement(r) for r in ranges()]
    shown = call(scripts/'python', '-c', f'from importlib.metadata import version; print(*map(version, {[r.name for r in names]}))')
    assert shown.returncode == 0, shown.stderr
    versions = dict(zip([r.name for r in names], map(Version, shown.stdout.split())))
    print(*(f'{name} {version}' for name, version in versions.items()))
    if RESOLUTION == 'highest': assert versions['fastcore'].major >= 2, 'the newest fastcore was not installed'
    else:
        lowest = {r.name: Version(next(s.version for s in r.specifier if s.operator == '>=')) for r in names}
        assert {n: v.release[:2] for n, v in versions.items()} == {n: (*v.release, 0)[:2] for n, v in lowest.items()}  # the third number of one was withdrawn


@pytest.mark.parametrize('command', ['cifar_resnet', 'cifar_lr', 'cifar_train', 'cifar_evaluate', 'cifar_report', 'cifar_predict', 'cifar_export', 'cifar_data', 'cifar_recipes', 'python -m cifar_resnet'])
def test_help(scripts, tmp_path, command):
    name, *rest = command.split()
    run = call(scripts/name, *rest, '--help', cwd=tmp_path)
    assert run.returncode == 0 and run.stdout.startswith('usage: '), run.stderr


def test_a_run_on_digits(scripts, tmp_path):
    "Train, evaluate, report, predict, find rates, and run a recipe, from an empty folder"
    for command in (['cifar_train', *SMALL, '--out', 'run'], ['cifar_evaluate', 'run'], ['cifar_report', 'run', '--sample', '10'],
                    ['cifar_predict', 'run', 'run/curves.png', '--cam', 'maps'], ['cifar_export', 'run', '--format', 'torch'],
                    ['cifar_train', '--resume', 'run'], ['cifar_data', 'digits'], ['cifar_lr', '--data', 'digits', '--width', '8', '--steps', '60', '--out', 'lr.png'],
                    ['cifar_resnet', 'recipes', '--only', 'one_cycle', '--data', 'digits', '--epochs', '1', '--seeds', '1', '--out', 'records']):
        run = call(scripts/command[0], *command[1:], cwd=tmp_path, OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', '2'))
        assert run.returncode == 0 and 'Traceback' not in run.stderr, f'{command}: {run.stderr[-2000:]}'
    for left in 'run/final.safetensors', 'run/report.html', 'run/final.pt2', 'maps/curves-cam.png', 'lr.png', 'records/recipes/one_cycle-digits-1ep-0.json':
        assert (tmp_path/left).is_file(), left


def test_the_readme_call(scripts, tmp_path):
    "The names that README imports come with the wheel, and recorded runs too"
    code = 'from cifar_resnet.all import *; get_data, CustomResNet, find_lr, OneCycle, fit, predict, plot_misclassified; print(load_record("one_cycle_24")["test_acc"])'
    run = call(scripts/'python', '-c', code, cwd=tmp_path)
    assert run.returncode == 0 and run.stdout.startswith('0.93'), run.stderr


@pytest.mark.parametrize('has_uv', [False, True])
def test_the_first_command_without_a_connection(root, tmp_path, has_uv):
    "One line says what is missing, whichever installer fails"
    for name in 'Makefile', 'requirements.lock', 'settings.ini', 'setup.py', 'README.md': shutil.copy(root/name, tmp_path)
    if has_uv:
        assert call(sys.executable, '-m', 'venv', tmp_path/'.venv').returncode == 0
        shutil.copy(UV, tmp_path/'.venv'/'bin')
        (tmp_path/'.venv'/'.uv').touch()
    closed = 'http://127.0.0.1:9/simple'
    run = call('make', 'demo', f'PYTHON={sys.executable}', cwd=tmp_path, HOME=str(tmp_path), UV_CACHE_DIR=str(tmp_path/'cache'), PIP_INDEX_URL=closed, UV_DEFAULT_INDEX=closed, UV_INDEX_URL=closed)
    said = [line for line in run.stderr.splitlines() if ': *** ' not in line]  # make's own; inside another make it says make[1]
    assert run.returncode == 2 and len(said) == 1 and said[0].startswith('packages could not be installed: ') and 'is there a connection' in said[0], run.stderr
    assert not (tmp_path/'.venv'/'.ready').exists()
