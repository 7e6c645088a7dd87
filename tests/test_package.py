"""Test the package from outside: which libraries an import loads, and an installation without the checkout."""
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from processes import modules_after

import cifar_resnet
from cifar_resnet.core import load_record


def test_the_package_itself_loads_no_library():
    done, modules = modules_after('-c', 'import cifar_resnet')
    assert done.returncode == 0 and modules == {'cifar_resnet'}, done.stderr


def test_no_plotting_and_no_albumentations_until_asked():
    done, modules = modules_after('-c', 'import cifar_resnet.data, cifar_resnet.analysis, cifar_resnet.records')
    assert done.returncode == 0 and 'torch' in modules, done.stderr
    assert not modules & set('matplotlib seaborn albumentations cv2 sklearn torchvision pytorch_grad_cam torch_lr_finder torchinfo IPython pandas'.split())


def test_all_gathers_at_most_64_names(start):
    run = start('-c', 'from cifar_resnet.all import *; get_data, CustomResNet, Batches, fit, predict, run_recipe; import cifar_resnet.all as a; print(len(set(a.__all__)))').wait()
    assert run.stdout.strip().isdigit() and int(run.stdout) <= 64, run


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


@pytest.fixture(scope='module')
def settings(root):
    config = ConfigParser(delimiters=['='])
    config.read(root/'settings.ini', encoding='utf-8')
    return config['DEFAULT']


@pytest.fixture(scope='module')
def metadata(installed): return next(iter(distributions(name='cifar_resnet', path=[str(installed)]))).metadata


def test_every_python_that_is_tested_is_a_classifier(metadata, settings, root):
    named = [c.rpartition(' :: ')[2] for c in metadata.get_all('Classifier') if c.startswith('Programming Language :: Python :: ')]
    tested = yaml.safe_load((root/'.github'/'workflows'/'test.yaml').read_text())['jobs']['test']['strategy']['matrix']['python']
    assert named == tested == settings['pythons'].split() and settings['min_python'].startswith(named[0])


def test_links_of_the_long_description_lead_somewhere_from_a_package_index(metadata, settings, root):
    text = metadata.get_payload()
    links = re.findall(r'(!?)\[[^\]]*\]\(([^)]+)\)', text)
    assert len(links) > 15 and all(link.startswith(('https://', '#')) for _, link in links), links
    blob, raw = (f"{settings['git_url']}/{kind}/{settings['branch']}/" for kind in ('blob', 'raw'))
    for image, link in links:
        if settings['git_url'] in link: assert link.startswith(raw if image else blob) and (root/link.removeprefix(raw).removeprefix(blob)).is_file(), link


def test_the_citation_agrees_with_the_settings(metadata, settings, root):
    cited = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    assert cited['version'] == settings['version'] == metadata['Version'] == cifar_resnet.__version__
    assert cited['authors'] == [{'name': settings['author']}] and cited['title'] == settings['title']
    assert cited['license'] == (metadata['License-Expression'] or metadata['License'])
    assert cited['repository-code'] == settings['git_url'] and cited['keywords'] == settings['keywords'].split()


def test_actions_are_pinned_by_hash(root):
    used = [line.split('uses:')[1].split('#')[0].strip() for path in (root/'.github'/'workflows').iterdir() for line in path.read_text().splitlines() if 'uses:' in line]
    assert len(used) > 8 and all(re.fullmatch(r'[\w/.-]+@[0-9a-f]{40}', action) for action in used), used


def test_the_types_travel_with_the_package(installed):
    assert (installed/'cifar_resnet'/'py.typed').is_file()


def pyright(folder, *args):
    "Run pyright on the installed package; skip the test where it is missing"
    if not shutil.which('pyright'): pytest.skip('pyright is not installed: the types were NOT checked (`make types` brings it)')
    env = {**os.environ, 'PYTHONPATH': str(folder)} | ({'PYRIGHT_PYTHON_GLOBAL_NODE': '1'} if shutil.which('node') else {})
    done = subprocess.run(['pyright', '--pythonpath', sys.executable, '--outputjson', *args], capture_output=True, text=True, cwd=folder, env=env)
    assert done.stdout.startswith('{'), done.stderr
    return json.loads(done.stdout)


def test_nine_of_ten_public_names_have_types(installed):
    found = pyright(installed, '--verifytypes', 'cifar_resnet', '--ignoreexternal')['typeCompleteness']
    assert found['packageRootDirectory'].startswith(str(installed)), 'another copy of the package was checked'
    unknown = [s['name'] for s in found['symbols'] if s['isExported'] and not s['isTypeKnown']]
    assert found['completenessScore'] >= .9, f"{found['completenessScore']:.1%} of the public names have types; without are {', '.join(unknown)}"


def test_an_editor_knows_what_calls_return(installed, tmp_path):
    "Through `from cifar_resnet.all import *`, as the README writes it"
    calls = {'data': 'ImageData', 'CustomResNet(8)': 'CustomResNet', 'run': 'Run', 'run.history': 'list[dict[str, Any]]', 'plot_run(run.record)': 'Figure', 'predict(run.model, data.test).probs': 'ndarray'}
    lines = ["from cifar_resnet.all import *", "data = get_data('digits')", "run = fit(CustomResNet(8), data, OneCycle(.002, .2), out='runs/mine', epochs=2)", *(f'reveal_type({call})' for call in calls)]
    (tmp_path/'calls.py').write_text('\n'.join(lines))
    (tmp_path/'pyrightconfig.json').write_text(json.dumps(dict(extraPaths=[str(installed)])))
    found = pyright(tmp_path, '--project', str(tmp_path))['generalDiagnostics']
    assert not [d for d in found if d['severity'] == 'error'], found
    shown = [d['message'].split(' is ')[-1].strip('"') for d in found if d['severity'] == 'information']
    for (call, kind), said in zip(calls.items(), shown, strict=True): assert said.startswith(kind), f'{call} is {said}'


def test_a_record_says_what_it_was_measured_with():
    environment = load_record('feeding')['environment']
    assert {'date', 'device', 'python', 'torch', 'commit'} <= environment.keys()
