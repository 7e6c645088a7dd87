"""Run by the set-up cell of a notebook where the package is missing, in Colab for example: install it, and leave torch, torchvision and NumPy as they are.

`repository` and `branch` are given by the cell; .ci/cells.py takes them from settings.ini.
"""
import importlib
import os
import subprocess
import sys
from importlib.metadata import version


def call(*command): return subprocess.run(command, capture_output=True, text=True, env=os.environ | {'GIT_TERMINAL_PROMPT': '0'})


def install(repository, branch):
    if call('git', 'ls-remote', '--exit-code', repository, branch).returncode:
        raise SystemExit(f'{repository} (branch {branch}) is not a repository that can be read: correct the address in this cell, or the owner in settings.ini and run `make badges`')
    kept = [f'{name}=={version(name)}' for name in ('torch', 'torchvision', 'numpy') if importlib.util.find_spec(name)]
    with open('kept_versions.txt', 'w') as f: f.write('\n'.join(kept))
    done = call(sys.executable, '-m', 'pip', 'install', '-q', '-c', 'kept_versions.txt', f'git+{repository}@{branch}')
    if done.returncode: raise SystemExit('cifar_resnet could not be installed: ' + done.stderr[-1500:])
    importlib.invalidate_caches()


def advise():
    import torch
    if 'google.colab' in sys.modules and not torch.cuda.is_available():
        print('This runtime has no GPU, so training is slow: choose Runtime, Change runtime type, T4 GPU, then Run all')


install(repository, branch)  # noqa: F821
advise()
