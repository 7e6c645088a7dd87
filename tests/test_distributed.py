"""Several processes train one network. `torchrun` starts real ones: this file is also the script that they run."""
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import interrupt_at
from torch import nn

HERE = Path(__file__).resolve()
SOON = 120  # seconds in which processes end after one of them has failed, on a busy machine too; PyTorch's own limit is 30 minutes


# What both sides use

def digits(train=1257):
    from cifar_resnet.data import get_data
    data = get_data('digits')
    return replace(data, train=data.train[:train])


def small(drop=0., logit_scale=.125):
    from cifar_resnet.model import CustomResNet
    torch.manual_seed(1)
    return CustomResNet(8, logit_scale=logit_scale, drop=drop)


def train(model, data, epochs=1, peak=1e-3, **settings):
    from cifar_resnet.train import OneCycle, fit
    return fit(model, data, OneCycle(peak/10, peak, epochs, epochs/4), **dict(batch_size=64, precision='float32', progress=False, device='cpu') | settings)


class Darken:
    "An augmentation that is not `Steps`: it sees the whole batch"
    def __call__(self, images, generator): return (images*torch.rand(len(images), 1, 1, 1, generator=generator)).to(torch.uint8)


AUGMENTS = dict(steps='default', callable=Darken(), none=None)


def batches(data, augment):
    from cifar_resnet.train import FitConfig, OneCycle, Trainer
    stream = Trainer(small(), data, OneCycle(.1, .2), FitConfig(augment=augment, batch_size=64, device='cpu')).train_batches
    return [list(stream) for _ in range(2)]


COMMAND = 'train --data digits --width 8 --batch-size 256 --epochs 4 --lr-max .1 --precision float32 --device cpu --out'.split()


# What the processes run

def work(out):
    from cifar_resnet import cli
    from cifar_resnet.core import Diverged
    from cifar_resnet.device import current_world
    from cifar_resnet.distributed import join_processes
    with join_processes('cpu') as world:
        assert current_world() is world and world.size == 2
        found = dict(shares=[world.share_of(n) for n in (2, 7, 64)])
        a, b = torch.full((2,), 1. + world.rank), torch.full((3,), 10.*world.rank)
        world.average([a, b])
        found['calls'] = dict(sum=world.sum(torch.tensor([1., world.rank])).tolist(), average=[a.tolist(), b.tolist()], gather=world.gather(f'from {world.rank}'), share=world.share(world.rank),
                              join=world.join(torch.arange(5)[world.rank::2]).tolist(), part=len(world.part_of(digits().test)))
        found['batches'] = {name: batches(digits(200), augment) for name, augment in AUGMENTS.items()}
        runs = dict(epoch=train(small(), digits(), l1=1e-5), average=train(small(), digits(256), ema=.9), parts=train(small(), digits(256), peak=1e-4, accumulate=2), float16=train(small(), digits(256), precision='float16', epochs=2))
        found['runs'] = {name: (run.model.state_dict(), run.record) for name, run in runs.items()}
        found['whole'] = train(small(drop=.2), digits(256), 4, out=out/'whole').model.state_dict()
        with contextlib.suppress(KeyboardInterrupt): train(interrupt_at(11, small(drop=.2)), digits(256), 4, out=out/'stopped')
        shutil.copytree(out/'stopped', out/f'copy-{world.rank}')
        found['resumed'] = train(small(drop=.2), digits(256), 4, resume=out/'stopped'/'last.pt').model.state_dict()
        found['from one'] = train(small(), digits(256), 4, resume=out/'one'/'last.pt').history[-1]
        for name, settings in dict(diverged=dict(peak=1e12, out=out/'diverged'), sync_bn=dict(sync_bn=True), last=dict(batch_size=51)).items():
            try: train(small(logit_scale=1.), digits(256), **settings)
            except (ValueError, Diverged) as e: found[name] = f'{type(e).__name__}: {e}'
        with contextlib.redirect_stdout(io.StringIO()) as printed: cli.main([*COMMAND, str(out/'cli')])
        found['printed'] = printed.getvalue()
    assert current_world().size == 1
    torch.save(found, out/f'found-{world.rank}.pt')


def kill_second(out):
    "Kill the second process in the middle of the third epoch, the first time that it runs"
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    steps = []

    def hook(*args):
        steps.append(1)
        if len(steps) == 13 and os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0': os.kill(os.getpid(), signal.SIGKILL)
    register_optimizer_step_pre_hook(hook)
    command(out)


def hold_third_epoch(out):
    "Wait for Ctrl-C in the third epoch"
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def hook(*args):
        if not (out/'last.pt').exists(): return
        (out.parent/f'{out.name}-holding-{os.environ["RANK"]}').touch()
        while True: time.sleep(.01)
    register_optimizer_step_pre_hook(hook)
    command(out)


def full_disk(out):
    from processes import limit_file_size
    if os.environ['RANK'] == '0': limit_file_size(100_000)
    command(out)


def command(out):
    from cifar_resnet import cli
    cli.main([*COMMAND, str(out)])


# Start them

def start(name, out, *options):
    "Start two processes that run the function `name`"
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join([str(HERE.parent.parent), os.environ.get('PYTHONPATH', '')]))
    return subprocess.Popen([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', *options, str(HERE), name, str(out)],
                            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process, seconds=900):
    "Wait until the processes end; return exit code, stdout, stderr"
    try: out, err = process.communicate(timeout=seconds)
    finally: process.kill()
    return process.returncode, out, err


def ours(err): return [line for line in err.splitlines() if line.startswith('cifar_resnet')]


@pytest.fixture(scope='module')
def out(tmp_path_factory): return tmp_path_factory.mktemp('torchrun')


@pytest.fixture(scope='module')
def ended(out):
    "Four launches that something happens to: (exit code, stdout, stderr, seconds) of each"
    from cifar_resnet.checkpoint import RunFolder
    began, done = time.monotonic(), {}
    with RunFolder(out/'locked').lock():
        running = dict(locked=start('command', out/'locked'), full=start('full_disk', out/'full'), held=start('hold_third_epoch', out/'held'), killed=start('kill_second', out/'killed', '--max-restarts=1'))
        for name in 'locked', 'full': done[name] = *end(running[name]), time.monotonic() - began
    while not all((out/f'held-holding-{rank}').exists() for rank in range(2)):
        assert running['held'].poll() is None, running['held'].communicate()
        time.sleep(.05)
    began = time.monotonic()
    running['held'].send_signal(signal.SIGINT)
    for name in 'held', 'killed': done[name] = *end(running[name]), time.monotonic() - began
    return done


@pytest.fixture(scope='module')
def found(out):
    "What each of two processes found"
    with contextlib.suppress(KeyboardInterrupt): train(interrupt_at(11, small()), digits(256), 4, out=out/'one')
    code, stdout, stderr = end(start('work', out))
    assert code == 0, stderr
    return [torch.load(out/f'found-{rank}.pt', weights_only=False) for rank in range(2)]


def largest_difference(a, b): return max((a[name].float() - b[name].float()).abs().max().item() for name in a)


def equal(a, b): return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


class TwoNorms(nn.Module):
    "Batch norm with running statistics for each half of a batch, as two processes have; with accumulate=2 the halves come in turn"
    def __init__(self, norm):
        super().__init__()
        self.norm, self.others = norm, [deepcopy(norm)]  # a list, so that it has no weights to train
        self.others[0].weight, self.others[0].bias, self.turn = norm.weight, norm.bias, 0

    def forward(self, x):
        if not self.training: return self.norm(x)
        self.turn += 1
        return self.norm(x) if self.turn % 2 else self.others[0](x)

    def average(self):
        for name in 'running_mean', 'running_var':
            one, other = getattr(self.norm, name), getattr(self.others[0], name)
            mean = (one + other)/2
            one.copy_(mean), other.copy_(mean)


def with_two_norms(model):
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d: setattr(parent, name, TwoNorms(child))
    return model


# One process

def test_shares_hold_each_image_once():
    from cifar_resnet.device import World

    class Pretended(World):
        def __init__(self, rank, size): self.rank, self.size = rank, size
    for size in 1, 2, 3, 8:
        for n in 1, 2, 7, 8, 64, 456:
            shares = [range(n)[Pretended(rank, size).share_of(n)] for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(n)) and max(map(len, shares)) - min(map(len, shares)) <= 1
            assert sorted(i for rank in range(size) for i in Pretended(rank, size).part_of(range(n))) == list(range(n))
    assert [len(part) for part in torch.arange(41).chunk(2)] == [len(range(41)[Pretended(rank, 2).share_of(41)]) for rank in range(2)]  # so accumulate=2 is comparable


def test_only_the_launcher_of_a_run_continues_it(tmp_path, capsys, monkeypatch):
    from cifar_resnet import cli
    from cifar_resnet.device import World, enter_world
    monkeypatch.chdir(tmp_path)

    class Launched(World):
        def __init__(self, launch): self.launch = launch

    def run(launch, *out):
        with enter_world(Launched(launch)): cli.main([*COMMAND[:-1], '--epochs', '1', *out])
        return capsys.readouterr()
    assert 'starting in mine' in run('id 1', '--out', 'mine').out
    with pytest.raises(SystemExit) as e: run('id 2', '--out', 'mine')
    assert e.value.code == 2 and 'mine already holds a run' in capsys.readouterr().err
    assert 'continuing in mine' in run('id 1', '--out', 'mine').out
    assert 'starting in runs/digits;' in run('id 1').out and 'starting in runs/digits-2;' in run(None).out and 'continuing in runs/digits;' in run('id 1').out
    assert not (tmp_path/'runs'/'digits-2'/'.launch').exists()


def test_join_processes_alone():
    from cifar_resnet.device import current_world
    from cifar_resnet.distributed import join_processes
    with join_processes() as world: assert world is current_world() and (world.rank, world.size, world.launch) == (0, 1, None)


@pytest.mark.parametrize('device, local, says', [('cuda:0', 2, 'is one GPU'), ('cuda', 3, '3 processes need 3 GPUs'), ('mps', 2, "on 'cpu' or 'cuda'")])
def test_devices_that_several_processes_cannot_use(monkeypatch, device, local, says):
    from cifar_resnet import distributed
    for name, value in dict(RANK=0, WORLD_SIZE=local, LOCAL_RANK=0, LOCAL_WORLD_SIZE=local, MASTER_ADDR='127.0.0.1').items(): monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(distributed, 'pick_device', torch.device)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(ValueError, match=says), distributed.join_processes(device): pass


def test_sync_bn_needs_a_gpu(tmp_path, capsys):
    from cifar_resnet import cli
    with pytest.raises(SystemExit) as e: cli.main([*COMMAND, str(tmp_path/'run'), '--sync-bn'])
    assert e.value.code == 2 and 'sync_bn needs GPUs' in capsys.readouterr().err and not (tmp_path/'run').exists()


# Two processes

def test_calls(found):
    for rank in range(2):
        assert found[rank]['calls'] == dict(sum=[2, 1], average=[[1.5, 1.5], [5, 5, 5]], gather=['from 0', 'from 1'], share=0, join=[0, 1, 2, 3, 4], part=180)


@pytest.mark.parametrize('name', AUGMENTS)
def test_the_shares_make_the_batches_of_one_process(found, name):
    "Order and augmentation do not depend on the number of processes: pixel for pixel, over two epochs, also in an uneven last batch"
    whole = batches(digits(200), AUGMENTS[name])
    for epoch in range(2):
        assert len(whole[epoch]) == 4
        for (x, y), *shares in zip(whole[epoch], *(found[rank]['batches'][name][epoch] for rank in range(2))):
            for what, part in (x, 0), (y, 1): assert torch.cat([share[part] for share in shares]).equal(what)


def test_an_epoch_equals_one_process_with_batch_norm_on_halves(found):
    "All parameters and running statistics, with an uneven last batch of 41 images; and loss and accuracy"
    from cifar_resnet.train import FitConfig, OneCycle, Trainer
    model, data = with_two_norms(small()), digits()
    trainer = Trainer(model, data, OneCycle(1e-4, 1e-3, 1, 1/4), FitConfig(batch_size=64, accumulate=2, precision='float32', l1=1e-5, device='cpu'))
    trainer.average_buffers = lambda: [m.average() for m in model.modules() if isinstance(m, TwoNorms)]
    row, (two, record) = trainer.one_epoch(), found[0]['runs']['epoch']
    one = {name.replace('.norm.norm.', '.norm.'): v for name, v in model.state_dict().items()}
    assert one.keys() == two.keys() and largest_difference(one, two) < 1e-5
    for name in 'train_loss', 'valid_loss', 'train_acc', 'valid_acc': assert row[name] == pytest.approx(record['epochs'][0][name], abs=1e-5), name
    baseline = train(small(), data, l1=1e-5).model.state_dict()
    assert largest_difference(baseline, two) > 1e-4  # a batch norm that sees the whole batch trains another network


def test_parts_and_processes_go_together(found):
    "Two processes with two parts each see the quarters that one process with four parts sees"
    four, one = (dict(train(small(), digits(256), peak=1e-4, accumulate=n).model.named_parameters()) for n in (4, 1))
    two = found[0]['runs']['parts'][0]
    assert largest_difference(four, two) < 1e-6 < 1e-5 < largest_difference(one, two)


def test_all_processes_hold_the_same_network(found):
    for name in found[0]['runs']: assert equal(found[0]['runs'][name][0], found[1]['runs'][name][0]), name


def test_each_image_is_evaluated_once(found):
    "Accuracies are those of one process on the same weights, exactly; losses up to rounding"
    from cifar_resnet.augment import Batches
    from cifar_resnet.device import Precision
    from cifar_resnet.train import evaluate
    for name in 'epoch', 'parts':
        state, record = found[0]['runs'][name]
        model = small()
        model.load_state_dict(state)
        for split, loss, acc in (digits().test, record['test_loss'], record['test_acc']), (digits().valid, record['epochs'][-1]['valid_loss'], record['epochs'][-1]['valid_acc']):
            ours = evaluate(model.eval(), Batches(split, 1000), Precision.pick('cpu', 'float32'))
            assert ours[1] == acc and ours[0] == pytest.approx(loss, rel=1e-5)
        assert record == found[1]['runs'][name][1] | {k: record[k] for k in ('epochs', 'seconds', 'peak_memory_mb')} and record['processes'] == 2


def test_dropout_resumes_bit_identically(found, out):
    assert equal(found[0]['whole'], found[0]['resumed']) and equal(found[0]['resumed'], found[1]['resumed'])
    held = torch.load(out/'copy-0'/'last.pt', weights_only=True)
    assert not held['randomness'][0].equal(held['others'][0][0])  # each process draws its own


def test_checkpoints_move_between_process_counts(found, out):
    "One of two processes continues with one; one of one process, with two"
    held = torch.load(out/'copy-0'/'last.pt', weights_only=True)
    assert len(held['history']) == 2 and len(held['others']) == 1
    run = train(small(drop=.2), digits(256), 4, resume=out/'copy-0'/'last.pt')
    assert [e['train_loss'] for e in run.history[:2]] == [e['train_loss'] for e in held['history']] and len(run.history) == 4
    assert found[0]['from one']['epoch'] == 4
    one, two = train(small(), digits(256), 4).history[-1], found[0]['from one']
    assert two['train_loss'] == pytest.approx(one['train_loss'], abs=.05) and two['train_loss'] != one['train_loss']


def test_one_process_writes_and_prints(found, out):
    assert found[1]['printed'] == '' and found[0]['printed'].count('train loss') == 1 and found[0]['printed'].count('test accuracy') == 1
    assert {p.name for p in (out/'cli').iterdir()} == {'.launch', '.lock', 'best.safetensors', 'curves.png', 'epochs.csv', 'final.safetensors', 'last.pt', 'run.json', 'run.toml', 'schedule.png', 'settings.json'}


def test_every_process_raises_the_same_error(found):
    for name, says in dict(diverged='Diverged: the loss became nan in epoch 1', sync_bn='ValueError: sync_bn needs GPUs', last='ValueError: the last batch of an epoch has 1 of the 256 images').items():
        assert found[0][name].startswith(says) and found[0][name] == found[1][name]


def test_a_killed_worker_costs_at_most_an_epoch(found, ended, out):
    "torchrun starts both again, and the run ends with the weights of the run that was never stopped"
    from safetensors.torch import load_file
    code, stdout, stderr, _ = ended['killed']
    assert code == 0, stderr
    assert stdout.count('starting in') == stdout.count('continuing in') == 1
    assert equal(load_file(out/'killed'/'final.safetensors'), load_file(out/'cli'/'final.safetensors'))


@pytest.mark.parametrize('name, says', [('locked', 'another run is using'), ('full', 'no epoch was kept'), ('held', 'last.pt holds the first')])
def test_an_error_of_the_first_process_ends_all(ended, name, says):
    code, stdout, stderr, seconds = ended[name]
    assert code != 0 and seconds < SOON
    lines = ours(stderr)
    assert len(lines) == 1 and says in lines[0], stderr


if __name__ == '__main__':
    sys.path.insert(0, str(HERE.parent))
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]))


@pytest.mark.parametrize('launched', (True, False))
def test_a_process_of_torchrun_ends_before_the_destructors_run(tmp_path, launched):
    "Whatever aborts at exit, as a thread that gloo left behind did once, the exit code and the output are those of the command"
    script = 'import atexit, os, runpy, sys; atexit.register(os.abort); sys.argv = ["cifar_resnet", *sys.argv[1:]]; runpy.run_module("cifar_resnet", run_name="__main__")'
    env = {k: v for k, v in os.environ.items() if k != 'TORCHELASTIC_RUN_ID'} | (dict(TORCHELASTIC_RUN_ID='1') if launched else {})
    for args, code, said in (['train', '--help'], 0, 'usage'), (['train', '--width', 'x'], 2, '--width'):
        p = subprocess.run([sys.executable, '-c', script, *args], env=env, cwd=HERE.parent.parent, capture_output=True, text=True)
        assert p.returncode == (code if launched else -signal.SIGABRT), p
        if launched: assert said in p.stdout + p.stderr, p  # what stands in a buffer at an abort is lost
