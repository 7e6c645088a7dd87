"""The package from outside: what importing costs, what an installation without the checkout can do."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Mirror

from cifar_resnet.data import DataError, load_record
from cifar_resnet.model import CustomResNet, find_weights, load_weights, save_weights


def python(code, cwd=None, **env):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=cwd, env={**os.environ, **env})


def test_import_is_quick():
    code = 'import time; t = time.perf_counter(); import cifar_resnet; print(time.perf_counter() - t)'
    assert min(float(python(code).stdout) for _ in range(3)) < .2


@pytest.mark.parametrize('module', ['data', 'analysis, cifar_resnet.records'])
def test_no_plotting_and_no_albumentations_until_asked(module):
    heavy = 'matplotlib seaborn albumentations cv2 sklearn torchvision pytorch_grad_cam torch_lr_finder torchinfo IPython pandas'.split()
    run = python(f'import sys, cifar_resnet.{module}; print([m for m in {heavy} if m in sys.modules])')
    assert run.stdout.strip() == '[]', run.stdout + run.stderr


def test_all_gathers_the_public_names():
    run = python('from cifar_resnet.all import *; get_data, CustomResNet, Batches; import cifar_resnet.data as d, cifar_resnet.model as m; print(set(d.__all__ + m.__all__) <= set(globals()))')
    assert run.stdout.strip() == 'True', run.stderr


@pytest.fixture(scope='session')
def installed(root, tmp_path_factory):
    "The package alone, installed as a wheel would be, in a folder of its own"
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('installed')
    for name in ('cifar_resnet', 'results'): shutil.copytree(root/name, source/name)
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'MANIFEST.in'): shutil.copy(root/name, source/name)
    command = 'pip install -q --offline --no-deps --no-build-isolation --python'.split()
    run = subprocess.run([Path(sys.executable).parent/'uv', *command, sys.executable, '--target', target, source], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return target


def test_records_travel_with_the_package(installed, tmp_path, root):
    "In an empty folder, without the checkout"
    code = 'import cifar_resnet, json; from cifar_resnet.data import *; print(cifar_resnet.__file__); print(json.dumps(record_names()))'
    run = python(code, cwd=tmp_path, PYTHONPATH=str(installed))
    where, names = run.stdout.strip().splitlines()
    assert where.startswith(str(installed)), run.stderr
    assert json.loads(names) == sorted(str(p.relative_to(root/'results').with_suffix('')) for p in (root/'results').rglob('*.json'))


def test_weights_by_argument_checkout_cache_and_url(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = CustomResNet(8)
    source = save_weights(net, tmp_path/'tiny.safetensors', half=True)
    content = source.read_bytes()
    assert find_weights(source) == source
    with Mirror(content) as mirror:
        entry = {'weights': {'file': 'tiny.safetensors', 'sha256': hashlib.sha256(content).hexdigest(), 'size': len(content), 'url': mirror.url('good')}}
        checkout = tmp_path/'results'
        checkout.mkdir()
        (checkout/'tiny.json').write_text(json.dumps(entry))
        monkeypatch.setattr('cifar_resnet.data.results_folders', lambda: [checkout])
        monkeypatch.setattr('cifar_resnet.model.results_folders', lambda: [checkout])
        found = find_weights('tiny', cache=tmp_path/'cache')
        assert found == tmp_path/'cache'/'tiny.safetensors' and found.read_bytes() == content
        assert find_weights('tiny', cache=tmp_path/'cache') == found and len(mirror.requests) == 1
        (checkout/'tiny.safetensors').write_bytes(content)
        assert find_weights('tiny', cache=tmp_path/'cache') == checkout/'tiny.safetensors'
        entry['weights']['sha256'] = '0'*64
        (checkout/'tiny.safetensors').unlink()
        (checkout/'tiny.json').write_text(json.dumps(entry))
        with pytest.raises(DataError, match='sha256 is wrong'): find_weights('tiny', cache=tmp_path/'empty')
    back, _ = load_weights(found)
    assert all(torch.equal(v.half() if v.is_floating_point() else v, w.half() if w.is_floating_point() else w)
               for v, w in zip(net.state_dict().values(), back.state_dict().values()))
    with pytest.raises(DataError, match='no run is recorded'): find_weights('unheard_of')


def test_a_record_says_what_it_was_measured_with():
    environment = load_record('feeding')['environment']
    assert {'date', 'device', 'python', 'torch', 'commit'} <= environment.keys()
