"""Augmentation and batches: equal to albumentations on the same draws, to a reference written with loops, and to the recorded runs' random stream."""
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp

from cifar_resnet.augment import (MEAN_COLOR, Batches, Crop, Cutout, Flip, Steps, default_augment, eval_transforms, images_per_second,
                                  import_albumentations, make_loaders, mean_color, to_color, train_steps, train_transforms)
from cifar_resnet.data import CIFAR10_MEAN, CIFAR10_STD, get_data
from cifar_resnet.device import memory_format
from cifar_resnet.explore import (class_means, count_classes, nearest_images, plot_class_balance, plot_histograms,
                                  show_images, show_pairs, show_samples)
from cifar_resnet.recipes import ABOUT, DIGITS, ONE_CYCLE, Gray, ResizedCrop, recipes

A = import_albumentations()
PUBLISHED = [recipes()[name] for name in ABOUT]
BLACK, DEFAULT = (0, 0, 0), Steps((Crop(4), Flip(.5), Cutout(8)))


@pytest.fixture(scope='module')
def digits(): return get_data('digits')


@pytest.fixture(scope='module')
def photos(digits):
    "Data that may be mirrored, with another mean in each channel"
    return replace(digits, name='photos').normalized_by(CIFAR10_MEAN, CIFAR10_STD)


def noise(n, seed=0, channels=3): return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, channels), dtype=np.uint8)


def seeded(seed=0): return torch.Generator().manual_seed(seed)


# --- The same steps in albumentations


class OldCrop(A.ImageOnlyTransform):
    "RandomCrop of albumentations 1, which never took the last row and column"
    def get_params_dependent_on_data(self, params, data):
        return {name: int((params['shape'][0] - 32)*self.py_random.random()) for name in ('row', 'col')}

    def apply(self, image, row, col, **others): return image[row:row + 32, col:col + 32]


class OldCutout(A.ImageOnlyTransform):
    "Cutout of albumentations 1, which 2 no longer has"
    def __init__(self, side, fill, p):
        super().__init__(p=p)
        self.side, self.fill = side, fill

    def get_params(self): return {name: max(self.py_random.randint(0, 32) - self.side//2, 0) for name in ('row', 'col')}

    def apply(self, image, row, col, **others):
        image = image.copy()
        image[row:row + self.side, col:col + self.side] = self.fill
        return image


def counterpart(step):
    "Return the albumentations transforms that do what `step` does"
    match step:
        case Crop():
            side, border = 32 + 2*step.pad, dict(reflect=4, wrap=3)[step.mode]  # OpenCV's numbers
            assert step.offsets in (None, 2*step.pad)
            crop = A.RandomCrop(height=32, width=32) if step.offsets is None else OldCrop(p=1)
            return [A.PadIfNeeded(min_height=side, min_width=side, border_mode=border, p=step.p), crop]
        case Flip(vertical=False): return [A.HorizontalFlip(p=step.p)]
        case Flip():
            across, down = A.HorizontalFlip(p=1), A.VerticalFlip(p=1)
            return [A.OneOf([across, down, A.Compose([across, down])], p=step.p)]
        case Cutout(inside=False): return [OldCutout(step.side, step.fill, step.p)]
        case Cutout():
            size = step.side, step.side
            return [A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=size, hole_width_range=size, fill=step.fill, p=step.p)]
        case ResizedCrop(): return [A.RandomResizedCrop(size=(32, 32), scale=step.scale, ratio=step.ratio, p=step.p)]
        case Gray():
            if step == Gray(step.p): return [A.ToGray(p=step.p)]
            back = dict(mean=[-m/s for m, s in zip(step.mean, step.std)], std=[1/s for s in step.std])
            return [A.Normalize(step.mean, step.std), A.ToGray(p=step.p), A.Normalize(**back, max_pixel_value=1), A.FromFloat(dtype='uint8')]
    raise AssertionError(f'{step} has no counterpart here')


def read_draw(step, applied):
    "Return what albumentations drew for `step`, as `step.draw` would have said it"
    match step:
        case Crop():
            if step.p < 1 and 'PadIfNeeded' not in applied: return step.pad, step.pad
            if 'OldCrop' in applied: return applied['OldCrop']['row'], applied['OldCrop']['col']
            left, top = applied['RandomCrop']['crop_coords'][:2]
            return top, left
        case Flip(): return ('HorizontalFlip' in applied) + 2*('VerticalFlip' in applied)
        case Cutout(inside=False): return (applied['OldCutout']['row'], applied['OldCutout']['col']) if 'OldCutout' in applied else (32, 32)
        case Cutout(): return tuple(applied['CoarseDropout']['holes'][0][[1, 0]].tolist()) if 'CoarseDropout' in applied else (32, 32)
        case ResizedCrop():
            left, top, right, bottom = applied.get('RandomResizedCrop', dict(crop_coords=(0, 0, 32, 32)))['crop_coords']
            return float(top), float(left), float(bottom - top), float(right - left)
        case Gray(): return 'ToGray' in applied


def albumentations_draws(steps, images, seed=0):
    "Return the images that albumentations makes, and what it drew, one tensor for each step"
    compose = A.Compose([t for step in steps for t in counterpart(step)], save_applied_params=True, seed=seed)
    made = [compose(image=image) for image in images]
    applied = [dict(m['applied_transforms']) for m in made]
    return np.stack([m['image'] for m in made]), [torch.tensor([read_draw(step, a) for a in applied]) for step in steps]


def rounds(steps): return any(isinstance(step, (ResizedCrop, Gray)) for step in steps)  # they interpolate or mix: one value more or less


def assert_same_pixels(steps, images, seed=0):
    theirs, draws = albumentations_draws(steps, images, seed)
    ours = Steps(steps).apply(torch.from_numpy(images), draws).numpy()
    assert ours.dtype == theirs.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= (1 if rounds(steps) else 0)
    return draws


@pytest.mark.parametrize('data', ['photos', 'digits'])
def test_default_steps_equal_albumentations(data, request):
    "The transforms of `train_steps` and the steps of `default_augment`: the same draws give the same pixels"
    data = request.getfixturevalue(data)
    compose = A.Compose(train_steps(data), save_applied_params=True, seed=3)
    images = noise(300)
    made = [compose(image=image) for image in images]
    applied, steps = [dict(m['applied_transforms']) for m in made], default_augment(data).steps
    draws = [torch.tensor([read_draw(step, a) for a in applied]) for step in steps]
    assert np.array_equal(Steps(steps).apply(torch.from_numpy(images), draws).numpy(), np.stack([m['image'] for m in made]))
    assert len(draws[0].unique(dim=0)) > 60 and len(draws[-1].unique(dim=0)) > 200
    assert any('HorizontalFlip' in a for a in applied) == any(isinstance(step, Flip) for step in steps) == data.mirrors


@pytest.mark.parametrize('recipe', PUBLISHED, ids=lambda r: r.name)
def test_recipe_equals_albumentations(recipe):
    "All of a recipe's steps in a row"
    assert_same_pixels(recipe.config.augment.steps, noise(200))


@pytest.mark.parametrize('step', sorted({s for r in PUBLISHED for s in r.config.augment.steps}, key=repr), ids=repr)
def test_step_equals_albumentations(step):
    draw, = assert_same_pixels((step,), noise(300, seed=1), seed=1)
    assert len(draw.unique(dim=0)) > 1 or step == Crop(0)  # something happened to some of them


def test_another_step_is_noticed():
    "The comparison above fails where it should"
    images = noise(50)
    theirs, (corners,) = albumentations_draws((Crop(4),), images)
    def ours(step, drawn): return Steps((step,)).apply(torch.from_numpy(images), [drawn]).numpy()
    assert np.array_equal(ours(Crop(4), corners), theirs)
    assert not np.array_equal(ours(Crop(4, 'wrap'), corners), theirs) and not np.array_equal(ours(Crop(4), corners.flip(1)), theirs)


# --- The same probabilities as albumentations

IMAGE = noise(1)[0]  # every pixel is different, so every draw gives another image


def corners(high): return torch.cartesian_prod(*[torch.arange(high + 1)]*2)


def squares(high): return torch.cat([corners(high), torch.tensor([[32, 32]])])  # or none


def images_of(step, draws): return [i.tobytes() for i in Steps((step,)).apply(torch.from_numpy(IMAGE).expand(len(draws), 32, 32, 3), [draws]).numpy()]


def images_by_us(step, n=3000): return images_of(step, step.draw(n, seeded()))


def images_by_albumentations(step, n=3000):
    compose = A.Compose(counterpart(step), seed=0)
    return [compose(image=IMAGE)['image'].tobytes() for _ in range(n)]


def agreement(a, b):
    "Return the probability that counts differ at least this much if both are drawn with the same probabilities"
    kinds = sorted(set(a) | set(b))
    return chi2_contingency([[c.get(k, 0) for k in kinds] for c in (Counter(a), Counter(b))]).pvalue


@pytest.mark.parametrize('step, draws', [
    (Crop(4), corners(8)), (Crop(4, 'wrap'), corners(8)), (Crop(2, p=.5), corners(4)), (Crop(2), corners(4)), (Crop(2, p=.5, offsets=4), corners(3)),
    (Flip(.45), torch.arange(2)), (Flip(.5, vertical=True), torch.arange(4)),
    (Cutout(8, .65, (9, 8, 7)), squares(24)), (Cutout(16, .5, BLACK), squares(16)), (Cutout(8, .5, BLACK, inside=False), squares(28))],
    ids=lambda value: repr(value) if not torch.is_tensor(value) else '')
def test_drawn_as_often_as_by_albumentations(step, draws):
    "Every image of theirs is one that some draw of ours gives, and each is made about as often"
    known, theirs, ours = set(images_of(step, draws)), images_by_albumentations(step), images_by_us(step)
    assert len(known) == len(draws)
    assert set(theirs) <= known and set(ours) <= known
    assert agreement(theirs, ours) > .01


def test_other_probabilities_are_noticed():
    assert agreement(images_by_albumentations(Flip(.5)), images_by_us(Flip(.45))) < .01
    assert agreement(images_by_albumentations(Cutout(8)), images_by_us(Cutout(8, inside=False))) < .01
    assert agreement(images_by_albumentations(Crop(2, p=.5, offsets=4)), images_by_us(Crop(2, p=.5))) < .01


@pytest.mark.parametrize('step', [Gray(.15), Gray(.15, CIFAR10_MEAN, CIFAR10_STD), ResizedCrop(.2)], ids=repr)
def test_done_as_often_as_by_albumentations(step):
    "Where values are rounded, the images differ a little, so the draws are compared"
    images = np.broadcast_to(IMAGE, (3000, 32, 32, 3))
    def done(draw): return [bool(d) if isinstance(step, Gray) else tuple(d) != (0, 0, 32, 32) for d in draw.tolist()]
    theirs = done(albumentations_draws((step,), images)[1][0])
    assert agreement(theirs, done(step.draw(3000, seeded()))) > .01
    assert agreement(theirs, done(replace(step, p=step.p + .05).draw(3000, seeded()))) < .01


def test_rectangles_drawn_as_by_albumentations():
    step, compose = ResizedCrop(1.), counterpart(ResizedCrop(1.))[0]
    compose.set_random_seed(0)
    boxes = np.array([compose.get_params_dependent_on_data({'shape': IMAGE.shape}, {})['crop_coords'] for _ in range(4000)])
    ours = step.draw(4000, seeded()).numpy()
    theirs = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1)
    assert (ours >= 0).all() and (ours[:, :2] + ours[:, 2:] <= 32).all()
    area = ours[:, 2]*ours[:, 3]/1024
    assert area.min() > .06 and .45 < area.mean() < .6
    assert all(ks_2samp(a, b).pvalue > .01 for a, b in zip([*ours.T, area], [*theirs.T, theirs[:, 2]*theirs[:, 3]/1024]))
    assert ks_2samp(ResizedCrop(1., scale=(.2, 1.)).draw(4000, seeded())[:, 2:].prod(1), theirs[:, 2:].prod(1)).pvalue < .01  # another scale is noticed


def test_nothing_drawn_leaves_the_image_alone():
    images = torch.from_numpy(noise(4))
    draws = {Crop(4): torch.full((4, 2), 4), Crop(3, 'wrap'): torch.full((4, 2), 3), Flip(.5, vertical=True): torch.zeros(4, dtype=int),
             Cutout(8): torch.full((4, 2), 32), ResizedCrop(): torch.tensor([[0., 0, 32, 32]]*4), Gray(): torch.zeros(4, dtype=bool)}
    for step, drawn in draws.items(): assert Steps((step,)).apply(images, [drawn]).equal(images), step


# --- A straightforward reference


def reference(images, crops, flips, squares):
    "Augment as `DEFAULT` does, one image at a time"
    out = []
    for image, (top, left), flip, (row, col) in zip(images, crops, flips, squares):
        image = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode='reflect')[top:top + 32, left:left + 32]
        image = (image[:, ::-1] if flip else image).copy()
        image[row:row + 8, col:col + 8] = MEAN_COLOR
        out.append(image)
    return np.stack(out)


def reference_draws(n, generator):
    return (torch.randint(0, 9, (n, 2), generator=generator), torch.rand(n, generator=generator) < .5, torch.randint(0, 25, (n, 2), generator=generator))


def test_default_steps_equal_a_reference():
    "The same random stream, to its end, and the same pixels"
    images, ours, theirs = noise(500), seeded(7), seeded(7)
    got = DEFAULT(torch.from_numpy(images), ours)
    assert np.array_equal(got.numpy(), reference(images, *reference_draws(500, theirs)))
    assert ours.get_state().equal(theirs.get_state())


def test_an_epoch_equals_a_reference(photos):
    "Recorded runs can be repeated only as long as order, draws and pixels stay the same"
    batches = Batches(photos.train, 500, DEFAULT, shuffle=True, seed=3)
    for epoch in range(2):
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([3, epoch]).generate_state(1)[0]))
        order = torch.randperm(len(photos.train), generator=generator).numpy()
        chosen = [order[i:i + 500] for i in range(0, len(order), 500)]
        for (x, y), part in zip(batches, chosen, strict=True):
            images = reference(photos.train.images[part], *reference_draws(len(part), generator))
            expected = ((images/255 - CIFAR10_MEAN)/CIFAR10_STD).transpose(0, 3, 1, 2)
            assert np.array_equal(y, photos.train.labels[part])
            assert np.abs(x.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize('steps, gathers', [
    ((), 0), ((Cutout(8),), 0), ((Crop(4), Flip(.5)), 1), ((Crop(4), Flip(.5), Cutout(8)), 1), ((Flip(.5, vertical=True), Crop(2, 'wrap'), Crop(3, p=.5)), 1),
    ((Crop(4), Cutout(8), Flip(.5)), 2), ((Cutout(8), Crop(2), Flip(1.), Cutout(4), Crop(1)), 2)], ids=repr)
def test_steps_that_move_pixels_share_one_gather(steps, gathers, monkeypatch):
    read, index = [], torch.Tensor.__getitem__

    def counted(tensor, which):
        if tensor.ndim == 4: read.append(tensor)
        return index(tensor, which)
    images, all_of_them = torch.from_numpy(noise(64)), Steps(steps)
    draws = all_of_them.draw(64, seeded())
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, '__getitem__', counted)
        got = all_of_them.apply(images, draws)
    assert len(read) == gathers
    for step, drawn in zip(steps, draws): images = Steps((step,)).apply(images, [drawn])
    assert got.equal(images)


# --- Single steps and what they refuse


def test_flips():
    images = torch.from_numpy(noise(4))
    got = Steps((Flip(1., vertical=True),)).apply(images, [torch.arange(4)])
    assert got[0].equal(images[0]) and got[1].equal(images[1].flip(1)) and got[2].equal(images[2].flip(0)) and got[3].equal(images[3].flip(0, 1))
    assert Steps((Flip(1.),))(images).equal(images.flip(2))
    assert Steps((Flip(0.), Crop(0)))(images).equal(images)  # nothing asked for, nothing done


def test_vertical_flips_are_a_third_each():
    counts = Flip(.6, vertical=True).draw(30_000, seeded()).bincount()
    assert np.abs(counts.numpy()/30_000 - [.4, .2, .2, .2]).max() < .01


def test_crops():
    images = noise(1)
    def crop(step, *corner): return Steps((step,)).apply(torch.from_numpy(images), [torch.tensor([corner])])[0].numpy()
    assert np.array_equal(crop(Crop(4, 'wrap'), 6, 1), np.roll(images[0], (-2, 3), (0, 1)))
    assert np.array_equal(crop(Crop(31), 0, 62), np.pad(images[0], ((31, 31), (31, 31), (0, 0)), mode='reflect')[:32, 62:94])
    assert Crop(2, offsets=1).draw(9, seeded()).equal(torch.zeros(9, 2, dtype=int))
    drawn = Crop(2, p=.5, offsets=4).draw(4000, seeded())
    assert drawn.min() == 0 and drawn.max() == 3 and .5 < (drawn == 2).all(1).float().mean() < .56  # not padded, or both drawn as 2


def test_squares():
    def painted(step, *corner): return (Steps((step,)).apply(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), [torch.tensor([corner])])[0] != 0).all(-1).numpy()
    square = painted(Cutout(8), 3, 20)
    assert square.sum() == 64 and square[3:11, 20:28].all()
    assert painted(Cutout(8), 28, 30).sum() == 4*2  # the rest sticks out
    assert painted(Cutout(32), 0, 0).all()
    inside, outside = Cutout(8).draw(20_000, seeded()), Cutout(8, inside=False).draw(20_000, seeded())
    assert (inside.min(), inside.max(), outside.min(), outside.max()) == (0, 24, 0, 28)
    assert (Cutout(8, .3).draw(20_000, seeded()) == 32).all(1).float().mean() == pytest.approx(.7, abs=.02)
    assert Cutout(8, fill=[1, 2, 3]) == Cutout(8, fill=(1, 2, 3)) and hash(Cutout(8, fill=[1, 2, 3]))  # a saved recipe has lists


def test_input_is_left_alone():
    images = torch.from_numpy(noise(20))
    before = images.clone()
    Steps((Crop(4), Flip(1.), Cutout(8), Gray(1.), ResizedCrop(1.)))(images)
    assert images.equal(before)
    assert DEFAULT(images[:0]).shape == (0, 32, 32, 3)


def test_steps_take_their_generator_or_torchs():
    images, steps = torch.from_numpy(IMAGE).expand(64, 32, 32, 3), Steps((Crop(4), Flip(.5)))
    assert steps(images, seeded(1)).equal(steps(images, seeded(1))) and not steps(images, seeded(1)).equal(steps(images, seeded(2)))
    torch.manual_seed(1)
    first, second = steps(images), steps(images)
    assert not first.equal(second)
    torch.manual_seed(1)
    assert first.equal(steps(images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_same_pixels_on_a_gpu():
    images = torch.from_numpy(noise(256))
    for steps in [r.config.augment for r in PUBLISHED]:
        draws = steps.draw(256, seeded())
        on_gpu = steps.apply(images.cuda(), [d.cuda() for d in draws]).cpu()
        assert (on_gpu.int() - steps.apply(images, draws).int()).abs().max() <= (1 if rounds(steps.steps) else 0)


def test_swap():
    steps = Steps((Crop(4), Flip(.5), Cutout(8)))
    assert steps.swap({Flip(.5): Flip(.2), Crop(4): None}) == Steps((Flip(.2), Cutout(8)))
    assert steps.swap({}) == steps == Steps([Crop(4), Flip(.5), Cutout(8)])
    with pytest.raises(ValueError, match='is not one of the steps'): steps.swap({Flip(.4): Flip(0.)})


@pytest.mark.parametrize('make, message', [
    (lambda: Crop(40), 'pad must be a whole number from 0 to 31'), (lambda: Crop(2.5), 'pad must be a whole number'),
    (lambda: Crop(4, 'mirror'), 'mode must be one of reflect, wrap .got .mirror'), (lambda: Crop(4, p=1.5), 'p must be a number at least 0 and at most 1'),
    (lambda: Crop(2, offsets=6), 'offsets must be a whole number from 1 to 5'), (lambda: Crop(2, offsets=0), 'offsets must be'),
    (lambda: Flip(2.), 'p must be a number at least 0 and at most 1 .got 2.0'), (lambda: Flip(float('nan')), 'p must be'),
    (lambda: Cutout(40), 'side must be a whole number from 1 to 32'), (lambda: Cutout(0), 'side must be'), (lambda: Cutout(8, -.1), 'p must be'),
    (lambda: Cutout(8, fill=(0, 0, 256)), 'fill must be a whole number from 0 to 255 .got 256'), (lambda: Cutout(8, fill=(-1, 0, 0)), 'fill must be'),
    (lambda: Cutout(8, fill=(.49, .48, .45)), 'fill must be'),
    (lambda: ResizedCrop(2.), 'p must be'), (lambda: Gray(-1.), 'p must be')])
def test_impossible_steps(make, message):
    with pytest.raises(ValueError, match=message): make()


@pytest.mark.parametrize('images', [torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 32, 32, 3), torch.zeros(2, 32, 32, dtype=torch.uint8),
                                    torch.zeros(2, 28, 28, 3, dtype=torch.uint8), torch.zeros(32, 32, 3, dtype=torch.uint8)], ids=lambda i: f'{i.dtype} {tuple(i.shape)}')
def test_impossible_images(images):
    with pytest.raises(ValueError, match='take uint8 images'): DEFAULT(images)


def test_cutout_needs_a_color_for_each_channel():
    gray = torch.from_numpy(noise(2, channels=1))
    with pytest.raises(ValueError, match='the images have 1 channels, and fill has 3'): DEFAULT(gray)
    assert Steps((Crop(4), Flip(.5), Cutout(8, fill=(9,))))(gray).shape == gray.shape


# --- Defaults


def test_defaults_come_from_the_data(digits, photos):
    assert default_augment(digits) == Steps((Crop(4), Cutout(8, fill=(78, 78, 78)))) == DIGITS.config.augment
    assert default_augment(photos) == DEFAULT == ONE_CYCLE.config.augment
    assert mean_color(photos) == MEAN_COLOR == to_color(*CIFAR10_MEAN) == (125, 123, 114)
    assert to_color(0, 1, .5, .25) == (0, 255, 128, 64)


# --- Batches


def test_batches_use_the_mean_and_std_of_their_split(digits):
    mean, std = (.1, .5, .9), (.2, .4, .8)
    data = digits.normalized_by(mean, std)
    for split in data.train, data.valid, data.test, data.full:
        x, y = next(iter(Batches(split, 100)))
        assert np.abs(x.numpy() - ((split.images[:100]/255 - mean)/std).transpose(0, 3, 1, 2)).max() < 1e-5
        assert np.array_equal(y, split.labels[:100])
    x, _ = next(iter(Batches(replace(digits.test, mean=(0., 0., 0.), std=(1/255,)*3), 50)))
    assert np.abs(x.numpy() - digits.test.images[:50].transpose(0, 3, 1, 2)).max() < 1e-3


def test_batches_are_normalized_like_albumentations(digits):
    transform = eval_transforms(digits)
    theirs = torch.stack([transform(image=image)['image'] for image in digits.test.images[:20]])
    assert (next(iter(Batches(digits.test, 20)))[0] - theirs).abs().max() < 1e-5


def test_each_image_once_an_epoch_in_a_new_order(digits):
    first, again = Batches(digits.train, 100, shuffle=True), Batches(digits.train, 100, shuffle=True)
    def labels(batches): return torch.cat([y for _, y in batches])
    one, two = labels(first), labels(first)
    assert len(first) == 13 and not one.equal(two)
    again.epoch = 1
    assert labels(again).equal(two)  # epoch 1 is epoch 1, whatever came before
    x = torch.cat([x for x, _ in first])
    expected = torch.cat([x for x, _ in Batches(digits.train, 1000)])
    assert sorted(i.tobytes() for i in x.numpy()) == sorted(i.tobytes() for i in expected.numpy())
    assert not labels(Batches(digits.train, 100, shuffle=True, seed=1)).equal(one)
    unshuffled = Batches(digits.train, 100)
    assert labels(unshuffled).equal(labels(unshuffled)) and np.array_equal(labels(unshuffled), digits.train.labels)


def test_sizes_types_and_layout_of_batches(digits):
    batches = Batches(digits.train, 512, dtype=torch.bfloat16)
    got = list(batches)
    assert [len(y) for _, y in got] == [512, 512, 233] and len(batches) == 3
    assert {x.dtype for x, _ in got} == {torch.bfloat16} and {y.dtype for _, y in got} == {torch.int64}
    assert got[0][0].shape == (512, 3, 32, 32) and got[0][0].is_contiguous(memory_format=memory_format('cpu'))
    assert list(Batches(digits.test[:0])) == [] and len(Batches(digits.test[:0])) == 0  # no images, no batches
    gray = replace(digits.test, images=digits.test.images[..., :1], mean=(.3,), std=(.3,))
    assert next(iter(Batches(gray, 8)))[0].shape == (8, 1, 32, 32)


@pytest.mark.parametrize('change, arguments, message', [
    ({}, dict(batch_size=0), 'batch_size must be a whole number of at least 1'), ({}, dict(batch_size=2.5), 'batch_size must be'), ({}, dict(seed=-1), 'seed must be'),
    (dict(mean=None, std=None), {}, 'the split has no mean and std'), (dict(std=None), {}, 'the split has no mean and std'),
    (dict(mean=(.5,), std=(.5,)), {}, 'the images have 3 channels, and mean has 1')])
def test_impossible_batches(digits, change, arguments, message):
    with pytest.raises(ValueError, match=message): Batches(replace(digits.test, **change), **arguments)


# --- The loaders


def test_transforms_are_fixed_by_their_seed(photos):
    first, again, other = (train_transforms(photos, seed=seed) for seed in (1, 1, 2))
    a, b, c = (torch.stack([t(image=image)['image'] for image in photos.train.images[:10]]) for t in (first, again, other))
    assert a.equal(b) and not a.equal(c) and a.dtype == torch.float32 and a.shape == (10, 3, 32, 32)
    assert eval_transforms(photos)(image=IMAGE)['image'].equal(eval_transforms(photos)(image=IMAGE)['image'])


def test_the_albumentations_steps_and_their_arguments(digits, photos):
    assert [type(t).__name__ for t in train_steps(photos)] == ['PadIfNeeded', 'RandomCrop', 'HorizontalFlip', 'CoarseDropout']
    assert len(train_steps(photos, cutout=0)) == 3
    assert [train_steps(d, flip=.3)[2].p for d in (photos, digits)] == [.3, 0]
    assert train_steps(photos, pad=7)[0](image=IMAGE)['image'].shape == (46, 46, 3)
    for wrong in dict(pad=32), dict(flip=1.2), dict(cutout=33), dict(cutout=-1):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))} must be'): train_steps(photos, **wrong)


def test_loaders(digits):
    train, valid, test = make_loaders(digits, batch_size=64, workers=0)
    assert [len(loader) for loader in (train, valid, test)] == [20, 3, 6]
    labels = [torch.cat([y for _, y in loader]) for loader in (valid, test)]
    assert np.array_equal(labels[0], digits.valid.labels) and np.array_equal(labels[1], digits.test.labels)
    (x, y), (x2, y2), (x3, y3) = (next(iter(make_loaders(digits, 64, workers=0, seed=seed)[0])) for seed in (0, 0, 1))
    assert x.equal(x2) and y.equal(y2) and not y.equal(y3)
    for wrong in dict(batch_size=0), dict(workers=-1), dict(seed=-1):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))} must be'): make_loaders(digits, **wrong)


def test_throughput_counts_whole_batches_after_the_first():
    taken = []

    class Stream(list):
        def __iter__(self):
            for batch in super().__iter__(): taken.append(1); yield batch
    batches = Stream([(torch.zeros(100), None)]*10)
    assert images_per_second(batches, enough=250) > 0 and len(taken) == 1 + 3
    taken.clear()
    assert images_per_second(batches) > 0 and len(taken) == 10
    with pytest.raises(ValueError, match='at least 2 batches .got 1'): images_per_second([(torch.zeros(5), None)])


# --- The figures of a data set


def test_images_in_rows():
    images = noise(5)
    fig = show_images(torch.from_numpy(images), list('abcde'), ncols=3, title='Five')
    assert len(fig.axes) == 6 and [ax.get_title() for ax in fig.axes[:5]] == list('abcde') and fig.get_suptitle() == 'Five'
    assert all(np.array_equal(ax.images[0].get_array(), image) for ax, image in zip(fig.axes, images)) and not fig.axes[5].images


def test_samples(digits):
    wall, again, other = (show_samples(digits.train, 3, seed).axes[0].images[0].get_array() for seed in (0, 0, 1))
    assert np.array_equal(wall, again) and not np.array_equal(wall, other)
    for row in range(10):
        members = digits.train.images[digits.train.labels == row]
        for col in range(3): assert (members == wall[row*34:row*34 + 32, col*34:col*34 + 32]).all((1, 2, 3)).any()
    assert [t.get_text() for t in show_samples(digits.train).axes[0].get_yticklabels()] == list(digits.classes)


def test_class_counts(digits):
    counts = count_classes(digits)
    assert list(counts) == ['train', 'valid', 'test'] and [n.sum() for n in counts.values()] == [1257, 180, 360]
    assert np.array_equal(counts['test'], [(digits.test.labels == c).sum() for c in range(10)])
    few = count_classes(replace(digits, valid=digits.valid[:0]))['valid']
    assert np.array_equal(few, [0]*10)
    bars = plot_class_balance(digits).axes[0].patches
    assert [bar.get_height() for bar in bars] == np.concatenate(list(counts.values())).tolist()


def test_histograms_mark_the_means():
    images = noise(3)
    images[..., 2] //= 2
    axes, = plot_histograms(images).axes
    assert np.allclose([line.get_xdata()[0] for line in axes.lines], images.mean((0, 1, 2)))
    assert all(np.isclose(patch.get_data().values.sum(), 100) for patch in axes.patches)


def test_mean_images(digits):
    means = class_means(digits.train)
    exact = np.stack([digits.train.images[digits.train.labels == c].mean(0) for c in range(10)])
    assert means.dtype == np.uint8 and np.abs(means - exact).max() <= .5


def test_nearest_images():
    queries, images = noise(30), noise(200, seed=1)
    images[50] = queries[4]//3 + 90  # the same image with another brightness and contrast
    where, alike = nearest_images(queries, images)
    correlations = np.corrcoef(queries.reshape(30, -1), images.reshape(200, -1))[:30, 30:]
    assert np.array_equal(where, correlations.argmax(1)) and np.allclose(alike, correlations.max(1), atol=1e-5)
    assert where[4] == 50 and alike[4] > .99
    for chunk in 1, 7, 30:
        position, correlation = nearest_images(queries, images, chunk)
        assert np.array_equal(position, where) and np.allclose(correlation, alike, atol=1e-5)
    flat = np.full((1, 32, 32, 3), 77, np.uint8)
    assert nearest_images(flat, images)[1] == 0  # an image of one color correlates with nothing
    assert nearest_images(queries[:0], images)[0].shape == (0,)


def test_pairs(digits):
    fig = show_pairs(digits.test[:3], digits.train[:3], ['a', 'b', 'c'], 'Pairs')
    above, below = ([digits.classes[i] for i in split.labels[:3]] for split in (digits.test, digits.train))
    assert [ax.get_title() for ax in fig.axes] == above + [f'{name}\n{note}' for name, note in zip(below, 'abc')]
    assert np.array_equal(fig.axes[3].images[0].get_array(), digits.train.images[0])
