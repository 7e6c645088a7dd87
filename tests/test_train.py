"""The schedule, the loop, the trainer and `fit`, on a small part of digits."""
import inspect
import math
import random
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from cifar_resnet.augment import Batches, Cutout, Steps
from cifar_resnet.core import Diverged, TrainingError, from_plain
from cifar_resnet.data import get_data
from cifar_resnet.device import (Optim, Precision, check_trainable, evaluating, fastest_convolutions, pick_device, preserve_randomness,
                                 random_states, set_random_states, set_rates, unwrap)
from cifar_resnet.model import CustomResNet
from cifar_resnet.train import (HEADER, FitConfig, OneCycle, Run, Trainer, compute_loss, epoch_row, evaluate, fit, infer, plot_run, plot_schedule,
                                train_epoch)

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def digits(): return get_data('digits')


@pytest.fixture(scope='module')
def few(digits): return replace(digits, train=digits.train[:128], valid=digits.valid[:40], test=digits.test[:40])


def small(drop=0., **kwargs):
    torch.manual_seed(1)
    return CustomResNet(8, logit_scale=.125, drop=drop, **kwargs)


def linear():
    "A network without batch norm"
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def short(data, model=None, schedule=OneCycle(.01, .1, epochs=2, peak_epoch=1), **kwargs):
    return fit(small() if model is None else model, data, schedule, **dict(batch_size=32, precision='float32', progress=False, device='cpu') | kwargs)


def weights(model): return torch.cat([v.detach().float().flatten() for v in model.state_dict().values()])


def one_clear_line(call, says, kind=ValueError):
    with pytest.raises(kind) as e: call()
    message = str(e.value)
    assert message and '\n' not in message and len(message) < 600
    assert says in message, message


# The schedule

def torch_steps(s, per_epoch, kind):
    "What PyTorch's OneCycleLR sets at every step: (learning rate, momentum or first beta)"
    opt = kind([nn.Parameter(torch.zeros(1))], lr=1)
    low, high = s.momentum or (0, 0)
    final = s.lr_min if s.final is None else s.final
    start = s.lr_max/s.lr_min if s.lr_min else math.inf
    cycle = OneCycleLR(opt, s.lr_max, total_steps=s.epochs*per_epoch, pct_start=s.peak_epoch/s.epochs, anneal_strategy=s.anneal, div_factor=start,
                       final_div_factor=s.lr_min/final if final else math.inf, cycle_momentum=s.momentum is not None, base_momentum=low, max_momentum=high)
    for step in range(s.epochs*per_epoch):
        if step: opt.step(), cycle.step()
        group = opt.param_groups[0]
        yield group['lr'], group['betas'][0] if 'betas' in group else group['momentum']


@pytest.mark.parametrize('anneal', ['linear', 'cos'])
@pytest.mark.parametrize('momentum', [(.85, .95), (0, .5), (.9, .9), None])
@pytest.mark.parametrize('kind', [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_closed_form_equals_torch(anneal, momentum, kind):
    for epochs, peak, per_epoch in (24, 5, 7), (24, .5, 4), (7, 1.5, 17), (2, 1, 33), (1, .5, 4), (3, 2.9, 40), (5, math.pi, 3):
        for lr_min, lr_max in (.02, .4), (.0017, .39), (1e-5, 1), (.1, .1):
            for final in None, 0., 1e-6, lr_max:
                s = OneCycle(lr_min, lr_max, epochs, peak, anneal, momentum, final)
                for step, (lr, mom) in enumerate(torch_steps(s, per_epoch, kind)):
                    ours = s.at(step, per_epoch)
                    assert abs(ours[0] - lr) < 1e-15, (s, step)
                    assert ours[1] is None if momentum is None else abs(ours[1] - mom) < 1e-15, (s, step)


@pytest.mark.parametrize('anneal', ['linear', 'cos'])
def test_a_start_at_zero_equals_torch(anneal):
    s = OneCycle(0, .4, 4, 1, anneal, (.85, .95))
    assert all(abs(lr - s.at(step, 9)[0]) < 1e-15 for step, (lr, _) in enumerate(torch_steps(s, 9, torch.optim.SGD)))


@pytest.mark.parametrize('s', [OneCycle(.02, .4), OneCycle(.02, .4, anneal='cos'), OneCycle(.1, .3, 7, 1.5), OneCycle(0, 1, 2, 1), OneCycle(.02, .4, final=0),
                               OneCycle(.02, .4, 24, 0), OneCycle(.02, .4, 24, 0, 'cos', final=0), OneCycle(1e-4, 1, 2, 1, momentum=None), OneCycle(.02, .4, 1, 0)])
@pytest.mark.parametrize('per_epoch', [1, 2, 3, 17, 98])
def test_first_peak_last(s, per_epoch):
    n, end = s.epochs*per_epoch, s.lr_min if s.final is None else s.final
    lrs, momenta = zip(*(s.at(step, per_epoch) for step in range(n)))
    assert all(min(s.lr_min, end) - 1e-12 <= lr <= s.lr_max + 1e-12 for lr in lrs)
    if n > 1: assert lrs[-1] == pytest.approx(end, abs=1e-12)
    peak = s.peak_epoch*per_epoch - 1
    if peak == int(peak) and peak >= 0 or s.peak_epoch == 0: assert lrs[int(max(peak, 0))] == max(lrs) == pytest.approx(s.lr_max, abs=1e-12)
    if peak > 0: assert lrs[0] == pytest.approx(s.lr_min, abs=1e-12)
    assert (np.diff(lrs[:max(int(peak), 0) + 1]) > 0).all() and (np.diff(lrs[max(math.ceil(peak), 0):]) < 0).all()
    if s.momentum:
        assert min(momenta) >= .85 - 1e-12 and max(momenta) <= .95 + 1e-12
        if n > 1: assert momenta[-1] == pytest.approx(.95, abs=1e-12)
    else: assert set(momenta) == {None}


def test_the_step_after_the_last_continues_along_the_line():
    s = OneCycle(.1, .5, 4, 1)
    assert s.at(40, 10)[0] - s.at(39, 10)[0] == pytest.approx(s.at(39, 10)[0] - s.at(38, 10)[0])
    assert OneCycle(.1, .5, 1, 0).at(1, 1) == pytest.approx((.1, .95))  # also where the first step is the last


def test_training_beyond_the_schedule_keeps_its_last_rates(few):
    "PyTorch's own cycle goes on, here to a rate below zero"
    s = OneCycle(.1, .5, 2, 1, final=0)
    assert s.at(8, 4)[0] < 0
    trainer = Trainer(small(), few, s, FitConfig(batch_size=32, device='cpu'))
    rows = [trainer.one_epoch() for _ in range(4)]
    assert [row['lr'] for row in rows[1:]] == [0]*3 and trainer.optimizer.param_groups[0]['momentum'] == s.at(7, 4)[1]


def test_a_peak_at_zero_falls_from_the_first_step():
    assert [OneCycle(.1, .5, 4, 0).at(step, 1) for step in range(3)] == [(.5, .85), pytest.approx((.5 - .4/3, .85 + .1/3)), pytest.approx((.5 - .8/3, .85 + .2/3))]


def test_a_constant_rate_is_a_cycle_too():
    s = OneCycle(.1, .1, 3, momentum=None, peak_epoch=1)
    assert {s.at(step, 5) for step in range(15)} == {(.1, None)}


def test_stretch_keeps_the_course():
    s = OneCycle(.02, .4, 24, 5, final=.001)
    short = s.stretch(12)
    assert (short.epochs, short.peak_epoch) == (12, 2.5) and replace(short, epochs=24, peak_epoch=5) == s
    assert all(s.at(2*step + 1, 98)[0] == pytest.approx(short.at(step + .5, 98)[0], abs=1e-3) for step in range(0, 1170, 90))


def test_numbers_of_any_kind_become_plain():
    s = OneCycle(np.float32(.5), np.float64(1), np.int64(4), np.int64(1), momentum=np.array([.5, .75]), final=np.float32(0))
    assert s == OneCycle(.5, 1., 4, 1., momentum=(.5, .75), final=0.)
    assert [type(v) for v in (s.lr_min, s.lr_max, s.epochs, s.peak_epoch, s.momentum, s.momentum[0], s.final)] == [float, float, int, float, tuple, float, float]


@pytest.mark.parametrize('kwargs,says', [
    (dict(lr_min=-.02), 'lr_min must be a number at least 0 (got -0.02)'), (dict(lr_min=.5), 'lr_max must be at least lr_min (got lr_max=0.4, lr_min=0.5)'),
    (dict(lr_max=0), 'lr_max must be a number above 0'), (dict(lr_max='x'), "lr_max must be a number above 0 (got 'x')"), (dict(lr_max=math.nan), 'lr_max must'),
    (dict(lr_min=math.inf), 'lr_min must'), (dict(final=.5), 'lr_max must be at least final (got lr_max=0.4, final=0.5)'), (dict(final=-1), 'final must'),
    (dict(lr_min=None), 'lr_min must'), (dict(epochs=0), 'epochs must be a whole number from 1 to 1,000,000 (got 0)'), (dict(epochs=2.5), 'epochs must be a whole number'),
    (dict(epochs=4), 'peak_epoch must be a number at least 0 and below 4 (got 5)'), (dict(peak_epoch=-1), 'peak_epoch must'), (dict(peak_epoch=24), 'peak_epoch must'),
    (dict(anneal='cosine'), "anneal must be one of linear, cos (got 'cosine')"), (dict(momentum=(.9, 1)), 'momentum must be two numbers from 0 to below 1'),
    (dict(momentum=(.95, .85)), 'the smaller first'), (dict(momentum=.9), 'momentum must be two numbers'), (dict(momentum=(.8, .9, .95)), 'momentum must be two numbers'),
    (dict(momentum='ab'), 'momentum must be two numbers')])
def test_what_is_no_cycle(kwargs, says): one_clear_line(lambda: OneCycle(**dict(lr_min=.02, lr_max=.4) | kwargs), says)


def test_a_schedule_survives_its_record():
    from cifar_resnet.core import to_plain
    for s in OneCycle(.02, .4), OneCycle(.02, .4, 7, 0, 'cos', None, 0): assert from_plain(to_plain(s), [OneCycle]) == s


# The optimizer under the schedule

def seen_rates(run):
    "Call `run`, and return (learning rate, momentum) of every group before each step of an optimizer"
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    seen = []

    def note(optimizer, args, kwargs):
        seen.append([(g['lr'], g['betas'][0] if 'betas' in g else g['momentum']) for g in optimizer.param_groups])
    hook = register_optimizer_step_pre_hook(note)
    try: run()
    finally: hook.remove()
    return seen


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
@pytest.mark.parametrize('momentum', [(.8, .9), None])
def test_every_step_takes_the_rates_of_the_schedule(few, name, momentum):
    s = OneCycle(.001, .01, 3, 1, momentum=momentum)
    seen = seen_rates(lambda: short(few, schedule=s, optim=Optim(name, momentum=.7)))
    assert seen == [[(s.at(step, 4)[0], .7 if momentum is None else s.at(step, 4)[1])] for step in range(12)]


@dataclass(frozen=True)
class TwoGroups:
    "An optimizer setting with groups of their own rates"
    kind: type = torch.optim.SGD

    def make(self, model, lr):
        momentum = dict(betas=(.9, .999)) if self.kind is torch.optim.Adam else dict(momentum=.9)
        many, single = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim == 1]
        return self.kind([dict(params=many), dict(params=single, lr_factor=2., momentum_factor=.5)], lr=lr, **momentum)


@pytest.mark.parametrize('kind', [torch.optim.SGD, torch.optim.Adam])
def test_groups_with_factors(few, tmp_path, kind):
    s, config = OneCycle(.001, .01, 2, 1), dict(optim=TwoGroups(kind))
    seen = seen_rates(lambda: short(few, schedule=s, out=tmp_path, **config))
    assert seen == [[(lr, momentum), (2*lr, .5*momentum)] for lr, momentum in (s.at(step, 4) for step in range(8))]
    assert short(few, schedule=s, resume=tmp_path/'last.pt', **config).record['config']['optim'] == {'kind': 'TwoGroups', 'kind': kind.__name__}


def test_set_rates_reaches_the_first_beta_alone():
    adam = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1, betas=(.9, .97))
    set_rates(adam, .2)
    assert (adam.param_groups[0]['lr'], adam.param_groups[0]['betas']) == (.2, (.9, .97))
    set_rates(adam, .3, .5)
    assert (adam.param_groups[0]['lr'], adam.param_groups[0]['betas']) == (.3, (.5, .97))


@pytest.mark.parametrize('optim', [Optim(rebuilt_at=.01), Optim('adam', rebuilt_at=.001), Optim(momentum=.5, decay_all=False, rebuilt_at=.02)])
def test_an_optimizer_that_is_rebuilt_each_epoch(few, optim):
    "Equal to a loop written by hand, whatever the schedule says"
    run = short(few, small(drop=.1), OneCycle(.3, .4, 3, 1), optim=optim)
    model, batches = small(drop=.1), Batches(few.train, 32, Trainer(small(), few, OneCycle(.1, .2), FitConfig(device='cpu')).train_batches.augment, shuffle=True)
    model.to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    for _ in range(3):
        optimizer = optim.make(model.train(), lr=1)
        assert optimizer.param_groups[0]['lr'] == optim.rebuilt_at
        for x, y in batches:
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step(), optimizer.zero_grad()
    assert weights(model).equal(weights(run.model))
    assert {row['lr'] for row in run.history} == {optim.rebuilt_at}


def test_the_history_has_the_rate_of_the_last_step(few):
    s = OneCycle(.01, .1, 3, 1)
    assert [row['lr'] for row in short(few, schedule=s).history] == [s.at(4*epoch - 1, 4)[0] for epoch in (1, 2, 3)]


# The loop

def test_fit_equals_a_loop_by_hand(few):
    s, model = OneCycle(.01, .1, 2, 1), small()
    run = short(few, schedule=s, augment=None)
    model.to(memory_format=torch.channels_last)
    optimizer, batches, step = Optim().make(model, 1), Batches(few.train, 32, shuffle=True), 0
    for _ in range(2):
        for x, y in batches:
            optimizer.param_groups[0]['lr'], optimizer.param_groups[0]['momentum'] = s.at(step, 4)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step(), optimizer.zero_grad()
            step += 1
    assert weights(model).equal(weights(run.model))


@pytest.mark.parametrize('parts', [2, 3, 32])
def test_accumulated_parts_equal_the_whole_batch(few, parts):
    "Also where the last part, or the last batch, is smaller"
    data = replace(few, train=few.train[:100])
    whole, cut = (short(data, linear(), augment=None, accumulate=n, l1=1e-4, label_smoothing=.1) for n in (1, parts))
    assert (weights(whole.model) - weights(cut.model)).abs().max() < 2e-6
    for one, other in zip(whole.history, cut.history):
        assert one['train_loss'] == pytest.approx(other['train_loss'], rel=1e-6) and one['train_acc'] == other['train_acc']
    assert not weights(cut.model).equal(weights(linear()))


def test_the_loss():
    logits, labels, layer = torch.tensor([[2., 0, -1], [0, 1, 0]]), torch.tensor([0, 2]), nn.Linear(3, 2)
    soft = .9*nn.functional.one_hot(labels, 3) + .1/3
    assert compute_loss(logits, labels, None, .1).item() == pytest.approx(-(soft*logits.log_softmax(1)).sum(1).mean().item(), abs=1e-6)
    assert compute_loss(logits, labels, None).item() == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), abs=1e-7)
    penalty = sum(p.abs().sum().item() for p in layer.parameters())
    assert (compute_loss(logits, labels, layer, l1=.5) - compute_loss(logits, labels, layer)).item() == pytest.approx(.5*penalty, abs=1e-6)


def test_the_average_of_the_weights(few):
    "Followed by hand"
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3072, 10))

        def forward(self, x):
            if self.training: seen.append(self.w.detach().clone())
            return x.flatten(1) @ self.w
    s = OneCycle(.001, .01, 2, 1)
    averaged, plain = short(few, Spy(), s, ema=.8), short(few, Spy(), s)
    steps = [*seen[1:8], plain.model.w.detach()]
    mean = steps[0]
    for w in steps[1:]: mean = .8*mean + .2*w
    assert torch.allclose(averaged.model.w.detach(), mean, atol=1e-6) and not torch.allclose(mean, steps[-1], atol=1e-6)


def test_the_average_has_batch_norms_statistics_too_and_is_what_is_evaluated(few):
    torch.manual_seed(0)
    trainer = Trainer(small(), few, OneCycle(.01, .1, 2, 1), FitConfig(batch_size=32, ema=.5, precision='float32', device='cpu'))
    row = trainer.one_epoch()
    assert trainer.tested is trainer.average.module is not trainer.model
    assert not trainer.tested.prep.norm.running_mean.equal(trainer.model.prep.norm.running_mean)
    assert (row['valid_loss'], row['valid_acc']) == evaluate(trainer.tested, Batches(few.valid, 1000), trainer.precision)
    assert row['valid_loss'] != evaluate(trainer.model, Batches(few.valid, 1000), trainer.precision)[0]


def test_float16_survives_the_steps_that_its_scaler_skips(digits):
    "With logits as large as they come its scaler skips the first steps"
    data = replace(digits, train=digits.train[:128], valid=digits.valid[:0], test=digits.test[:64])
    torch.manual_seed(0)
    run = fit(CustomResNet(8), data, OneCycle(.002, .02, 2, 1), batch_size=32, precision='float16', progress=False, device='cpu')
    assert run.history[-1]['train_loss'] < 4 and run.record['precision'] == 'float16'


@pytest.mark.parametrize('schedule', [OneCycle(1, 1e12, 4, 2, momentum=None), OneCycle(1e30, 1e30, 4, 2, momentum=None)])
def test_a_run_that_diverges_stops(few, schedule, tmp_path):
    with pytest.raises(TrainingError, match='in epoch [12].*start again with a smaller lr_max; (no epoch was kept|.*last.pt holds the first epoch)$') as e:
        short(few, CustomResNet(8), schedule, out=tmp_path/'run')
    assert isinstance(e.value, Diverged)
    with pytest.raises(Diverged, match='nothing was kept: name a folder with out=… to keep checkpoints'): short(few, CustomResNet(8), schedule)


def test_weights_that_are_not_finite_stop_a_run(few):
    "Also where the loss of that epoch was finite: the last step of the epoch did it"
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.count = linear(), torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            if self.training: self.count.data.fill_(math.nan)  # nothing reads it
            return self.body(x)
    with pytest.raises(Diverged, match='the weights are no longer finite in epoch 1'): short(few, Breaks())


# Evaluation

def test_infer_and_evaluate_equal_a_plain_loop(few):
    model, split = small(drop=.3).train(), few.train
    with torch.no_grad():
        for _ in range(3): model(torch.randn(16, 3, 32, 32))  # statistics of batch norm
    batches, precision = Batches(split, 50), Precision.pick('cpu', 'float32')
    x, y = next(iter(Batches(split, 1000)))
    reference = small(drop=.3)
    reference.load_state_dict(model.state_dict())
    with torch.no_grad(): plain, mirrored = reference.eval()(x), reference(x.flip(-1))
    rows = list(infer(model, batches, precision, flip=True))
    assert [len(r[0]) for r in rows] == [50, 50, 28] and not rows[0][0].requires_grad
    for found, wanted in zip((torch.cat(part) for part in zip(*rows)), (plain, mirrored, y)): assert torch.allclose(found, wanted, atol=1e-5)
    assert all(r[1] is None for r in infer(model, batches, precision))
    for flip, logits in (False, plain), (True, (plain + mirrored)/2):
        loss, acc = evaluate(model, batches, precision, flip)
        assert loss == pytest.approx(nn.functional.cross_entropy(logits, y).item(), abs=1e-5) and acc == pytest.approx((logits.argmax(1) == y).float().mean().item(), abs=1e-7)
        assert type(loss) is type(acc) is float


def test_evaluate_without_images_and_with_a_precision_of_its_own(few):
    assert evaluate(small(), Batches(few.train[:0])) == (0, 0)
    class Types(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.seen = linear(), []

        def forward(self, x):
            self.seen.append(self.body(x).dtype)
            return self.body(x)
    model = Types()
    for name in 'float32', 'bfloat16': evaluate(model, Batches(few.valid, 40), Precision.pick('cpu', name))
    evaluate(model, Batches(few.valid, 40))
    assert model.seen == [torch.float32, torch.bfloat16, Precision.pick('cpu').dtype]


def test_evaluation_restores_the_mode_of_every_part(few):
    model = small(drop=.1).train()
    model.layer1.eval(), model.fc.eval()
    def modes(): return {name: part.training for name, part in model.named_modules()}
    before = modes()
    assert len(set(before.values())) == 2
    with evaluating(model) as inside: assert inside is model and not any(modes().values())
    assert modes() == before
    evaluate(model, Batches(few.valid, 20), flip=True)
    assert modes() == before
    with pytest.raises(ZeroDivisionError), evaluating(model): 1/0
    assert modes() == before
    stream = infer(model, Batches(few.valid, 20))
    next(stream)
    stream.close()  # not read to its end
    assert modes() == before


class Counting(nn.Module):
    "Keep the images that are evaluated"
    def __init__(self):
        super().__init__()
        self.body, self.seen = small(), []

    def forward(self, x):
        if not self.training: self.seen.append(x)
        return self.body(x)


@pytest.mark.parametrize('name,passes', [('digits', 1), ('like cifar10', 2)])
def test_every_test_image_is_evaluated_once(digits, name, passes):
    "360 images; where mirror images show the same class, those once too: 720, and not 1,080"
    data = replace(digits, name=name, train=digits.train[:64])
    trainer = Trainer(Counting(), data, OneCycle(.01, .1, 2, 1), FitConfig(batch_size=32, precision='float32', device='cpu'))
    tested = trainer.test()
    seen, images = torch.cat(trainer.model.seen), next(iter(Batches(data.test, 360)))[0]
    assert len(seen) == passes*360
    assert seen.equal(images if passes == 1 else torch.cat([images, images.flip(-1)]))
    body, batches = trainer.model.body, Batches(data.test, 360)
    loss, acc = evaluate(body, batches, trainer.precision)
    assert tested['test_acc'] == acc and tested['test_loss'] == pytest.approx(loss, abs=1e-6)
    assert tested['test_acc_flip'] == (evaluate(body, batches, trainer.precision, flip=True)[1] if passes == 2 else None)


def test_a_whole_run_evaluates_the_test_images_once(digits):
    data = replace(digits, name='like cifar10', train=digits.train[:64], valid=digits.valid[:0])
    model = Counting()
    run = short(data, model)
    assert sum(len(x) for x in model.seen if len(x) > 2) == 720  # batches of 1 and 2 are checks of the shape
    assert run.test_acc_flip is not None and run.record['test_acc'] == run.test_acc


def test_nothing_to_test_or_to_validate(few):
    run = short(replace(few, test=few.test[:0], valid=few.valid[:0]))
    assert (run.test_acc, run.test_acc_flip, run.record['test_loss']) == (None, None, None) and {row['valid_acc'] for row in run.history} == {None}
    assert repr(run) == 'Run of 2 epochs'
    assert repr(Run(None, [1], .5, .6, {})) == 'Run of 1 epoch: test accuracy 50.00%, 60.00% with flips'


def test_full_trains_on_the_validation_images_too(few):
    run = short(few, full=True)
    assert run.record['images'] == 168 and {row['valid_acc'] for row in run.history} == {None} and run.record['config']['full'] is True
    assert short(few).record['images'] == 128


# fit

def test_fit_has_few_parameters():
    assert len(inspect.signature(fit).parameters) <= 8


def test_the_mean_and_std_of_a_split_change_the_result(few):
    "`Batches` takes them from the split"
    other = few.normalized_by((.2, .3, .4), (.1, .2, .3))
    x, y = (next(iter(Batches(d.train, 8)))[0] for d in (few, other))
    pixels = torch.from_numpy(few.train.images[:8]).permute(0, 3, 1, 2)/255
    for mean, std, found in (few.mean, few.std, x), ((.2, .3, .4), (.1, .2, .3), y):
        assert torch.allclose(found, (pixels - torch.tensor(mean)[:, None, None])/torch.tensor(std)[:, None, None], atol=1e-5)
    assert 'data' not in inspect.signature(Batches).parameters
    one, two = short(few), short(other)
    assert not weights(one.model).equal(weights(two.model))
    assert (one.record['mean'], two.record['mean'], two.record['std']) == (few.mean, (.2, .3, .4), (.1, .2, .3))


def test_the_seed_and_nothing_else_decides(few):
    def run(seed=0, before=0):
        torch.manual_seed(1)
        model = CustomResNet(8, logit_scale=.125, drop=.2)
        torch.manual_seed(before), random.seed(before), np.random.seed(before)
        return short(few, model, seed=seed)
    one = run()
    assert weights(one.model).equal(weights(run(before=7).model)) and not weights(one.model).equal(weights(run(seed=1).model))


def test_fit_leaves_the_random_generators_alone(few):
    model = small(drop=.2)
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    expected = random.random(), np.random.rand(), torch.rand(2)
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    short(few, model)
    assert (random.random(), np.random.rand()) == expected[:2] and torch.rand(2).equal(expected[2])


def test_no_augmentation_one_of_ones_own_and_the_default(few):
    def darken(images, generator): return images//2
    default, none, own, cutout = (short(few, augment=a) for a in ('default', None, darken, Steps((Cutout(8),))))
    assert default.record['augment']['kind'] == 'Steps' and none.record['augment'] is None and own.record['augment'] == 'darken'
    assert len({weights(r.model).sum().item() for r in (default, none, own, cutout)}) == 4
    assert [s['kind'] for s in default.record['augment']['steps']] == ['Crop', 'Cutout']


def test_a_record_holds_all_settings(few):
    run = short(few, label_smoothing=.1)
    record = run.record
    assert record['network']['config']['width'] == 8 and record['config']['label_smoothing'] == .1 and record['config']['optim']['kind'] == 'Optim'
    assert not record['config'].keys() & {'device', 'progress', 'logger', 'augment'}
    assert (record['steps_per_epoch'], record['images'], record['trained_on'], record['seed'], record['precision']) == (4, 128, 'cpu', 0, 'float32')
    assert from_plain(record['schedule'], [OneCycle]) == OneCycle(.01, .1, epochs=2, peak_epoch=1)
    assert record['epochs'] == run.history and record['seconds'] == sum(row['seconds'] for row in run.history) and record['pflop'] > 0
    assert [row['epoch'] for row in run.history] == [1, 2] and not run.model.training


@pytest.mark.parametrize('wrong,says', [
    (dict(batch_size=0), 'batch_size must be a whole number of at least 1 (got 0)'), (dict(batch_size=5000), 'batch_size must be a whole number from 1 to 128 (got 5000)'),
    (dict(accumulate=0), 'accumulate must'), (dict(accumulate=33), 'accumulate must be a whole number from 1 to 32'), (dict(ema=1), 'ema must be a number above 0 and below 1 (got 1)'),
    (dict(ema=0), 'ema must'), (dict(l1=-1), 'l1 must'), (dict(l1='x'), "l1 must be a number at least 0 (got 'x')"), (dict(label_smoothing=1), 'label_smoothing must'),
    (dict(seed=-1), 'seed must'), (dict(seed=2**64), 'seed must'), (dict(precision='half'), "precision must be one of auto, float32, bfloat16, float16 (got 'half')"),
    (dict(device='tpu'), "device must be one of cpu"), (dict(full=1), 'full must be one of True, False (got 1)'), (dict(progress='no'), 'progress must'),
    (dict(optim='adam'), "optim must be an Optim, as in Optim('adam') (got 'adam')"), (dict(augment='flip'), "augment must be Steps(…), a function of a batch, or None (got 'flip')")])
def test_settings_that_cannot_be(few, tmp_path, wrong, says):
    one_clear_line(lambda: short(few, out=tmp_path/'run', **wrong), says)
    assert not (tmp_path/'run').exists()


@pytest.mark.parametrize('model,says', [
    (lambda: CustomResNet(8).requires_grad_(False), 'has no parameter to train'), (lambda: nn.Flatten(), 'has no parameter to train'),
    (lambda: CustomResNet(8).double(), 'the weights must be float32 (got float64)'), (lambda: 'resnet', 'model must be of type Module (got str)'),
    (lambda: CustomResNet(8, 5), 'the network must turn 2 images into (2, 10) logits (got (2, 5))'),
    (lambda: nn.Sequential(nn.Conv2d(3, 10, 3)), 'logits (got (2, 10, 30, 30))'),
    (lambda: nn.Sequential(nn.Flatten(2), nn.LSTM(1024, 10)), 'logits (got tuple)'), (lambda: CustomResNet(8, channels=1), '(N, 1, 32, 32)')])
def test_networks_that_cannot_be_trained(few, tmp_path, model, says):
    one_clear_line(lambda: short(few, model(), out=tmp_path/'run'), says)
    assert not (tmp_path/'run').exists()


def test_other_arguments_that_cannot_be(few):
    one_clear_line(lambda: fit(small(), few, .1), 'schedule must be of type OneCycle (got float)')
    one_clear_line(lambda: fit(small(), few.train, OneCycle(.1, .2)), 'data must be of type ImageData (got Split)')
    one_clear_line(lambda: short(few, optim=Optim(momentum=0)), 'use OneCycle(…, momentum=None)')
    short(few, schedule=OneCycle(.01, .1, 1, .5, momentum=None), optim=Optim(momentum=0))
    with torch.no_grad(): one_clear_line(lambda: short(few), 'gradients are switched off')
    with pytest.raises(TypeError, match='batchsize'): short(few, batchsize=3)
    check_trainable(small())


def test_checking_changes_nothing(few):
    model = small(drop=.2).train()
    model.layer1.eval()
    before, state = weights(model), torch.get_rng_state()
    with pytest.raises(ValueError, match='batch_size'): short(few, model, batch_size=1000)
    with pytest.raises(ValueError, match='logits'): short(replace(few, train=replace(few.train, classes=tuple('abcdefghijkl'))), model)
    assert weights(model).equal(before) and torch.get_rng_state().equal(state) and model.prep.training and not model.layer1.training


def test_a_compiled_network_is_trained_inside_its_wrapper(few):
    model = small()
    wrapped = torch.compile(model, backend='eager')
    run = short(few, wrapped)
    assert run.model is model and unwrap(wrapped) is model and run.record['network']['class'] == 'CustomResNet'
    assert torch.allclose(weights(model), weights(short(few).model), atol=1e-5)


# What is shown

def test_the_table_and_the_bar(few, capsys):
    run = short(few, progress=True)
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.strip()[:1].isdigit()]
    assert HEADER in lines and rows == [epoch_row(row) for row in run.history] and len(HEADER) == len(rows[0])
    assert 'last lr' in HEADER and f"{run.history[0]['lr']:.2g}" in rows[0]
    short(few, progress=False)
    assert capsys.readouterr().out == ''
    row = run.history[0] | dict(valid_loss=None, valid_acc=None)
    assert len(epoch_row(row)) == len(HEADER)


def test_progress_asks_the_device_about_twice_a_second(few):
    "Not after every step: `train_epoch` shows figures when `advance` says so"
    shown = []

    class Watch:
        def __init__(self): self.n = 0

        def advance(self, n):
            self.n += n
            return self.n == 64

        def show(self, trainer, loss, acc): shown.append((self.n, loss, acc))
    trainer, watch = Trainer(small(), few, OneCycle(.01, .1, 2, 1), FitConfig(batch_size=32, device='cpu')), Watch()
    train_epoch(trainer, watch)
    assert len(shown) == 1 and shown[0][0] == 64 and watch.n == 128 and math.isfinite(shown[0][1]) and trainer.step == 4


def test_figures(few):
    run = short(few)
    left, right = plot_run(run.record).axes
    assert list(left.lines[0].get_ydata()) == [row['train_loss'] for row in run.history] and len(right.lines) == 3
    assert len(plot_run(run.record | dict(data='cifar10')).axes[1].lines) == 6
    s = OneCycle(.02, .4, 3, 1)
    lr, momentum = plot_schedule(s, 10).axes
    assert [tuple(pair) for pair in zip(lr.lines[0].get_ydata(), momentum.lines[0].get_ydata())] == [s.at(step, 10) for step in range(30)]
    assert len(plot_schedule(replace(s, momentum=None), 10).axes) == 1


def test_tensorboard(few, tmp_path):
    pytest.importorskip('tensorboard')
    events = import_module('tensorboard.backend.event_processing.event_accumulator').EventAccumulator
    run = short(replace(few, valid=few.valid[:0]), logger='tensorboard', out=tmp_path)
    found = events(str(tmp_path/'tensorboard')).Reload()
    assert [e.step for e in found.Scalars('train_loss')] == [1, 2] and [e.value for e in found.Scalars('lr')] == pytest.approx([row['lr'] for row in run.history])
    assert 'valid_loss' not in found.Tags()['scalars'] and 'epoch' not in found.Tags()['scalars']


# Device, precision, random state

@pytest.mark.parametrize('wrong', ['tpu', 'cuda:99', '', 3, 'meta'])
def test_devices_that_are_not_here(wrong): one_clear_line(lambda: pick_device(wrong), 'device must be one of cpu')


def test_precisions_that_are_none():
    one_clear_line(lambda: Precision.pick('cpu', 'float8'), 'precision must be one of auto, float32, bfloat16, float16')
    assert isinstance(Precision.pick('cpu', 'float32').autocast(), nullcontext)


@pytest.mark.parametrize('kwargs,says', [
    (dict(name='lion'), 'optimizer must be one of sgd, adam, adamw'), (dict(momentum=1), 'momentum must'), (dict(momentum=-.1), 'momentum must'),
    (dict(weight_decay=-1), 'weight_decay must'), (dict(weight_decay=math.inf), 'weight_decay must'), (dict(rebuilt_at=0), 'rebuilt_at must be a number above 0')])
def test_optimizers_that_cannot_be(kwargs, says): one_clear_line(lambda: Optim(**kwargs), says)


def test_random_state_is_restored_after_an_error_too():
    states = random_states(CPU)
    expected = torch.rand(3)
    set_random_states(states, CPU)
    with pytest.raises(ZeroDivisionError), preserve_randomness(CPU): torch.rand(5), 1/0
    assert torch.rand(3).equal(expected)


def test_the_setting_of_cudnn_is_restored():
    before = torch.backends.cudnn.benchmark
    with pytest.raises(ZeroDivisionError), fastest_convolutions():
        assert torch.backends.cudnn.benchmark
        1/0
    assert torch.backends.cudnn.benchmark == before
