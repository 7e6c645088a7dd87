"""Each trick of chapter 06 does what it says, alone and inside a run."""
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from processes import interrupt_at

from cifar_resnet import speed
from cifar_resnet.anatomy import count_macs, layer_table
from cifar_resnet.augment import Batches, Crop, Steps
from cifar_resnet.core import from_plain, to_plain
from cifar_resnet.data import ImageData, Split, get_data
from cifar_resnet.device import Optim
from cifar_resnet.model import CustomResNet
from cifar_resnet.recipes import CPU94, KINDS, change, recipes, run_recipe, tricks
from cifar_resnet.train import FitConfig, OneCycle, Trainer, average_views, fit

ONCE = OneCycle(.01, .05, 1, .5, momentum=None)


@pytest.fixture(scope='module')
def digits(): return get_data('digits')


def few(data, n=256): return replace(data, train=data.train[:n], valid=data.valid[:64], test=data.test[:64])


def photographs(n=300, seed=0):
    "Smooth random images in color that may be mirrored, as CIFAR-10 has them"
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 5, 5))).float()
    images = F.interpolate(coarse, (32, 32), mode='bicubic').clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    split = Split(images, rng.integers(0, 10, n), np.arange(n), tuple('0123456789'), (.5, .5, .5), (.2, .2, .2))
    return ImageData('photographs', split[:n - 100], split[n - 100:n - 50], split[n - 50:], '0'*16, 'made here', 0)


def net(width=8, seed=0, **kwargs):
    torch.manual_seed(seed)
    return CustomResNet(width, logit_scale=.125, **kwargs)


def train(model, data, schedule=ONCE, **settings): return fit(model, data, schedule, **dict(batch_size=64, augment=None, precision='float32', progress=False, device='cpu') | settings)


# Smaller images

def test_resize_agrees_with_pillow():
    from PIL import Image
    image = photographs().train.images[0]
    for side in 16, 24, 31:
        theirs = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), np.float32)
        ours = speed.resize(torch.from_numpy(image)[None].permute(0, 3, 1, 2).float(), side)[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).max() < 1.01  # Pillow rounds
    x = torch.rand(2, 3, 32, 32)
    assert speed.resize(x, 32) is x and speed.resize(x, 16).is_contiguous(memory_format=torch.channels_last)


def test_the_network_takes_smaller_images_in_training_only():
    model, x = net().train(), torch.randn(2, 3, 32, 32)
    features = model.layer3(model.layer2(model.layer1(model.prep(x))))
    assert F.adaptive_max_pool2d(features, 1).flatten(1).equal(model.pool(features).flatten(1))  # at 32 × 32 they are the same
    for side in 16, 20, 24, 31: assert model(torch.randn(2, 3, side, side)).shape == (2, 10)
    for side in 15, 33:
        with pytest.raises(ValueError, match='resize them first'): model(torch.randn(2, 3, side, side))
    for bad in (24, 24), (32, 24):
        with pytest.raises(ValueError, match='resize them first'): model.eval()(torch.randn(2, 3, *bad))


def test_a_run_sees_the_sizes_that_were_asked_for(digits):
    seen, model = [], net()
    model.prep.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[-1]) if m.training else None)
    run = train(model, few(digits), OneCycle(.01, .05, 4, 1), sizes=(16, 24))
    assert seen == [16]*8 + [24]*8
    assert run.record['pflop'] == pytest.approx(6*256*2*(count_macs(model, 16) + count_macs(model, 24))/1e15) and run.record['config']['sizes'] == [16, 24]
    conv = sum(row['macs'] for row in layer_table(model)[:-1])
    assert count_macs(model, 16) - count_macs(model, 32) == pytest.approx(-.75*conv)  # a quarter of the pixels
    config = FitConfig(sizes=(16, 24, 32))
    assert [config.side_at(e, 9) for e in range(9)] == [16]*3 + [24]*3 + [32]*3 and [config.side_at(e, 2) for e in range(2)] == [16, 24] and FitConfig().side_at(3, 9) is None
    with pytest.raises(ValueError, match='sizes must be a whole number from 16 to 32'): FitConfig(sizes=(8,))


# Batch norm

def test_frozen_scales_stay_one(digits):
    before = net()
    for norm in speed.norms(before): nn.init.constant_(norm.weight, .5)
    model = train(before, few(digits), before=(speed.FreezeScales(), speed.NormMomentum(.4))).model
    assert len(speed.norms(model)) == 8 and all(norm.weight.eq(1).all() and norm.momentum == .4 for norm in speed.norms(model))
    assert any(norm.bias.abs().max() > 0 for norm in speed.norms(model))


def test_fast_biases_move_64_times_as_far():
    "And decay by the same amount, because their weight decay is divided by the factor"
    def moved(optim):
        model = net()
        with torch.no_grad():
            for norm in speed.norms(model): norm.bias.fill_(1.)
        start = {k: v.clone() for k, v in model.named_parameters()}
        optimizer = optim.make(model, .01)
        for p in model.parameters(): p.grad = torch.ones_like(p)
        optimizer.step()
        assert sum(len(group['params']) for group in optimizer.param_groups) == len(start)
        return {k: v.detach() - start[k] for k, v in model.named_parameters()}
    plain, fast = moved(Optim(weight_decay=0.)), moved(speed.FastBias(weight_decay=0.))
    for name in plain: torch.testing.assert_close(fast[name], plain[name]*(64 if name.endswith('norm.bias') else 1))
    decays = {group['weight_decay']*group.get('lr_factor', 1) for group in speed.FastBias(weight_decay=5e-4, bias_factor=16.).make(net(), .1).param_groups}
    assert decays == {5e-4}


def test_ghost_norms_work_on_parts(digits):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.BatchNorm2d(4)), torch.randn(10, 4, 3, 3)
    speed.GhostNorms(4)(model, None)
    alone = nn.BatchNorm2d(4)
    assert model(x).equal(torch.cat([alone(part) for part in (x[:4], x[4:8], x[8:])])) and not model(x).allclose(alone(x), atol=1e-3)
    assert model.eval()(x).equal(F.batch_norm(x, model[0].running_mean, model[0].running_var, model[0].weight, model[0].bias))
    plain, ghost = (train(net(), few(digits), before=before) for before in ((), (speed.GhostNorms(16),)))
    assert plain.model.state_dict().keys() == ghost.model.state_dict().keys() and plain.record['epochs'][0]['train_loss'] != ghost.record['epochs'][0]['train_loss']


# The first convolution

def test_whitened_patches_are_uncorrelated_and_of_variance_one():
    split = photographs(2100).train
    filters = speed.whitening_filters(split, eps=1e-4)
    x = Batches(split[:2000], 2000)
    (images, _), = list(x)
    out = F.conv2d(images, filters).permute(1, 0, 2, 3).flatten(1)
    second = out @ out.T/out.shape[1]
    assert filters.shape == (27, 3, 3, 3)
    assert (second - torch.diag(second.diagonal())).abs().max() < .02
    strong = second.diagonal() > .9
    assert strong.any() and second.diagonal().max() < 1.02 and strong.int().diff().max() <= 0  # strongest first; eps damps the weak ones


@pytest.mark.parametrize('width', (8, 64))
def test_whitening_starts_the_first_convolution(width, digits):
    model, split = CustomResNet(width), photographs().train
    speed.Whiten()(model, split)
    weight, n = model.prep.conv.weight, min(27, width//2)
    assert weight[:n].equal(-weight[n:2*n]) and weight[:n].allclose(speed.whitening_filters(split)[:n]) and not weight.requires_grad
    gray = CustomResNet(16, channels=1)
    speed.Whiten()(gray, replace(split, images=split.images[..., :1], mean=split.mean[:1], std=split.std[:1]))
    assert gray.prep.conv.weight[:8].equal(-gray.prep.conv.weight[8:16])
    assert train(net(), few(digits), before=(speed.Whiten(),)).model.prep.conv.weight.requires_grad is False
    with pytest.raises(ValueError, match="learns must be one of nothing, filters, mixture"): speed.Whiten('all')


def test_a_1x1_convolution_after_whitening_folds_into_the_3x3():
    "The two layers compute what one does, and SGD moves the folded one as it would move the two"
    torch.manual_seed(0)
    filters, x = speed.whitening_filters(photographs().train).double(), torch.randn(4, 3, 32, 32).double()
    mixture = nn.Parameter(torch.randn(64, 27).double())
    folded = nn.Parameter((mixture.detach() @ filters.flatten(1)).view(64, 3, 3, 3))
    folded.register_hook(lambda grad: speed.mix_gradient(grad, filters))
    two, one = (torch.optim.SGD([p], 1e-5, momentum=.9, nesterov=True, weight_decay=.1) for p in (mixture, folded))
    def outputs(): return F.conv2d(F.conv2d(x, filters, padding=1), mixture[..., None, None]), F.conv2d(x, folded, padding=1)
    start = folded.detach().clone()
    for _ in range(5):
        for out, optimizer in zip(outputs(), (two, one)):
            optimizer.zero_grad()
            (out.sin()*torch.linspace(0, 1, 32)).sum().backward()
            optimizer.step()
    a, b = outputs()
    assert (a - b).abs().max() < 1e-5 and (folded - start).abs().max() > 1e-2


def test_dirac_passes_the_input_on():
    model, x = net(), torch.randn(2, 8, 16, 16)
    speed.Dirac()(model, None)
    assert model.layer1.down.conv(x)[:, :8].equal(x) and not model.layer1.down.conv(x)[:, 8:].allclose(x)
    h = torch.randn(1, 16, 8, 8)
    assert model.layer1.res.block[0].conv(h).equal(h)


# Muon

@pytest.mark.parametrize('shape', [(8, 72), (64, 27), (40, 40)])
def test_orthogonalize(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    for steps in 3, 5, 7:
        out = speed.orthogonalize(matrix, steps)
        inside = u.T @ out @ v.T  # the same singular vectors, so only the diagonal is left
        assert (inside - torch.diag(inside.diagonal())).abs().max() < 1e-4
    small = s < .1*s.max()
    assert inside.diagonal()[~small].min() > .5 and inside.diagonal().max() < 1.3
    assert (s/s.norm())[~small].min() < .3 < .5  # they were far from 1


def test_muon_is_sgd_for_biases_and_head():
    torch.manual_seed(0)
    mine, theirs = net(), net()
    muon = speed.Muon(bias_factor=4., head_factor=2., sgd_momentum=.8, weight_decay=.01).make(mine, .1)
    others = [p for p in theirs.parameters() if p.ndim < 4]
    sgd = torch.optim.SGD([dict(params=[p for p in others if p.ndim == 1], lr=.4), dict(params=[p for p in others if p.ndim == 2], lr=.2)], momentum=.8, nesterov=True, weight_decay=.01)
    for _ in range(4):
        for model, optimizer in (mine, muon), (theirs, sgd):
            optimizer.zero_grad()
            F.cross_entropy(8*model.fc(torch.ones(2, 64)) + sum(norm.bias.sum() for norm in speed.norms(model)), torch.tensor([1, 2])).backward()
            optimizer.step()
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters()):
        if a.ndim < 4: torch.testing.assert_close(a, b, msg=name)
    assert not mine.fc.weight.equal(net().fc.weight)


def test_muon_takes_steps_of_fixed_length_for_filters():
    "Whatever the size of the gradient; and the length of the filters is set before the step"
    ends = []
    for scale in 1., 1e4:
        model = net()
        optimizer, conv = speed.Muon(steps=7).make(model, .1), model.layer2.conv.weight
        torch.manual_seed(1)
        conv.grad = scale*torch.randn_like(conv)
        start = conv.detach()*len(conv)**.5/conv.detach().norm()
        optimizer.step()
        ends.append(conv.detach().clone())
        values = torch.linalg.svdvals((start - ends[-1]).flatten(1).float())/.1
        assert values.min() > .5 and values.max() < 1.3
    torch.testing.assert_close(*ends, atol=2e-2, rtol=.1)  # computed in 16 bits where the machine can


def test_muon_says_what_it_cannot():
    with pytest.raises(ValueError, match="must be one of muon"): replace(speed.Muon(), name='adam')
    with pytest.raises(ValueError, match='steps must be'): speed.Muon(steps=0)


# What is drawn

def test_alternating_flips_mirror_each_image_every_second_epoch():
    data = photographs()
    batches = Batches(data.train, 64, Steps((speed.AlternatingFlip(),)), seed=3)
    whole = (torch.from_numpy(data.train.images)/255 - .5)/.2
    def mirrored():
        x = torch.cat([x for x, _ in batches]).permute(0, 2, 3, 1)
        return [bool(image.allclose(original.flip(1), atol=1e-4)) for image, original in zip(x, whole)], [bool(image.allclose(original, atol=1e-4)) for image, original in zip(x, whole)]
    (first, plain), (second, _), (third, _) = mirrored(), mirrored(), mirrored()
    assert all(a != b for a, b in zip(first, plain)) and all(a != b for a, b in zip(first, second)) and first == third and 70 < sum(first) < 130
    assert list(batches.turns) != list(Batches(data.train, 64, seed=4).turns)
    alone = Steps((speed.AlternatingFlip(),))(torch.from_numpy(data.train.images), torch.Generator().manual_seed(0))  # outside of epochs
    assert 70 < sum(not a.equal(b) for a, b in zip(alone, torch.from_numpy(data.train.images))) < 130


def test_jitter_changes_brightness_and_contrast():
    image = torch.from_numpy(photographs().train.images[:1]).clamp(60, 190)
    def done(b, c): return speed.Jitter(.2, .3).apply(image, torch.tensor([[b, c]])).float()
    assert done(0., 0.).equal(image.float())
    assert (done(1., 0.) - image).mean() == pytest.approx(51, abs=.1) and (done(-1., 0.) - image).mean() == pytest.approx(-51, abs=.1)
    assert done(0., 1.).std()/image.float().std() == pytest.approx(1.3, abs=.01) and done(0., 1.).mean() == pytest.approx(image.float().mean().item(), abs=.2)
    drawn = speed.Jitter().draw(20_000, torch.Generator().manual_seed(0))
    assert drawn.min() < -.99 and drawn.max() > .99 and abs(drawn.mean()) < .02
    assert done(1., 1.).max() <= 255


# Half batches

def test_halves(digits):
    x, y = torch.arange(7.), torch.arange(7)
    assert [len(part) for part in speed.RandomHalf().make(None, 'cpu').choose(x, y)] == [4, 4]
    scout = speed.HardHalf(8, 16, lr=1e-12).make(digits, torch.device('cpu'))
    (x, y), *_ = Batches(digits.train[:100], 100)
    hard, labels = scout.choose(x, y)
    with torch.no_grad(), scout.precision.autocast(): losses = F.cross_entropy(scout.model(speed.resize(x, 16)).float(), y, reduction='none')
    chosen = losses.topk(50).indices
    assert len(hard) == 50 and {tuple(image.flatten()[300:340].tolist()) for image in hard} == {tuple(image.flatten()[300:340].tolist()) for image in x[chosen]} and labels.bincount().equal(y[chosen].bincount())


@pytest.mark.parametrize('half', (speed.RandomHalf(), speed.HardHalf(8)))
def test_a_run_on_halves_counts_its_images_and_operations(digits, half):
    seen, model = [], net()
    model.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])) if m.training else None)
    run = train(model, few(digits, 150), half=half)
    assert seen == [32, 32, 11]
    small = count_macs(net(), 16)*isinstance(half, speed.HardHalf)
    assert run.record['pflop'] == pytest.approx(6*150*(count_macs(model)/2 + small)/1e15) and 0 <= run.record['epochs'][0]['train_acc'] <= 1


# Layers that rest

def test_early_layers_rest(digits):
    states, model = [], net()
    trainer = Trainer(model, few(digits), OneCycle(.01, .05, 4, 1), FitConfig(batch_size=64, augment=None, early_until=.5, device='cpu'))
    for _ in range(4):
        trainer.one_epoch()
        states.append({k: v.clone() for k, v in model.named_parameters()})
    for name in states[0]:
        early = name.startswith(('prep', 'layer1'))
        assert not states[0][name].equal(states[1][name]) and states[1][name].equal(states[3][name]) == early, name
    early = sum(row['macs'] for row in layer_table(model) if row['name'].startswith(('prep', 'layer1')))
    assert trainer.pflop == pytest.approx(256*(4*6*count_macs(model) - 2*4*early)/1e15)


def test_what_several_processes_cannot():
    from cifar_resnet.device import World
    from cifar_resnet.train import check_processes

    class Two(World): size = 2
    for settings in dict(half=speed.RandomHalf()), dict(early_until=.5):
        with pytest.raises(ValueError, match='for one process'): check_processes(photographs(), FitConfig(**settings), torch.device('cpu'), Two())


# Views

def test_shift_moves_the_image_and_reflects_its_border():
    x = torch.rand(2, 3, 32, 32)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), 'reflect')
    assert np.array_equal(speed.shift(x, 1), padded[..., :32, :32]) and np.array_equal(speed.shift(x, -1), padded[..., 2:, 2:])
    assert speed.shift(x, 1)[..., 1:, 1:].equal(x[..., :-1, :-1]) and speed.shift(x, 0).equal(x)


def test_six_views():
    "Half the weight is on the centered image and its mirror image, a quarter on those moved each way"
    data = photographs(500)
    data = replace(data, test=data.train)
    trainer = Trainer(net(), data, OneCycle(.01, .2, 3, 1), FitConfig(batch_size=16, augment=None, precision='float32', views=6, device='cpu'))
    for _ in range(3): trainer.one_epoch()
    (x, _), = list(Batches(data.test, 400))
    def logits(x):
        with torch.no_grad(): return trainer.model.eval()(x)
    def both(x): return (logits(x) + logits(x.flip(-1)))/2
    padded = F.pad(x, (1,)*4, mode='reflect')
    right = {'test_acc': logits(x), 'test_acc_flip': both(x), 'test_acc_six': both(x)/2 + (both(padded[..., :32, :32]) + both(padded[..., 2:, 2:]))/4}
    for share, name in (0, 'test_acc_flip'), (1, 'test_acc_six'): torch.testing.assert_close(average_views(trainer.model, data.test, share, trainer.precision), right[name])
    right = {name: out.argmax(1).numpy() for name, out in right.items()}
    assert len({tuple(classes) for classes in right.values()}) == 3  # they differ for some image
    for name, labels in right.items():
        trainer.data = replace(data, test=replace(data.test, labels=labels))
        assert {n for n, acc in trainer.test().items() if acc == 1} == {name}
    assert 'test_acc_six' not in train(net(), data).record and repr(train(net(), data, views=6)).endswith('% with six views')
    with pytest.raises(ValueError, match='views must be one of 2, 6'): FitConfig(views=4)


# Together

def test_six_views_for_the_most_doubtful():
    data, model = photographs(), net()
    two, some, six = (average_views(model, data.test, share) for share in (0, .3, 1))
    changed = torch.tensor([not a.equal(b) for a, b in zip(some, two)])
    gap = (two.softmax(1).topk(2).values @ torch.tensor([1., -1.]))
    assert changed.sum() == 15 and gap[changed].max() <= gap[~changed].min()
    torch.testing.assert_close(some[changed], six[changed], atol=2e-2, rtol=.1)  # other batches, in 16 bits where the machine can
    with pytest.raises(ValueError, match='share must be'): average_views(model, data.test, 2)


def test_settings_that_are_not_used_leave_no_trace():
    assert not {'before', 'sizes', 'half', 'early_until', 'views'} & FitConfig().identity().keys()
    assert {'before', 'sizes', 'half', 'early_until', 'views'} <= FitConfig(before=(speed.Dirac(),), sizes=(16,), half=speed.RandomHalf(), early_until=.5, views=6).identity().keys()
    with pytest.raises(ValueError, match='before must hold functions'): FitConfig(before=('Whiten',))
    with pytest.raises(ValueError, match='half must be'): FitConfig(half='hard')


def test_recipes_survive_as_plain_values():
    for recipe in [r for r in recipes().values()] + list(tricks().values()): assert from_plain(to_plain(recipe), KINDS) == recipe


def test_each_trick_changes_one_choice():
    def settings(recipe): return {k: v for k, v in to_plain(recipe).items() if k != 'name'}
    base = tricks()['cpu94']
    assert change(base, 'cpu94', sizes=CPU94.config.sizes, schedule=CPU94.schedule) == CPU94  # it is shorter, and nothing else
    for name, recipe in tricks().items(): assert recipe.name == name and (settings(recipe) == settings(base)) == (name == 'cpu94'), name


@pytest.mark.parametrize('changes', [{}, dict(half=speed.HardHalf(8), ema=.9), dict(optim=speed.FastBias(), before=(speed.Whiten('mixture'), speed.GhostNorms(16)), early_until=.5)], ids=['muon', 'halves', 'sgd'])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, digits, changes):
    recipe = change(CPU94, 'small', augment=Steps((Crop(3), speed.AlternatingFlip())), batch_size=64, **changes)
    recipe = replace(recipe, network=recipe.network | dict(width=8), schedule=recipe.schedule.stretch(4))
    data, settings = few(digits), dict(progress=False, device='cpu', full=False)

    def make(stop=None):
        torch.manual_seed(0)
        model = recipe.make()
        return interrupt_at(stop, model) if stop else model
    whole = fit(make(), data, recipe.schedule, recipe.config, **settings)
    with pytest.raises(KeyboardInterrupt): fit(make(stop=14), data, recipe.schedule, recipe.config, out=tmp_path/'run', **settings)
    resumed = fit(make(), data, recipe.schedule, recipe.config, out=tmp_path/'run', resume=tmp_path/'run'/'last.pt', **settings)
    assert len(resumed.history) == 4
    for name, v in whole.model.state_dict().items(): assert resumed.model.state_dict()[name].equal(v), name


def test_the_recipes_from_a_terminal(tmp_path, capsys):
    from cifar_resnet import cli
    for name in 'cpu94', 'cpu95', 'accurate-strict', 'accurate-free':
        cli.main(['train', '--recipe', name, '--data', 'digits', '--width', '8', '--epochs', '2', '--batch-size', '256', '--device', 'cpu', '--out', str(tmp_path/name)])
        assert 'Run of 2 epochs' in capsys.readouterr().out
        cli.main(['train', '--resume', str(tmp_path/name)])
    with pytest.raises(SystemExit) as e: cli.main(['train', '--recipe', 'cpu94', '--optimizer', 'adam', '--data', 'digits', '--out', str(tmp_path/'adam')])
    assert e.value.code == 2 and 'must be one of muon' in capsys.readouterr().err and not (tmp_path/'adam').exists()


FAULTS = """
import resource, sys
from dataclasses import replace
from cifar_resnet import train
from cifar_resnet.all import *
if sys.argv[1] == 'returned': train.reuse_memory = lambda: None
data = get_data('digits')
data = replace(data, train=data.train[:256], valid=data.valid[:0])
trainer = Trainer(CustomResNet(32), data, OneCycle(.01, .02), FitConfig(batch_size=256, device='cpu'))
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): trainer.one_epoch()
before = faults()
for _ in range(3): trainer.one_epoch()
print(faults() - before)
"""


def test_freed_memory_is_kept():
    "In training, the system clears few pages again for memory that was freed before"
    import platform
    import subprocess
    import sys
    if platform.libc_ver()[0] != 'glibc': pytest.skip('mallopt is for glibc')

    def faults(how): return int(subprocess.run([sys.executable, '-c', FAULTS, how], env=os.environ | dict(THP_MEM_ALLOC_ENABLE='0'), check=True, capture_output=True, text=True).stdout)
    assert faults('kept') < faults('returned')/3


# Compilation

def test_compilation_is_timed_apart_and_leaves_the_run_unchanged(digits, monkeypatch):
    "Every shape of the run has passed through the network before the first epoch"
    compiled, seen = [], []

    def compile(model, **kwargs):
        compiled.append(model)
        return lambda x: seen.append(tuple(x.shape)) or model(x)
    plain = train(net(), few(digits, 150), OneCycle(.01, .05, 2, 1), sizes=(16, 24))
    monkeypatch.setattr(torch, 'compile', compile)
    run = train(net(), few(digits, 150), OneCycle(.01, .05, 2, 1), sizes=(16, 24), compile=True)
    assert len(compiled) == 1 and set(seen[:4]) == {(n, 3, side, side) for n in (64, 22) for side in (16, 24)} == set(seen[4:])
    assert run.record['compile_seconds'] > 0 and 'compile_seconds' not in plain.record
    for name, v in plain.model.state_dict().items(): assert run.model.state_dict()[name].equal(v), name


# Small maps

@pytest.mark.parametrize('side, images', [(2, 32), (4, 24), (8, 64), (3, 16)])
def test_maps_side_by_side_give_the_same(side, images):
    "Joined and parted: forward, and both gradients, in double precision"
    from cifar_resnet.device import join_maps, part_maps
    torch.manual_seed(0)
    conv, x = nn.Conv2d(5, 7, 3, padding=1, bias=False).double(), torch.randn(images, 5, side, side).double().requires_grad_()
    assert part_maps(join_maps(x, 8), 8).equal(x)
    outs = conv(x), part_maps(conv(join_maps(x, 8)), 8)
    grads = [torch.autograd.grad((out.sin()*out).sum(), (x, conv.weight)) for out in outs]
    for a, b in [outs, *zip(*grads)]: torch.testing.assert_close(a, b)


def test_small_maps_are_joined_where_it_helps(monkeypatch):
    from cifar_resnet import device
    joined = []
    monkeypatch.setattr(device, 'join_maps', lambda x, n, join=device.join_maps: joined.append(n) or join(x, n))
    torch.manual_seed(0)

    def run(conv, x, dtype=torch.bfloat16):
        joined.clear()
        out = conv.to(dtype)(x.to(dtype))
        assert (out.float() - nn.Conv2d.forward(conv.float(), x) if not joined else out.float() - F.conv2d(x, conv.weight.float(), padding=1)).abs().max() < .05
        return joined[:]
    wide, x = device.Conv2d(128, 16, 3, padding=1, bias=False), torch.randn(64, 128, 8, 8)
    assert run(wide, x) == [32] and run(wide, x[:48]) == [16] and run(wide, x[:9]) == [] and run(wide, x, torch.float32) == []
    assert run(wide, torch.randn(32, 128, 9, 9)) == [] and run(device.Conv2d(64, 16, 3, padding=1, bias=False), x[:, :64]) == []
    assert run(device.Conv2d(64, 16, 3, padding=1, bias=False), x[:, :64, :4, :4]) == [32]
    joined.clear()
    for conv in device.Conv2d(128, 8, 3), device.Conv2d(128, 8, 1), device.Conv2d(128, 8, 3, padding=1, stride=2), device.Conv2d(128, 8, 3, padding=1, padding_mode='circular'): conv.bfloat16()(x.bfloat16())
    assert not joined


@pytest.mark.parametrize('side', (2, 4, 8))
def test_a_reflected_border_is_each_map_s_own(side):
    from cifar_resnet import device
    torch.manual_seed(0)
    conv, x = device.Conv2d(128, 16, 3, padding=1, padding_mode='reflect'), torch.randn(32, 128, side, side)
    joined = conv.bfloat16()(x.bfloat16()).float()
    alone = nn.Conv2d._conv_forward(conv.float(), x, conv.weight, conv.bias)
    assert conv._joined(x.bfloat16()) == 32 and (joined - alone).abs().max() < .05 < alone.abs().max()


def test_the_network_uses_them_and_still_says_conv2d():
    from cifar_resnet import device
    convs = [m for m in net().modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 8 and all(type(m) is device.Conv2d for m in convs) and {row['kind'] for row in layer_table(net())} == {'Conv2d', 'BatchNorm2d', 'MaxPool2d', 'Linear'}
    plain, model, x = nn.Sequential(nn.Conv2d(3, 4, 3)), net(16), torch.randn(32, 3, 32, 32)
    with torch.no_grad():
        precise = model.eval()(x)
        with torch.autocast('cpu', torch.bfloat16): fast = model(x).float()
    assert (fast - precise).abs().max() < .05*precise.abs().max() and type(plain[0]) is not device.Conv2d


# Plans and tables

def test_the_ladder_leads_to_cpu94():
    from cifar_resnet.recipes import ladder
    rungs = list(ladder().values())
    assert rungs[-1] == tricks()['cpu94'] and len({to_plain(rung)['name'] for rung in rungs}) == len(rungs) == 8
    assert rungs[0].config.before == () and rungs[0].config.sizes == () and rungs[0].config.label_smoothing == 0 and type(rungs[0].config.optim) is Optim
    macs = {side: count_macs(net(64), side) for side in (16, 24, 32)}
    def pflop(recipe): return sum(macs[recipe.config.side_at(e, recipe.schedule.epochs) or 32] for e in range(recipe.schedule.epochs))
    assert {pflop(rung) for rung in rungs[1:]} == {pflop(rungs[-1])} and pflop(rungs[0]) > pflop(rungs[-1])
    settled = [fix for fix in zip(rungs, rungs[1:]) if to_plain(fix[0])['network'] != to_plain(fix[1])['network']]
    assert not settled  # the network stays


def test_two_queues_share_the_work(tmp_path, digits, capsys):
    "A run that another process has recorded in the meantime is not made again; a part of the plan can be asked for"
    from cifar_resnet import records
    quick = change(CPU94, 'quick', batch_size=64, augment=None, sizes=(16,), schedule=CPU94.schedule.stretch(1), network=dict(width=8, logit_scale=.125), full=False)
    todo = [records.Planned(f'quick-{seed}', quick, seed) for seed in range(2)]
    folders = dict(runs=tmp_path/'runs', results=tmp_path/'results')
    assert records.make_all(todo[:1], few(digits), 'cpu', **folders) == ['quick-0']
    assert records.make_all(todo, few(digits), 'cpu', **folders) == ['quick-1']
    names = [p.name for p in records.plan('cpu')]
    assert {'cpu94-0', 'cpu95-0', 'accurate-strict-0', 'accurate-free-0', 'tricks/sgd-width16-0', 'tricks/ladder-3-width16-2'} <= set(names) and 'fast94-0' in [p.name for p in records.plan('gpu')]
