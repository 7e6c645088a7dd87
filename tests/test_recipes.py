"""The five published systems are rebuilt as they ran: networks, learning rates to the last printed digit, augmentations, optimizers."""
import json
from collections import Counter, OrderedDict
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

import cifar_resnet.core as core
from cifar_resnet.augment import Batches, Crop, Cutout, Flip, Steps
from cifar_resnet.compare import cost_lines, fault_cost, find_records, plot_accuracies, pooled_spread, step_in_words, summarize_accuracy, systems_table
from cifar_resnet.core import from_plain, to_plain
from cifar_resnet.data import CIFAR10_MEAN, CIFAR10_STD, get_data
from cifar_resnet.device import Conv2d, Optim
from cifar_resnet.model import count_params, load_weights
from cifar_resnet.published import PUBLISHED_LOGS
from cifar_resnet.recipes import (ABOUT, BLACK, DIGITS, ERA_UTILS, EVA6_S9, EVA8_RESNETF, EVA8_S8, KINDS, ONE_CYCLE, Gray, Recipe, ResizedCrop, change,
                                  controls, find_recipes, fix, painted_before, published_cycle, recipes, run_recipe, single_faults)
from cifar_resnet.train import FitConfig, OneCycle

FIVE = 'eva8_s8', 'eva6_s9', 'eva8_resnetf', 'era_s10', 'era_utils'
EVERY = [*recipes().values(), *(fix(recipes()[name]) for name in FIVE), *(fix(recipes()[name], fault) for name in FIVE for fault in ABOUT[name].faults), *single_faults().values()]


@pytest.fixture(scope='module')
def few():
    "Some digits, for runs of a fraction of a second"
    digits = get_data('digits')
    return replace(digits, train=digits.train[:96], valid=digits.valid[:32], test=digits.test[:32])


def shrink(recipe): return replace(recipe, network=recipe.network | dict(width=8))


def outcome(recipe, data, **settings):
    "Train on the CPU, and return what a run with other settings must not share"
    run = run_recipe(recipe, data, **dict(progress=False, device='cpu') | settings)
    weights = b''.join(v.contiguous().numpy().tobytes() for v in run.model.state_dict().values())
    return weights, [[e[name] for name in ('lr', 'train_loss', 'train_acc', 'valid_loss')] for e in run.history], run.record['test_loss']


def short(recipe, data, **settings): return outcome(shrink(recipe), data, epochs=1, batch_size=32, precision='float32', **settings)


# --- facts -------------------------------------------------------------------

CYCLES = {  # what each system gave OneCycleLR; the rest is PyTorch's default
    'eva8_s8': dict(max_lr=.040031316333168206, pct_start=5/24, div_factor=6500, final_div_factor=6500, anneal_strategy='linear'),
    'eva6_s9': dict(max_lr=.2),
    'eva8_resnetf': dict(max_lr=.14820207057988585, pct_start=.2, div_factor=10, final_div_factor=50, anneal_strategy='linear'),
    'era_s10': dict(max_lr=.0465, pct_start=5/24, div_factor=2000, final_div_factor=100, anneal_strategy='linear'),
    'era_utils': dict(max_lr=.02656087782946686, pct_start=5/24)}

OPTIMS = {
    'eva8_s8': Optim('sgd', .9, weight_decay=0., nesterov=False),
    'eva6_s9': Optim('sgd', .9, weight_decay=0., nesterov=False, rebuilt_at=.01),
    'eva8_resnetf': Optim('sgd', .9, weight_decay=0., nesterov=False),
    'era_s10': Optim('adam', .9, weight_decay=1e-4),
    'era_utils': Optim('adam', .9, weight_decay=0.)}

STEPS = {
    'eva8_s8': (Crop(4, 'wrap'), Flip(.45), Cutout(8, .65, (125, 123, 114))),
    'eva6_s9': (Crop(2, p=.5, offsets=4), Flip(.5, vertical=True), Cutout(8, .5, (154, 151, 140))),
    'eva8_resnetf': (Crop(0), Flip(.5), Cutout(8, .5, (127, 127, 127), inside=False)),
    'era_s10': (ResizedCrop(.2), Flip(.2), Cutout(8, .5, (0, 0, 0))),
    'era_utils': (Crop(2), Flip(.2), Cutout(8, .5, (156, 153, 144), inside=False), Gray(.15, CIFAR10_MEAN, CIFAR10_STD))}

NORMALIZATION = {
    'eva6_s9': ((.4675, .4599, .4236), (.2901, .2874, .2917)),
    'eva8_resnetf': ((.5, .5, .5), (.5, .5, .5)),
    'era_s10': ((.491, .482, .447), (.247, .244, .262))}  # the other two: the data set's own

PUBLISHED = {'eva8_s8': (.8923, 6_573_120), 'eva6_s9': (.8516, 4_058_122), 'eva8_resnetf': (.87, 6_575_370), 'era_s10': (.9031, 6_573_120), 'era_utils': (.9233, 6_573_130)}

FAULTS = {
    'eva8_s8': {'softmax before the loss', 'annihilation'},
    'eva6_s9': {'optimizer rebuilt each epoch', 'vertical flips', 'normalize before cutout', 'annihilation'},
    'eva8_resnetf': {'softmax before the loss', 'crop without padding', 'annihilation'},
    'era_s10': {'cutout fill black', 'annihilation'},
    'era_utils': {'normalize before cutout', 'annihilation'}}


@pytest.mark.parametrize('name', FIVE)
def test_settings(name):
    recipe, about = recipes()[name], ABOUT[name]
    config = FitConfig(OPTIMS[name], Steps(STEPS[name]), l1=2.5e-5 if name == 'eva8_s8' else 0., full=True)
    assert recipe.config == config and config.batch_size == 512 and recipe.schedule.epochs == 24 and recipe.data == 'cifar10'
    assert (recipe.mean, recipe.std) == NORMALIZATION.get(name, (None, None))
    assert (about.published, about.params) == PUBLISHED[name] and count_params(recipe.make()) == about.params
    assert set(about.faults) == FAULTS[name]


def test_names():
    assert list(recipes()) == [*FIVE, 'one_cycle', 'digits', 'own', 'cpu94', 'cpu95', 'accurate-strict', 'accurate-free', 'fast94'] and list(ABOUT) == [*FIVE, 'one_cycle']
    assert all(recipe.name == name for name, recipe in recipes().items())
    recipes().clear()
    assert len(recipes()) == 13  # a copy each time


# --- learning rates ------------------------------------------------------------

def rate_at(name, epoch): return recipes()[name].lr_at(98*(epoch + PUBLISHED_LOGS[name].after))


@pytest.mark.parametrize('name, known', [('eva8_s8', 24), ('eva6_s9', 19), ('eva8_resnetf', 24), ('era_s10', 24), ('era_utils', 24)])
def test_rates_in_the_logs(name, known):
    printed = PUBLISHED_LOGS[name].rates
    assert len(printed) == known
    for epoch, rate in printed.items(): assert format(rate_at(name, epoch - 1), '.5f' if name == 'era_utils' else '') == rate


def test_the_rates_of_a_wrong_schedule_differ():
    "The comparison above would notice it: one digit of the peak, one step of the length, the other end of an epoch"
    printed, cycle = PUBLISHED_LOGS['eva8_s8'].rates, EVA8_S8.schedule
    def same(schedule, per_epoch=98, shift=0): return sum(str(schedule.at(per_epoch*(epoch - 1 + shift), per_epoch)[0]) == rate for epoch, rate in printed.items())
    assert same(cycle) == 24
    assert max(same(replace(cycle, lr_max=.040031316333168)), same(cycle, 97), same(cycle, shift=1)) < 3


def test_accuracies_in_the_logs():
    for name, log in PUBLISHED_LOGS.items():
        assert set(log.test_acc) | set(log.train_acc) <= set(range(1, 25)) and all(20 < acc < 100 for acc in [*log.test_acc.values(), *log.train_acc.values()])
        if name == 'eva8_resnetf': assert not log.test_acc and len(log.train_acc) == 24
        else: assert log.test_acc[24] == pytest.approx(100*ABOUT[name].published) and len(log.test_acc) == len(log.train_acc) == (19 if name == 'eva6_s9' else 24)
    assert set(range(1, 25)) - set(PUBLISHED_LOGS['eva6_s9'].test_acc) == {13, 14, 15, 16, 17}


def test_losses_in_the_logs():
    "Cross-entropy after a softmax lies between 1.46 and 2.46; the other systems get far below"
    for name, log in PUBLISHED_LOGS.items():
        if name == 'eva8_s8': assert 1.4612 < min(log.test_loss.values()) < 1.6 and max(log.test_loss.values()) < 2.4612
        elif log.test_loss: assert .2 < log.test_loss[24] < .5
    assert PUBLISHED_LOGS['era_s10'].test_loss[24] == pytest.approx(.2837, abs=1e-4)


def test_the_peak_of_era_utils():
    assert f'{max(rate_at("era_utils", epoch) for epoch in range(24)):.6f}' == '0.026561' and f'{ERA_UTILS.schedule.lr_max:.6f}' == '0.026561'


def test_a_later_run_of_eva8_resnetf():
    "The run that printed 86 %, whose peak and end its page shows"
    later = replace(EVA8_RESNETF, schedule=published_cycle(.1552225357427048, .2, 10, 100))
    np.testing.assert_allclose([later.lr_at(98), later.lr_at(24*98)], [.04468848206278042, 7.281006061143902e-05], rtol=0, atol=1e-16)


def torch_cycle(name, lr=1.):
    "Yield (learning rate, momentum) of every step from PyTorch itself, and then of the step after the last"
    weight = [nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.Adam(weight, lr) if OPTIMS[name].name == 'adam' else torch.optim.SGD(weight, lr, momentum=.9)
    cycle, group = OneCycleLR(optimizer, total_steps=24*98, **CYCLES[name]), optimizer.param_groups[0]
    for step in range(24*98):
        yield group['lr'], group['momentum'] if 'momentum' in group else group['betas'][0]
        optimizer.step()
        cycle.step()
    yield group['lr'], None


@pytest.mark.parametrize('name', FIVE)
def test_every_step_is_that_of_torch(name):
    recipe, (*steps, after) = recipes()[name], torch_cycle(name)
    assert [(recipe.lr_at(i), recipe.momentum_at(i)) for i in range(24*98)] == steps
    assert [recipe.schedule.at(i, 98) for i in range(24*98)] == steps
    assert recipe.lr_at(24*98) == after[0]
    peak = round(CYCLES[name].get('pct_start', .3)*24*98) - 1
    np.testing.assert_allclose([recipe.momentum_at(i) for i in (0, peak, 24*98 - 1)], [.95, .85, .95], atol=2e-4)


def test_steps_beyond_the_schedule():
    for step in -1, 24*98 + 1, 9999, .5:
        with pytest.raises(ValueError, match=r'step must be a whole number from 0 to 2,352'): EVA8_S8.lr_at(step)
    with pytest.raises(ValueError, match=r'from 0 to 2,351'): EVA8_S8.momentum_at(24*98)
    two = replace(EVA8_S8, schedule=EVA8_S8.schedule.stretch(2))
    assert two.lr_at(20, per_epoch=10) < two.lr_at(19, per_epoch=10) == pytest.approx(two.schedule.final)
    with pytest.raises(ValueError, match=r'from 0 to 20 '): two.lr_at(21, per_epoch=10)


# --- networks ------------------------------------------------------------------

def parts_after_conv(no, order, pool=False, drop=0.):
    made = dict(pool=lambda: nn.MaxPool2d(2), norm=lambda: nn.BatchNorm2d(no), act=nn.ReLU, drop=lambda: nn.Dropout(drop))
    return [made[part]() for part in order.split() if (part != 'pool' or pool) and (part != 'drop' or drop)]


class Reference(nn.Module):
    "The assignment's network from plain layers, with the differences that a system states"
    def __init__(self, order='pool norm act', prep_order=None, bias=False, head_bias=False, drops=(0, 0, 0, 0), res_drops=(0, 0), padding_mode='zeros', softmax=False):
        super().__init__()
        def block(ni, no, order, pool, drop): return [nn.Conv2d(ni, no, 3, 1, 1, bias=bias, padding_mode=padding_mode), *parts_after_conv(no, f'{order} drop', pool, drop)]
        self.prep = nn.Sequential(*block(3, 64, prep_order or order, False, drops[0]))
        self.down1 = nn.Sequential(*block(64, 128, order, True, drops[1]))
        self.res1 = nn.Sequential(*block(128, 128, order, False, res_drops[0]), *block(128, 128, order, False, res_drops[0]))
        self.down2 = nn.Sequential(*block(128, 256, order, True, drops[2]))
        self.down3 = nn.Sequential(*block(256, 512, order, True, drops[3]))
        self.res3 = nn.Sequential(*block(512, 512, order, False, res_drops[1]), *block(512, 512, order, False, res_drops[1]))
        self.fc, self.softmax = nn.Linear(512, 10, bias=head_bias), softmax

    def forward(self, x):
        x = self.down1(self.prep(x))
        x = self.down2(x + self.res1(x))
        x = self.down3(x)
        logits = self.fc(nn.functional.max_pool2d(x + self.res3(x), 4).flatten(1))
        return logits.softmax(1) if self.softmax else logits


class OverlappingReference(nn.Module):
    "Pools of 4 × 4 in steps of 2; shortcuts from `prep` and from layer 2, which shrink as well; 1 × 1 convolutions at the end"
    def __init__(self):
        super().__init__()
        def down(ni, no): return nn.Sequential(nn.Conv2d(ni, no, 3, 1, 1), nn.MaxPool2d(4, 2), nn.BatchNorm2d(no), nn.ReLU(), nn.Dropout(0))
        def shrink(ni, no): return nn.Sequential(nn.Conv2d(ni, no, 3), nn.BatchNorm2d(no), nn.ReLU(), nn.Dropout(0), nn.Conv2d(no, no, 2, 2), nn.BatchNorm2d(no), nn.ReLU(), nn.Dropout(0))
        self.prep = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Dropout(0))
        self.l1x, self.l1res, self.l2, self.l3x, self.l3res = down(64, 128), shrink(64, 128), down(128, 256), down(256, 512), shrink(256, 512)
        self.c1, self.c2 = nn.Conv2d(512, 256, 1), nn.Conv2d(256, 10, 1)

    def forward(self, x):
        self.shapes = []
        def note(x):
            self.shapes.append(tuple(x.shape[1:]))
            return x
        x = self.prep(x)
        x = note(self.l1x(x) + self.l1res(x))
        x = note(self.l2(x))
        x = note(self.l3x(x) + self.l3res(x))
        return self.c2(self.c1(x.mean((2, 3), keepdim=True))).flatten(1)


REFERENCES = {
    'eva8_s8': lambda: Reference(softmax=True),
    'eva6_s9': OverlappingReference,
    'eva8_resnetf': lambda: Reference('pool act norm', bias=True, head_bias=True, drops=(0, 0, 0, .1), softmax=True),
    'era_s10': lambda: Reference(drops=(.02, .05, .02, .05), res_drops=(.05, .05), padding_mode='reflect'),
    'era_utils': lambda: Reference(prep_order='act norm', head_bias=True, drops=(.01, 0, 0, 0))}


@pytest.mark.parametrize('name', FIVE)
def test_network(name):
    "Parameter by parameter the same shapes, and with the same weights the same outputs, with dropout too"
    torch.manual_seed(0)
    ours, theirs, x = recipes()[name].make(), REFERENCES[name](), torch.randn(3, 3, 32, 32)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    assert [p.shape for p in ours.state_dict().values()] == [p.shape for p in theirs.state_dict().values()]
    theirs.load_state_dict(OrderedDict(zip(theirs.state_dict(), ours.state_dict().values())))
    for mode in False, True:
        both = []
        for net in ours.train(mode), theirs.train(mode):
            torch.manual_seed(1)
            with torch.no_grad(): both.append(net(x))
        assert both[0].shape == (3, 10)
        torch.testing.assert_close(*both, rtol=1e-5, atol=1e-5)


def test_sizes_in_the_overlapping_network():
    net = OverlappingReference().eval()
    net(torch.zeros(1, 3, 32, 32))
    assert net.shapes == [(128, 15, 15), (256, 6, 6), (512, 2, 2)]


def test_order_of_layers():
    after = [type(layer) for layer in EVA8_RESNETF.make().layer3.down]
    assert after == [Conv2d, nn.MaxPool2d, nn.ReLU, nn.BatchNorm2d, nn.Dropout]
    assert [type(layer) for layer in ERA_UTILS.make().prep] == [Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Dropout]


# --- augmentations -------------------------------------------------------------

def draws_of(step, n=40_000): return [tuple(d) if np.ndim(d) else d for d in step.draw(n, torch.Generator().manual_seed(0)).tolist()]


def agreement(step, expected):
    "Return the p-value of a chi-squared test of what `step` draws against probabilities; 0 for a draw that is not among them"
    counts = Counter(draws_of(step))
    if counts.keys() - expected.keys(): return 0.
    n = sum(counts.values())
    return chisquare([counts[d] for d in expected], [p*n for p in expected.values()]).pvalue


def corners(p, size, nowhere):
    "Return the probability of each corner: one of size × size with probability `p`, else `nowhere`"
    chances = Counter({(row, col): p/size**2 for row in range(size) for col in range(size)})
    if p < 1: chances[nowhere] += 1 - p
    return chances


def old_cutout(p):
    "The corners of albumentations 1's Cutout: a center from 0 to 32, and a square that may stick out below or on the right"
    line = Counter(max(center - 4, 0) for center in range(33))
    return Counter({(row, col): p*line[row]*line[col]/33**2 for row in line for col in line}) + Counter({(32, 32): 1 - p})


EXPECTED = [
    (STEPS['eva8_s8'][0], corners(1, 9, None)), (STEPS['eva8_s8'][1], {0: .55, 1: .45}), (STEPS['eva8_s8'][2], corners(.65, 25, (32, 32))),
    (STEPS['eva6_s9'][0], corners(.5, 4, (2, 2))), (STEPS['eva6_s9'][1], {0: .5, 1: 1/6, 2: 1/6, 3: 1/6}), (STEPS['eva6_s9'][2], corners(.5, 25, (32, 32))),
    (STEPS['eva8_resnetf'][0], {(0, 0): 1}), (STEPS['eva8_resnetf'][1], {0: .5, 1: .5}), (STEPS['eva8_resnetf'][2], old_cutout(.5)),
    (STEPS['era_s10'][1], {0: .8, 1: .2}), (STEPS['era_s10'][2], corners(.5, 25, (32, 32))), (STEPS['era_utils'][0], corners(1, 5, None)), (STEPS['era_utils'][3], {False: .85, True: .15})]


@pytest.mark.parametrize('step, expected', EXPECTED, ids=lambda v: step_in_words(v) if not isinstance(v, dict) else '')
def test_how_often_each_draw_comes(step, expected):
    if len(expected) > 1: assert agreement(step, expected) > .001
    else: assert set(draws_of(step)) == set(expected)


def test_a_wrong_generator_is_noticed():
    "The chi-squared test rejects draws of a step that is nearly the right one"
    for step, expected in (Flip(.5), {0: .55, 1: .45}), (Flip(.5, vertical=True), {0: .55, 1: .15, 2: .15, 3: .15}), (Crop(2, p=.5), corners(.5, 4, (2, 2))), (Cutout(8), old_cutout(1.)):
        assert agreement(step, expected) < .001, step


def test_the_crop_of_eva6_s9():
    "Offsets as albumentations 1.0.2 computed them: int((36 - 32)·u) for u from 0 to below 1, so 0 to 3 of 0 to 4"
    rng = np.random.default_rng(0)
    theirs = {int((36 - 32)*u) for u in [*rng.random(10_000), np.nextafter(1, 0)]}
    crop, *_ = EVA6_S9.config.augment.steps
    assert theirs == {0, 1, 2, 3} == {offset for corner in draws_of(replace(crop, p=1.)) for offset in corner}
    assert {offset for corner in draws_of(Crop(2)) for offset in corner} == {0, 1, 2, 3, 4}
    image = torch.arange(32*32*3).remainder(251).to(torch.uint8).reshape(1, 32, 32, 3)
    padded = np.pad(image[0].numpy(), ((2, 2), (2, 2), (0, 0)), mode='reflect')
    for corner in (0, 3), (2, 2), (3, 1):
        cut = Steps((crop,)).apply(image, [torch.tensor([corner])])[0].numpy()
        assert (cut == padded[corner[0]:corner[0] + 32, corner[1]:corner[1] + 32]).all()


def test_colors_of_squares():
    "What a painted square is after normalization: zeros for the mean color, the mean itself where it was painted later"
    assert painted_before((0, 0, 0), CIFAR10_MEAN, CIFAR10_STD) == (125, 123, 114) and painted_before((1, 1, 1), (.5, .5, .5), (.25, .5, .5)) == (191, 255, 255)
    usual = {name: NORMALIZATION.get(name, (CIFAR10_MEAN, CIFAR10_STD)) for name in FIVE}
    expected = dict(eva8_s8=(0, 0, 0), eva6_s9=usual['eva6_s9'][0], eva8_resnetf=(0, 0, 0), era_utils=CIFAR10_MEAN, era_s10=[-m/s for m, s in zip(*usual['era_s10'])])
    for name, wanted in expected.items():
        square, = (step for step in recipes()[name].config.augment.steps if isinstance(step, Cutout))
        images = square.apply(torch.full((1, 32, 32, 3), 50, dtype=torch.uint8), torch.tensor([[10, 12]]))
        mean, std = usual[name]
        inside = (images[0, 10:18, 12:20]/255 - torch.tensor(mean))/torch.tensor(std)
        np.testing.assert_allclose(inside.reshape(-1, 3), np.tile(wanted, (64, 1)), atol=.01, err_msg=name)
        assert (images != 50).any(-1).sum() == 64


# --- fixes, variants, names ----------------------------------------------------

def parts(recipe): return dict(network=recipe.network, net=recipe.net, schedule=recipe.schedule, mean=recipe.mean, std=recipe.std) | {f.name: getattr(recipe.config, f.name) for f in fields(FitConfig)}


@pytest.mark.parametrize('name', FIVE)
def test_each_fault_is_a_switch_of_its_own(name):
    recipe, faults = recipes()[name], ABOUT[name].faults
    clean = fix(recipe)
    for fault in faults:
        one = fix(recipe, fault)
        assert one.name == f'{name}-without-{fault.replace(" ", "-")}'
        field, = (part for part, value in parts(one).items() if value != parts(recipe)[part])
        assert field in ('network', 'schedule', 'optim', 'augment') and parts(clean)[field] != parts(recipe)[field]
        wanted = faults[fault].get('swap', {})
        assert set(wanted.values()) <= set(one.config.augment.steps) and set(wanted.values()) <= set(clean.config.augment.steps)
        assert not set(wanted) & set(clean.config.augment.steps)
    assert clean.name == f'{name}-fixed' and fix(recipe, *faults) == clean
    assert recipes()[name] == recipe  # the original is unchanged


def test_what_the_fixes_do():
    assert fix(EVA8_S8).network == {} and not fix(EVA8_RESNETF).make().config['softmax'] and fix(EVA6_S9).config.optim.rebuilt_at is None
    for name in FIVE:
        clean = fix(recipes()[name])
        assert clean.schedule.final == clean.schedule.lr_min and clean.schedule == replace(recipes()[name].schedule, final=clean.schedule.lr_min)
        square, = (step for step in clean.config.augment.steps if isinstance(step, Cutout))
        assert square.fill == ((127, 127, 127) if name == 'eva8_resnetf' else (119, 117, 108) if name == 'eva6_s9' else (125, 123, 114))
    assert Crop(4) in fix(EVA8_RESNETF).config.augment.steps and Flip(.5) in fix(EVA6_S9).config.augment.steps and Gray(.15) in fix(ERA_UTILS).config.augment.steps


def test_wrong_fixes():
    with pytest.raises(ValueError, match="eva8_s8 has no fault 'typo'; it has: softmax before the loss, annihilation"): fix(EVA8_S8, 'typo')
    for recipe in ONE_CYCLE, DIGITS, fix(EVA8_S8):
        with pytest.raises(ValueError, match=f'{recipe.name} has no known faults to fix'): fix(recipe)


def test_single_faults():
    faults = single_faults()
    assert set().union(*FAULTS.values()) | {'no flip'} == set(faults)  # each fault of the five is studied alone, and the missing flip of a sixth run
    for fault, recipe in faults.items():
        changed = [part for part, value in parts(recipe).items() if value != parts(ONE_CYCLE)[part]]
        assert recipe.name == fault.replace(' ', '-') and len(changed) == 1 and count_params(recipe.make()) == ABOUT['one_cycle'].params
    def steps(fault): return faults[fault].config.augment.steps
    assert steps('no flip') == (Crop(4), Cutout(8)) and steps('crop without padding') == (Flip(.5), Cutout(8)) and steps('vertical flips')[1] == Flip(.5, vertical=True)
    assert steps('cutout fill black')[2].fill == BLACK and steps('normalize before cutout')[2].fill == (156, 153, 144)
    assert faults['optimizer rebuilt each epoch'].config.optim.rebuilt_at == .01 and faults['annihilation'].schedule.final == .0017/1e4


def test_the_control_changes_the_schedule_alone():
    "One optimizer, with the momentum of the rebuilt one, at the rate that is in effect there"
    control, = controls().values()
    rebuilt = single_faults()['optimizer rebuilt each epoch']
    assert {part for part, value in parts(control).items() if value != parts(ONE_CYCLE)[part]} == {'schedule'}
    assert {control.schedule.at(step, 98) for step in range(0, 24*98, 7)} == {(rebuilt.config.optim.rebuilt_at, None)}
    assert control.config.optim == replace(rebuilt.config.optim, rebuilt_at=None)


def test_find_recipes():
    assert find_recipes(*(recipe.name for recipe in EVERY)) == EVERY and len({recipe.name for recipe in EVERY}) == len(EVERY) == 13 + 5 + 13 + 8
    assert find_recipes() == []
    assert [r.name for r in find_recipes('era_s10', 'era_s10-fixed', 'vertical-flips')] == ['era_s10', 'era_s10-fixed', 'vertical-flips']
    with pytest.raises(ValueError, match=r"there is no recipe 'eva9'; choose from eva8_s8, .*, era_s10-fixed, .*, no-flip"): find_recipes('eva8_s8', 'eva9')


def test_change():
    mine = change(ONE_CYCLE, 'mine', network=dict(width=8), l1=1e-4, swap={Flip(.5): None, Crop(4): Crop(2)})
    assert (mine.name, mine.network, mine.config.l1, mine.config.augment) == ('mine', dict(width=8), 1e-4, Steps((Crop(2), Cutout(8))))
    assert change(ONE_CYCLE, 'mine', augment=Steps((Crop(4),)), swap={Crop(4): Crop(1)}).config.augment == Steps((Crop(1),))  # neither is ignored
    bare = change(ONE_CYCLE, 'bare', augment=None)
    assert change(bare, 'barer', l1=.1).config == replace(ONE_CYCLE.config, augment=None, l1=.1)
    with pytest.raises(ValueError, match='is not one of the steps'): change(ONE_CYCLE, 'mine', swap={Flip(.4): Flip(0.)})
    with pytest.raises(TypeError, match='learning_rate'): change(ONE_CYCLE, 'mine', learning_rate=.1)


@pytest.mark.parametrize('recipe', EVERY, ids=lambda recipe: recipe.name)
def test_as_plain_values(recipe):
    "JSON and back gives an equal recipe, down to the tuples"
    again = from_plain(json.loads(json.dumps(to_plain(recipe))), KINDS)
    assert again == recipe and repr(again) == repr(recipe)


# --- training ------------------------------------------------------------------

def test_the_optimizer_rebuilt_each_epoch_trains_at_a_hundredth(few):
    "The run of eva6_s9 is that of a plain loop with a new SGD(.01) each epoch, whatever its schedule says"
    recipe = replace(shrink(EVA6_S9), config=replace(EVA6_S9.config, batch_size=32, precision='float32', device='cpu', progress=False))
    run = run_recipe(recipe, few, epochs=3, seed=5)
    assert [e['lr'] for e in run.history] == [.01]*3

    def by_hand(rebuild):
        torch.manual_seed(5)
        net = recipe.make()
        torch.manual_seed(5)
        batches = Batches(few.full, 32, recipe.config.augment, shuffle=True, seed=5)
        net.to(memory_format=torch.channels_last).train()
        for epoch in range(3):
            if rebuild or not epoch: optimizer = torch.optim.SGD(net.parameters(), .01, momentum=.9)
            for x, y in batches:
                nn.functional.nll_loss(net(x).log_softmax(1), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        return [p.detach() for p in net.parameters()]
    ours = list(run.model.parameters())
    torch.testing.assert_close(ours, by_hand(rebuild=True), rtol=1e-3, atol=1e-5)
    with pytest.raises(AssertionError): torch.testing.assert_close(ours, by_hand(rebuild=False), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('name', [*recipes(), *(f'{name}-fixed' for name in FIVE)])
def test_the_schedule_is_the_one_source_of_truth(name, few):
    "Another last rate is another run; only where the optimizer is rebuilt each epoch does the schedule reach nothing"
    recipe, = find_recipes(name)
    later = replace(recipe, schedule=replace(recipe.schedule, final=1e-3))
    assert (short(recipe, few) == short(later, few)) == (name == 'eva6_s9')


@pytest.mark.parametrize('name, fault', [(name, fault) for name in FIVE for fault in ABOUT[name].faults])
def test_each_fix_is_another_run(name, fault, few):
    recipe = recipes()[name]
    nothing = (name, fault) == ('eva6_s9', 'annihilation')  # its schedule drives nothing until the other fault is fixed
    assert (short(recipe, few) == short(fix(recipe, fault), few)) == nothing
    if nothing: assert short(fix(recipe), few) != short(fix(recipe, *set(ABOUT[name].faults) - {fault}), few)


BASE = Recipe('base', OneCycle(.01, .1, 2, 1, momentum=None, final=.005), FitConfig(Optim(weight_decay=.01), Steps((Crop(2), Cutout(4))), batch_size=16, precision='float32'),
              dict(width=8), data='digits', mean=(.3, .3, .3), std=(.2, .2, .2))
CHANGES = {
    Recipe: dict(schedule=OneCycle(.01, .2, 2, 1, momentum=None), config=replace(BASE.config, l1=.001), network=dict(width=8, logit_scale=.5), net='OverlappingNet',
                 data='cifar10', mean=(.4, .3, .3), std=(.2, .2, .3)),
    OneCycle: dict(lr_min=.02, lr_max=.2, epochs=3, peak_epoch=.5, anneal='cos', momentum=(.85, .9), final=0.),
    FitConfig: dict(optim=Optim('adam'), augment=None, batch_size=24, accumulate=2, label_smoothing=.1, l1=.001, precision='bfloat16', ema=.5, seed=1, full=True),
    Optim: dict(name='adam', momentum=.5, weight_decay=.1, decay_all=False, nesterov=False, rebuilt_at=.02)}
SPEED = {'before', 'sizes', 'half', 'early_until', 'views'}  # test_speed
OTHERWISE = {Recipe: {'name'}, FitConfig: {'compile', 'device', 'progress', 'logger', 'sync_bn'} | SPEED}  # tests of their own, below


def with_field(kind, field, value):
    if kind is Recipe: return replace(BASE, **{field: value})
    if kind is OneCycle: return replace(BASE, schedule=replace(BASE.schedule, **{field: value}))
    if kind is FitConfig: return replace(BASE, config=replace(BASE.config, **{field: value}))
    return replace(BASE, config=replace(BASE.config, optim=replace(BASE.config.optim, **{field: value})))


@pytest.fixture(scope='module')
def baseline(few): return outcome(BASE, few)


@pytest.mark.parametrize('kind', CHANGES, ids=lambda kind: kind.__name__)
def test_all_fields_are_tried(kind): assert CHANGES[kind].keys() | OTHERWISE.get(kind, set()) == {f.name for f in fields(kind)}


@pytest.mark.parametrize('kind, field', [(kind, field) for kind in CHANGES for field in CHANGES[kind]], ids=lambda v: getattr(v, '__name__', v))
def test_each_field_changes_the_run(kind, field, few, baseline):
    assert outcome(with_field(kind, field, CHANGES[kind][field]), few) != baseline


def test_fields_that_are_refused(few):
    for change_, message in ((dict(mean=None), 'mean and std belong together'), (dict(std=None), r'mean and std belong together.*std=None'), (dict(net='Net'), 'net must be one of .*OverlappingNet')):
        with pytest.raises(ValueError, match=message): run_recipe(replace(BASE, **change_), few, progress=False)
    with pytest.raises(TypeError, match='logit_scale'): run_recipe(replace(BASE, net='OverlappingNet', network=dict(width=8, logit_scale=.5)), few, progress=False)
    for settings, message in ((dict(device='tpu'), 'device must be one of'), (dict(compile='yes'), 'compile must be one of'), (dict(progress=2), 'progress must be one of')):
        with pytest.raises(ValueError, match=message): run_recipe(BASE, few, **settings)
    cycling = replace(BASE, schedule=replace(BASE.schedule, momentum=(.85, .95)))
    with pytest.raises(ValueError, match='a schedule that cycles momentum needs an optimizer with momentum'): run_recipe(change(cycling, 'still', optim=Optim(momentum=0.)), few, progress=False)


def test_a_schedule_that_cycles_momentum_replaces_that_of_the_optimizer(few):
    "As `Optim` says of its field"
    cycling = replace(BASE, schedule=replace(BASE.schedule, momentum=(.85, .95)))
    assert outcome(change(cycling, 'other', optim=replace(BASE.config.optim, momentum=.3)), few) == outcome(cycling, few)


@pytest.mark.parametrize('recipe, own', [('era_s10', True), ('one_cycle', True), ('digits', False), (BASE, False)])
def test_all_training_images_or_not_is_said_by_the_recipe(recipe, own, few):
    "One default, that of `FitConfig`; a recipe sets another, and a call overrides both"
    recipe = find_recipes(recipe)[0] if isinstance(recipe, str) else recipe
    assert recipe.config.full is own and FitConfig().full is False
    for settings, full in ({}, own), (dict(full=True), True), (dict(full=False), False):
        assert run_recipe(shrink(recipe), few, epochs=1, batch_size=32, progress=False, **settings).record['images'] == (128 if full else 96)


def test_a_name_is_only_a_name(few, baseline):
    "And two runs of the same settings are equal, without which the tests above would say nothing"
    assert outcome(replace(BASE, name='other'), few) == baseline


def test_compile(few, baseline, monkeypatch):
    compiled = []
    def record(model, **kwargs):
        compiled.append(model)
        return model
    monkeypatch.setattr(torch, 'compile', record)
    outcome(BASE, few)
    assert not compiled
    outcome(BASE, few, compile=True)
    assert len(compiled) == 1


def test_progress_and_tensorboard(few, baseline, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert outcome(BASE, few) == baseline and capfd.readouterr() == ('', '')
    assert outcome(BASE, few, progress=True, logger='tensorboard') == baseline
    out, err = capfd.readouterr()
    assert 'train loss' in out and 'images/s]' not in err and any((tmp_path/'runs'/'tensorboard').iterdir())  # no bar: this is no terminal


def test_seed(few):
    "The recipe's own unless another is given, and recorded"
    seeded = replace(BASE, config=replace(BASE.config, seed=3))
    assert outcome(seeded, few) == outcome(BASE, few, seed=3) == outcome(seeded, few, seed=3) != outcome(seeded, few, seed=0)
    assert run_recipe(seeded, few, epochs=1, progress=False).record['seed'] == 3
    for seed in -1, 2**64, 1.5:
        with pytest.raises(ValueError, match='seed must be a whole number from 0'): run_recipe(BASE, few, seed=seed)


def test_normalization(few):
    "A recipe's mean and standard deviation belong to its own data set"
    cifar = replace(few, name='cifar10')
    for name in FIVE:
        recipe = shrink(recipes()[name])
        mean, std = NORMALIZATION.get(name, (few.mean, few.std))
        record = run_recipe(recipe, cifar, epochs=1, batch_size=32, progress=False).record
        assert (tuple(record['mean']), tuple(record['std'])) == (mean, std)
        record = run_recipe(recipe, few, epochs=1, batch_size=32, progress=False).record
        assert (tuple(record['mean']), tuple(record['std'])) == (few.mean, few.std)


def test_a_run_by_name_leaves_a_run_folder(few, tmp_path):
    run = run_recipe('digits', few, epochs=2, seed=4, out=tmp_path/'a', progress=False, batch_size=32)
    assert {'run.json', 'final.safetensors', 'last.pt'} <= {path.name for path in (tmp_path/'a').iterdir()}
    record = json.loads((tmp_path/'a'/'run.json').read_text())
    assert (record['name'], record['seed'], record['data'], len(record['epochs']), record['test_acc']) == ('run', 4, 'digits', 2, run.test_acc)
    assert from_plain(record['schedule'], KINDS) == DIGITS.schedule.stretch(2) and from_plain(record['augment'], KINDS) == DIGITS.config.augment
    assert from_plain(record['config']['optim'], KINDS) == DIGITS.config.optim and record['network']['config']['width'] == 16
    again = run_recipe('digits', few, epochs=2, seed=4, out=tmp_path/'a', resume=tmp_path/'a'/'last.pt', progress=False, batch_size=32)
    assert again.test_acc == run.test_acc and again.history == run.history
    with pytest.raises(ValueError, match="there is no recipe 'digit'"): run_recipe('digit', few)


def test_weights_of_every_network_load_again(few, tmp_path):
    for recipe in EVA6_S9, EVA8_RESNETF:
        run = run_recipe(shrink(recipe), few, epochs=1, out=tmp_path/recipe.name, progress=False, batch_size=32)
        model, notes = load_weights(tmp_path/recipe.name/'final.safetensors')
        assert type(model).__name__ == recipe.net and all(map(torch.equal, model.state_dict().values(), run.model.state_dict().values()))


# --- recorded runs -------------------------------------------------------------

@pytest.fixture
def results(tmp_path, monkeypatch):
    "A folder of records that stands in for results/"
    monkeypatch.setattr(core, 'results_folders', lambda: [tmp_path])
    def write(name, **record):
        path = tmp_path/f'{name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    return write


def test_one_record_for_each_seed(results):
    for seed, acc in (0, .5), (1, .6), (10, .7): results(f'recipes/one_cycle-{seed}', seed=seed, test_acc=acc)
    results('one_cycle_24', seed=0, test_acc=.8)
    results('one_cycle_24-2', seed=2, test_acc=.9)
    results('one_cycle_24-valid-0', seed=0, test_acc=.1)
    results('recipes/one_cycle-2ep-0', seed=0, test_acc=.2)
    results('recipes/one_cycle-digits-0', seed=0, test_acc=.3)
    results('recipes/one_cycle-fixed-0', seed=0, test_acc=.4)
    assert {r['seed']: r['test_acc'] for r in find_records('one_cycle')} == {0: .8, 2: .9, 1: .6, 10: .7} and len(find_records('one_cycle')) == 4
    assert find_records('era') == [] and find_records('one.cycle') == []


def test_runs_that_diverged(results):
    results('recipes/era_s10-0', seed=0, diverged='the loss became nan')
    assert summarize_accuracy(find_records('era_s10')) == 'diverged (n=1)'
    results('recipes/era_s10-1', seed=1, test_acc=.9)
    assert summarize_accuracy(find_records('era_s10')) == '90.00% (n=1, 1 diverged)'


def small_runs(results, name, *accs):
    for seed, acc in enumerate(accs): results(f'faults/{name}-width16-4ep-{seed}', seed=seed, epochs=[dict(valid_acc=acc)])


def test_the_spread_is_pooled_over_settings(results):
    small_runs(results, 'one_cycle', .8, .82)
    small_runs(results, 'no-flip', .7, .71, .75)
    small_runs(results, 'vertical-flips', .6)  # one run has no spread
    squares = .01**2*2 + .02**2 + .01**2 + .03**2
    assert pooled_spread() == (pytest.approx((squares/3)**.5), 3, 2)


def test_a_cost_is_told_where_it_was_measured(results):
    assert cost_lines('no flip') == ''
    small_runs(results, 'one_cycle', .8, .81)
    small_runs(results, 'no-flip', .79, .81)
    assert cost_lines('no flip').splitlines() == ['small proxy: -0.50 points, 95 % interval -6.85 to +5.85 (n=2)']
    for name, acc in ('one_cycle', .93), ('no-flip', .92): results(f'recipes/{name}-0', seed=0, test_acc=acc)
    assert cost_lines('no flip').splitlines()[1] == 'full network, 24 epochs: -1.00 points (n=1)'
    results('controls/constant-rate-width16-4ep-1', seed=1, epochs=[dict(valid_acc=.6)])
    assert fault_cost('constant rate', small=True) == [pytest.approx(-.21)]


def row_of_table(name): return next(line.strip('| ').split(' | ')[1:] for line in systems_table().splitlines() if line.startswith(f'| **{name}**'))


def test_table_and_curves_grow_with_the_records(results):
    def drawn(): return [sum(line.get_marker() == '*' and len(line.get_xdata()) for line in plot_accuracies().axes[0].lines), sum(line.get_linestyle() == '-' and len(line.get_xdata()) == 24 for line in plot_accuracies().axes[1].lines)]
    assert row_of_table('ours, as published') == ['—']*6 and drawn() == [0, 0]
    epochs = [dict(train_acc=.5 + epoch/100) for epoch in range(24)]
    results('recipes/era_s10-0', seed=0, test_acc=.9131, epochs=epochs)
    results('recipes/era_s10-fixed-0', seed=0, test_acc=.92, epochs=epochs)
    assert row_of_table('ours, as published') == ['—', '—', '—', '91.31% (n=1), +1.00 points: reproduced', '—', '—'] and drawn() == [1, 1]
    assert row_of_table('ours, fixed')[3] == '92.00% (n=1)'
    results('recipes/era_s10-2', seed=2, test_acc=.85, epochs=epochs)
    assert row_of_table('ours, as published')[3].endswith(', −2.15 points: not reproduced')
    (core.results_folders()[0]/'recipes'/'era_s10-2.json').unlink()
    results('recipes/era_s10-1', seed=1, test_acc=.8931, epochs=epochs)
    assert row_of_table('ours, as published')[3] == '90.31% ± 1.41% (n=2), +0.00 points: reproduced' and drawn() == [2, 1]


def test_steps_in_words():
    assert step_in_words(Steps(STEPS['eva8_s8'])) == 'pad 4 (wraps), crop, flip 45 %, cutout 8 65 %'
    assert step_in_words(Steps(STEPS['eva6_s9'])) == 'pad 2 50 %, crop at offsets 0 to 3, flip any way 50 %, cutout 8 50 %'
    assert step_in_words(Steps(STEPS['eva8_resnetf'])) == 'crop without padding, flip 50 %, cutout 8 50 %'
    assert step_in_words(Steps(STEPS['era_s10'])) == 'resized crop 20 %, flip 20 %, cutout 8 50 % in black'
    assert step_in_words(Steps(STEPS['era_utils'])) == 'pad 2, crop, flip 20 %, cutout 8 50 %, gray 15 %'
    assert step_in_words(Steps((Crop(4), Flip(0.)))) == 'pad 4, crop'
    with pytest.raises(ValueError, match='there are no words for None'): step_in_words(None)
