"""The network, its measurements, and its saved weights: shapes, odd arguments, damaged files."""
import hashlib
import json
import math
import os
import random
from functools import partial

import numpy as np
import pytest
import torch
from conftest import Mirror
from processes import without_permission
from safetensors.torch import save_file
from torch import nn

from cifar_resnet import model as M
import cifar_resnet
from cifar_resnet.anatomy import count_macs, diagram, layer_table, plot_costs, plot_fields, receptive_fields
from cifar_resnet.compare import interval
from cifar_resnet.core import DataError, load_record
from cifar_resnet.model import (CustomResNet, Residual, conv_block, count_params, describe_network, find_weights, load_pretrained, load_weights, predict_proba, runs_with_weights,
                                register_network, res_block, save_weights)
from cifar_resnet.recipes import OverlappingNet


def one_clear_line(call, *parts, error=(ValueError, DataError)):
    with pytest.raises(error) as e: call()
    message = str(e.value)
    assert message and '\n' not in message and len(message) < 900
    for part in parts: assert str(part) in message, message


@pytest.fixture
def networks(monkeypatch):
    "The registered networks; what a test registers is forgotten afterward"
    monkeypatch.setattr(M, 'NETWORKS', dict(M.NETWORKS))
    return M.NETWORKS


@pytest.fixture
def images(): return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------ blocks and networks

@pytest.mark.parametrize('make,says', [
    (lambda: conv_block(3, 8, order='conv nrom act'), "got 'nrom'"), (lambda: conv_block(3, 8, order='conv conv act'), "names 'conv' twice"),
    (lambda: conv_block(3, 8, order='norm act'), "'conv' is missing"), (lambda: conv_block(3, 8, pool=True, order='conv act'), "'pool' is missing"),
    (lambda: conv_block(3, 8, drop=.1, order='conv act'), "'drop' is missing"), (lambda: conv_block(3, 8, act='no such'), "got 'no such'"),
    (lambda: conv_block(3, 8, act='functional'), "got 'functional'"), (lambda: conv_block(3, 8, act=nn.ReLU()), 'got ReLU()'), (lambda: conv_block(3, 8, act=None), 'got None'),
    (lambda: CustomResNet(7), 'width must be a whole number from 8 to 128 (got 7)'), (lambda: CustomResNet(8.0), 'got 8.0'), (lambda: CustomResNet(129), 'got 129'),
    (lambda: CustomResNet(8, classes=1), 'classes must be a whole number of at least 2 (got 1)'), (lambda: CustomResNet(8, channels=2), 'got 2'),
    (lambda: CustomResNet(8, channels=4), 'channels must be 3, or 1 for gray images (got 4)'), (lambda: CustomResNet(8, logit_scale=0), 'logit_scale must be a number above 0 (got 0)'),
    (lambda: CustomResNet(8, logit_scale=math.inf), 'logit_scale'), (lambda: CustomResNet(8, stages={'layer4': {}}), "there is no 'layer4'"),
    (lambda: CustomResNet(8, stages={'layer2.res': {}}), "there is no 'layer2.res'")])
def test_wrong_arguments(make, says): one_clear_line(make, says, error=ValueError)


@pytest.mark.parametrize('x,says', [
    (np.zeros((1, 3, 32, 32)), 'got a ndarray'), (torch.zeros(2, 3, 28, 28), 'resize them first (got (2, 3, 28, 28))'), (torch.zeros(2, 1, 32, 32), 'takes images (N, 3, 32, 32)'),
    (torch.zeros(3, 32, 32), 'takes images (N, 3, 32, 32)'), (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 'normalized floats')])
def test_wrong_images(x, says):
    net = CustomResNet(8).eval()  # in training it takes smaller squares too
    one_clear_line(lambda: net(x), says, error=ValueError)
    one_clear_line(lambda: net.features(x), says, error=ValueError)


def test_size_of_the_network():
    assert count_params(CustomResNet()) == 6_573_120 and count_params(CustomResNet(head_bias=True)) == 6_573_130
    frozen = CustomResNet(8)
    frozen.fc.requires_grad_(False)
    assert count_params(frozen) == count_params(CustomResNet(8)) - 64*10


@pytest.mark.parametrize('kwargs', [{}, dict(width=np.int64(16), classes=np.int32(3)), dict(channels=1, classes=100), dict(order='conv norm act pool drop', drop=.1),
                                    dict(act=nn.GELU, bias=True), dict(act='SiLU'), dict(act=partial(nn.LeakyReLU, .1)), dict(padding_mode='reflect'), dict(skip=False), dict(softmax=True)])
def test_networks_of_many_kinds(kwargs):
    net = CustomResNet(**{'width': 8} | kwargs).eval()
    logits = net(torch.randn(2, net.config['channels'], 32, 32))
    assert logits.shape == (2, net.config['classes']) and logits.isfinite().all()
    assert type(net.config['width']) is int and type(net.config['classes']) is int


def test_what_differs_in_one_stage():
    net = CustomResNet(8, drop=.1, stages={'prep': dict(drop=.2), 'layer3': dict(drop=.3), 'layer3.res': dict(drop=0.), 'layer1.down': dict(act='GELU')})
    drops = {name: m.p for name, m in net.named_modules() if isinstance(m, nn.Dropout)}
    assert drops == {'prep.drop': .2, 'layer1.down.drop': .1, 'layer1.res.block.0.drop': .1, 'layer1.res.block.1.drop': .1, 'layer2.drop': .1, 'layer3.down.drop': .3}
    assert [name for name, m in net.named_modules() if isinstance(m, nn.GELU)] == ['layer1.down.act']


def test_a_residual_block_adds_and_one_without_a_shortcut_does_not(images):
    block = nn.Conv2d(3, 3, 1)
    assert Residual(block)(images).equal(images + block(images)) and Residual(block, skip=False)(images).equal(block(images))
    r = res_block(3)
    for parameter in (r.block[1].norm.weight, r.block[1].norm.bias): nn.init.zeros_(parameter)
    assert r(images).equal(images)


def test_softmax_and_logit_scale(images):
    nets = []
    for kwargs in {}, dict(logit_scale=.125), dict(softmax=True):
        torch.manual_seed(0)
        nets.append(CustomResNet(8, **kwargs).eval())
    logits = nets[0](images)
    assert torch.allclose(nets[1](images), logits/8) and torch.allclose(nets[2](images), logits.softmax(1))


def test_probabilities_leave_the_mode_alone(images):
    net = CustomResNet(8)
    net.layer2.eval()
    p = predict_proba(net, images)
    assert torch.allclose(p.sum(1), torch.ones(4)) and not p.requires_grad and net.training and not net.layer2.training
    with pytest.raises(ValueError): predict_proba(net, images[:, :1])
    assert net.training and not net.layer2.training


# ------------------------------------------------------------------------------------------------ anatomy

def test_layer_table_counts_what_the_network_has():
    for net in CustomResNet(8), CustomResNet(8, channels=1, bias=True, head_bias=True), OverlappingNet(8):
        assert sum(row['params'] for row in layer_table(net)) == count_params(net)
    assert round(count_macs(CustomResNet())/1e6, 1) == 379.3
    grouped = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, groups=3))
    assert count_macs(grouped) == 6*9*32*32


def test_layer_table_leaves_no_trace():
    net = CustomResNet(8)
    net.fc.eval()
    net.fc.register_forward_pre_hook(lambda *_: 1/0)
    with pytest.raises(ZeroDivisionError): layer_table(net)
    assert net.training and not net.fc.training and not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize('kwargs', [{}, dict(drop=.9), dict(skip=False), dict(order='conv norm act pool drop'), dict(padding_mode='reflect'), dict(channels=1, act=nn.GELU)])
def test_receptive_fields(kwargs):
    net = CustomResNet(8, **kwargs)
    fields = receptive_fields(net)
    assert [field for field, _, _ in fields.values()] == [3, 14, 20, 64, 88]


def test_receptive_field_without_the_residual_blocks():
    net = CustomResNet(8)
    net.layer1.res = net.layer3.res = nn.Identity()
    assert receptive_fields(net)['layer3'][0] == 24


def test_the_figures_draw_any_width():
    net = CustomResNet(16, classes=7, channels=1)
    drawn = diagram(net).data
    for text in '1 × 32 × 32', '32 × 16 × 16', '7 logits', f'{count_params(net):,} parameters': assert text in drawn
    assert len(plot_costs(net).axes) == 2 and len(plot_fields(net, np.zeros((32, 32, 3), np.uint8)).axes) == 4


# ------------------------------------------------------------------------------------------------ saved weights

@pytest.mark.parametrize('make', [
    lambda: CustomResNet(8, classes=3, softmax=True), lambda: OverlappingNet(8, classes=5), lambda: CustomResNet(8, act=nn.GELU, drop=.1, stages={'layer3.res': dict(act=nn.ELU)}),
    lambda: CustomResNet(np.int64(16), channels=1, logit_scale=.125, skip=False)])
def test_a_network_comes_back_as_the_class_it_was(tmp_path, make):
    torch.manual_seed(0)
    net = make()
    x = torch.randn(4, getattr(net, 'config').get('channels', 3), 32, 32)
    net(x)  # batch norm has statistics of its own
    path = save_weights(net, tmp_path/'w.safetensors', classes=['a', 'b'], mean=[.5])
    back, notes = load_weights(path)
    assert type(back) is type(net) and not back.training
    assert describe_network(back) == describe_network(net) and back.config.keys() == net.config.keys()
    assert back(x).equal(net.eval()(x)) and notes == {'classes': ['a', 'b'], 'mean': [.5]}
    again = save_weights(back, tmp_path/'again.safetensors', **notes)
    assert again.read_bytes() == path.read_bytes()


def test_softmax_is_part_of_the_file(tmp_path, images):
    net = CustomResNet(8, softmax=True).eval()
    back, _ = load_weights(save_weights(net, tmp_path/'w.safetensors'))
    assert back.config['softmax'] is True and torch.allclose(back(images).sum(1), torch.ones(4))


def test_half_the_file(tmp_path):
    net = CustomResNet(8)
    full, half = (save_weights(net, tmp_path/f'{h}.safetensors', half=h) for h in (False, True))
    assert half.stat().st_size < .6*full.stat().st_size
    back, _ = load_weights(half)
    assert all(v.dtype == w.dtype for v, w in zip(back.state_dict().values(), net.state_dict().values()))
    assert all(v.equal(w.half().float()) for v, w in zip(back.parameters(), net.parameters()))


class Odd(nn.ReLU): pass


class Unregistered(CustomResNet): pass


def test_weights_that_could_not_be_read_back_are_not_written(tmp_path, networks):
    @register_network
    class NoConfig(nn.Linear): pass
    net, path = CustomResNet(8), tmp_path/'a.safetensors'
    one_clear_line(lambda: save_weights(nn.Linear(2, 2), path), 'Linear is not a registered network', '@register_network')
    one_clear_line(lambda: save_weights(Unregistered(8), path), 'Unregistered is not a registered network')
    one_clear_line(lambda: save_weights(NoConfig(2, 2), path), 'NoConfig must keep its arguments')
    one_clear_line(lambda: save_weights(CustomResNet(8, act=Odd), path), 'Odd is not in torch.nn')
    one_clear_line(lambda: save_weights(CustomResNet(8, act=partial(nn.LeakyReLU, .1)), path), 'is not in torch.nn')
    one_clear_line(lambda: save_weights(CustomResNet(8, stages={'prep': dict(act=Odd)}), path), 'Odd is not in torch.nn')
    net.fc.weight.data[0, 0] = 1e6
    one_clear_line(lambda: save_weights(net, path, half=True), 'not finite in 16 bits')
    assert not list(tmp_path.iterdir())
    written = save_weights(torch.compile(net), tmp_path/'new folder'/'a.safetensors')
    assert load_weights(written)[0].fc.weight[0, 0] == 1e6
    before = written.read_bytes()
    net.fc.weight.data[0, 0] = math.nan
    one_clear_line(lambda: save_weights(net, written), 'fc.weight has values that are not finite')
    assert written.read_bytes() == before


def test_a_network_of_the_reader(tmp_path, networks):
    "Registered, it comes back; where its class is not known, one line says what to import"
    @register_network
    class Mine(nn.Module):
        def __init__(self, sizes, scale=1.):
            super().__init__()
            self.config, self.layers = dict(sizes=sizes, scale=scale), nn.Sequential(*[nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        def forward(self, x): return self.layers(x)
    net = Mine((4, 8, 3))
    path, x = save_weights(net, tmp_path/'mine.safetensors'), torch.randn(2, 4)
    back, _ = load_weights(path)
    assert type(back) is Mine and back(x).equal(net(x)) and describe_network(net) == {'class': 'Mine', 'config': {'sizes': [4, 8, 3], 'scale': 1.}}
    del networks['Mine']
    one_clear_line(lambda: load_weights(path), path, 'its network is Mine; known are CustomResNet', 'import the module that defines it', error=DataError)


def spoiled_files():
    "How to spoil a file of weights: {name: function of (path, state, description)}"
    def write(path, state, about): save_file(state, path, metadata=about if about is None else {'cifar_resnet': about if isinstance(about, str) else json.dumps(about)})
    return {
        'no description': lambda p, s, d: write(p, s, None), 'a list': lambda p, s, d: write(p, s, '[]'), 'half of it': lambda p, s, d: write(p, s, '{'),
        'no class': lambda p, s, d: write(p, s, dict(config=d['config'], notes={})), 'no config': lambda p, s, d: write(p, s, {'class': 'CustomResNet', 'notes': {}}),
        'no notes': lambda p, s, d: write(p, s, {k: v for k, v in d.items() if k != 'notes'}), 'odd notes': lambda p, s, d: write(p, s, d | dict(notes=3)),
        'another class': lambda p, s, d: write(p, s, d | {'class': 'OverlappingNet'}), 'a class that is none': lambda p, s, d: write(p, s, d | {'class': ['CustomResNet']}),
        'a module of Python': lambda p, s, d: write(p, s, d | {'class': 'os.system', 'config': {'command': 'true'}}),
        'an unknown layer': lambda p, s, d: write(p, s, d | dict(config=dict(act='no such'))), 'an unknown argument': lambda p, s, d: write(p, s, d | dict(config=dict(wings=2))),
        'another width': lambda p, s, d: write(p, s, d | dict(config=d['config'] | dict(width=16))), 'a huge head': lambda p, s, d: write(p, s, d | dict(config=dict(width=8, classes=10**15))),
        'one tensor': lambda p, s, d: write(p, {'a': torch.zeros(1)}, d), 'no numbers': lambda p, s, d: write(p, {k: v*math.nan for k, v in s.items()}, d),
        'another format': lambda p, s, d: p.write_bytes(b'hello'), 'nothing': lambda p, s, d: p.write_bytes(b''),
        'cut off': lambda p, s, d: (write(p, s, d), p.write_bytes(p.read_bytes()[:-1000])), 'cut off in the header': lambda p, s, d: (write(p, s, d), p.write_bytes(p.read_bytes()[:40]))}


@pytest.mark.parametrize('how', spoiled_files())
def test_damaged_and_forged_files(tmp_path, how):
    net, path = CustomResNet(8), tmp_path/'w.safetensors'
    spoiled_files()[how](path, net.state_dict(), describe_network(net) | dict(notes={}))
    one_clear_line(lambda: load_weights(path), path, 'does not hold weights of a known network: ', error=DataError)


def test_the_undamaged_file_of_that_test_loads(tmp_path):
    net, path = CustomResNet(8), tmp_path/'w.safetensors'
    save_file(net.state_dict(), path, metadata={'cifar_resnet': json.dumps(describe_network(net) | dict(notes={}))})
    assert load_weights(path)[0].config == net.config


def test_networks_that_are_not_registered_are_described_by_their_shapes():
    small, wide = nn.Linear(2, 3), nn.Linear(2, 4)
    assert describe_network(small) == describe_network(nn.Linear(2, 3)) != describe_network(wide) and describe_network(small)['class'] == 'Linear'
    odd = describe_network(CustomResNet(8, act=Odd))  # cannot be saved, but a run with it can be recorded
    assert odd['config']['act'] == 'Odd' and json.dumps(odd)


def test_finding_weights(tmp_path, monkeypatch):
    "A path, the checkout, the cache, a download; each only with the right sha256"
    one_clear_line(lambda: find_weights('nowhere.safetensors'), 'nowhere.safetensors was not found', 'there are weights of: one_cycle_24', error=DataError)
    one_clear_line(lambda: load_weights('feeding'), 'recorded without weights', error=DataError)
    net = CustomResNet(8)
    source = save_weights(net, tmp_path/'tiny.safetensors', half=True)
    content, checkout, cache = source.read_bytes(), tmp_path/'results', tmp_path/'cache'
    checkout.mkdir()
    assert find_weights(source) == find_weights(str(source)) == source
    monkeypatch.setattr('cifar_resnet.core.results_folders', lambda: [checkout])
    monkeypatch.setattr('cifar_resnet.model.results_folders', lambda: [checkout])
    with Mirror(content) as mirror:
        known = {'file': 'tiny.safetensors', 'sha256': hashlib.sha256(content).hexdigest(), 'size': len(content), 'url': mirror.url('good')}
        def record(): (checkout/'tiny.json').write_text(json.dumps({'weights': known}))
        record()
        found = find_weights('tiny', cache=cache)
        assert found == cache/'tiny.safetensors' and found.read_bytes() == content
        assert find_weights('tiny', cache=cache) == found and len(mirror.requests) == 1
        (checkout/'tiny.safetensors').write_bytes(content)
        assert find_weights('tiny', cache=cache) == checkout/'tiny.safetensors'
        (checkout/'tiny.safetensors').write_bytes(content[:-1] + b'?')  # damaged in the checkout: the one in the cache is taken
        assert find_weights('tiny', cache=cache) == found
        assert runs_with_weights() == ['tiny'] and load_pretrained('tiny', cache=cache)[0].fc.weight.equal(net.fc.weight.half().float())
        one_clear_line(lambda: load_pretrained('small'), "there are no weights of 'small'; there are weights of: tiny")
        known['sha256'] = '0'*64
        record()
        one_clear_line(lambda: find_weights('tiny', cache=tmp_path/'empty'), 'sha256', error=DataError)
    assert load_weights(found)[0].fc.weight.equal(net.fc.weight.half().float())


def test_weights_that_are_nowhere_name_the_address_and_what_works_instead(tmp_path, monkeypatch):
    monkeypatch.setattr('cifar_resnet.core.results_folders', lambda: [tmp_path])
    monkeypatch.setattr('cifar_resnet.model.results_folders', lambda: [tmp_path])
    monkeypatch.setattr('cifar_resnet.model.home_page', lambda: 'http://127.0.0.1:9/owner/name')
    (tmp_path/'tiny.json').write_text(json.dumps(dict(weights=dict(file='tiny.safetensors', sha256='0'*64, size=9))))
    one_clear_line(lambda: load_pretrained('tiny', cache=tmp_path/'cache'), f'http://127.0.0.1:9/owner/name/releases/download/v{cifar_resnet.__version__}/tiny.safetensors', '`user` in settings.ini',
                   'a clone of the repository has the weights', error=DataError)


# ------------------------------------------------------------------------------------------------ figures in chapter 01

def test_figures_that_chapter_01_quotes(root):
    prose = '\n'.join(''.join(cell['source']) for cell in json.loads((root/'nbs'/'01_model.ipynb').read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == 'markdown').replace('\N{NO-BREAK SPACE}', ' ')
    accs = {name: np.array(run['valid_acc']) for name, run in load_record('first_steps')['runs'].items()}
    accs |= {name: np.array(a) for name, a in load_record('single_shortcuts')['valid_acc'].items()}
    def points(one, other): return [100*v for v in interval(accs[one] - accs[other])]
    mean, low, high = points('as it is', 'without shortcuts')
    assert f'worth {mean:.1f} points (95 % interval {low:.1f} to {high:.1f}, n=3)' in prose
    mean, low, high = (100*v for v in interval(np.array(load_record('batch_norm')['runs']['with batch norm, rate 0.1']['valid_acc']) - accs['without shortcuts']))
    assert f'the difference is {mean:.1f} points (−{-low:.1f} to {high:.1f}), not distinguishable at n=3' in prose
    mean, low, high = points('as it is', 'softmax first')
    assert f'it loses {mean:.0f} points (95 % interval {low:.0f} to {high:.0f}, n=3)' in prose
    mean, low, high = points('as it is', 'softmax first, 5 × the rate')
    assert 'the difference from the baseline is not distinguishable at n=3' in prose
    undecided = [('as it is', 'softmax first, 5 × the rate'), ('softmax first, 5 × the rate', 'softmax first'), ('as it is', 'without the first'),
                 ('as it is', 'without the second'), ('without the second', 'without the first')]
    assert all(low < 0 < high for _, low, high in (points(*pair) for pair in undecided))


def test_one_flipped_bit_is_noticed(tmp_path):
    "Wherever it is: in the weights, their names, or what the file says about them"
    path = save_weights(CustomResNet(8), tmp_path/'w.safetensors', classes=['cat', 'dog'], test_acc=.9)
    content, rng = path.read_bytes(), random.Random(0)
    header = int.from_bytes(content[:8], 'little')
    places = rng.sample(range(8, 8 + header), 60) + rng.sample(range(8 + header, len(content)), 60)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path/'d.safetensors').write_bytes(damaged)
        with pytest.raises(DataError, match='d.safetensors does not hold weights of a known network') as e: load_weights(tmp_path/'d.safetensors')
        assert '\n' not in str(e.value) and len(str(e.value)) < 600


def test_weights_of_earlier_versions_have_no_hash(tmp_path):
    path = save_weights(CustomResNet(8), tmp_path/'w.safetensors', test_acc=.9)
    from safetensors import safe_open
    with safe_open(path, 'pt') as f: about, tensors = json.loads(f.metadata()['cifar_resnet']), {k: f.get_tensor(k) for k in f.keys()}
    del about['sha256']
    save_file(tensors, tmp_path/'old.safetensors', {'cifar_resnet': json.dumps(about)})
    assert load_weights(tmp_path/'old.safetensors')[1] == {'test_acc': .9}


@pytest.mark.parametrize('notes,says', [
    (dict(classes='cat'), "its note 'classes' cannot be used ('cat')"), (dict(classes=[1, 2]), "its note 'classes'"), (dict(mean=[0., 'x', 1.]), "its note 'mean'"),
    (dict(mean=[math.nan]*3), "its note 'mean'"), (dict(std=[1., 0., 1.]), "its note 'std'"), (dict(data=3), "its note 'data'")])
def test_notes_that_cannot_be_used(tmp_path, notes, says):
    save_weights(CustomResNet(8), tmp_path/'w.safetensors', **notes)
    with pytest.raises(DataError) as e: load_weights(tmp_path/'w.safetensors')
    assert says in str(e.value)


def test_a_file_that_asks_for_a_huge_network(tmp_path):
    "The shapes are compared before any memory is taken"
    about = dict(notes={}, **{'class': 'CustomResNet', 'config': dict(CustomResNet(8).config, classes=2_000_000_000)})
    save_file(CustomResNet(8).state_dict(), tmp_path/'huge.safetensors', {'cifar_resnet': json.dumps(about)})
    with pytest.raises(DataError, match='its weights do not have the shapes of that network'): load_weights(tmp_path/'huge.safetensors')


def test_weights_that_are_missing_unreadable_or_no_file(tmp_path):
    path = save_weights(CustomResNet(8), tmp_path/'w.safetensors')
    with without_permission(path), pytest.raises(DataError, match='w.safetensors cannot be read: Permission denied'): load_weights(path)
    os.mkfifo(tmp_path/'pipe.safetensors')
    with pytest.raises(DataError, match='pipe.safetensors is not a regular file'): load_weights(tmp_path/'pipe.safetensors')
    with pytest.raises(DataError, match='none.safetensors was not found'): load_weights(tmp_path/'none.safetensors')
