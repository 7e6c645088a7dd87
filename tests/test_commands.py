"""Run the installed commands in real processes: exit codes, messages, Ctrl-C, kills, full disks."""
import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from PIL import Image
from processes import HANG, SCRIPTS, hold_training, limit_file_size, modules_after, wait_until

from cifar_resnet.data import get_data
from cifar_resnet.model import CustomResNet, save_weights

SMALL = ['--data', 'digits', '--width', '8', '--lr-max', '.2']


@pytest.mark.parametrize('command', ['cifar_lr', 'cifar_train', 'cifar_evaluate', 'cifar_report', 'cifar_predict', 'cifar_recipes', 'cifar_resnet'])
def test_help_loads_no_library(command, tmp_path):
    run, modules = modules_after(SCRIPTS/command, '--help', cwd=tmp_path)
    assert run.returncode == 0 and ('--device' in run.stdout or command == 'cifar_resnet' and 'predict' in run.stdout)
    assert modules == {'cifar_resnet'}


def test_interrupted_and_resumed(tmp_path, start):
    "Ctrl-C ends a run with one line and code 130; resumed in a new interpreter, it ends with the weights of an uninterrupted run"
    train, last, held = ['cifar_train', *SMALL, '--epochs', 3, '--out'], tmp_path/'stopped'/'last.pt', tmp_path/'held'
    stopped = start(*train, 'stopped', cwd=tmp_path, prepare=partial(hold_training, held, after=last))
    whole = start(*train, 'whole', cwd=tmp_path)
    wait_until(held.exists, stopped)
    second = start('cifar_train', '--resume', 'stopped', cwd=tmp_path).wait()
    assert second.returncode == 2 and second.stderr.endswith('another run is using stopped: wait until it ends, or name another folder\n'), second
    stopped.send_signal(signal.SIGINT)
    stopped.wait()
    assert stopped.returncode == 130 and 'Traceback' not in stopped.stderr and stopped.stderr.endswith('cifar_train: stopped by Ctrl-C after 1 of 3 epochs; stopped/last.pt holds the first epoch; continue with: cifar_train --resume stopped\n'), stopped
    resumed = subprocess.run([SCRIPTS/'cifar_train', '--resume', 'stopped'], cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
    assert resumed.returncode == 0 and 'continuing in stopped' in resumed.stdout, resumed.stderr
    assert whole.wait().returncode == 0, whole
    assert (tmp_path/'stopped'/'final.safetensors').read_bytes() == (tmp_path/'whole'/'final.safetensors').read_bytes()
    assert len(json.loads((tmp_path/'stopped'/'run.json').read_text())['epochs']) == 3


def test_a_loss_that_is_lost(tmp_path, start):
    run = start('cifar_train', '--data', 'digits', '--width', 8, '--logit-scale', 1, '--lr-max', '1e12', '--epochs', 4, cwd=tmp_path).wait()
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and 'Traceback' not in run.stderr and 'the loss became nan' in last, run.stderr


def test_predict_goes_on_after_a_bad_file(tmp_path, start):
    d = get_data('digits')
    save_weights(CustomResNet(8), tmp_path/'w.safetensors', data='digits', classes=d.classes, mean=d.mean, std=d.std)
    (tmp_path/'b').mkdir()
    Image.fromarray(d.test.images[0]).save(tmp_path/'a.png')
    Image.fromarray(d.test.images[1]).convert('L').resize((300, 200)).save(tmp_path/'b'/'a.png')
    (tmp_path/'text.png').write_text('x')
    Image.new('1', (20_000, 20_000)).save(tmp_path/'bomb.png')
    files = ['a.png', 'text.png', 'bomb.png', 'none.jpg', 'b/a.png']
    run = start('cifar_predict', 'w.safetensors', *files, '--cam', 'cams', cwd=tmp_path).wait()
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ['a.png', 'b/a.png']
    assert [line.split()[0] for line in run.stderr.splitlines()] == ['text.png', 'bomb.png', 'none.jpg'], run.stderr
    assert sorted(p.name for p in (tmp_path/'cams').iterdir()) == ['a-cam-2.png', 'a-cam.png']


def test_evaluate_weights_of_other_classes(tmp_path, start):
    save_weights(CustomResNet(8), tmp_path/'other.safetensors', data='digits', classes=['cat', 'dog'])
    run = start('cifar_evaluate', 'other.safetensors', cwd=tmp_path).wait()
    assert run.returncode == 2 and run.stderr == 'cifar_evaluate: the classes do not match: the weights know cat, dog, and digits has zero, one, two, three, four, five, six, seven, eight, nine\n'


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has no named pipes in folders')
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_nobody_reads_the_output(tmp_path, start, monkeypatch, unbuffered):
    "A closed output ends a run with one line and code 1, whether Python buffers the output or not"
    monkeypatch.setenv('PYTHONUNBUFFERED', unbuffered)
    pipe, held, closed = tmp_path/'pipe', tmp_path/'held', tmp_path/'closed'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run = start('cifar_train', *SMALL, '--epochs', 2, '--out', 'piped', cwd=tmp_path, stdout=pipe, prepare=partial(hold_training, held, until=closed))
    wait_until(held.exists, run)
    assert b'digits' in os.read(reader, 1 << 16)
    os.close(reader)
    closed.touch()
    err = run.wait().stderr
    assert run.returncode == 1 and 'Traceback' not in err and 'Exception ignored' not in err, err
    assert ('Broken pipe; no epoch was kept' if unbuffered else 'Broken pipe\n') in err, err


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has no limit on the size of files to test with')
def test_a_full_disk(tmp_path, start):
    "A checkpoint that cannot be written ends the run with one line; the settings remain, and no half-written file"
    run = start('cifar_train', *SMALL, '--epochs', 2, '--out', 'run', cwd=tmp_path, prepare=partial(limit_file_size, 300_000)).wait()
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and 'Traceback' not in run.stderr, run.stderr
    assert 'last.pt could not be written: File too large' in last and 'no epoch was kept' in last
    assert [p.name for p in (tmp_path/'run').glob('[!.]*')] == ['settings.json']


NARROW = """
import sys
from dataclasses import replace
from cifar_resnet import recipes
usual = recipes.recipes
recipes.recipes = lambda: {name: replace(r, network=r.network | dict(width=8)) for name, r in usual().items()}
from cifar_resnet.cli import cifar_recipes
cifar_recipes(sys.argv[1:])
"""


def test_recipes_go_on_after_a_kill(tmp_path, start):
    "Killed in its first run, `cifar_recipes` continues from the last epoch; it does not repeat recorded runs"
    command = ['-c', NARROW, *'--only one_cycle,era_s10,eva6_s9-fixed --data digits --epochs 2 --seeds 1 --out out'.split()]
    records, last, held = tmp_path/'out'/'recipes', tmp_path/'runs'/'records'/'recipes'/'era_s10-digits-2ep-0'/'last.pt', tmp_path/'held'
    records.mkdir(parents=True)
    (records/'one_cycle-digits-2ep-0.json').write_text('{"name": "made before"}')
    killed = start(*command, cwd=tmp_path, prepare=partial(hold_training, held, after=last))
    wait_until(held.exists, killed)
    killed.kill()
    assert len(list(records.iterdir())) == 1
    started = torch.load(last, weights_only=True)['history']
    assert len(started) == 1
    again = start(*command, cwd=tmp_path).wait()
    assert again.returncode == 0 and 'made 2: recipes/era_s10-digits-2ep-0 recipes/eva6_s9-fixed-digits-2ep-0' in again.stdout, again.stderr
    for name in 'era_s10', 'eva6_s9-fixed':
        record = json.loads((records/f'{name}-digits-2ep-0.json').read_text())
        assert (record['recipe'], len(record['epochs'])) == (name, 2) and 0 < record['test_acc'] < 1
        assert name != 'era_s10' or record['epochs'][:len(started)] == started  # equal seconds: the epoch was not repeated
    assert (records/'one_cycle-digits-2ep-0.json').read_text() == '{"name": "made before"}'
    assert not list((tmp_path/'runs'/'records'/'recipes').iterdir())
