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


@pytest.mark.parametrize('command', ['cifar_lr', 'cifar_train', 'cifar_evaluate', 'cifar_report', 'cifar_predict', 'cifar_export', 'cifar_recipes', 'cifar_resnet'])
def test_help_loads_no_library(command, tmp_path):
    run, modules = modules_after(SCRIPTS/command, '--help', cwd=tmp_path)
    assert run.returncode == 0 and {'cifar_resnet': 'predict', 'cifar_export': '--format'}.get(command, '--device') in run.stdout
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
    assert 'run/best.safetensors could not be written: File too large' in last and 'no epoch was kept' in last
    assert sorted(p.name for p in (tmp_path/'run').glob('[!.]*')) == ['run.toml', 'settings.json']


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


# ---- what the environment does ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A finished run of one epoch"
    folder = tmp_path_factory.mktemp('trained')
    subprocess.run([SCRIPTS/'cifar_train', *SMALL, '--epochs', '1', '--out', 'run'], cwd=folder, check=True, capture_output=True)
    return folder/'run'


def shell(line, cwd, **env):
    "Run a line of bash"
    return subprocess.run(['bash', '-c', line], cwd=cwd, capture_output=True, encoding='utf-8', errors='replace', timeout=HANG, env=os.environ | dict(PATH=f"{SCRIPTS}:{os.environ['PATH']}", PYTHONUTF8='0') | env)


TRAIN = 'cifar_train --data digits --width 8 --lr-max .2 --epochs 1 --out run'


def test_closed_streams(tmp_path):
    "A closed output is refused at once, with one line; closed errors cost nothing"
    run = shell(f'{TRAIN} >&-', tmp_path)
    assert (run.returncode, run.stderr) == (1, f'cifar_train: standard output is closed: send it to a file, or to {os.devnull}\n') and not list(tmp_path.iterdir())
    run = shell(f'{TRAIN} 2>&-', tmp_path)
    assert run.returncode == 0 and 'Run of 1 epoch' in run.stdout and (tmp_path/'run'/'final.safetensors').exists(), run


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1'])
def test_a_terminal_that_lacks_characters(tmp_path, trained, encoding):
    image = tmp_path/'łódź-\u202e.png'
    Image.fromarray(get_data('digits').test.images[0]).save(image)
    run = shell(f'cifar_predict {trained} *.png none-é.png', tmp_path, PYTHONIOENCODING=encoding)
    assert run.returncode == 1 and 'Traceback' not in run.stderr and run.stdout.count('\n') == run.stderr.count('\n') == 1 and '\\u0142' in run.stdout, run


def test_no_memory(tmp_path, trained):
    run = shell(f'ulimit -v 600000; cifar_evaluate {trained}', tmp_path)
    assert run.returncode == 1 and run.stderr.startswith('cifar_evaluate: out of memory: ') and run.stderr.count('\n') == 1, run


@pytest.mark.parametrize('line,says', [
    ("cifar_evaluate '~nobody1/x'", '~nobody1/x is not a path'), ("cifar_train --data digits --out '~nobody1/x'", '~nobody1/x is not a path'), ("cifar_report '~nobody1/x'", '~nobody1/x is not a path'),
    ("cifar_lr --data digits --out '~nobody1/x.png'", '~nobody1/x.png is not a path'), ("cifar_train --resume '~nobody1/x'", '~nobody1/x is not a path')])
def test_a_home_of_nobody(tmp_path, line, says):
    run = shell(line, tmp_path)
    assert run.returncode == 2 and says in run.stderr and run.stderr.count('\n') == 1 and not list(tmp_path.iterdir()), run


def test_no_compiler(tmp_path):
    run = shell(f'{TRAIN} --compile', tmp_path, CXX='/nowhere/c++', CC='/nowhere/cc')
    last = run.stderr.splitlines()[-1]
    assert run.returncode == 1 and 'Traceback' not in run.stderr and 'cifar_train: torch.compile failed: ' in last and 'a run without --compile needs no compiler' in last, run.stderr


def test_a_backend_that_does_not_exist(tmp_path):
    "Commands draw into files, whatever the terminal would show"
    run = shell(TRAIN, tmp_path, MPLBACKEND='nope')
    assert run.returncode == 0 and (tmp_path/'run'/'curves.png').exists(), run


def test_figures_that_cannot_be_drawn(tmp_path):
    "The line says that the weights are kept"
    (tmp_path/'run'/'curves.png').mkdir(parents=True)
    run = shell(TRAIN, tmp_path)
    assert run.returncode == 1 and run.stderr.splitlines()[-1].endswith('cifar_train: the run is complete, and run has its weights and its record; its figures could not be drawn: '
                                                                         'run/curves.png is a folder, and is not replaced by a file: name another one'), run.stderr
    assert (tmp_path/'run'/'final.safetensors').exists()


def test_a_bug_of_ours(tmp_path):
    "It keeps its traceback, and the last line names the bug tracker"
    code = "from cifar_resnet import cli; cli.COMMANDS['evaluate'] = (*cli.COMMANDS['evaluate'][:2], lambda args: {}['x']); cli.cifar_evaluate(['x'])"
    run = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith('Traceback') and "KeyError: 'x'" in run.stderr and run.stderr.endswith('/issues\n'), run
    shown = shell('cifar_evaluate nothing', tmp_path, CIFAR_RESNET_DEBUG='1')
    assert shown.returncode == 2 and shown.stderr.startswith('Traceback') and 'cifar_evaluate: nothing was not found' in shown.stderr.splitlines()[-1], shown


@pytest.mark.parametrize('sig,code', [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_every_signal_says_the_same(tmp_path, start, sig, code):
    last, held = tmp_path/'run'/'last.pt', tmp_path/'held'
    run = start('cifar_train', *SMALL, '--epochs', 3, '--out', 'run', cwd=tmp_path, prepare=partial(hold_training, held, after=last))
    wait_until(held.exists, run)
    run.send_signal(sig)
    run.wait()
    name = 'Ctrl-C' if sig == signal.SIGINT else sig.name
    assert run.returncode == code and ('\n' + run.stderr).endswith(f'\ncifar_train: stopped by {name} after 1 of 3 epochs; run/last.pt holds the first epoch; continue with: cifar_train --resume run\n'), run
    assert 'Traceback' not in run.stderr and not list((tmp_path/'run').glob('.*.part'))


def test_nohup_keeps_a_run_alive(tmp_path, start):
    "A signal that the caller ignores stays ignored"
    held, go_on = tmp_path/'held', tmp_path/'go on'
    run = start('cifar_train', *SMALL, '--epochs', 1, '--out', 'run', cwd=tmp_path, prepare=partial(ignore_hangup, held, go_on))
    wait_until(held.exists, run)
    run.send_signal(signal.SIGHUP)
    go_on.touch()
    assert run.wait().returncode == 0, run


def ignore_hangup(held, go_on):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hold_training(held, until=go_on)


def test_a_second_run_that_was_asleep(tmp_path, start):
    "B has checked the folder and sleeps; A starts into it; B wakes up, and leaves A's settings alone"
    a, held, go_on = tmp_path/'a', tmp_path/'held', tmp_path/'go on'
    second = start('cifar_train', *SMALL, '--epochs', 5, '--out', 'run', cwd=tmp_path, prepare=partial(hold_before_the_lock, held, go_on))
    wait_until(held.exists, second)
    first = start('cifar_train', *SMALL, '--epochs', 2, '--out', 'run', cwd=tmp_path, prepare=partial(hold_training, a, after=tmp_path/'run'/'last.pt'))
    wait_until(a.exists, first)
    settings = (tmp_path/'run'/'settings.json').read_bytes()
    go_on.touch()
    second.wait()
    assert second.returncode == 2 and 'another run is using run' in second.stderr, second
    first.kill()
    assert (tmp_path/'run'/'settings.json').read_bytes() == settings
    late = start('cifar_train', *SMALL, '--epochs', 5, '--out', 'run', cwd=tmp_path).wait()
    assert late.returncode == 2 and 'run already holds a run: --resume run continues it' in late.stderr and (tmp_path/'run'/'settings.json').read_bytes() == settings
    resumed = start('cifar_train', '--resume', 'run', cwd=tmp_path).wait()
    assert resumed.returncode == 0 and len(json.loads((tmp_path/'run'/'run.json').read_text())['epochs']) == 2, resumed


def hold_before_the_lock(held, go_on):
    from cifar_resnet import cli
    usual = cli.check_run

    def check_run(*args):
        checked = usual(*args)
        held.touch()
        wait_until(go_on.exists)
        return checked
    cli.check_run = check_run


def test_a_curve_that_does_not_fit_on_the_disk(tmp_path, start):
    "The old picture stays, and the line names the file"
    (tmp_path/'lr.png').write_bytes(b'old')
    run = start('cifar_lr', *SMALL[:4], '--out', 'lr.png', cwd=tmp_path, prepare=partial(limit_file_size, 5000)).wait()
    assert run.returncode == 2 and run.stderr.endswith('cifar_lr: lr.png could not be written: File too large; the previous file, if any, is unchanged\n'), run
    assert (tmp_path/'lr.png').read_bytes() == b'old' and [p.name for p in tmp_path.iterdir()] == ['lr.png']
