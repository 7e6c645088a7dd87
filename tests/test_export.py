"""Exported files give the answers of PyTorch, hold nothing of this machine, and are refused in one line where they cannot be made."""
import io
import json
import shlex
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from cifar_resnet import cli, export
from cifar_resnet.analysis import predict
from cifar_resnet.cams import cam_maps
from cifar_resnet.data import NotFound, get_data
from cifar_resnet.export import OPSET, to_onnx, to_pt2
from cifar_resnet.model import CustomResNet, load_weights, save_weights
from cifar_resnet.recipes import OverlappingNet

onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
NOTES = dict(classes=[f'class {i}' for i in range(10)], mean=[.5, .4, .3], std=[.2, .25, .3])


@pytest.fixture(scope='session')
def hundred():
    "100 real test images: of CIFAR-10 where it is on this machine, else of digits"
    try: data = get_data('cifar10', download=False)
    except NotFound: data = get_data('digits')
    return data.test[:100]


@pytest.fixture(scope='session')
def recorded(hundred):
    "The recorded run: (network, notes, its predictions)"
    model, notes = load_weights('one_cycle_24')
    split = hundred.__class__(hundred.images, hundred.labels, hundred.ids, tuple(notes['classes']), tuple(notes['mean']), tuple(notes['std']))
    return model, notes, predict(model, split, precision='float32', progress=False)


def answer_onnx(content, images): return onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider']).run(None, {'images': images})


def answer_pt2(content, images): return torch.export.load(io.BytesIO(content)).module()(torch.from_numpy(images)).numpy()


def expect(model, notes, images):
    "Return what PyTorch says, in the network's mode: the steps written out"
    mean, std = (torch.tensor(notes[name]).view(1, -1, 1, 1) for name in ('mean', 'std'))
    with torch.no_grad(): return model((torch.from_numpy(images).permute(0, 3, 1, 2)/255 - mean)/std).softmax(1).numpy()


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    "Return a function of the arguments of cifar_export, run in an empty folder: (exit code, output, errors)"
    monkeypatch.chdir(tmp_path)

    def call(line):
        try: code = cli.cifar_export(shlex.split(line))
        except SystemExit as e: code = e.code
        return code or 0, *capsys.readouterr()
    return call


def test_the_recorded_run(recorded, hundred, call, tmp_path):
    "The command writes both formats; both give PyTorch's probabilities on 100 real images"
    _, notes, preds = recorded
    for name, ending in ('onnx', 'onnx'), ('torch', 'pt2'):
        code, out, err = call(f'one_cycle_24 --format {name}')
        assert (code, err) == (0, '') and out.startswith(f'runs/one_cycle_24.{ending}: 26.') and out.endswith('from uint8 images (N, 32, 32, 3) to the probabilities of 10 classes\n')
    assert sorted(p.name for p in (tmp_path/'runs').iterdir()) == ['one_cycle_24.onnx', 'one_cycle_24.pt2']
    content = (tmp_path/'runs'/'one_cycle_24.onnx').read_bytes()
    np.testing.assert_allclose(answer_onnx(content, hundred.images)[0], preds.probs, atol=1e-4)
    np.testing.assert_allclose(answer_pt2((tmp_path/'runs'/'one_cycle_24.pt2').read_bytes(), hundred.images), preds.probs, atol=1e-4)
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert json.loads({p.key: p.value for p in proto.metadata_props}['classes']) == notes['classes']
    assert [(o.domain, o.version) for o in proto.opset_import] == [('', OPSET)]
    described = onnxruntime.InferenceSession(content).get_inputs()[0]
    assert (described.name, described.type, described.shape) == ('images', 'tensor(uint8)', ['N', 32, 32, 3])


@pytest.mark.parametrize('make', [
    lambda: CustomResNet(8, logit_scale=.125), lambda: CustomResNet(8, act='GELU', padding_mode='reflect', drop=.1),
    lambda: CustomResNet(8, act='CELU', head_bias=True, softmax=True, stages={'layer3.res': dict(act='SiLU', order='conv norm act')}),
    lambda: CustomResNet(8, skip=False, act='Mish'), lambda: OverlappingNet(8)], ids=['ReLU', 'GELU', 'CELU', 'Mish', 'OverlappingNet'])
def test_other_networks(make, hundred):
    "Any activation and the other class of network; batches of any size"
    torch.manual_seed(0)
    model = make()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)): norm.momentum = 1
    expect(model.train(), NOTES, hundred.images)  # the statistics of batch norm
    right, images = expect(model.eval(), NOTES, hundred.images), hundred.images
    assert right.std(0).max() > 1e-3, 'all images get the same answer'
    onnx_file, pt2 = to_onnx(model, NOTES), to_pt2(model, NOTES)
    for n in 0, 1, 100:
        np.testing.assert_allclose(answer_onnx(onnx_file, images[:n])[0], right[:n], atol=1e-4)
        np.testing.assert_allclose(answer_pt2(pt2, images[:n]), right[:n], atol=1e-4)


def test_gray_images():
    model, notes = CustomResNet(8, channels=1), dict(classes=list('abcdefghij'), mean=[.5], std=[.2])
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    np.testing.assert_allclose(answer_onnx(to_onnx(model, notes), images)[0], expect(model.eval(), notes, images), atol=1e-4)


def test_the_network_stays_unchanged():
    model = CustomResNet(8).train()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    to_pt2(model, NOTES)
    assert model.training and all(p.requires_grad for p in model.parameters()) and not model.layer3._forward_hooks
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_maps_are_hirescam(recorded, hundred):
    "The second output is HiResCAM through the last pool, for every class; weights in 16 bits change nothing"
    model, notes, preds = recorded
    content = to_onnx(model, notes, maps=True, half=True)
    assert len(content) < 13.5e6
    probs, maps = answer_onnx(content, hundred.images)
    np.testing.assert_allclose(probs, preds.probs, atol=1e-4)
    np.testing.assert_allclose(maps.sum((2, 3)), preds.logits, atol=1e-3)  # the linear layer has no bias
    for chosen in 'prediction', 'cat':
        target = preds.predicted if chosen == 'prediction' else np.full(100, notes['classes'].index('cat'))
        large = torch.nn.functional.interpolate(torch.from_numpy(maps[range(100), target]).clamp(min=0)[:, None], (32, 32), mode='bilinear')[:, 0].numpy()
        low, high = (f(large, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
        own, theirs = (large - low)/(high - low + 1e-7), cam_maps(preds, chosen, method='hirescam')
        supported = high.ravel() > 1e-3  # grad-cam divides by 1e-7 where nothing supports the class
        assert supported.sum() > 30 and abs(own - theirs)[supported].max() < 1e-3


def test_only_exact_weights_are_halved():
    "16 bits are taken only for weights that they can hold"
    torch.manual_seed(0)
    model = CustomResNet(8)
    model.layer2.conv.weight.data = model.layer2.conv.weight.data.half().float()
    kinds = {w.name: w.data_type for w in onnx.load_from_string(to_onnx(model, NOTES, half=True)).graph.initializer}
    assert [name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16 and 'conv' in name] == ['model.layer2.conv.weight.half']
    assert kinds['model.prep.conv.weight'] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize('maps, half', [(False, False), (True, True)])
def test_files_hold_nothing_of_this_machine(maps, half):
    model = CustomResNet(8)
    packed = zipfile.ZipFile(io.BytesIO(to_pt2(model, NOTES)))
    contents = [to_onnx(model, NOTES, maps, half), *(packed.read(name) for name in packed.namelist())]
    here = {str(p) for p in (ROOT, Path(sys.prefix), Path(torch.__file__).parent, Path.home(), Path(tempfile.gettempdir()))} | {'site-packages', '.py"', 'cifar_resnet/'}
    assert not [word for word in here for content in contents if len(word) > 1 and word.encode() in content]
    assert json.loads(next(packed.read(name) for name in packed.namelist() if name.endswith('classes.json'))) == NOTES['classes']


def test_the_same_network_gives_the_same_file():
    model = CustomResNet(8)
    assert to_onnx(model, NOTES) == to_onnx(model, NOTES) and to_pt2(model, NOTES) == to_pt2(model, NOTES)


def test_default_names(call, tmp_path):
    save_weights(CustomResNet(8), tmp_path/'run'/'final.safetensors', **NOTES)
    save_weights(CustomResNet(8), tmp_path/'w.safetensors', **NOTES)
    for weights, file in ('run', 'run/final.pt2'), ('w.safetensors', 'w.pt2'):
        code, out, err = call(f'{weights} --format torch')
        assert code == 0 and out.startswith(f'{file}: ') and (tmp_path/file).is_file(), err


@pytest.mark.parametrize('line, says', [
    ('w.safetensors --format tflite', "argument --format: invalid choice: 'tflite'"),
    ('w.safetensors', 'the following arguments are required: --format'),
    ('w.safetensors --format onnx --out w.pt2', '--out must end in .onnx (got w.pt2)'),
    ('w.safetensors --format torch --out w.safetensors', '--out must end in .pt2 (got w.safetensors)'),
    ('w.safetensors --format torch --out folder.pt2', 'folder.pt2 is a folder, and is not replaced by a file'),
    ('w.safetensors --format torch --out w.safetensors/x.pt2', 'w.safetensors cannot be written to'),
    ('bare.safetensors --format torch', 'the weights do not name their classes, mean and std'),
    ('few.safetensors --format onnx', 'the network returns 10 logits, and its weights name 2 classes'),
    ('gray.safetensors --format onnx', 'the network takes images (N, 3, 32, 32)'),
    ('text.safetensors --format onnx', 'text.safetensors does not hold weights of a known network'),
    ('nothing --format onnx', 'nothing was not found')])
def test_wrong_requests(call, tmp_path, line, says):
    "One line, exit code 2, and nothing is written"
    save_weights(CustomResNet(8), tmp_path/'w.safetensors', **NOTES)
    save_weights(CustomResNet(8), tmp_path/'bare.safetensors')
    save_weights(CustomResNet(8), tmp_path/'few.safetensors', **NOTES | dict(classes=['cat', 'dog']))
    save_weights(CustomResNet(8), tmp_path/'gray.safetensors', **NOTES | dict(mean=[.5], std=[.2]))
    (tmp_path/'text.safetensors').write_text('x')
    (tmp_path/'folder.pt2').mkdir()
    before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    code, out, err = call(line)
    assert (code, out, err.count('\n')) == (2, '', 1) and says in err, err
    assert {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()} == before


@pytest.mark.parametrize('missing, says', [(('onnx', 'onnxscript'), 'needs two more packages: pip install onnx onnxscript'), (('onnxscript',), 'needs one more package: pip install onnxscript')])
def test_without_the_packages(call, tmp_path, monkeypatch, missing, says):
    found = export.find_spec
    monkeypatch.setattr(export, 'find_spec', lambda name: None if name in missing else found(name))
    save_weights(CustomResNet(8), tmp_path/'w.safetensors', **NOTES)
    code, out, err = call('w.safetensors --format onnx')
    assert (code, out) == (2, '') and err == f'cifar_export: the format onnx {says}\n'
    assert call('w.safetensors --format torch')[0] == 0


def test_a_failed_write_keeps_the_file(call, tmp_path, monkeypatch):
    save_weights(CustomResNet(8), tmp_path/'w.safetensors', **NOTES)
    (tmp_path/'w.pt2').write_text('the previous file')

    def fail(fd): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('os.fsync', fail)
    code, _, err = call('w.safetensors --format torch')
    assert code == 2 and err == 'cifar_export: w.pt2 could not be written: No space left on device; the previous file, if any, is unchanged\n'
    assert (tmp_path/'w.pt2').read_text() == 'the previous file' and len(list(tmp_path.iterdir())) == 2
