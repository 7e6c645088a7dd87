"""Run the set-up cell of the chapters as Colab does: in a Python that has the libraries, but not this package."""
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest


sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'.ci'))
import cells  # noqa: E402
from nbdev.config import get_config  # noqa: E402

BRANCH = get_config().branch


def setup_cells(root):
    found = {p.name: [c.source for c in nbformat.read(p, 4).cells if 'code-summary: set up Colab' in c.source] for p in (root/'nbs').glob('*.ipynb')}
    return {name: sources for name, sources in found.items() if sources}


def committed(folder):
    "Make a folder a git repository, and commit everything in it"
    who = ['-c', 'user.name=test', '-c', 'user.email=test@example.com']
    for command in (['init', '-q', '-b', BRANCH], ['add', '-A'], [*who, 'commit', '-qm', 'all']): subprocess.run(['git', *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope='module')
def cell(root):
    found = setup_cells(root)
    assert {len(sources) for sources in found.values()} == {1} and len({sources[0] for sources in found.values()}) == 1
    return found['00_data.ipynb'][0]


@pytest.fixture(scope='module')
def repository(root, tmp_path_factory):
    "A copy of this project's working folder, as a repository with a branch `main`"
    folder = tmp_path_factory.mktemp('project')
    listed = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=root, capture_output=True, text=True)
    if listed.returncode: pytest.skip('not a git checkout: nothing to install from')
    for name in filter(None, listed.stdout.split('\0')):
        if not (root/name).is_file(): continue
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root/name, folder/name)
    return committed(folder)


@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    "A virtual environment with the libraries, but not this package; tests copy it"
    folder = tmp_path_factory.mktemp('fresh')/'python'
    venv.create(folder, with_pip=True)
    subprocess.run([folder/'bin'/'python', '-m', 'pip', 'uninstall', '-qy', 'setuptools'], capture_output=True)  # an old one, that would hide ours
    site = next(folder.glob('lib/python*/site-packages'))
    (site/'libraries.pth').write_text(sysconfig.get_path('purelib') + '\n')  # Python does not follow the .pth files there, so it does not find our package
    return folder


@pytest.fixture
def colab(tmp_path, fresh, served):
    "Run code in a fresh Python; git takes `repository` for the address in settings.ini, and .ci/colab.py is served from this checkout"
    shutil.copytree(fresh, tmp_path/'python', symlinks=True)

    def run(code, home, repository):
        (tmp_path/'work').mkdir(exist_ok=True)
        env = {**os.environ, 'GIT_CONFIG_COUNT': '1', 'GIT_CONFIG_KEY_0': f'url.file://{repository}.insteadOf', 'GIT_CONFIG_VALUE_0': home,
               'PIP_NO_INDEX': '1', 'PIP_NO_BUILD_ISOLATION': 'false'}  # so nothing but the repository can be installed
        env.pop('PYTHONPATH', None)
        return subprocess.run([tmp_path/'python'/'bin'/'python', '-c', served + code], cwd=tmp_path/'work', env=env, capture_output=True, text=True)
    return run


@pytest.fixture(scope='module')
def home(cell): return cell.split("repository='")[1].split("'")[0]


@pytest.fixture(scope='module')
def served(cell, root):
    "Code that makes `urlopen` answer the address of .ci/colab.py, and nothing else, with the file of this checkout"
    address = cell.split("urlopen('")[1].split("'")[0]
    assert address.endswith(f'/{BRANCH}/.ci/colab.py')
    return f"import io, urllib.request\nurllib.request.urlopen = lambda url: io.BytesIO(open({str(root/'.ci'/'colab.py')!r}, 'rb').read()) if url == {address!r} else 1/0\n"


def test_it_installs_and_leaves_torch_alone(cell, colab, home, repository):
    versions = 'import torch, numpy; print(torch.__version__, numpy.__version__, torch.__file__)\n'
    before = colab(versions, home, repository)
    done = colab(cell + "\nimport cifar_resnet.all; print('FROM', cifar_resnet.__file__)\nfrom cifar_resnet.all import load_record; print(load_record('one_cycle_24')['name'])", home, repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'python/lib' in done.stdout.split('FROM ')[1] and done.stdout.strip().endswith('one_cycle_24')
    assert colab(versions, home, repository).stdout == before.stdout
    again = colab(cell + "\nprint('nothing to do')", home, '/nowhere')
    assert again.stdout.strip() == 'nothing to do', again.stderr


def test_a_clone_in_the_working_folder_is_not_the_package(cell, colab, home, repository, tmp_path):
    "After `git clone` in Colab, Python would take the folder `cifar_resnet` for an empty package"
    (tmp_path/'work'/'cifar_resnet').mkdir(parents=True)
    done = colab(cell + "\nimport cifar_resnet.all; print('FROM', cifar_resnet.__file__)", home, repository)
    assert done.returncode == 0 and 'python/lib' in done.stdout, done.stdout + done.stderr


def test_an_address_that_is_none(cell, colab, home, tmp_path):
    done = colab(cell, home, tmp_path/'nowhere')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.startswith(f'{home} (branch {BRANCH}) is not a repository that can be read') and 'settings.ini' in done.stderr
    assert colab('import cifar_resnet', home, tmp_path/'nowhere').returncode == 1


def test_a_package_that_cannot_be_installed(cell, colab, home, tmp_path):
    empty = tmp_path/'empty'
    empty.mkdir()
    (empty/'a').write_text('a')
    done = colab(cell, home, committed(empty))
    assert done.returncode == 1 and 'cifar_resnet could not be installed' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize('gpu', [True, False])
def test_it_says_when_there_is_no_gpu(root, gpu):
    colab = f"import sys, types, torch; sys.modules['google.colab'] = types.ModuleType('google.colab'); torch.cuda.is_available = lambda: {gpu}\n"
    advice = (root/'.ci'/'colab.py').read_text().replace('install(repository, branch)  #', '#')
    said = subprocess.run([sys.executable, '-c', colab + advice], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert ('This runtime has no GPU' in said.stdout) != gpu


def test_the_address_has_one_place(root):
    "Another owner in settings.ini changes badge and cell; pip never gets a bare package name"
    cfg = SimpleNamespace(user='somebody', repo='cifar_resnet', branch=BRANCH, git_url='https://github.com/somebody/cifar_resnet')
    assert f'github/somebody/cifar_resnet/blob/{BRANCH}/nbs/00_data.ipynb' in cells.badge(cfg, '00_data.ipynb')
    text = cells.setup(cfg)
    assert f"repository='https://github.com/somebody/cifar_resnet', branch='{BRANCH}'" in text and get_config().git_url not in text and get_config().user not in text.replace('cifar_resnet', '')
    assert len([line for line in text.split('\n') if not line.startswith('#|')]) == 3  # the cell is three lines
    install = (root/'.ci'/'colab.py').read_text()
    assert install.count("'install'") == 1 and "f'git+{repository}@{branch}')" in install.split("'install'")[1].split('\n')[0]
