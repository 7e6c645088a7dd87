"""What a run leaves on disk, and how it continues: bit for bit, or not at all."""
import json
import os
import threading
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from processes import interrupt_at, without_permission
from torch import nn

from cifar_resnet import checkpoint
from cifar_resnet.checkpoint import FORMAT, RunFolder, flatten, identify, read_checkpoint
from cifar_resnet.core import DataError, Diverged, TrainingError
from cifar_resnet.data import get_data
from cifar_resnet.device import Optim, peak_memory
from cifar_resnet.model import CustomResNet, load_weights, register_network
from cifar_resnet.train import FitConfig, OneCycle, Trainer, fit


@pytest.fixture(scope='module')
def few():
    digits = get_data('digits')
    return replace(digits, train=digits.train[:64], valid=digits.valid[:32], test=digits.test[:32])


def small(drop=.2, width=8, **kwargs):
    torch.manual_seed(1)
    return CustomResNet(width, logit_scale=.125, drop=drop, **kwargs)


def linear(width=4):
    "A network whose class is not registered"
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, 10))


def short(data, model=None, schedule=OneCycle(.01, .1, epochs=4, peak_epoch=1), **kwargs):
    return fit(small() if model is None else model, data, schedule, **dict(batch_size=16, ema=.9, progress=False, device='cpu') | kwargs)


def weights(model): return torch.cat([v.detach().float().flatten() for v in model.state_dict().values()])


def without_times(run): return [{k: v for k, v in row.items() if k not in ('seconds', 'images_per_second')} for row in run.history]


def one_clear_line(call, *says, kind=DataError):
    with pytest.raises(kind) as e: call()
    message = str(e.value)
    assert message and '\n' not in message and len(message) < 600
    for part in says: assert str(part) in message, message


@pytest.fixture(scope='module')
def whole(few, tmp_path_factory):
    "(a run that was never stopped, its folder)"
    folder = tmp_path_factory.mktemp('whole')
    return short(few, out=folder), folder


# Continue

@pytest.mark.parametrize('settings,batch', [
    (dict(), 5), (dict(), 10), (dict(), 13), (dict(optim=Optim('adam', weight_decay=0)), 10), (dict(optim=Optim('adamw', decay_all=False), ema=None), 5),
    (dict(precision='float16', ema=None), 10), (dict(precision='float32', accumulate=3, l1=1e-5, label_smoothing=.1), 10), (dict(optim=Optim(rebuilt_at=.02)), 10),
    (dict(full=True), 10), (dict(augment=None), 13)])
def test_a_resumed_run_equals_one_that_was_never_stopped(few, tmp_path, settings, batch):
    "Bit for bit: weights, history, and the random state at its end, with dropout"
    per_epoch, steps = 6 if 'full' in settings else 4, batch*settings.get('accumulate', 1)
    straight = short(few, out=tmp_path/'straight', **settings)
    with pytest.raises(KeyboardInterrupt, match=f'stopped after {(batch - 1)//per_epoch} of 4 epochs; .*last.pt holds the first'):
        short(few, interrupt_at(steps, small()), out=tmp_path/'stopped', **settings)
    resumed = short(few, small(), out=tmp_path/'stopped', resume=tmp_path/'stopped'/'last.pt', **settings)
    assert weights(resumed.model).equal(weights(straight.model)) and resumed.test_acc == straight.test_acc
    assert without_times(resumed) == without_times(straight) and len(straight.history) == 4
    ends = [read_checkpoint(tmp_path/name/'last.pt') for name in ('straight', 'stopped')]
    for one, other in zip(*(end['randomness'] for end in ends)): assert one.equal(other)
    assert ends[0]['identity'] == ends[1]['identity'] and str(ends[0]['state']['optimizer']) == str(ends[1]['state']['optimizer'])
    assert sorted(p.name for p in (tmp_path/'stopped').iterdir()) == sorted(p.name for p in (tmp_path/'straight').iterdir())


def test_the_runs_above_differ_where_they_should(few):
    "Another seed, or no dropout, gives other weights: equality is no accident"
    one = weights(short(few).model)
    assert one.equal(weights(short(few).model))
    assert not one.equal(weights(short(few, seed=1).model)) and not one.equal(weights(short(few, small(drop=0)).model))


def test_a_trainer_restored_from_another_state(few, tmp_path):
    def trainer(): return Trainer(small(), few, OneCycle(.01, .1, 4, 1), FitConfig(batch_size=16, device='cpu'))
    folder, first, second = RunFolder(tmp_path), trainer(), trainer()
    for _ in range(2): first.one_epoch()
    second.one_epoch()  # another state than the first
    folder.save(first)
    random_state = torch.get_rng_state()
    torch.manual_seed(99)
    folder.restore(second)
    assert (second.epoch, second.step, second.train_batches.epoch) == (2, 8, 2) and second.history == first.history
    assert weights(second.model).equal(weights(first.model)) and torch.get_rng_state().equal(random_state)
    folder.restore(second, str(tmp_path/'last.pt'))


def test_a_finished_run_is_only_tested_again(few, whole):
    run, folder = whole
    again = short(few, small(), resume=folder/'last.pt')
    assert again.history == run.history and again.test_acc == run.test_acc and weights(again.model).equal(weights(run.model))


def test_an_older_checkpoint_continues_as_well(few, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt): short(few, interrupt_at(6, small()), out=tmp_path)
    (tmp_path/'last.pt').rename(tmp_path/'first.pt')
    assert weights(short(few, resume=tmp_path/'first.pt').model).equal(weights(whole[0].model))


# The folder

def test_what_a_run_leaves(few, whole):
    run, folder = whole
    assert sorted(p.name for p in folder.glob('[!.]*')) == ['best.safetensors', 'epochs.csv', 'final.safetensors', 'last.pt', 'run.json']
    final, notes = load_weights(folder/'final.safetensors')
    assert weights(final).equal(weights(run.model))
    assert (notes['test_acc'], notes['data'], notes['classes']) == (run.test_acc, 'digits', list(few.classes)) and tuple(notes['mean']) == few.mean and tuple(notes['std']) == few.std
    best = load_weights(folder/'best.safetensors')[1]
    assert best['valid_acc'] == max(row['valid_acc'] for row in run.history)
    assert [row['valid_acc'] for row in run.history][best['epoch'] - 1] == best['valid_acc']
    assert json.loads((folder/'run.json').read_text(encoding='utf-8'))['test_acc'] == run.test_acc


def test_nothing_is_written_without_a_folder(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short(few)
    assert not list(tmp_path.iterdir())
    folder = RunFolder()
    with folder.lock(): folder.save(None), folder.finish(None, {})


def test_the_best_weights_are_kept(few, tmp_path):
    trainer, folder = Trainer(small(), few, OneCycle(.01, .1, 4, 1), FitConfig(batch_size=16, device='cpu')), RunFolder(tmp_path)
    for epoch, acc in enumerate((.5, .7, .6, .7), 1):
        trainer.one_epoch()
        trainer.history[-1]['valid_acc'] = acc
        folder.save(trainer)
        assert load_weights(tmp_path/'best.safetensors')[1]['epoch'] == (1, 2, 2, 4)[epoch - 1]


def test_without_validation_there_is_no_best(few, tmp_path):
    short(few, out=tmp_path, full=True)
    assert not (tmp_path/'best.safetensors').exists() and (tmp_path/'final.safetensors').exists()


def test_a_network_that_is_not_registered_is_in_the_checkpoint(few, tmp_path):
    run = short(few, linear(), out=tmp_path)
    assert sorted(p.name for p in tmp_path.glob('[!.]*')) == ['epochs.csv', 'last.pt', 'run.json']
    assert run.record['network']['class'] == 'Sequential' and len(run.record['network']['shapes']) == 8
    one_clear_line(lambda: short(few, linear(5), resume=tmp_path/'last.pt'), 'belongs to another run: its network.shapes is')
    assert weights(short(few, linear(), resume=tmp_path/'last.pt').model).equal(weights(run.model))


class Odd(nn.ReLU): pass


def test_weights_that_could_not_be_loaded_are_not_saved_and_the_run_goes_on(few, tmp_path):
    with pytest.warns(UserWarning, match='safetensors was not saved: Odd is not in torch.nn.*The checkpoint has the weights'): run = short(few, small(act=Odd), out=tmp_path)
    assert len(run.history) == 4 and sorted(p.name for p in tmp_path.glob('[!.]*')) == ['epochs.csv', 'last.pt', 'run.json']


def test_the_class_of_a_network_is_part_of_its_identity(few, tmp_path):
    @register_network
    class Another(CustomResNet): pass
    short(few, out=tmp_path)
    one_clear_line(lambda: short(few, Another(8, logit_scale=.125, drop=.2), resume=tmp_path/'last.pt'), 'its network.class is CustomResNet, and here it is Another')


# Identity

@dataclass(frozen=True)
class Darker:
    "An augmentation with a setting"
    by: int = 2

    def __call__(self, images, generator): return images//self.by


class Plain:
    "An augmentation that is not a dataclass"
    def __call__(self, images, generator): return images//2


@pytest.mark.parametrize('before,after,says', [
    (dict(model=lambda: small(drop=.1)), {}, 'its network.config.drop is 0.1, and here it is 0.2'), (dict(model=lambda: small(width=9)), {}, 'its network.config.width is 9, and here it is 8'),
    ({}, dict(model=lambda: CustomResNet(8, logit_scale=.125)), 'its network.config.drop is 0.2, and here it is not set'),
    (dict(model=lambda: CustomResNet(8, logit_scale=.125)), {}, 'its network.config.drop is not set, and here it is 0.2'),
    (dict(augment=None), {}, 'its augment is None, and here it is'), ({}, dict(augment=None), "and here it is None"), (dict(augment=Darker(2)), dict(augment=Darker(3)), "'by': 2"),
    (dict(seed=1), {}, 'its config.seed is 1, and here it is 0'), (dict(ema=None), {}, 'its config.ema is None, and here it is 0.9'), (dict(l1=.1), {}, 'its config.l1 is 0.1'),
    (dict(batch_size=15), {}, 'its config.batch_size is 15, and here it is 16'), (dict(accumulate=2), {}, 'config.accumulate'), (dict(label_smoothing=.1), {}, 'config.label_smoothing'),
    (dict(optim=Optim('adam')), {}, 'its config.optim.name is adam, and here it is sgd'), (dict(optim=Optim(rebuilt_at=.1)), {}, 'its config.optim.rebuilt_at is 0.1, and here it is None'),
    (dict(precision='float32'), dict(precision='bfloat16'), 'precision'), (dict(full=True), {}, 'its config.full is True'),
    (dict(schedule=OneCycle(.01, .2, 4, 1)), {}, 'its schedule.lr_max is 0.2, and here it is 0.1'), (dict(schedule=OneCycle(.01, .1, 5, 1)), {}, 'its schedule.epochs is 5, and here it is 4'),
    (dict(schedule=OneCycle(.01, .1, 4, 1, final=0)), {}, 'its schedule.final is 0.0, and here it is None')])
def test_a_checkpoint_of_another_run(few, tmp_path, before, after, says):
    def train(model=small, schedule=OneCycle(.01, .1, 4, 1), **kwargs): return short(few, model(), schedule, **kwargs)
    with pytest.raises(KeyboardInterrupt):
        train(**before | dict(model=lambda: interrupt_at(9*before.get('accumulate', 1), before.get('model', small)())), out=tmp_path)
    one_clear_line(lambda: train(**after, resume=tmp_path/'last.pt'), tmp_path/'last.pt', 'belongs to another run: ', says)


def test_other_data_is_another_run(few, whole):
    changed = few.train.images.copy()
    changed[5, 3, 2, 1] ^= 1
    for data, says in ((replace(few, train=few.train[:63]), 'its data is'), (replace(few, train=replace(few.train, images=changed)), 'its data is'),
                       (replace(few, train=replace(few.train, labels=few.train.labels[::-1].copy())), 'its data is'),
                       (few.normalized_by((.5,)*3, few.std), 'its mean is'), (few.normalized_by(few.mean, (.5,)*3), 'its std is')):
        one_clear_line(lambda: short(data, resume=whole[1]/'last.pt'), 'belongs to another run: ', says)


def test_what_a_result_does_not_depend_on_may_change(few, whole, tmp_path):
    pytest.importorskip('tensorboard')
    short(few, resume=whole[1]/'last.pt', progress=True, logger='tensorboard', out=tmp_path)


@dataclass
class PlainOptim:
    "An optimizer setting of another class"
    momentum: float = .9

    def make(self, model, lr): return torch.optim.SGD(model.parameters(), lr, momentum=self.momentum)


class OptimWithAddress:
    "Its text has an address, which changes from process to process"
    def make(self, model, lr): return torch.optim.SGD(model.parameters(), lr, momentum=.9)


@pytest.mark.parametrize('settings', [lambda: dict(optim=OptimWithAddress()), lambda: dict(augment=Plain()), lambda: dict(optim=PlainOptim())])
def test_settings_of_ones_own_classes_continue_too(few, tmp_path, settings):
    one, other = settings(), settings()
    run = short(few, out=tmp_path, **one)
    assert weights(short(few, resume=tmp_path/'last.pt', **other).model).equal(weights(run.model))
    assert not any(' at 0x' in text for text in read_checkpoint(tmp_path/'last.pt')['identity'].values())


def test_the_pixels_are_summed_once_a_run(few, monkeypatch, tmp_path):
    "Not with every checkpoint: CIFAR-10 has 150 MB"
    from cifar_resnet import train
    calls, original = [], train.fingerprint
    monkeypatch.setattr(train, 'fingerprint', lambda *arrays: calls.append(1) or original(*arrays))
    short(few, out=tmp_path)
    assert len(calls) == 1


def test_flatten(): assert flatten({'a': {'b': 1, 'c': {'d': [2]}}, 'e': None}) == {'a.b': 1, 'a.c.d': [2], 'e': None}


def test_an_identity_is_text(few):
    identity = identify(Trainer(small(), few, OneCycle(.01, .1), FitConfig(batch_size=16, device='cpu')))
    assert {type(v) for v in identity.values()} == {str} and len(identity) > 25


# Files that are no checkpoints

def test_files_that_are_rejected(few, whole, tmp_path):
    _, folder = whole
    content, held = (folder/'last.pt').read_bytes(), torch.load(folder/'last.pt', weights_only=True)
    one_clear_line(lambda: short(few, resume=tmp_path/'none.pt'), tmp_path/'none.pt', 'was not found: there is no checkpoint to resume from')
    one_clear_line(lambda: short(few, resume=tmp_path), 'is not a regular file')

    def rejected(name, *says):
        before, state = weights(small()), torch.get_rng_state()
        one_clear_line(lambda: short(few, resume=tmp_path/name, out=tmp_path/'out'), tmp_path/name, *says)
        assert torch.get_rng_state().equal(state) and weights(small()).equal(before) and not list((tmp_path/'out').glob('[!.]*'))
    for size in 0, 100, 5000, len(content)//2, len(content) - 1:
        (tmp_path/'truncated.pt').write_bytes(content[:size])
        rejected('truncated.pt', 'is not a valid checkpoint (truncated, or written by another program)')
    for place in len(content)//3, len(content)//2, 2*len(content)//3:
        damaged = bytearray(content)
        damaged[place] ^= 255
        (tmp_path/'damaged.pt').write_bytes(damaged)
        rejected('damaged.pt', 'is not a valid checkpoint')
    torch.save([1], tmp_path/'list.pt')
    rejected('list.pt', 'is not a checkpoint of a run')
    torch.save(small().state_dict(), tmp_path/'weights.pt')
    rejected('weights.pt', 'is not a checkpoint of a run')
    torch.save(small(), tmp_path/'pickled.pt')  # loading it would run code
    rejected('pickled.pt', 'is not a valid checkpoint')
    for changes, says in ((dict(history=[1]*4), 'is not a checkpoint of a run'), (dict(history=3), 'is not a checkpoint of a run'), (dict(state=[]), 'is not a checkpoint of a run'),
                          (dict(state={}), 'is not a complete checkpoint, and cannot be continued'), (dict(randomness=[]), 'is not a complete checkpoint'),
                          (dict(randomness=[torch.zeros(3)]), 'is not a complete checkpoint'), (dict(state=held['state'] | dict(model={})), 'is not a complete checkpoint'),
                          (dict(state=held['state'] | dict(optimizer={})), 'is not a complete checkpoint'), (dict(identity={}), 'belongs to another run')):
        torch.save(held | changes, tmp_path/'changed.pt')
        rejected('changed.pt', says)


def test_the_old_format(few, whole, tmp_path):
    held = torch.load(whole[1]/'last.pt', weights_only=True)
    assert held['format'] == FORMAT == 2
    del held['format']
    for old in (held | dict(epoch=4, state=held['state'] | dict(cycle={}))), held | dict(format=1), held | dict(format=3):
        torch.save(old, tmp_path/'old.pt')
        one_clear_line(lambda: short(few, resume=tmp_path/'old.pt'), tmp_path/'old.pt', 'was written by another version of cifar_resnet, and cannot be continued by this one')


# The lock

def test_a_second_run_in_the_same_folder(few, tmp_path):
    "Not from this process, through whatever name, and not from elsewhere"
    (tmp_path/'run').mkdir()
    (tmp_path/'link').symlink_to(tmp_path/'run')
    messages = []

    def another(path):
        try: short(few, out=path)
        except DataError as e: messages.append(str(e))
        else: messages.append('trained')

    def in_a_thread(path):
        thread = threading.Thread(target=another, args=(path,))
        thread.start(), thread.join()
    with RunFolder(tmp_path/'run').lock():
        for name in 'run', 'link': in_a_thread(tmp_path/name)
        in_a_thread(tmp_path/'other')
    in_a_thread(tmp_path/'run')
    says = 'another run is using {}: wait until it ends, or name another folder'
    assert messages == [says.format(tmp_path/'run'), says.format(tmp_path/'link'), 'trained', 'trained']


def test_the_lock_goes_with_an_error_and_may_be_taken_twice_by_its_owner(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path).lock(): 1/0
    with RunFolder(tmp_path).lock(), RunFolder(tmp_path).lock(): (tmp_path/'.last.pt.part').touch()
    with RunFolder(tmp_path).lock(): assert not (tmp_path/'.last.pt.part').exists()  # left by a run that was killed


def test_a_folder_that_cannot_be(few, tmp_path):
    (tmp_path/'file').write_text('')
    one_clear_line(lambda: short(few, out=tmp_path/'file'/'run'), 'cannot be written to')
    one_clear_line(lambda: short(few, out=tmp_path/'file'), 'cannot be written to')


# A run that ends early

def fails_at(write, n):
    "`write_atomic`, but the n-th checkpoint does not fit on the disk"
    seen = []

    def limited(path, content):
        seen.append(path.name)
        if seen.count('last.pt') == n and path.name == 'last.pt': raise DataError(f'{path} could not be written: No space left on device; the previous file, if any, is unchanged')
        return write(path, content)
    return limited


@pytest.mark.parametrize('n,says', [(1, 'no epoch was kept'), (2, 'last.pt holds the first epoch'), (3, 'last.pt holds the first 2 epochs')])
def test_a_full_disk(few, tmp_path, monkeypatch, n, says):
    "The message says what the file holds, and not what was trained"
    monkeypatch.setattr(checkpoint, 'write_atomic', fails_at(checkpoint.write_atomic, n))
    one_clear_line(lambda: short(few, out=tmp_path), 'No space left on device', says, kind=TrainingError)
    if n > 1: assert len(read_checkpoint(tmp_path/'last.pt')['history']) == n - 1


def test_what_is_left_where_another_folder_is_continued(few, tmp_path):
    with pytest.raises(KeyboardInterrupt): short(few, interrupt_at(10, small()), out=tmp_path/'one')
    with pytest.raises(KeyboardInterrupt) as e: short(few, interrupt_at(2, small()), out=tmp_path/'two', resume=tmp_path/'one'/'last.pt')
    assert str(e.value) == f"stopped after 2 of 4 epochs; {tmp_path/'one'/'last.pt'} holds the first 2 epochs"
    with pytest.raises(KeyboardInterrupt) as e: short(few, interrupt_at(6, small()), out=tmp_path/'two', resume=tmp_path/'one'/'last.pt')
    assert str(e.value) == f"stopped after 3 of 4 epochs; {tmp_path/'two'/'last.pt'} holds the first 3 epochs"


def test_a_folder_that_holds_another_run(few, whole, tmp_path):
    (tmp_path/'last.pt').write_bytes(before := (whole[1]/'last.pt').read_bytes())
    (tmp_path/'other.pt').write_bytes(before)
    with pytest.raises(ValueError, match='already holds a run: resume it, or name another folder'): short(few, out=tmp_path)
    with pytest.raises(ValueError, match='already holds a run'): short(few, out=tmp_path, resume=whole[1]/'last.pt')
    assert (tmp_path/'last.pt').read_bytes() == before
    assert short(few, out=tmp_path, resume=tmp_path/'other.pt').history == whole[0].history


def test_each_kind_of_end(few, tmp_path):
    trainer, folder = Trainer(small(), few, OneCycle(.01, .1, 4, 1), FitConfig(batch_size=16, device='cpu')), RunFolder(tmp_path)
    trainer.one_epoch()
    folder.save(trainer)
    for error, kind, says in ((KeyboardInterrupt(), KeyboardInterrupt, 'stopped after 1 of 4 epochs; '), (Diverged('the loss became nan'), Diverged, 'the loss became nan; start again with a smaller lr_max; '),
                              (OSError('no space'), TrainingError, 'no space; '), (DataError('damaged'), TrainingError, 'damaged; ')):
        with pytest.raises(kind) as e, folder.explain_stop(trainer): raise error
        assert str(e.value) == f"{says}{tmp_path/'last.pt'} holds the first epoch" and e.value.__suppress_context__
    with pytest.raises(ValueError, match='^a bug$'), folder.explain_stop(trainer): raise ValueError('a bug')
    assert RunFolder().describe().startswith('nothing was kept')


def test_a_checkpoint_holds_plain_values_and_tensors(whole):
    held = read_checkpoint(whole[1]/'last.pt')
    assert held.keys() == {'format', 'state', 'history', 'identity', 'randomness'} and held['state'].keys() == {'model', 'optimizer', 'scaler', 'average'}
    assert [row['epoch'] for row in held['history']] == [1, 2, 3, 4] and held['history'] == whole[0].history
    assert np.array([len(s) for s in held['randomness']]).min() > 100


# Files that somebody made

@pytest.mark.parametrize('damage,says', [
    (lambda held: held['state']['optimizer']['state'][0].update(momentum_buffer=torch.zeros(64, 1, 1, 1, 1).expand(64, 9, 9, 9, 9)), 'its optimizer.0.momentum_buffer is torch.float32 (64, 9, 9, 9, 9)'),
    (lambda held: held['state']['optimizer']['state'].update({99: {}}), 'its optimizer has states of other parameters'),
    (lambda held: held['state']['optimizer']['param_groups'][0].update(weight_decay=1e9), 'its optimizer.weight_decay is 1000000000.0, and here it is 0.0005'),
    (lambda held: held['state']['optimizer']['param_groups'][0].update(lr_factor='much'), 'its optimizer.param_groups.0 has other names'),
    (lambda held: held['state']['optimizer']['param_groups'][0].update(lr='fast'), "its optimizer.param_groups.0.lr is 'fast'"),
    (lambda held: held['state']['model'].update({'fc.weight': torch.zeros(10, 64, dtype=torch.float64)}), 'its state.model.fc.weight is torch.float64 (10, 64)'),
    (lambda held: held['state']['scaler'].update(scale='high'), 'its state.scaler has other names'),
    (lambda held: held['history'][1].update(epoch='two'), 'its epochs are not numbered from 1 (at entry 2)'),
    (lambda held: held['history'][0].update(train_acc=7.), 'in its epoch 1, train_acc is not a number that can be (7.0)'),
    (lambda held: held['history'][0].update(lr='x'*10_000), 'in its epoch 1, lr is not a number that can be'),
    (lambda held: held['history'][0].pop('seconds'), 'in its epoch 1, seconds is not a number that can be (None)'),
    (lambda held: held['history'].extend(dict(held['history'][0], epoch=n) for n in range(5, 9)), 'it holds 8 epochs of 4'),
    (lambda held: held['identity'].update(data=7), 'its identity is not text'),
    (lambda held: held['identity'].update({'schedule.lr_max': 'x\n\x1b[31m'*1000}), 'belongs to another run: its schedule.lr_max is'),
    (lambda held: held.update(format=torch.zeros(3)), 'was written by another version')])
def test_a_crafted_checkpoint(few, whole, tmp_path, damage, says):
    "Whatever it holds: one line, nothing is loaded, and the memory stays as it was"
    held = torch.load(whole[1]/'last.pt', weights_only=True)
    damage(held)
    torch.save(held, tmp_path/'crafted.pt')
    before = peak_memory(torch.device('cpu'))
    one_clear_line(lambda: short(few, resume=tmp_path/'crafted.pt'), says)
    assert peak_memory(torch.device('cpu')) < before + 300


def test_a_compressed_checkpoint(whole, tmp_path):
    "A small file could unpack to any size"
    with zipfile.ZipFile(whole[1]/'last.pt') as old, zipfile.ZipFile(tmp_path/'packed.pt', 'w', zipfile.ZIP_DEFLATED) as packed:
        for name in old.namelist(): packed.writestr(name, old.read(name))
    one_clear_line(lambda: read_checkpoint(tmp_path/'packed.pt'), 'is not a valid checkpoint')


def test_missing_unreadable_and_damaged_are_three_things(whole, tmp_path):
    one_clear_line(lambda: read_checkpoint(tmp_path/'none.pt'), 'none.pt was not found')
    (tmp_path/'closed.pt').write_bytes((whole[1]/'last.pt').read_bytes())
    with without_permission(tmp_path/'closed.pt'): one_clear_line(lambda: read_checkpoint(tmp_path/'closed.pt'), 'closed.pt cannot be read: Permission denied')
    os.mkfifo(tmp_path/'pipe.pt')
    one_clear_line(lambda: read_checkpoint(tmp_path/'pipe.pt'), 'pipe.pt is not a regular file')
    assert read_checkpoint(tmp_path/'closed.pt')['history']


def test_a_kill_between_the_two_files_of_an_epoch_loses_neither(few, tmp_path, monkeypatch):
    "The best weights are on the disk before the checkpoint that says so"
    written = []
    monkeypatch.setattr(checkpoint, 'write_atomic', lambda path, content: written.append(path.name) or path)
    monkeypatch.setattr(checkpoint, 'save_weights', lambda model, path, **notes: written.append(path.name))
    trainer = Trainer(small(), few, OneCycle(.01, .1, 4, 1), FitConfig(batch_size=16, device='cpu'))
    trainer.one_epoch()
    RunFolder(tmp_path).save(trainer)
    assert written == ['best.safetensors', 'last.pt', 'epochs.csv']
