"""Test the package from outside: which libraries an import loads, and an installation without the checkout."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import modules_after

from cifar_resnet.core import load_record


def test_the_package_itself_loads_no_library():
    done, modules = modules_after('-c', 'import cifar_resnet')
    assert done.returncode == 0 and modules == {'cifar_resnet'}, done.stderr


def test_no_plotting_and_no_albumentations_until_asked():
    done, modules = modules_after('-c', 'import cifar_resnet.data, cifar_resnet.analysis, cifar_resnet.records')
    assert done.returncode == 0 and 'torch' in modules, done.stderr
    assert not modules & set('matplotlib seaborn albumentations cv2 sklearn torchvision pytorch_grad_cam torch_lr_finder torchinfo IPython pandas'.split())


def test_all_gathers_at_most_120_names(start):
    run = start('-c', 'from cifar_resnet.all import *; get_data, CustomResNet, Batches, fit, predict, run_recipe; import cifar_resnet.all as a; print(len(set(a.__all__)))').wait()
    assert run.stdout.strip().isdigit() and int(run.stdout) <= 120, run


@pytest.fixture(scope='session')
def installed(root, tmp_path_factory):
    "Install the package alone, as a wheel, into a folder of its own; return the folder"
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('installed')
    for name in ('cifar_resnet', 'results'): shutil.copytree(root/name, source/name)
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'MANIFEST.in'): shutil.copy(root/name, source/name)
    command = 'pip install -q --offline --no-deps --no-build-isolation --python'.split()
    run = subprocess.run([Path(sys.executable).parent/'uv', *command, sys.executable, '--target', target, source], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return target


def test_records_travel_with_the_package(installed, tmp_path, root):
    "The installed package has all records, without the checkout"
    code = 'import cifar_resnet, json; from cifar_resnet.core import *; print(cifar_resnet.__file__); print(json.dumps(record_names()))'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(installed)})
    where, names = run.stdout.strip().splitlines()
    assert where.startswith(str(installed)), run.stderr
    assert json.loads(names) == sorted(str(p.relative_to(root/'results').with_suffix('')) for p in (root/'results').rglob('*.json'))


def test_a_record_says_what_it_was_measured_with():
    environment = load_record('feeding')['environment']
    assert {'date', 'device', 'python', 'torch', 'commit'} <= environment.keys()
