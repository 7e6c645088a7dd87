"""Predictions and what is computed from them; maps of where the network looked. All on digits, or on made-up logits."""
import io
from copy import deepcopy
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from cifar_resnet import analysis, cams, train
from cifar_resnet.analysis import (Predictions, accuracy_interval, calibrate, class_index, class_table, confused_pairs, confusion, damages,
                                   ece_interval, embed, errors, find_near_copies, find_temperature, label_and_prediction, nearest_by_features, percent, plot_confidence,
                                   plot_confusion, plot_embedding, plot_neighbors, plot_reliability, plot_robustness, predict, reliability, robustness)
from cifar_resnet.augment import Batches
from cifar_resnet.cams import LAYERS, METHODS, cam_maps, map_colors, overlay, plot_cams, plot_misclassified, randomize, similarity
from cifar_resnet.data import CIFAR10_CLASSES, get_data
from cifar_resnet.device import Precision
from cifar_resnet.model import CustomResNet
from cifar_resnet.train import OneCycle, evaluate, fit

FLOAT32 = Precision(torch.float32, torch.device('cpu'))


@pytest.fixture(scope='module')
def digits(): return get_data('digits')


@pytest.fixture(scope='module')
def model(digits):
    "A network that has learned something, and still makes errors"
    torch.manual_seed(0)
    few = replace(digits, train=digits.train[:400])
    return fit(CustomResNet(8, logit_scale=.125), few, OneCycle(.002, .2, epochs=4, peak_epoch=1), batch_size=50, device='cpu', precision='float32', progress=False).model


@pytest.fixture(scope='module')
def preds(model, digits):
    preds = predict(model, digits.test, precision='float32', progress=False)
    assert 20 < preds.correct.sum() < len(preds) - 20, 'the tests need both correct predictions and errors'
    return preds


@pytest.fixture(scope='module')
def some(preds): return preds[:60]


@pytest.fixture(scope='module')
def wrong(preds): return preds[errors(preds, 5)]


@pytest.fixture(scope='module')
def foreign(digits):
    "A network without `fc`"
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def make_predictions(logits, labels, classes):
    "Predictions that no network has made"
    n = len(labels)
    split = replace(get_data('digits').test[:n], labels=np.array(labels), classes=tuple(classes))
    return Predictions(None, split, np.asarray(logits, np.float32), None)


def state_of(model):
    "Mode, gradients and hooks of every part of a network"
    return ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()], [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            [len(hooks) for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)])


def same_state(a, b):
    return a[:2] == b[:2] and a[3] == b[3] and all(x is y is None or torch.equal(x, y) for x, y in zip(a[2], b[2]))


# predict

def test_the_batch_size_does_not_matter(model, digits):
    by_seven, many = (predict(model, digits.test[:60], batch_size=n, precision='float32', progress=False) for n in (7, 500))
    assert np.allclose(by_seven.logits, many.logits, atol=1e-4) and (by_seven.predicted == many.predicted).all()
    assert np.allclose(by_seven.features, many.features, atol=1e-4)


def test_probabilities_and_losses(preds):
    assert np.allclose(preds.probs.sum(1), 1, atol=1e-12)
    assert np.allclose(preds.losses, -np.log(preds.probs[np.arange(len(preds)), preds.labels]), atol=1e-9)
    assert (preds.confidence == preds.probs.max(1)).all() and (preds.predicted == preds.probs.argmax(1)).all()
    assert (preds.correct == (preds.predicted == preds.split.labels)).all()


@pytest.mark.parametrize('flip', [False, True])
def test_predict_and_evaluate_agree(model, digits, flip):
    preds = predict(model, digits.test, tta=flip, precision='float32', progress=False)
    loss, acc = evaluate(model, Batches(digits.test, 100), FLOAT32, flip)
    assert acc == pytest.approx(preds.correct.mean(), abs=1e-6) and loss == pytest.approx(preds.losses.mean(), abs=1e-5)


def test_predict_and_evaluate_share_one_loop(model, digits, monkeypatch):
    calls = []

    def infer(*args, **kwargs):
        calls.append(kwargs.get('flip', args[3] if len(args) > 3 else False))
        yield from train_infer(*args, **kwargs)
    train_infer = train.infer
    assert analysis.infer is train_infer
    for module in analysis, train: monkeypatch.setattr(module, 'infer', infer)
    predict(model, digits.test[:20], progress=False)
    evaluate(model, Batches(digits.test[:20]), flip=True)
    assert calls == [False, True]


def test_tta_averages_logits_and_keeps_the_features_of_the_plain_images(model, digits):
    split = digits.test[:60]
    mirrored = predict(model, replace(split, images=split.images[:, :, ::-1]), precision='float32', progress=False)
    plain, both = (predict(model, split, tta=tta, batch_size=25, precision='float32', progress=False) for tta in (False, True))
    assert np.allclose(both.logits, (plain.logits + mirrored.logits)/2, atol=1e-4)
    assert np.allclose(both.features, plain.features, atol=1e-6) and not np.allclose(both.features, mirrored.features, atol=.1)


def test_features_are_the_input_of_the_last_layer(model, preds):
    weights = model.fc.weight.detach().numpy()
    assert preds.features.shape == (360, 64) and preds.features.dtype == np.float32
    assert np.allclose(preds.features @ weights.T*model.config['logit_scale'], preds.logits, atol=1e-3)


def test_a_network_without_fc_has_no_features(foreign, digits):
    preds = predict(foreign, digits.test[:20], progress=False)
    assert preds.features is None and preds[:3].features is None
    for call in (lambda: plot_embedding(preds), lambda: nearest_by_features(preds, preds)):
        with pytest.raises(ValueError, match='have no features: the network has no linear layer named fc'): call()


def test_predict_leaves_the_network_unchanged(model, digits):
    net = deepcopy(model).train()
    net.layer1.eval()  # a part in another mode
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    before, weights, random = state_of(net), deepcopy(net.state_dict()), torch.get_rng_state()
    preds = predict(net, digits.test[:20], tta=True, progress=False)
    assert same_state(state_of(net), before) and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())
    assert np.allclose(preds.logits, predict(deepcopy(net).eval(), digits.test[:20], tta=True, progress=False).logits), 'not evaluated in eval mode'


def test_the_hook_is_gone_after_an_error(model, digits):
    gray = replace(digits.test[:4], images=digits.test.images[:4, ..., :1], mean=(.5,), std=(.5,))
    before = state_of(model)
    with pytest.raises(ValueError, match=r'the network takes images \(N, 3, 32, 32\)'): predict(model, gray, progress=False)
    assert same_state(state_of(model), before)


def test_a_compiled_network_is_unwrapped(model, some):
    again = predict(torch.compile(model, backend='eager'), some.split, precision='float32', progress=False)
    assert again.model is model and np.allclose(again.logits, some.logits, atol=1e-4) and again.features is not None


def test_predictions_are_read_only_and_can_be_picked(preds):
    for name in 'logits', 'probs', 'losses', 'predicted', 'features':
        with pytest.raises(ValueError, match='read-only'): getattr(preds, name)[0] = 1
    picked = preds[[5, 3]]
    assert len(picked) == 2 and (picked.logits == preds.logits[[5, 3]]).all() and (picked.features == preds.features[[5, 3]]).all()
    assert (picked.split.ids == preds.split.ids[[5, 3]]).all() and preds[preds.correct].correct.all() and len(preds[7]) == 1
    with pytest.raises(ValueError, match='read-only'): picked.logits[0] = 1


def test_no_images(model, digits):
    none = predict(model, digits.test[:0], progress=False)
    assert len(none) == 0 and none.logits.shape == (0, 10) and repr(none) == 'Predictions of no images'
    assert cam_maps(none).shape == (0, 32, 32)


def test_repr(preds):
    low, high = accuracy_interval(preds.correct.sum(), 360)
    assert repr(preds) == f'Predictions of 360 images: {preds.correct.mean():.2%} correct ({low:.2%} to {high:.2%}), loss {preds.losses.mean():.4f}'


def test_what_predict_rejects(model, digits):
    with pytest.raises(ValueError, match='the network returns 8 logits, and there are 10 classes'): predict(CustomResNet(8, 8), digits.test[:5], progress=False)
    with pytest.raises(ValueError, match=r'split must be a Split, as in predict\(model, data.test\) \(got ImageData\)'): predict(model, digits)
    with pytest.raises(ValueError, match='the split has no mean and std'): predict(model, replace(digits.test, mean=None))
    with pytest.raises(ValueError, match='precision must be one of'): predict(model, digits.test[:5], precision='float64')


# Tables

def test_wilsons_interval():
    assert accuracy_interval(81, 263) == pytest.approx((.2553, .3662), abs=1e-4)  # Newcombe (1998), table I
    assert accuracy_interval(0, 10)[0] == 0 and accuracy_interval(10, 10)[1] == 1
    with pytest.raises(ValueError, match='n must be a whole number of at least 1'): accuracy_interval(0, 0)


@pytest.mark.parametrize('p, text', [(0, '<0.1%'), (.0009, '<0.1%'), (.004, '0.4%'), (.01, '1%'), (.5, '50%'), (.99, '99%'), (.995, '99.5%'), (.9995, '>99.9%')])
def test_percent(p, text): assert percent(p) == text


def test_class_table(preds):
    scores = class_table(preds, output_dict=True)
    for c, s in enumerate(scores[name] for name in preds.classes):
        recall, precision = preds.correct[preds.labels == c].mean(), preds.correct[preds.predicted == c].mean()
        assert (s['recall'], s['precision']) == pytest.approx((recall, precision), abs=1e-12)
        assert s['f1-score'] == pytest.approx(2*recall*precision/(recall + precision), abs=1e-12)
    assert sum(scores[name]['support'] for name in preds.classes) == len(preds)
    text = class_table(preds)
    assert all(name in text for name in preds.classes) and f"{scores[preds.classes[3]]['recall']:.3f}" in text


def test_a_class_that_is_never_predicted():
    scores = class_table(make_predictions([[2, 1, 0]]*3, [0, 0, 1], 'abc'), output_dict=True)
    assert [scores[c]['precision'] for c in 'abc'] == pytest.approx([2/3, 0, 0]) and [scores[c]['recall'] for c in 'abc'] == [1, 0, 0]


def test_confusion_and_pairs(preds):
    table = confusion(preds)
    assert table.sum() == len(preds) and table.trace() == preds.correct.sum() and table[3, 5] == ((preds.labels == 3) & (preds.predicted == 5)).sum()
    pairs = confused_pairs(preds, 1000)
    assert sum(p['count'] for p in pairs) == (~preds.correct).sum() and all(a['count'] >= b['count'] > 0 for a, b in zip(pairs, pairs[1:]))
    first = pairs[0]
    label, predicted = (preds.classes.index(first[k]) for k in ('label', 'predicted'))
    assert first['count'] == table[label, predicted] and first['share'] == first['count']/table[label].sum()
    assert confused_pairs(preds[preds.correct]) == []


# Calibration

def eighty_percent_sure(correct):
    "A hundred predictions, each with a confidence of 80 %, of which so many are correct"
    return make_predictions(np.log(np.tile([.8, .2], (100, 1))), np.repeat([0, 1], [correct, 100 - correct]), ('yes', 'no'))


def test_reliability():
    (confidence, accuracy, n), ece = reliability(eighty_percent_sure(60))
    assert confidence == pytest.approx([.8], abs=1e-6) and list(accuracy) == [.6] and list(n) == [100] and ece == pytest.approx(.2, abs=1e-6)
    assert reliability(eighty_percent_sure(80))[1] == pytest.approx(0, abs=1e-6)


def test_interval_of_the_calibration_error(preds):
    low, high = ece_interval(preds, times=300)
    assert 0 < low < high and low < reliability(preds)[1]*1.5 and (low, high) == ece_interval(preds, times=300) != ece_interval(preds, times=300, seed=1)
    few, many = (np.diff(ece_interval(eighty_percent_sure(60)[np.arange(n) % 100], times=400))[0] for n in (100, 1600))
    assert 3 < few/many < 5.5  # 16 times the images, a quarter of the width
    sure = eighty_percent_sure(60)
    assert ece_interval(sure, times=2000) == pytest.approx((.2 - 1.96*(.24/100)**.5, .2 + 1.96*(.24/100)**.5), abs=.02)  # one bin: that of a share
    by_hand = [reliability(sure[np.random.default_rng(3).integers(0, 100, 100)])[1]]
    assert ece_interval(sure, times=1, seed=3) == pytest.approx((by_hand[0],)*2, abs=1e-6)


def test_what_the_interval_rejects(preds):
    with pytest.raises(ValueError, match='a calibration error needs at least one image'): ece_interval(preds[:0])
    with pytest.raises(ValueError, match='times must be a whole number of at least 1'): ece_interval(preds, times=0)


def test_temperature():
    assert find_temperature(eighty_percent_sure(80)) == pytest.approx(1, abs=1e-3)
    assert find_temperature(eighty_percent_sure(60)) == pytest.approx(np.log(4)/np.log(1.5), abs=1e-3)
    with pytest.raises(ValueError, match='a temperature needs at least one image'): find_temperature(eighty_percent_sure(80)[:0])


def test_each_half_is_scaled_by_the_temperature_of_the_other(preds):
    scaled, found = calibrate(preds)
    ratio = (preds.logits/scaled.logits)[:, 0]
    halves = [np.isclose(ratio, t, rtol=1e-4) for t in found]
    assert halves[0].sum() == halves[1].sum() == 180 and (halves[0] ^ halves[1]).all()
    assert found == pytest.approx([find_temperature(preds[halves[1]]), find_temperature(preds[halves[0]])])
    assert (scaled.predicted == preds.predicted).all() and scaled.losses.mean() < preds.losses.mean()


# Errors

def test_errors(preds):
    by_loss, by_confidence = (preds[errors(preds, 9, order)] for order in ('loss', 'confidence'))
    assert not by_loss.correct.any() and not by_confidence.correct.any()
    assert by_loss.losses[0] == preds.losses[~preds.correct].max() and (np.diff(by_loss.losses) <= 0).all()
    assert by_confidence.confidence[0] == preds.confidence[~preds.correct].max() and (np.diff(by_confidence.confidence) <= 0).all()
    drawn = [list(errors(preds, 9, 'random', seed=s)) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_errors_of_a_pair_of_classes(preds):
    pair = confused_pairs(preds, 1)[0]
    found = preds[errors(preds, 1000, 'random', pair['label'], pair['predicted'])]
    assert len(found) == pair['count'] and {label_and_prediction(found)[i][0].split()[0] for i in range(len(found))} == {pair['label']}


def test_what_errors_rejects(preds):
    with pytest.raises(ValueError, match=r"class must be one of zero, one.* \(got 'unicorn'\)"): errors(preds, label='unicorn')
    with pytest.raises(ValueError, match=r"order must be one of loss, confidence, random \(got 'best'\)"): errors(preds, order='best')
    with pytest.raises(ValueError, match='n must be a whole number of at least 1'): errors(preds, n=0)


def test_near_copies(digits):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (6, 32, 32, 3), dtype=np.uint8)
    others = images[[4, 1, 2]].copy()
    others[1] = others[1]//2 + 40  # darker and with less contrast
    others[2, :, :8] = rng.integers(0, 200, (32, 8, 3))  # a quarter of it is other
    split, known = replace(digits.test[:6], images=images), replace(digits.test[:3], images=others)
    found, repeated, correlation = find_near_copies(split, known)
    assert sorted(found[:2]) == [1, 4] == sorted(found) and {int(i): int(j) for i, j in zip(found, repeated)} == {4: 0, 1: 1}
    assert (correlation > .99).all() and (np.diff(correlation) <= 0).all()
    found, _, correlation = find_near_copies(split, known, above=.6)
    assert set(found) == {1, 2, 4} and found[2] == 2 and .6 < correlation[2] < .9
    assert len(find_near_copies(split[[0, 3]], known)[0]) == 0
    with pytest.raises(ValueError, match='above must be'): find_near_copies(split, known, above=2)


def test_label_and_prediction():
    preds = make_predictions(np.log([[.91, .03, .06]]), [1], ('dog', 'cat', 'bird'))
    assert label_and_prediction(preds) == [('cat 3%', 'dog 91%')]
    assert class_index(preds.classes, 'cat') == 1


# Damage

def test_damages_keep_the_shape_and_repeat_exactly(digits):
    images = torch.from_numpy(digits.test.images[:4]).permute(0, 3, 1, 2)
    for name, (strengths, damage) in damages().items():
        results = [damage(images.clone(), s) for s in strengths]
        assert all(r.shape == images.shape and r.dtype == torch.uint8 for r in results), name
        assert all(not torch.equal(r, images) for r in results), name
        assert all(torch.equal(r, damage(images.clone(), s)) for r, s in zip(results, strengths)), name
        if name != 'flip': assert len({r.numpy().tobytes() for r in results}) == len(strengths), name


def test_shift_and_flip():
    images = torch.arange(32*32).view(1, 1, 32, 32).expand(1, 3, 32, 32)
    moved = damages()['shift, pixels'][1](images, 6)
    assert torch.equal(moved[..., :26, 6:], images[..., 6:, :26])  # six pixels up and six to the right
    flip = damages()['flip'][1]
    assert torch.equal(flip(images, 'left-right'), images.flip(-1)) and torch.equal(flip(images, 'top-bottom'), images.flip(-2))


def test_robustness(model, digits):
    rows = robustness(model, digits.test, n=30, seed=1, progress=False)
    assert [r['n'] for r in rows] == [30]*len(rows) and all(0 <= r['correct'] <= 30 for r in rows)
    assert len(rows) == 1 + sum(len(strengths) for strengths, _ in damages().values())
    chosen = np.sort(np.random.default_rng(1).permutation(360)[:30])
    assert rows[0] == dict(damage='none', strength=None, correct=predict(model, digits.test[chosen], progress=False).correct.sum(), n=30)
    upside_down = replace(digits.test[chosen], images=digits.test.images[chosen][:, ::-1])
    by = {(r['damage'], r['strength']): r['correct'] for r in rows}
    assert by['flip', 'top-bottom'] == predict(model, upside_down, progress=False).correct.sum()


def test_robustness_takes_what_there_is(model, digits):
    assert robustness(model, digits.test[:3], n=1000, progress=False)[0]['n'] == 3
    with pytest.raises(ValueError, match='n must be a whole number of at least 1'): robustness(model, digits.test, n=0)


# Features

def test_nearest_by_features(preds):
    assert (nearest_by_features(preds, preds, 1)[:, 0] == np.arange(len(preds))).all()
    longer = replace(preds[:5], features=preds.features[:5]*3)  # only the direction counts
    assert (nearest_by_features(longer, preds, 3) == nearest_by_features(preds[:5], preds, 3)).all()


def test_embed(preds):
    for how in 'PCA', 't-SNE': assert embed(preds.features[:9], how).shape == (9, 2)
    with pytest.raises(ValueError, match=r"how must be one of PCA, t-SNE \(got 'umap'\)"): embed(preds.features[:9], 'umap')
    with pytest.raises(ValueError, match=r'an embedding takes at least 5 images \(got 4\)'): plot_embedding(preds[:4])


# Maps

def test_maps(wrong):
    maps = cam_maps(wrong)
    assert maps.shape == (5, 32, 32) and maps.min() >= 0 and maps.max() <= 1 and np.ptp(maps[0]) > .5
    by_name = cam_maps(wrong[:1], target=wrong.classes[wrong.labels[0]])
    assert np.allclose(by_name, cam_maps(wrong[:1], target='label'), atol=1e-6) and not np.allclose(by_name, maps[:1], atol=.1)


def test_hirescam_is_the_default(model, wrong):
    "The default map is the sum of activations × gradients, enlarged and stretched from 0 to 1"
    assert next(iter(METHODS)) == 'hirescam' and np.allclose(cam_maps(wrong), cam_maps(wrong, method='hirescam')) and not np.allclose(cam_maps(wrong), cam_maps(wrong, method='gradcam'), atol=.05)
    x = next(iter(Batches(wrong.split, 5)))[0]
    with torch.no_grad(): values = model.layer3(model.layer2(model.layer1(model.prep(x))))
    values.requires_grad_(True)
    logits = (model.fc(model.pool(values).flatten(1))*model.config['logit_scale'])[range(5), wrong.predicted.tolist()]
    gradients, = torch.autograd.grad(logits.sum(), values)
    sums, logits = (values*gradients).sum(1).detach(), logits.detach()
    assert torch.allclose(sums.sum((1, 2)), logits, atol=1e-3)
    for by_hand, heat in zip(sums.relu().numpy(), cam_maps(wrong)):
        large = cv2.resize(by_hand, (32, 32))
        assert (large - large.min())/np.ptp(large) == pytest.approx(heat, abs=1e-3)


def test_colors_of_the_maps():
    colors = map_colors()
    assert colors.shape == (256, 3) and colors[0].argmax() == 2 and colors[-1].argmax() == 0  # blue, red
    heat = np.full((32, 32), 1.)
    heat[0, 0] = 0
    assert (overlay(np.zeros((32, 32, 3), np.uint8), heat)[64, 64].argmax(), colors[255].argmax()) == (0, 0)


def test_maps_leave_the_network_unchanged(model, wrong):
    net = deepcopy(model).train()
    net.layer1.eval()
    net.fc.weight.grad, net.prep.conv.weight.requires_grad = torch.ones_like(net.fc.weight), False
    before, weights, random, grad_enabled = state_of(net), deepcopy(net.state_dict()), torch.get_rng_state(), torch.is_grad_enabled()
    for method in METHODS: cam_maps(wrong, method=method, model=net)
    assert same_state(state_of(net), before) and torch.equal(torch.get_rng_state(), random) and torch.is_grad_enabled() == grad_enabled
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())


def test_the_hooks_are_gone_after_an_error(model, wrong):
    before = state_of(model)
    with pytest.raises(ValueError, match='the network has fewer classes than the predictions'): cam_maps(make_predictions(np.eye(3, 12), [1, 1, 1], map(str, range(12))), 'prediction', model=CustomResNet(8, 2))
    with pytest.raises(ValueError, match='layer must be one of'): cam_maps(wrong, layer='layer9')
    assert same_state(state_of(model), before)


def test_maps_do_not_depend_on_the_callers_mode(model, wrong):
    maps = cam_maps(wrong)
    with torch.no_grad(): assert np.allclose(cam_maps(wrong), maps, atol=1e-6)
    with torch.inference_mode(): assert np.allclose(cam_maps(wrong), maps, atol=1e-6)
    with torch.autocast('cpu', torch.bfloat16): assert np.allclose(cam_maps(wrong), maps, atol=1e-6)
    frozen = deepcopy(model).requires_grad_(False).train()
    assert np.allclose(cam_maps(wrong, model=frozen), maps, atol=1e-6) and frozen.training
    assert np.allclose(cam_maps(wrong, model=torch.compile(model, backend='eager')), maps, atol=1e-6)
    assert np.corrcoef(cam_maps(wrong, model=deepcopy(model).bfloat16()).ravel(), maps.ravel())[0, 1] > .98


def test_methods_and_layers(wrong):
    for method in METHODS: assert cam_maps(wrong[:2], method=method).shape == (2, 32, 32)
    for layer in (*LAYERS, 'layer3.down'): assert np.isfinite(cam_maps(wrong[:2], layer=layer)).all()
    same = {m: np.allclose(*(cam_maps(wrong, target, method=m) for target in ('prediction', 'label'))) for m in METHODS}
    assert [m for m, is_same in same.items() if is_same] == ['eigencam']  # it uses no class


def test_maps_of_more_than_one_batch(preds): assert np.allclose(cam_maps(preds[:103])[100:], cam_maps(preds[100:103]), atol=1e-4)


def test_what_cam_maps_rejects(wrong):
    for layer in 'layer9', '':
        with pytest.raises(ValueError, match=r'layer must be one of prep, layer1, layer2, layer3, or a name from model.named_modules\(\)'): cam_maps(wrong, layer=layer)
    with pytest.raises(ValueError, match=r"method must be one of hirescam, .* \(got 'magic'\)"): cam_maps(wrong, method='magic')
    with pytest.raises(ValueError, match=r"class must be one of .* \(got 'unicorn'\)"): cam_maps(wrong, target='unicorn')


def test_overlay():
    heat = np.zeros((32, 32))
    heat[:16] = 1
    for channels in 1, 3:
        laid = overlay(np.full((32, 32, channels), 90, np.uint8), heat, side=64)
        assert laid.shape == (64, 64, 3) and laid.dtype == np.uint8
        assert (laid[:24, :, 0] > laid[:24, :, 2]).all() and (laid[40:, :, 0] < laid[40:, :, 2]).all()  # red above, blue below


def test_randomize(model, digits):
    random, before = torch.get_rng_state(), deepcopy(model.state_dict())
    copies = [randomize(model, ['fc', 'layer3'], seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), random) and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(copies[0].fc.weight, copies[1].fc.weight) and not torch.equal(copies[0].fc.weight, copies[2].fc.weight)
    changed = {k.split('.')[0] for k, v in copies[0].state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {'fc', 'layer3'}


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_randomize_on_a_gpu_leaves_its_generator_unchanged(model):
    on_gpu, before = deepcopy(model).cuda(), torch.cuda.get_rng_state()
    randomize(on_gpu, ['fc'])
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_similarity():
    maps = np.random.default_rng(0).random((4, 32, 32))
    assert similarity(maps, maps**3) == (pytest.approx(1), 4)  # only the order of the pixels counts
    assert similarity(maps, 1 - maps) == (pytest.approx(-1), 4)
    empty = np.zeros((4, 32, 32))
    assert np.isnan(similarity(maps, empty)[0]) and similarity(maps, empty)[1] == 0
    assert similarity(maps, np.concatenate([empty[:1], maps[1:]])) == (pytest.approx(1), 3)


# Figures

def check_texts(fig):
    "No text of a figure is cut off by its edge, and no title overlaps another"
    fig.savefig(io.BytesIO())  # lays it out
    width, height = fig.canvas.get_width_height()
    for text in filter(Text.get_text, find_texts(fig)):
        box = text.get_window_extent()
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, f'{text.get_text()!r} is cut off: {box} of {width} × {height}'
    titles = [(ax.get_title(), ax.title.get_window_extent()) for ax in fig.axes if ax.get_title()]
    for i, (text, a) in enumerate(titles):
        for other, b in titles[:i]:
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1, f'{text!r} overlaps {other!r}: {a}, {b}'


def find_texts(fig):
    "Yield the titles, labels and legends of a figure, and the labels of those ticks that are drawn"
    for ax in fig.axes:
        yield ax.title
        if ax.get_legend(): yield from ax.get_legend().get_texts()
        if not ax.axison: continue
        for axis in ax.xaxis, ax.yaxis:
            yield axis.label
            low, high = sorted(axis.get_view_interval())
            yield from (tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_visible())


@pytest.fixture(scope='module')
def long_titles(model, preds):
    "Wrong predictions with the longest titles that CIFAR-10 has"
    logits = np.full((7, 10), -20, np.float32)
    logits[:, 1] = 20
    split = replace(preds.split[:7], labels=np.zeros(7, int), classes=tuple(CIFAR10_CLASSES))
    longest = Predictions(model, split, logits, preds.features[:7])
    assert label_and_prediction(longest)[0] == ('airplane <0.1%', 'automobile >99.9%')
    return longest


@pytest.mark.parametrize('width, error', [(.7, 'is cut off'), (4, 'overlaps')])
def test_check_texts_can_fail(width, error):
    fig = Figure(figsize=(width, 1))
    FigureCanvasAgg(fig)
    for ax in fig.subplots(1, 2, gridspec_kw=dict(left=.4, right=.6, top=.5)):
        ax.axis('off')
        ax.set_title('a title too long', fontsize=8)
    with pytest.raises(AssertionError, match=error): check_texts(fig)


def test_titles_above_images(long_titles):
    fig = plot_misclassified(long_titles)
    assert fig.axes[0].get_title() == 'airplane <0.1%\n→ automobile >99.9%'
    check_texts(fig)
    check_texts(plot_misclassified(long_titles, 4, cam=True))
    check_texts(plot_cams(long_titles[:2], {layer: dict(layer=layer) for layer in LAYERS}))
    check_texts(plot_cams(long_titles[:1], dict.fromkeys(['trained', '+ fc', '+ layer3', '+ layer2', '+ layer1', '+ prep'], {})))
    check_texts(plot_neighbors(long_titles[:2], replace(long_titles, split=replace(long_titles.split, labels=np.ones(7, int)))))


def test_figures_of_predictions(preds, some, long_titles):
    for fig in plot_confusion(long_titles), plot_confusion(preds, rates=True), plot_confidence(preds), plot_reliability({'a': some, 'b': calibrate(some)[0]}): check_texts(fig)
    fig = plot_embedding(preds, n=50)
    assert '50 images' in fig.axes[0].get_title()
    check_texts(fig)


def test_confusion_of_a_hundred_classes():
    preds = make_predictions(np.eye(10, 100), [0]*10, map(str, range(100)))
    assert len(plot_confusion(preds).axes[0].texts) == 0  # too many for numbers


def test_figure_of_robustness(model, digits):
    fig = plot_robustness(robustness(model, digits.test, n=10, progress=False))
    assert [ax.get_title() for ax in fig.axes] == list(damages())
    check_texts(fig)


def test_maps_beside_images(wrong):
    assert len(plot_misclassified(wrong, 4, cam=True).axes) == 2*2*3
    assert cams.plot_misclassified(wrong, 4, label=wrong.classes[wrong.labels[0]]).axes
    assert plot_misclassified(wrong, 2, cam=True, layer='layer2', method='gradcam').axes


def test_nothing_to_show(preds, capsys):
    assert plot_misclassified(preds[preds.correct]) is None
    assert capsys.readouterr().out == 'nothing to show: all of these are correct\n'
