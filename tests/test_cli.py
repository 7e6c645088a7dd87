"""The commands, called in this process: what they leave, what they refuse, and with which exit code."""
import contextlib
import errno
import importlib.util
import inspect
import json
import os
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from processes import hold_training, modules_after, wait_until

from cifar_resnet import cli
from cifar_resnet.checkpoint import RunFolder
from cifar_resnet.cli import COMMANDS, apply_options, exit_code, load_settings, main, make_script_parser
from cifar_resnet.core import DataError, Diverged, TrainingError, to_plain
from cifar_resnet.data import get_data
from cifar_resnet.lr_finder import LRCurve, range_test
from cifar_resnet.model import CustomResNet, load_weights, save_weights
from cifar_resnet.recipes import DIGITS, EVA6_S9, ONE_CYCLE, OverlappingNet, find_recipes
from cifar_resnet.records import recipe_runs
from cifar_resnet.report import write_report
from cifar_resnet.train import OneCycle

TRAIN_SCRIPT = 'from cifar_resnet.cli import cifar_train; cifar_train()'
SMALL = '--data digits --width 8 --lr-max .2 --epochs 1'


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    "Return a function of a command line, run in an empty folder: (exit code, output, errors)"
    monkeypatch.chdir(tmp_path)
    for name in 'CIFAR_RESNET_QUICK', 'CIFAR_RESNET_RERUN': monkeypatch.delenv(name, raising=False)

    def call(line):
        name, *args = shlex.split(line)
        try: code = getattr(cli, name)(args) if name != 'cifar_resnet' else main(args)
        except SystemExit as e: code = e.code
        return (code or 0, *capsys.readouterr())
    return call


@pytest.fixture
def weights(tmp_path):
    "Untrained weights for digits"
    d = get_data('digits')
    return save_weights(CustomResNet(8), tmp_path/'w.safetensors', data='digits', classes=d.classes, mean=d.mean, std=d.std)


def refused(result, *parts, code=2):
    "One line, and nothing else"
    got, out, err = result
    assert (got, out, err.count('\n')) == (code, '', 1) and 'Traceback' not in err, result
    for part in parts: assert part in err, err


def tree(folder): return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob('*')}


# ---- parsing ------------------------------------------------------------------------------------------------------------------------

def test_importing_the_commands_loads_nothing_else():
    done, modules = modules_after('-c', 'import cifar_resnet.cli')
    assert done.returncode == 0 and modules == {'cifar_resnet'}, done.stderr


@pytest.mark.parametrize('name', COMMANDS)
def test_both_forms_have_the_same_help(call, name):
    whole, script = call(f'cifar_resnet {name} --help'), call(f'cifar_{name} --help')
    assert whole[0] == script[0] == 0 and not whole[2] and not script[2]
    def options(text): return text[text.index('\noptions:'):]
    assert options(whole[1]) == options(script[1]) and '%%' not in whole[1] and {'export': '--format'}.get(name, '--device') in whole[1]


@pytest.mark.parametrize('line,says', [
    ('cifar_resnet', 'the following arguments are required: command; cifar_resnet --help lists the options'),
    ('cifar_resnet tran', "invalid choice: 'tran'"), ('cifar_resnet train --widht 8', 'cifar_resnet: unrecognized arguments: --widht 8'),
    ('cifar_train x', 'unrecognized arguments: x'), ("cifar_train 'a\nb'", 'unrecognized arguments: a b'), ('cifar_train --epochs x', "--epochs: invalid int value: 'x'"),
    ('cifar_train --lr-max', '--lr-max: expected one argument'), ('cifar_lr --epochs 3', 'unrecognized arguments: --epochs 3'), ('cifar_predict', 'required: weights, images')])
def test_arguments_that_cannot_be_parsed(call, tmp_path, line, says):
    refused(call(line), says)
    assert not tree(tmp_path)


def test_underscores_are_dashes():
    def parse(*argv): return vars(make_script_parser('train').parse_args(cli._with_dashes(list(argv))))
    assert parse('--lr_max', '.2', '--peak_epoch=1', '--no_full', '--out', 'a_b') == parse('--lr-max', '.2', '--peak-epoch', '1', '--no-full', '--out=a_b')
    assert cli._with_dashes(['--out=a_b', '--', '--a_b.png', 'c_d']) == ['--out=a_b', '--', '--a_b.png', 'c_d']


def test_underscores_in_a_run(call):
    assert call('cifar_train --data digits --width 8 --lr_max .2 --epochs 2 --peak_epoch=1 --batch_size 128 --no_full --out a_b')[0] == 0
    recipe = load_settings(Path('a_b'))
    assert (recipe.schedule, recipe.config.batch_size) == (OneCycle(.002, .2, 2, 1), 128)


def test_defaults_in_help_are_those_of_the_functions():
    "A default stands in a signature; the help text repeats it"
    functions = dict(start=range_test, end=range_test, steps=range_test, sample=write_report)
    for command, names in ('lr', ('start', 'end', 'steps')), ('report', ('sample',)), ('recipes', ('epochs',)):
        options = {names[0].strip('-'): kwargs for names, kwargs in COMMANDS[command][1]}
        for name in names:
            default = inspect.signature(functions.get(name, recipe_runs)).parameters[name].default
            assert options[name]['help'].endswith(f'; {default:g} when not given') and options[name].get('default') is None
    assert all(kwargs.get('default') is None for _, kwargs in COMMANDS['train'][1])


# ---- errors ------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('error,code', [
    (ValueError('x'), 2), (DataError('x'), 2), (FileNotFoundError('x'), 2), (UnicodeDecodeError('utf-8', b'', 0, 1, 'x'), 2), (TrainingError('x'), 1), (Diverged('x'), 1),
    (OSError(errno.ENOSPC, 'x'), 1), (BrokenPipeError(errno.EPIPE, 'x'), 1), (KeyboardInterrupt(), 130), (KeyError('x'), None), (TypeError('x'), None), (RuntimeError('x'), None),
    (type('OutOfMemoryError', (RuntimeError,), {})('x'), 1)])
def test_exit_codes(call, monkeypatch, error, code):
    def fail(args): raise error
    monkeypatch.setitem(COMMANDS, 'fail', ('Fail', (), fail))
    assert exit_code(error) == code
    if code is None:  # a bug of ours keeps its traceback
        got, out, err = call('cifar_resnet fail')
        assert got == 1 and err.startswith('Traceback') and type(error).__name__ in err and err.endswith('/issues\n')
    else: refused(call('cifar_resnet fail'), 'cifar_resnet fail: ' + ('stopped' if code == 130 else ''), code=code)


def test_a_message_of_several_lines_is_one(call, monkeypatch):
    def fail(args): raise ValueError('a\n  b')
    monkeypatch.setitem(COMMANDS, 'fail', ('Fail', (), fail))
    assert call('cifar_resnet fail') == (2, '', 'cifar_resnet fail: a b\n')


TRAIN = [
    ('--data cifar100', '--data must be one of cifar10, digits'), ("--data ''", '--data must be one of'), ('--recipe eva9', "there is no recipe 'eva9'"), ("--recipe ''", "there is no recipe ''"),
    ('--epochs 0', 'epochs must be'), ('--epochs 3 --peak-epoch 4', 'peak_epoch must be'), ('--lr-max -1', '--lr-max must be a number above 0 (got -1.0)'), ('--lr-max 0', '--lr-max must be'), ('--lr-max nan', '--lr-max must be'),
    ('--lr-min 3 --lr-max 1', 'lr_max must be at least lr_min (got lr_max=1, lr_min=3)'), ('--lr-min -1', '--lr-min must be'), ('--lr-min inf', '--lr-min must be'),
    ('--recipe digits --lr-min 1', 'lr_max must be at least lr_min (got lr_max=0.2, lr_min=1)'), ('--anneal exp', 'anneal must be one of linear, cos'),
    ('--width 0', 'width must be'), ('--width 129', 'width must be'), ('--logit-scale nan', 'logit_scale must be'), ('--recipe eva6_s9 --logit-scale 1', 'does not fit eva6_s9'),
    ('--seed -1', 'seed must be'), ('--batch-size 0', 'batch_size must be'), ('--batch-size 5000', '--batch-size must be a whole number from 1 to 1,257'),
    ('--full --batch-size 1438', 'from 1 to 1,437'), ('--accumulate 0', 'accumulate must be'), ('--accumulate 65', 'accumulate must be'), ('--ema 2', 'ema must be'), ('--ema 0', 'ema must be'),
    ('--optimizer lion', 'optimizer must be one of'), ('--weight-decay -1', 'weight_decay must be'), ('--label-smoothing 1.5', 'label_smoothing must be'),
    ('--precision fp8', 'precision must be one of'), ('--device tpu', 'device must be one of'), ('--device cuda:99', 'device must be one of'),
    ('--out file/run', 'cannot be written to: Not a directory'), ('--out file', 'cannot be written to'), ('--out ~no_such_user/x', '~no_such_user'),
    ('--resume nowhere', 'nowhere does not hold a run of cifar_train: settings.json was not found there'), ("--resume ''", 'does not hold a run'),
    ('--resume file', 'does not hold a run'), ('--resume ~no_such_user/x', '~no_such_user')]
OTHERS = [
    ('cifar_lr --data digits --steps 3', 'steps must be'), ('cifar_lr --data digits --start 1 --end .1', 'end must be'), ('cifar_lr --data digits --start 0', 'start must be'),
    ('cifar_lr --data digits --out new/curve.txt', '--out must end in .png, .svg or .pdf (got new/curve.txt)'), ('cifar_lr --data digits --out file/x.png', 'cannot be written to'),
    ('cifar_lr --data digits --device tpu', 'device must be one of'), ('cifar_lr --recipe eva9', 'there is no recipe'), ('cifar_lr --data digits --batch-size 5000', '--batch-size must be'),
    ('cifar_lr --data digits --out ~no_such_user/x.png', '~no_such_user'),
    ('cifar_evaluate nothing.safetensors', 'nothing.safetensors was not found'), ('cifar_evaluate .', 'final.safetensors was not found'), ('cifar_evaluate feeding', 'was recorded without weights'),
    ('cifar_evaluate file', 'does not hold weights'), ('cifar_evaluate w.safetensors --device tpu', 'device must be one of'), ('cifar_evaluate w.safetensors --precision fp8', 'precision must be'),
    ('cifar_evaluate w.safetensors --data cifar', "data must be 'cifar10' or 'digits'"), ('cifar_evaluate ~no_such_user/w', '~no_such_user'),
    ('cifar_report nothing', "no run is recorded as 'nothing'"), ('cifar_report .', 'does not hold a finished run'), ('cifar_report feeding', 'feeding is not the record of a training run'),
    ('cifar_report one_cycle_24 --sample 0', '--sample must be'), ('cifar_report one_cycle_24 --out new/page.txt', '--out must end in .html'), ('cifar_report one_cycle_24 --device tpu', 'device must'),
    ('cifar_report one_cycle_24 --out file/x.html', 'cannot be written to'), ('cifar_report rates/cpu-peak0.4-end0-0 --out new/x.html', 'was recorded without weights'),
    ('cifar_predict nothing x.png', 'nothing was not found'), ('cifar_predict w.safetensors x.png --top 0', '--top must be'), ('cifar_predict w.safetensors x.png --device tpu --cam new', 'device must'),
    ('cifar_predict w.safetensors x.png --cam file', 'cannot be written to'), ('cifar_predict bare.safetensors x.png --cam new', 'the weights do not name their classes, mean and std'),
    ('cifar_predict other.safetensors x.png --cam new', '--cam needs a network with a layer3, and OverlappingNet has none'),
    ('cifar_recipes --only eva9', "there is no recipe 'eva9'"), ("cifar_recipes --only ''", "there is no recipe ''"), ('cifar_recipes --only era_s10,', "there is no recipe ''"),
    ('cifar_recipes --seeds 0', '--seeds must be'), ('cifar_recipes --epochs 0', '--epochs must be'), ('cifar_recipes --data cifar100', '--data must be one of'),
    ('cifar_recipes --device tpu', 'device must be one of'), ('cifar_recipes --out file/x', 'cannot be written to')]


@pytest.mark.parametrize('line,says', [(f'cifar_train {o if o.startswith(("--data", "--recipe")) else f"--data digits {o}"}', says) for o, says in TRAIN] + OTHERS)
def test_a_wrong_request_writes_nothing(call, tmp_path, weights, line, says):
    (tmp_path/'file').write_text('x')
    save_weights(CustomResNet(8), tmp_path/'bare.safetensors')
    d = get_data('digits')
    save_weights(OverlappingNet(8), tmp_path/'other.safetensors', classes=d.classes, mean=d.mean, std=d.std)
    Image.new('RGB', (32, 32)).save(tmp_path/'x.png')
    before = tree(tmp_path)
    refused(call(line), says, line.split()[0] + ': ')
    assert tree(tmp_path) == before


def test_data_that_is_not_found_leaves_no_folder(call, nowhere, monkeypatch):
    def none(*args): raise DataError('CIFAR-10 was not found')
    monkeypatch.setattr('cifar_resnet.data.download_cifar10', none)
    for line in 'cifar_train --out new/run', 'cifar_lr --out new/x.png', 'cifar_recipes --out new', 'cifar_report one_cycle_24 --out new/x.html':
        refused(call(line), 'CIFAR-10 was not found')
    assert not tree(nowhere)


def test_tensorboard_that_is_not_installed_is_noticed_first(call, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, 'find_spec', lambda name: None if name == 'tensorboard' else importlib.util.find_spec(name))
    refused(call(f'cifar_train {SMALL} --tensorboard'), '--tensorboard needs one more package: pip install tensorboard')
    assert not tree(tmp_path)


# ---- options and recipes ------------------------------------------------------------------------------------------------------------

def test_options_over_a_recipe(call):
    "A published recipe on other data, small and short; its settings rebuild the recipe that was trained"
    code, out, err = call('cifar_train --recipe era_s10 --data digits --width 8 --epochs 1')
    assert code == 0 and 'runs/digits' in out and 'finding the learning rates' not in out, err
    recipe = load_settings(Path('runs/digits'))
    assert recipe == apply_options(find_recipes('era_s10')[0], dict(data='digits', width=8, epochs=1))
    assert (recipe.name, recipe.config.optim.name, recipe.mean, recipe.schedule.epochs, recipe.network['width']) == ('era_s10', 'adam', None, 1, 8)
    record, settings = (json.loads(Path('runs/digits', f'{name}.json').read_text()) for name in ('run', 'settings'))
    assert record['network']['config']['padding_mode'] == 'reflect' and len(record['epochs']) == 1
    assert record['schedule'] == settings['schedule'] and record['augment'] == settings['config']['augment']
    assert settings == to_plain(recipe) and settings['kind'] == 'Recipe' and record['images'] == 1437


def test_a_network_of_another_class(call):
    assert call('cifar_train --recipe eva6_s9-fixed --data digits --width 8 --epochs 1 --out run')[0] == 0
    assert load_settings(Path('run')).net == 'OverlappingNet' and type(load_weights('run/final.safetensors')[0]) is OverlappingNet
    code, out, err = call('cifar_evaluate run')
    assert code == 0 and 'plain' in out and 'with flips' not in out, err
    refused(call('cifar_train --resume run --logit-scale 1'), 'run was started without --logit-scale, not with --logit-scale 1.0')


def test_every_option_reaches_its_place():
    given = dict(data='digits', epochs=7, peak_epoch=2., lr_max=.3, lr_min=.01, anneal='cos', batch_size=32, width=24, logit_scale=.5, optimizer='adamw', weight_decay=.1,
                 label_smoothing=.2, ema=.9, accumulate=2, precision='float32', compile=True, sync_bn=True, seed=5, full=False)
    recipe = apply_options(ONE_CYCLE, given)
    assert cli._current_options(recipe) == given | dict(recipe='one_cycle')
    untouched = apply_options(ONE_CYCLE, {})
    assert untouched == ONE_CYCLE and apply_options(ONE_CYCLE, dict(data='cifar10')) == ONE_CYCLE


def test_rates_over_a_recipe_with_a_last_rate_of_its_own():
    "The last rate is the first one as soon as either rate is given"
    era = find_recipes('era_s10')[0]
    def rates(**given):
        s = apply_options(era, given).schedule
        return s.lr_min, s.lr_max, s.final
    assert rates(epochs=3) == (era.schedule.lr_min, era.schedule.lr_max, era.schedule.final) and era.schedule.final is not None
    assert rates(lr_max=.1) == (.001, .1, None) and rates(lr_min=.001) == (.001, era.schedule.lr_max, None) and rates(lr_max=.1, lr_min=.1) == (.1, .1, None)


def test_normalization_of_the_recipe_or_of_the_other_data():
    assert apply_options(EVA6_S9, dict(epochs=2)).mean == EVA6_S9.mean
    assert apply_options(EVA6_S9, dict(data='digits')).mean is apply_options(EVA6_S9, dict(data='digits')).std is None


def test_full_and_no_full(call):
    for options, images in ('', 1257), ('--no-full', 1257), ('--full', 1437):
        out = options.strip('-') or 'default'
        assert call(f'cifar_train {SMALL} {options} --out {out}')[0] == 0
        assert json.loads(Path(out, 'run.json').read_text())['images'] == images
        assert Path(out, 'best.safetensors').exists() == (images == 1257)


def parsed(line):
    "Return the recipe that a command line of cifar_train names"
    return cli.choose_recipe(make_script_parser('train').parse_args(line.split()))


def test_recipe_of_the_course_trains_on_all_images_unless_told():
    assert parsed('').config.full and not parsed('--no-full').config.full and not parsed('--data digits').config.full
    assert parsed('').name == 'one_cycle' and parsed('--data digits') == DIGITS and parsed('--recipe digits') == DIGITS


# ---- the range test --------------------------------------------------------------------------------------------------------------------

def rates(lr_min, lr_max, seen=None):
    "A stand-in for `find_lr`, which keeps its arguments"
    lrs = np.geomspace(1e-5, 10, 50)
    def find_lr(model, data, **kwargs):
        if seen is not None: seen.update(kwargs, data=data.name, width=model.config['width'])
        return LRCurve(lrs, 2.3 - np.exp(-(np.log(lrs) + 1)**2), lrs, lr_min, lr_max)
    return find_lr


def test_a_range_test_with_the_settings_of_the_run(call, monkeypatch):
    seen = {}
    monkeypatch.setattr('cifar_resnet.lr_finder.find_lr', rates(.003, .3, seen))
    code, out, err = call('cifar_train --data digits --width 8 --epochs 1 --seed 3 --optimizer adam --batch-size 128 --label-smoothing .1 --precision float32')
    assert code == 0 and 'learning rate 0.003 to 0.3' in out, err
    schedule = load_settings(Path('runs/digits')).schedule
    assert (schedule.lr_min, schedule.lr_max) == (.003, .3) and Path('runs/digits/lr.png').exists()
    assert (seen['seed'], seen['optim'].name, seen['batch_size'], seen['label_smoothing'], seen['precision'], seen['width']) == (3, 'adam', 128, .1, 'float32', 8)


def test_lr_min_alone_goes_with_the_rate_that_is_found(call, monkeypatch):
    monkeypatch.setattr('cifar_resnet.lr_finder.find_lr', rates(.003, .9))
    assert call('cifar_train --data digits --width 8 --epochs 1 --lr-min .5 --out a')[0] == 0  # above lr_max of the recipe, below the one that is found
    assert (load_settings(Path('a')).schedule.lr_min, load_settings(Path('a')).schedule.lr_max) == (.5, .9)
    code, out, err = call('cifar_train --data digits --width 8 --epochs 1 --lr-min 1 --out b')
    assert code == 2 and 'lr_max must be at least lr_min (got lr_max=0.9, lr_min=1)' in err and err.count('\n') == 1
    assert not [p.name for p in Path('b').glob('[!.]*')]


def test_killed_in_the_range_test(call, monkeypatch):
    "Nothing remains that blocks a new run in the same folder"
    def stop(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr('cifar_resnet.lr_finder.find_lr', stop)
    begin = 'cifar_train --data digits --width 8 --epochs 1 --out run'
    assert call(begin) == (130, 'finding the learning rates …\n', 'cifar_train: stopped\n')
    assert not list(Path('run').glob('[!.]*'))
    refused(call('cifar_train --resume run'), 'run does not hold a run of cifar_train: settings.json was not found there')
    Path('run/lr.png').touch()  # killed a moment later
    monkeypatch.setattr('cifar_resnet.lr_finder.find_lr', rates(.002, .2))
    assert call(begin)[0] == 0 and Path('run/final.safetensors').exists()


def test_a_process_killed_in_the_range_test(call, tmp_path, start):
    held = tmp_path/'held'
    first = start('-c', TRAIN_SCRIPT, '--data', 'digits', '--width', 8, '--epochs', 1, '--out', 'run', cwd=tmp_path, prepare=partial(hold_training, held))
    wait_until(held.exists, first)
    assert first.stdout == 'finding the learning rates …\n' and not list((tmp_path/'run').glob('[!.]*')), first
    first.kill()
    assert call(f'cifar_train {SMALL} --out run')[0] == 0


def test_lr_alone(call, tmp_path):
    code, out, err = call('cifar_lr --data digits --width 8 --steps 60 --out new/curve.svg')
    assert code == 0 and out.startswith('LRMIN ') and 'LRMAX ' in out, err
    assert set(tree(tmp_path)) == {'new', 'new/curve.svg'}


def test_lr_of_a_recipe(call, monkeypatch):
    seen = {}
    monkeypatch.setattr('cifar_resnet.lr_finder.find_lr', rates(.003, .3, seen))
    assert call('cifar_lr --recipe era_s10 --data digits --width 8 --steps 77')[0] == 0
    assert (seen['optim'].name, seen['batch_size'], seen['steps'], seen['data']) == ('adam', 512, 77, 'digits') and 'start' not in seen
    assert call('cifar_lr --data digits --start 1e-4 --end 1')[0] == 0 and (seen['start'], seen['end']) == (1e-4, 1)


# ---- one folder, one run ----------------------------------------------------------------------------------------------------------------

def test_a_second_run_in_one_folder(call):
    assert call(f'cifar_train {SMALL} --out run')[0] == 0
    before = tree(Path('run'))
    refused(call(f'cifar_train {SMALL} --out run'), 'run already holds a run: --resume run continues it, another --out starts a new one')
    refused(call('cifar_train --recipe era_s10 --data digits --out ./run'), 'already holds a run')
    assert tree(Path('run')) == before


def test_a_second_run_that_starts_while_the_first_is_checked(call, monkeypatch):
    usual, theirs = cli.check_run, '{"of": "the other run"}'

    def check_run(recipe, args, folder):
        checked = usual(recipe, args, folder)
        folder.mkdir()
        (folder/'settings.json').write_text(theirs)
        return checked
    monkeypatch.setattr(cli, 'check_run', check_run)
    refused(call(f'cifar_train {SMALL} --out run'), 'run already holds a run')
    assert [p.name for p in Path('run').glob('[!.]*')] == ['settings.json'] and Path('run/settings.json').read_text() == theirs


def test_a_second_run_while_the_first_has_the_folder(tmp_path, start):
    with RunFolder(tmp_path/'run').lock():
        second = start('-c', TRAIN_SCRIPT, *SMALL.split(), '--out', 'run', cwd=tmp_path).wait()
    refused((second.returncode, second.stdout, second.stderr), 'another run is using run')
    assert not list((tmp_path/'run').glob('[!.]*'))


def test_the_folder_of_a_run_from_python(call, tmp_path):
    "`fit` writes no settings.json; its checkpoint is not continued by a run with other settings"
    Path('run').mkdir()
    Path('run/last.pt').write_bytes(b'of another run')
    refused(call(f'cifar_train {SMALL} --out run'), 'run already holds a run')
    refused(call('cifar_train --resume run'), 'run does not hold a run of cifar_train')
    assert [p.name for p in Path('run').iterdir()] == ['last.pt']


def test_runs_without_a_name_get_folders_of_their_own(call):
    for _ in range(2): assert call('cifar_train --recipe digits --width 8 --epochs 1')[0] == 0
    assert sorted(p.name for p in Path('runs').iterdir()) == ['digits', 'digits-2']


# ---- resume ------------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A finished run"
    with contextlib.chdir(tmp_path_factory.mktemp('trained')):
        cli.cifar_train([*SMALL.split(), '--seed', '1', '--ema', '.9', '--out', 'run'])
        return Path('run').resolve()


@pytest.fixture
def run(call, trained, tmp_path):
    "The same in the folder of the test"
    shutil.copytree(trained, tmp_path/'run')
    return Path('run')


def test_resume(call, run):
    weights = (run/'final.safetensors').read_bytes()
    for line in '--resume run', '--resume run/last.pt --out ./run --device cpu', f'--resume run --recipe digits --seed 1 --ema .9 --no-full {SMALL}':
        code, out, err = call(f'cifar_train {line}')
        assert code == 0 and 'continuing in run' in out, err
        assert (run/'final.safetensors').read_bytes() == weights
    (run/'last.pt').unlink()  # killed in its first epoch
    code, out, err = call('cifar_train --resume run')
    assert code == 0 and 'starting in run' in out and (run/'final.safetensors').read_bytes() == weights, err


@pytest.mark.parametrize('option,says', [
    ('--width 16', 'run was started with --width 8, not with --width 16: a resumed run keeps its settings; --out starts a new run'),
    ('--optimizer adam', 'with --optimizer sgd, not with --optimizer adam'), ('--full', 'without --full, not with --full'), ('--compile', 'without --compile, not with --compile'),
    ('--seed 2', 'with --seed 1, not with --seed 2'), ('--ema .99', 'with --ema 0.9, not with --ema 0.99'), ('--epochs 2', 'with --epochs 1, not with --epochs 2'),
    ('--lr-max .1', 'with --lr-max 0.2, not'), ('--lr-min .1', 'with --lr-min 0.002, not'), ('--peak-epoch 0', 'not with --peak-epoch 0.0'), ('--anneal cos', 'with --anneal linear'),
    ('--logit-scale 1', 'with --logit-scale 0.125'), ('--weight-decay 0', 'with --weight-decay 0.0005'), ('--label-smoothing .1', 'with --label-smoothing 0.0'),
    ('--accumulate 2', 'with --accumulate 1'), ('--precision float32', 'with --precision auto'), ('--batch-size 32', 'with --batch-size 64'), ('--data cifar10', 'with --data digits'),
    ('--recipe era_s10', 'with --recipe digits, not with --recipe era_s10'), ('--out other', '--out other: a run continues in its own folder, run'), ('--device tpu', 'device must be one of')])
def test_options_that_do_not_fit_a_resumed_run(call, run, option, says):
    before = tree(Path())
    refused(call(f'cifar_train --resume run {option}'), says)
    assert tree(Path()) == before


def test_no_full_is_refused_where_the_run_is_full(call):
    assert call(f'cifar_train {SMALL} --full --out run')[0] == 0
    refused(call('cifar_train --resume run --no-full'), 'with --full, not without --full')


def test_settings_that_were_damaged(call, run):
    path, whole = run/'settings.json', json.loads((run/'settings.json').read_text())
    def inside(part, **changes): return whole | {part: whole[part] | changes}
    damaged = ['', '{', '\0', '[' * 100_000, inside('schedule', epochs='3'), inside('schedule', lr_max=[.2]), inside('schedule', kind='Popen'), whole | dict(schedule=3), whole | dict(schedule=None),
               inside('config', full=1), inside('config', seed=None), inside('config', optim={}), whole | dict(config={}), whole | dict(network=3), whole | dict(network=dict(depth=3)),
               whole | dict(net='nn.Module'), whole | dict(mean=[.5]*3), whole | dict(extra=1), {k: v for k, v in whole.items() if k != 'schedule'}, dict(kind='Flip')]
    for spoiled in damaged:
        path.write_text(spoiled if isinstance(spoiled, str) else json.dumps(spoiled))
        refused(call('cifar_train --resume run'), 'settings.json')
    path.write_text(json.dumps(dict(data='digits', width=8, epochs=1)))  # as the first version wrote it
    refused(call('cifar_train --resume run'), 'was written by another version of cifar_resnet')
    path.write_text(json.dumps(whole | dict(data='cifar100')))
    refused(call('cifar_train --resume run'), "data must be 'cifar10' or 'digits' (got 'cifar100')")
    path.write_text(json.dumps(whole))
    (run/'last.pt').write_bytes((run/'last.pt').read_bytes()[:1000])
    refused(call('cifar_train --resume run'), 'run/last.pt is not a valid checkpoint')


# ---- evaluate, report, predict -----------------------------------------------------------------------------------------------------------

def test_evaluate_normalizes_as_the_weights_say(call, tmp_path, weights):
    model, notes = load_weights(weights)
    save_weights(model, tmp_path/'other.safetensors', **notes | dict(mean=[.9]*3, std=[.1]*3))
    results = [call(f'cifar_evaluate {name}.safetensors --precision float32') for name in ('w', 'other')]
    assert all(code == 0 and '360 test images' in out for code, out, err in results) and results[0][1] != results[1][1]


def test_evaluate_weights_of_other_classes(call, tmp_path):
    save_weights(CustomResNet(8, classes=2), tmp_path/'w.safetensors', data='digits', classes=['cat', 'dog'])
    refused(call('cifar_evaluate w.safetensors'), 'the classes do not match: the weights know cat, dog, and digits has zero, one, ')


def test_report_of_a_run(call, run, tmp_path):
    code, out, err = call('cifar_report run --sample 20')
    assert code == 0 and out == 'the report: run/report.html\n' and (run/'report.html').read_text().startswith('<!'), err
    for spoiled in '', '[]', '{}', '{"data": "digits"}':
        (run/'run.json').write_text(spoiled)
        assert call('cifar_report run')[0] == 2
    (run/'final.safetensors').unlink()
    refused(call('cifar_evaluate run'), 'final.safetensors was not found')


def images(folder, n):
    for i in range(n): Image.fromarray(get_data('digits').test.images[i]).save(folder/f'{i}.png')


def test_predict(call, tmp_path, weights):
    images(tmp_path, 2)
    (tmp_path/'text.png').write_text('x')
    code, out, err = call('cifar_predict w.safetensors 0.png text.png 1.png 0.png --top 2')
    assert code == 1 and [line.split()[0] for line in out.splitlines()] == ['0.png', '1.png', '0.png'] and out.count(', ') == 3
    assert err == 'text.png is not an image that can be read\n'
    assert call('cifar_predict w.safetensors text.png') == (1, '', err)
    code, out, err = call('cifar_predict w.safetensors 0.png text.png --json')
    answer, failed = json.loads(out)
    assert code == 1 and not err and failed == dict(file='text.png', error='text.png is not an image that can be read')
    assert answer['answer'] == max(answer['probabilities'], key=answer['probabilities'].get) and sum(answer['probabilities'].values()) == pytest.approx(1)
    assert json.loads(call('cifar_predict w.safetensors text.png --json')[1]) == [failed]


def test_a_file_name_cannot_act_on_the_terminal(call, tmp_path, weights):
    images(tmp_path, 1)
    (tmp_path/'0.png').rename(tmp_path/'a\x1b[31m\nb.png')
    code, out, err = call("cifar_predict w.safetensors 'a\x1b[31m\nb.png' '\x1b.png'")
    assert code == 1 and '\x1b' not in out + err and len(out.splitlines()) == len(err.splitlines()) == 1


def test_overlays_never_replace_an_image(call, tmp_path, weights):
    images(tmp_path, 2)
    (tmp_path/'sub').mkdir()
    (tmp_path/'1.png').rename(tmp_path/'sub'/'0.png')
    (tmp_path/'0-cam.png').write_bytes((tmp_path/'0.png').read_bytes())
    before = tree(tmp_path)
    assert call('cifar_predict w.safetensors 0.png 0-cam.png sub/0.png --cam .')[0] == 0
    after = tree(tmp_path)
    assert {name: after[name] for name in before if name != 'sub'} == {name: time for name, time in before.items() if name != 'sub'}
    assert set(after) - set(before) == {'0-cam-2.png', '0-cam-3.png', '0-cam-cam.png'}


# ---- recipes -----------------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def planned(monkeypatch):
    "Record what would be made, and make nothing"
    seen = SimpleNamespace(names=None)
    def make_all(todo, data, device, results):
        seen.names, seen.epochs, seen.data = [p.name for p in todo], {p.epochs for p in todo}, data.name
        return seen.names
    monkeypatch.setattr('cifar_resnet.records.make_all', make_all)
    return seen


def test_recipes_are_planned_once_each(call, planned):
    code, out, err = call('cifar_recipes --only era_s10,no-flip,era_s10,era_s10-fixed --fixed --faults --seeds 2 --data digits --out out')
    assert code == 0 and len(planned.names) == len(set(planned.names)) == 20 and planned.epochs == {24}, err
    assert {'recipes/era_s10-digits-1', 'recipes/era_s10-fixed-digits-0', 'recipes/annihilation-digits-0'} <= set(planned.names)
    assert out == '20 runs to make, on ' + out.split()[-1] + '\n' and not Path('out').exists()


def test_recipes_that_have_a_record_are_left_out(call, planned):
    for seed in 0, 1:
        Path('out/recipes').mkdir(parents=True, exist_ok=True)
        Path(f'out/recipes/era_s10-digits-2ep-{seed}.json').write_text('{"name": "made before"}')
        code, out, err = call('cifar_recipes --only era_s10 --seeds 2 --epochs 2 --data digits --out out')
        assert code == 0 and out.startswith(f'{1 - seed} runs to make'), err
        assert planned.names == ['recipes/era_s10-digits-2ep-1'] and planned.data == 'digits'  # the second time, nothing was called


def test_recipes_of_all_systems(call, planned):
    assert call('cifar_recipes --seeds 1 --data digits')[0] == 0
    assert planned.names == [f'recipes/{name}-digits-0' for name in ('eva8_s8', 'eva6_s9', 'eva8_resnetf', 'era_s10', 'era_utils', 'one_cycle')]


def test_a_recipe_is_made(call, monkeypatch):
    def narrow(*names): return [replace(r, network=r.network | dict(width=8)) for r in find_recipes(*names)]
    monkeypatch.setattr('cifar_resnet.recipes.find_recipes', narrow)
    code, out, err = call('cifar_recipes --only eva8_s8 --seeds 1 --epochs 1 --data digits --out out')
    assert code == 0 and 'made 1: recipes/eva8_s8-digits-1ep-0' in out, err
    record = json.loads(Path('out/recipes/eva8_s8-digits-1ep-0.json').read_text())
    assert record['recipe'] == 'eva8_s8' and len(record['epochs']) == 1 and not list(Path('runs/records/recipes').iterdir())


# ---- what is whole, and what may be replaced ---------------------------------------------------------------------------------------------

def test_damaged_settings_beside_a_whole_checkpoint(call, tmp_path):
    "The message names what is whole and what to do, and doing it works"
    train = 'cifar_train --data digits --width 8 --lr-max .2 --epochs 2'
    assert call(f'{train} --out run')[0] == 0
    weights = Path('run/final.safetensors').read_bytes()
    for name in 'run.json', 'final.safetensors': Path('run', name).unlink()
    for damaged, says in ('{', 'run/settings.json is damaged: '), ('{"kind": "Recipe"}', 'run/settings.json is damaged: '), ('', 'run/settings.json is damaged: '):
        Path('run/settings.json').write_text(damaged)
        refused(call('cifar_train --resume run'), says, 'the checkpoint run/last.pt is valid (epochs: 2)', 'copy its settings.json into run, and resume')
    assert call(f'{train} --out other')[0] == 0
    shutil.copy('other/settings.json', 'run/settings.json')
    assert call('cifar_train --resume run')[0] == 0 and Path('run/final.safetensors').read_bytes() == weights
    Path('run/settings.json').write_text('{'), Path('run/last.pt').write_bytes(b'x')
    refused(call('cifar_train --resume run'), 'run/settings.json is damaged: ', 'there is no valid checkpoint beside it: remove the folder, and start again')


def test_settings_that_cannot_be_read(call):
    assert call(f'cifar_train {SMALL} --out run')[0] == 0
    path = Path('run/settings.json').absolute()
    path.unlink(), os.mkfifo(path)
    refused(call('cifar_train --resume run'), 'run/settings.json is not a regular file')


def test_overlays_of_an_earlier_call(call, tmp_path, weights):
    Image.fromarray(get_data('digits').test.images[0]).save('a.png')
    assert call('cifar_predict w.safetensors a.png --cam cams')[0] == 0
    Path('cams/a-cam.png').write_bytes(b'earlier')
    refused(call('cifar_predict w.safetensors a.png --cam cams'), 'cams/a-cam.png exists already: --force replaces it, another --cam folder keeps it')
    assert Path('cams/a-cam.png').read_bytes() == b'earlier'
    assert call('cifar_predict w.safetensors a.png --cam cams --force')[0] == 0 and Image.open('cams/a-cam.png').size == (256, 256)
    Path('cams/a-cam.png').unlink(), Path('cams/a-cam.png').symlink_to(tmp_path/'elsewhere')
    refused(call('cifar_predict w.safetensors a.png --cam cams --force'), 'a-cam.png is a link, and is not replaced by a file')
    assert not Path('elsewhere').exists()


@pytest.mark.parametrize('command', ['cifar_lr --data digits --width 8 --out here.png', 'cifar_report one_cycle_24 --out here.html'])
def test_an_output_that_is_a_folder_is_refused_before_the_work(call, command):
    folder = Path(command.split()[-1])
    folder.mkdir()
    refused(call(command), f'{folder} is a folder, and is not replaced by a file: name another one')


def test_class_names_cannot_act_on_the_terminal(call, tmp_path):
    d = get_data('digits')
    save_weights(CustomResNet(8), tmp_path/'odd.safetensors', data='digits', classes=[f'{c}\n\x1b[31m' for c in d.classes], mean=d.mean, std=d.std)
    Image.fromarray(d.test.images[0]).save('a.png')
    code, out, err = call('cifar_predict odd.safetensors a.png')
    assert code == 0 and out.count('\n') == 1 and '\x1b' not in out
    refused(call('cifar_evaluate odd.safetensors'), 'the classes do not match')
