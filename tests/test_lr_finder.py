"""The range test and the rule: what is recorded, what stays unchanged, odd arguments, curves made by hand."""
import copy
import json
import math
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from processes import modules_after
from torch import nn

from cifar_resnet.compare import interval
from cifar_resnet.core import load_record, record_names
from cifar_resnet.data import get_data
from cifar_resnet.device import Optim
from cifar_resnet.lr_finder import LRCurve, choose_rates, find_lr, first_valley, plot_lr, range_test, smooth
from cifar_resnet.model import CustomResNet

STEPS = np.arange(100)
GRID = 1e-5*10**(STEPS*6/99)
VALLEY = np.where(STEPS < 60, 2.3 - .01*np.clip(STEPS - 20, 0, 40), 1.9 + .1*(STEPS - 60))  # flat, down to 1.9, then up


def rates_of(losses): return choose_rates(LRCurve(GRID, losses, np.zeros(100)))


@pytest.fixture(scope='module')
def few():
    "A few digits: a test of 20 steps takes seconds"
    digits = get_data('digits')
    return replace(digits, train=digits.train[:256])


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return CustomResNet(8, logit_scale=.125)


def short(model, data, **kwargs): return range_test(model, data, **dict(batch_size=32, steps=20, device='cpu', precision='float32') | kwargs)


# ------------------------------------------------------------------------------------------------ the test

@dataclass(frozen=True)
class Watched(Optim):
    "An optimizer that notes the learning rate of every step"
    rates: tuple=()

    def make(self, model, lr):
        optimizer = super().make(model, lr)
        optimizer.register_step_pre_hook(lambda opt, *_: self.rates.append([g['lr'] for g in opt.param_groups]))
        return optimizer


@pytest.mark.parametrize('settings', [{}, dict(name='adam'), dict(decay_all=False), dict(rebuilt_at=.01)])
def test_the_curve_says_which_rates_were_used(tiny, few, settings):
    "Also for the fault that builds its optimizer at a rate of its own"
    optim = Watched(**settings, rates=[])
    curve = short(tiny, few, optim=optim, start=1e-4, end=1.)
    assert len(curve.lrs) == len(curve.losses) == len(curve.accs) == len(optim.rates) == 20
    assert np.allclose(curve.lrs, np.geomspace(1e-4, 1, 20), rtol=1e-12)
    for groups, rate in zip(optim.rates, curve.lrs): assert np.allclose(groups, rate, rtol=1e-6)


def test_losses_are_those_of_each_batch_before_its_step(tiny, few):
    "With a rate of next to nothing, they are the losses of the unchanged network"
    from cifar_resnet.augment import Batches, default_augment
    curve = short(tiny, few, start=1e-12, end=1e-11, label_smoothing=.1)
    x, y = next(iter(Batches(few.train, 32, default_augment(few), shuffle=True, seed=0)))
    logits = copy.deepcopy(tiny)(x)
    assert math.isclose(curve.losses[0], nn.functional.cross_entropy(logits, y, label_smoothing=.1).item(), rel_tol=1e-5)
    assert math.isclose(curve.accs[0], (logits.argmax(1) == y).float().mean().item(), rel_tol=1e-6)


def test_the_same_seed_gives_the_same_curve(tiny, few):
    one, same, other = (short(tiny, few, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.losses, same.losses) and not np.array_equal(one.losses, other.losses)


def test_dropout_is_drawn_from_the_seed_too(few):
    net = CustomResNet(8, drop=.3, logit_scale=.125)
    torch.manual_seed(1)
    one = short(net, few)
    torch.manual_seed(2)
    assert np.array_equal(one.losses, short(net, few).losses)


def test_network_and_generators_stay_unchanged(tiny, few):
    tiny.fc.weight.grad = torch.ones_like(tiny.fc.weight)
    tiny.layer2.eval()
    before, places = {name: v.clone() for name, v in tiny.state_dict().items()}, {name: v.data_ptr() for name, v in tiny.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    short(tiny, few)
    assert all(v.equal(before[name]) and v.data_ptr() == places[name] for name, v in tiny.state_dict().items())
    assert tiny.fc.weight.grad.eq(1).all() and tiny.prep.conv.weight.grad is None and tiny.training and not tiny.layer2.training
    assert torch.get_rng_state().equal(states[0]) and random.getstate() == states[1] and np.array_equal(np.random.get_state()[1], states[2])


def test_a_compiled_network_is_unwrapped(tiny, few):
    assert np.array_equal(short(torch.compile(tiny), few).losses, short(tiny, few).losses)


def test_nothing_is_printed(tiny, few, capsys):
    short(tiny, few)
    assert capsys.readouterr().out == ''


def test_a_curve_ends_where_the_loss_is_no_longer_finite(few):
    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.batches = nn.Parameter(torch.ones(10)), 0
        def forward(self, x):
            self.batches += 1
            return x.mean((1, 2, 3))[:, None]*self.weight*(math.inf if self.batches > 7 else 1)
    curve = short(Explodes(), few)
    assert len(curve.lrs) == len(curve.losses) == len(curve.accs) == 7 and np.isfinite(curve.losses).all()


def test_sixteen_bits(tiny, few):
    full, half = short(tiny, few), short(tiny, few, precision='bfloat16')
    assert not np.array_equal(full.losses, half.losses) and np.allclose(full.losses[:5], half.losses[:5], atol=.1)


def one_clear_line(call, says):
    with pytest.raises(ValueError) as e: call()
    message = str(e.value)
    assert '\n' not in message and len(message) < 400 and says in message, message


@pytest.mark.parametrize('kwargs,says', [
    (dict(steps=19), 'steps must be a whole number from 20 to 100,000 (got 19)'), (dict(steps=30.5), 'got 30.5'), (dict(start=0), 'start must be a number above 0 (got 0)'),
    (dict(start=.1, end=.1), 'end must be a number above 0.1 (got 0.1)'), (dict(end=math.inf), 'end must be'), (dict(start=math.nan), 'start must be'),
    (dict(batch_size=0), 'batch_size'), (dict(seed=-1), 'seed'), (dict(precision='float8'), 'precision'), (dict(device='tpu'), "got 'tpu'"),
    (dict(label_smoothing=1), 'label_smoothing must be a number at least 0 and below 1 (got 1)'), (dict(label_smoothing=-.1), 'label_smoothing')])
def test_wrong_arguments(tiny, few, kwargs, says): one_clear_line(lambda: short(tiny, few, **kwargs), says)


def test_networks_that_cannot_be_trained(few):
    frozen = CustomResNet(8).requires_grad_(False)
    broken = CustomResNet(8)
    broken.fc.weight.data.fill_(math.nan)
    for net, says in ('a name', 'model must be of type Module'), (frozen, 'no parameter to train'), (CustomResNet(8).half(), 'must be float32 (got float16)'), \
            (broken, 'the weights must be finite, and fc.weight has 640 values that are not'):
        one_clear_line(lambda: short(net, few), says)
    with torch.no_grad(): one_clear_line(lambda: short(CustomResNet(8), few), 'gradients are switched off')


def test_importing_the_module_does_not_import_the_library():
    done, modules = modules_after('-c', 'import cifar_resnet.lr_finder')
    assert done.returncode == 0 and 'torch' in modules and not modules & {'torch_lr_finder', 'matplotlib', 'seaborn'}, done.stderr


# ------------------------------------------------------------------------------------------------ reading the curve

def test_smoothing():
    assert np.allclose(smooth(np.full(30, 1.7)), 1.7)
    line = np.arange(50.)
    assert np.allclose(smooth(line)[15:35], line[15:35])  # symmetric: it does not lag behind
    spike = smooth(np.eye(1, 41, 20)[0])
    assert spike.argmax() == 20 and np.allclose(spike, spike[::-1]) and spike[17] > spike[14] > 0
    assert len(smooth(np.array([]))) == 0


def test_the_edge_of_a_valley():
    found = rates_of(VALLEY)
    assert GRID[60] < found.lr_max < GRID[63] and found.lr_min <= .01*found.lr_max
    smoothed = smooth(VALLEY)
    step, half = int(np.argmin(abs(GRID - found.lr_max))), (smoothed[0] + smoothed.min())/2
    assert smoothed[step] <= half < smoothed[step + 1]  # the last step before half of the descent is lost
    assert found.losses is VALLEY and found.lrs is GRID


def test_a_second_deeper_valley_is_ignored(): assert rates_of(np.where(STEPS > 80, 0., VALLEY)).lr_max == rates_of(VALLEY).lr_max


def test_a_curve_that_never_turns():
    never = np.where(STEPS < 60, VALLEY, 1.9)
    assert rates_of(never).lr_max >= GRID[55]
    falling = 2.3 - .01*STEPS
    assert rates_of(falling).lr_max == GRID[99]


def test_lr_min_is_the_onset_of_the_descent_or_the_cap():
    early = np.where(STEPS < 5, 2.3, np.where(STEPS < 80, 2.3 - .01*(STEPS - 5), 1.55 + (STEPS - 80)))
    found = rates_of(early)
    smoothed = smooth(early)
    onset = np.argmax(smoothed <= smoothed[0] - .1*(smoothed[0] - smoothed[first_valley(smoothed)]))
    assert found.lr_min == GRID[onset] < .01*found.lr_max
    late = rates_of(VALLEY)
    assert late.lr_min == .01*late.lr_max or late.lr_min < .01*late.lr_max
    steep = rates_of(np.where(STEPS < 55, 2.3, np.where(STEPS < 60, 2.3 - .2*(STEPS - 55), 1.5 + STEPS - 60)))
    assert math.isclose(steep.lr_min, .01*steep.lr_max)
    assert choose_rates(LRCurve(GRID, VALLEY, np.zeros(100)), cap=.001).lr_min <= .001*late.lr_max*(1 + 1e-12)


def test_less_may_be_lost():
    careful, usual = (choose_rates(LRCurve(GRID, VALLEY, np.zeros(100)), lost=lost).lr_max for lost in (.1, .5))
    assert careful < usual


@pytest.mark.parametrize('losses', [np.full(100, 2.3), 2.3 + STEPS*.1, np.full(100, np.nan), 2.3 - .0009*STEPS])
def test_curves_without_a_slope(losses):
    assert first_valley(smooth(losses)) is None
    one_clear_line(lambda: rates_of(losses), 'no usable slope')


def test_find_lr_is_both(tiny):
    digits, settings = get_data('digits'), dict(batch_size=64, steps=60, device='cpu', precision='float32')
    found, curve = find_lr(tiny, digits, **settings), range_test(tiny, digits, **settings)
    chosen = choose_rates(curve)
    assert np.array_equal(found.losses, curve.losses) and (found.lr_min, found.lr_max) == (chosen.lr_min, chosen.lr_max)
    assert 0 < found.lr_min <= .01*found.lr_max*(1 + 1e-9)
    assert curve.lr_min is None and curve.lr_max is None


def test_the_figure():
    plain, chosen = LRCurve(GRID, VALLEY, np.zeros(100)), rates_of(VALLEY)
    def labels(fig): return [t.get_text() for t in fig.axes[0].get_legend().get_texts()]
    assert labels(plot_lr(plain)) == ['each batch', 'smoothed']
    assert labels(plot_lr(plain, {'by hand': .2})) == ['each batch', 'smoothed', 'by hand: 0.2']
    assert labels(plot_lr(chosen)) == ['each batch', 'smoothed', 'beyond LRMAX', f'LRMIN {chosen.lr_min:.2g}', f'LRMAX {chosen.lr_max:.2g}']


# ------------------------------------------------------------------------------------------------ figures in chapter 02

@pytest.fixture(scope='module')
def prose(root):
    cells = json.loads((root/'nbs'/'02_lr_finder.ipynb').read_text(encoding='utf-8'))['cells']
    return '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown').replace('\N{NO-BREAK SPACE}', ' ')


def test_what_peaks_and_ends_cost(prose):
    runs = {}
    for record in (load_record(name) for name in record_names() if name.startswith('rates/cpu-')):
        s = record['schedule']
        runs.setdefault((s['lr_max'], round(s['final']/s['lr_max'], 3)), {})[record['seed']] = record['epochs'][-1]['valid_acc']
    def cost(setting): return [100*v for v in interval([runs[.4, .01][seed] - acc for seed, acc in runs[setting].items()])]
    costs = {setting: cost(setting) for setting in runs if setting != (.4, .01)}
    undecided = {setting for setting, (_, low, high) in costs.items() if low < 0 < high}
    assert undecided == {(.2, .01), (.8, .01), (1.6, .01), (.4, 0), (.4, .1)}
    assert 'The peaks 0.2, 0.8 and 1.6 are not distinguishable from 0.4 at n=3' in prose and 'ending at a hundredth of the peak is not distinguishable from ending at zero' in prose
    def told(setting): return '{:.1f} points (95 % interval {:.1f} to {:.1f})'.format(*costs[setting])
    assert prose.count(f'A peak of 0.1 costs {told((.1, .01))}') == 2
    assert '0.05 costs {:.1f} ({:.1f} to {:.1f})'.format(*costs[.05, .01]) in prose
    assert 'Ending at 4 % costs {0:.1f} points ({1:.1f} to {2:.1f})'.format(*costs[.4, .04]) in prose
    mean, low, high = costs[.4, .1]
    assert f'Ending at 10 % is not distinguishable ({mean:.1f} points, −{-low:.1f} to {high:.1f})' in prose


def test_the_rates_that_chapter_02_chooses(prose):
    curves = [choose_rates(LRCurve(*(np.array(c[k]) for k in ('lrs', 'losses', 'accs')))) for c in load_record('lr_range')['curves']]
    rates = {name: np.exp(np.mean([math.log(getattr(c, name)) for c in curves])) for name in ('lr_max', 'lr_min')}
    assert f"takes the means, {rates['lr_max']:.2g} and {rates['lr_min']:.2g}" in prose
