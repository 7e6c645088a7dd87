"""The commands as a shell runs them: installed scripts, real processes, exit codes, Ctrl-C."""
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from cifar_resnet.cli import cifar_train
from cifar_resnet.data import get_data
from cifar_resnet.model import CustomResNet, save_weights

SCRIPTS = Path(sys.executable).parent
SMALL = ['--data', 'digits', '--width', '8', '--lr-max', '.2']


def shell(command, *args, cwd, **kwargs):
    return subprocess.run([SCRIPTS/command, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)


@pytest.mark.parametrize('command', ['cifar_lr', 'cifar_train', 'cifar_evaluate', 'cifar_report', 'cifar_predict', 'cifar_recipes'])
def test_help_is_there_at_once(command, tmp_path):
    took = []
    for _ in range(3):
        start = time.perf_counter()
        run = shell(command, '--help', cwd=tmp_path)
        took.append(time.perf_counter() - start)
    assert run.returncode == 0 and '--device' in run.stdout
    assert min(took) < 1, took


def test_interrupted_and_resumed(tmp_path):
    "Ctrl-C ends a run with one line and code 130; resumed, it ends at the weights of a run that nobody stopped"
    cifar_train(data='digits', width=8, lr_max=.2, epochs=6, out=tmp_path/'whole')
    stopped = subprocess.Popen([SCRIPTS/'cifar_train', *SMALL, '--epochs', '6', '--out', 'stopped'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path/'stopped'/'last.pt').exists():
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(.02)
    stopped.send_signal(signal.SIGSTOP)
    second = shell('cifar_train', '--resume', 'stopped', cwd=tmp_path)
    assert second.returncode == 2 and second.stderr.endswith('another run is at work in stopped: wait until it is done, or name another folder\n'), second.stderr
    stopped.send_signal(signal.SIGCONT)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and 'Traceback' not in err and 'stopped in epoch' in err, err
    resumed = shell('cifar_train', '--resume', 'stopped', cwd=tmp_path)
    assert resumed.returncode == 0 and 'going on in stopped' in resumed.stdout, resumed.stderr
    assert (tmp_path/'stopped'/'final.safetensors').read_bytes() == (tmp_path/'whole'/'final.safetensors').read_bytes()
    assert len(json.loads((tmp_path/'stopped'/'run.json').read_text())['epochs']) == 6


def test_a_loss_that_is_lost(tmp_path):
    run = shell('cifar_train', '--data', 'digits', '--width', '8', '--logit-scale', '1', '--lr-max', '1e12', '--epochs', '4', cwd=tmp_path)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and 'Traceback' not in run.stderr and 'the loss became nan' in last, run.stderr


def test_predict_goes_on_after_a_bad_file(tmp_path):
    d = get_data('digits')
    save_weights(CustomResNet(8), tmp_path/'w.safetensors', data='digits', classes=d.classes, mean=d.mean, std=d.std)
    (tmp_path/'b').mkdir()
    Image.fromarray(d.test.images[0]).save(tmp_path/'a.png')
    Image.fromarray(d.test.images[1]).convert('L').resize((300, 200)).save(tmp_path/'b'/'a.png')
    (tmp_path/'text.png').write_text('x')
    Image.new('1', (20_000, 20_000)).save(tmp_path/'bomb.png')
    files = ['a.png', 'text.png', 'bomb.png', 'none.jpg', 'b/a.png']
    run = shell('cifar_predict', 'w.safetensors', *files, '--cam', 'cams', cwd=tmp_path)
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ['a.png', 'b/a.png']
    assert [line.split()[0] for line in run.stderr.splitlines()] == ['text.png', 'bomb.png', 'none.jpg'], run.stderr
    assert sorted(p.name for p in (tmp_path/'cams').iterdir()) == ['a-cam-2.png', 'a-cam.png']


def test_evaluate_weights_of_other_classes(tmp_path):
    save_weights(CustomResNet(8), tmp_path/'other.safetensors', data='digits', classes=['cat', 'dog'])
    run = shell('cifar_evaluate', 'other.safetensors', cwd=tmp_path)
    assert run.returncode == 2 and run.stderr == 'cifar_evaluate: these weights tell cat, dog apart, and digits has zero, one, two, three, four, five, six, seven, eight, nine\n'


def test_nobody_reads_what_it_says(tmp_path):
    "Output that goes nowhere ends a run like any other failure: one line, code 1, the last checkpoint there"
    run = subprocess.Popen([SCRIPTS/'cifar_train', *SMALL, '--epochs', '3', '--out', 'piped'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdout.readline()
    run.stdout.close()
    err = run.stderr.read()
    assert run.wait(timeout=60) == 1 and 'Broken pipe; ' in err and 'Traceback' not in err and 'Exception ignored' not in err, err


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has no limit on the size of files to test with')
def test_a_full_disk(tmp_path):
    "A checkpoint that cannot be written ends the run with one line; the settings are still there, and nothing half-written"
    def little_room():
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    run = shell('cifar_train', *SMALL, '--epochs', 3, '--out', 'run', cwd=tmp_path, preexec_fn=little_room)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and 'Traceback' not in run.stderr, run.stderr
    assert 'last.pt could not be written: File too large' in last and 'no epoch was finished yet' in last
    assert [p.name for p in (tmp_path/'run').glob('[!.]*')] == ['settings.json']


NARROW = """
import sys
from dataclasses import replace
from cifar_resnet import recipes
usual = recipes.recipes
recipes.recipes = lambda: {name: replace(r, network=r.network | dict(width=8)) for name, r in usual().items()}
from cifar_resnet.cli import cifar_recipes
cifar_recipes.main(sys.argv[1:])
"""


def test_recipes_go_on_after_a_kill(tmp_path):
    "Killed in its first run, `cifar_recipes` finishes it from its last epoch; what is recorded is not made again"
    command = [sys.executable, '-c', NARROW, *'--only one_cycle,era_s10,eva6_s9-mended --data digits --epochs 3 --seeds 1 --out out'.split()]
    records = tmp_path/'out'/'recipes'
    records.mkdir(parents=True)
    (records/'one_cycle-digits-3ep-0.json').write_text('here already')
    killed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (last := tmp_path/'runs'/'records'/'recipes'/'era_s10-digits-3ep-0'/'last.pt').exists():
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(.02)
    killed.kill()
    killed.wait()
    assert len(list(records.iterdir())) == 1
    begun = torch.load(last, weights_only=True)['history']
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and 'made 2: recipes/era_s10-digits-3ep-0 recipes/eva6_s9-mended-digits-3ep-0' in again.stdout, again.stderr
    for name in 'era_s10', 'eva6_s9-mended':
        record = json.loads((records/f'{name}-digits-3ep-0.json').read_text())
        assert (record['recipe'], len(record['epochs'])) == (name, 3) and 0 < record['test_acc'] < 1
        assert name != 'era_s10' or record['epochs'][:len(begun)] == begun  # to the seconds: they were not made again
    assert (records/'one_cycle-digits-3ep-0.json').read_text() == 'here already'
    assert not list((tmp_path/'runs'/'records'/'recipes').iterdir())
