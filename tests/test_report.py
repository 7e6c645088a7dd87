"""Reports on small runs of every recipe: one epoch, width 8, on some digits."""
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from cifar_resnet import report
from cifar_resnet.analysis import predict
from cifar_resnet.core import load_record, record_names, to_plain
from cifar_resnet.data import get_data
from cifar_resnet.model import CustomResNet
from cifar_resnet.recipes import change, recipes, run_recipe
from cifar_resnet.report import write_report
from cifar_resnet.train import FitConfig, OneCycle, check_record, fit

SECTIONS = ['The run', 'Class by class', 'Confidence', 'Errors with the highest loss', 'Random errors, and where the network looked',
            'Most confident errors: is the label right?', 'Robustness to damage', 'Features of the last layer']

DRAWN = 'eva8_s8', 'era_s10'  # recipes whose reports are made with all figures


@pytest.fixture(scope='module')
def data():
    "A few digits under the name of CIFAR-10, so that every recipe brings its own normalization"
    digits = get_data('digits')
    return replace(digits, name='cifar10', train=digits.train[:120], valid=digits.valid[:8], test=digits.test[:40])


@pytest.fixture(scope='module')
def make_run(data, tmp_path_factory):
    "Return a function that trains a recipe the first time it is asked for: (its `Run`, its record as a user's folder has it)"
    runs = {}

    def make_run(name):
        if name not in runs:
            small = change(recipes()[name], name, network=recipes()[name].network | dict(width=8))
            out = tmp_path_factory.mktemp(name)
            run = run_recipe(small, data, epochs=1, out=out, batch_size=32, device='cpu', progress=False)
            runs[name] = run, json.loads((out/'run.json').read_text())
        return runs[name]
    return make_run


def name_figure(fig, caption):
    "Stand in for `_figure`, which takes a second for each"
    assert isinstance(fig, Figure)
    return f'<figure><img alt="{caption}" src="data:image/png;base64,"></figure>'


@pytest.fixture(scope='module')
def write(make_run, data, tmp_path_factory):
    "Return a function that writes the report on a recipe the first time it is asked for, and returns the page; some with figures that are really drawn"
    pages = {}

    def write(name):
        if name not in pages:
            run, record = make_run(name)
            path = tmp_path_factory.mktemp('report')/'page.html'
            with pytest.MonkeyPatch.context() as patch:
                if name not in DRAWN: patch.setattr(report, '_figure', name_figure)
                assert write_report(record, run.model, data, path, sample=20) == path
            pages[name] = path.read_text(encoding='utf-8')
        return pages[name]
    return write


@pytest.fixture
def without_figures(monkeypatch): monkeypatch.setattr(report, '_figure', name_figure)


class Page(HTMLParser):
    "The elements of a page, after a check that each one is closed"
    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.titles, self.anchors, self.ids, self.tags = [], [], [], [], [], set()
        self.feed(text)
        self.close()
        assert not self.open, f'never closed: {self.open}'

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        if tag == 'img': self.images.append(attrs)
        if tag == 'a': self.anchors.append(attrs['href'].removeprefix('#'))
        if tag == 'h2': self.ids.append(attrs['id'])
        if tag not in ('img', 'meta'): self.open.append(tag)

    def handle_endtag(self, tag): assert self.open.pop() == tag, f'</{tag}> closes nothing'

    def handle_data(self, text):
        if self.open and self.open[-1] == 'h2': self.titles.append(text)


def settings_of(page): return dict(re.findall('<tr><th>(.*?)</th><td>(.*?)</td></tr>', page))


@pytest.mark.parametrize('name', recipes())
def test_every_recipe(write, make_run, name):
    run, record = make_run(name)
    text = write(name)
    page, settings = Page(text), settings_of(text)
    assert settings['network'].startswith(f"class {record['network']['class']}, parameters {run.record['n_params']:,}, width 8")
    assert f'{run.test_acc:.2%} of 40 test images correct' in text and f"mean loss {record['test_loss']:.4f}" in text
    assert [t.removesuffix(', and where the network looked') for t in page.titles] == [t.removesuffix(', and where the network looked') for t in SECTIONS]
    assert page.anchors == page.ids and len(page.ids) == len(SECTIONS)
    assert len(page.images) >= 9 and all(i['alt'] and i['src'].startswith('data:image/png;base64,') for i in page.images)
    assert name not in DRAWN or all(len(i['src']) > 5000 for i in page.images)
    assert not page.tags & {'script', 'link'} and not re.search('https?:', text)  # it needs nothing else
    assert 'nan' not in text[:text.index('<img')] and 'None' not in text[:text.index('<img')]


def test_the_settings_of_a_recipe(write):
    eva8_s8, era_s10 = (settings_of(write(name)) for name in ('eva8_s8', 'era_s10'))
    assert 'softmax True' in eva8_s8['network'] and 'stages (prep=(drop=0.02), layer2=(drop=0.02))' in era_s10['network']
    assert era_s10['schedule'] == '1 epochs: learning rate from 2.3e-05 to 0.046 at epoch 0.208, then to 2.3e-07 (linear)'
    assert era_s10['optimizer'] == 'Optim(name=adam, momentum=0.9, weight_decay=0.0001, decay_all=True, nesterov=True)'
    assert era_s10['augmentation'].startswith('ResizedCrop(p=0.2, scale=[0.08, 1.0], ratio=[0.75, 1.3333333333333333]), Flip(p=0.2, vertical=False), Cutout(')
    assert era_s10['normalization'] == 'mean [0.491, 0.482, 0.447], std [0.247, 0.244, 0.262]'


@pytest.mark.parametrize('name', ['eva6_s9', 'one_cycle'])
def test_the_normalization_of_the_run_is_used(make_run, data, monkeypatch, tmp_path, name):
    run, record = make_run(name)
    splits, other = [], data.normalized_by((.1, .2, .3), (.5, .6, .7))

    def spy(model, split, **kwargs):
        splits.append(split)
        return predict(model, split, **kwargs)
    for attr, value in ('predict', spy), ('_sections', lambda record, preds, known, sample: {}): monkeypatch.setattr(report, attr, value)
    text = write_report(record, run.model, other, tmp_path/'page.html').read_text(encoding='utf-8')
    assert [(s.mean, s.std) for s in splits] == [(tuple(record['mean']), tuple(record['std']))]*2 and record['mean'] != list(other.mean)
    assert f"mean loss {record['test_loss']:.4f}" in text
    splits.clear()
    write_report({k: v for k, v in record.items() if k not in ('mean', 'std')}, run.model, other, tmp_path/'page.html')
    assert splits[0].mean == other.mean  # an older record does not have it


def test_a_schedule_that_had_no_effect(write):
    "eva6_s9 rebuilds its optimizer each epoch"
    assert 'no effect, because each epoch built a new optimizer with a learning rate of 0.01' in write('eva6_s9')
    assert 'no effect' not in write('one_cycle') and 'Learning rate and momentum of every step' in write('one_cycle')


def test_a_network_without_layer3_and_fc(write):
    "eva6_s9 has neither"
    page = Page(write('eva6_s9'))
    assert 'Random errors' in page.titles and 'Random errors, and where the network looked' not in page.titles
    assert 'no linear layer named fc' in write('eva6_s9')
    assert SECTIONS == Page(write('one_cycle')).titles


@pytest.mark.parametrize('name', [n for n in record_names() if n.startswith('recipes/') or n == 'one_cycle_24'])
def test_recorded_runs_can_be_described(name, without_figures):
    record = load_record(name)
    text = report._describe_run(record)
    settings = settings_of(text)
    assert record['network']['class'] in settings['network'] and f"{record['n_params']:,}" in settings['network']
    assert settings['trained'].endswith(record['environment']['date']) and text.count('<figure>') == 2
    Page(text)


def test_a_record_that_was_never_saved(make_run, data, tmp_path, without_figures):
    "`run.record` has no environment"
    run, _ = make_run('one_cycle')
    text = write_report(run.record, run.model, data, tmp_path/'deep'/'page.html', sample=1).read_text(encoding='utf-8')
    assert settings_of(text)['trained'].endswith(' s on cpu') and '<footer>Written by cifar_resnet</footer>' in text


def test_a_network_of_an_unknown_class(data, tmp_path, without_figures):
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3072, 10)

        def forward(self, x): return self.fc(x.flatten(1))
    torch.manual_seed(0)
    config = FitConfig(augment=None, batch_size=40, device='cpu', progress=False)
    run = fit(Tiny(), data, OneCycle(.001, .01, epochs=1, peak_epoch=0, momentum=None), config)
    text = write_report(run.record, run.model, data, tmp_path/'page.html', sample=5).read_text(encoding='utf-8')
    settings = settings_of(text)
    assert settings['network'] == 'class Tiny, parameters 30,730' and settings['augmentation'] == 'none' and 'Random errors' in Page(text).titles


def test_a_network_without_errors(make_run, data):
    run, record = make_run('one_cycle')
    preds = predict(run.model, data.test, progress=False)
    flawless = replace(preds, split=replace(preds.split, labels=preds.predicted))
    drawn = {title: draw() for title, draw in report._sections(record, flawless, flawless, 5).items() if 'errors' in title.lower()}
    assert len(drawn) == 3 and all(part == '<p>There are none: every prediction is correct.</p>' for part in drawn.values())
    assert '100.00% of 40 test images correct' in report._page(record, flawless, drawn)
    assert report._pairs(flawless) == ''


@pytest.mark.parametrize('n', [1, 4, 6])
def test_few_test_images(make_run, data, tmp_path, without_figures, n):
    run, record = make_run('one_cycle')
    text = write_report(record, run.model, replace(data, test=data.test[:n], train=data.train[:3]), tmp_path/'page.html', sample=5).read_text(encoding='utf-8')
    assert f'of {n} test images' in text and ('Too few images to draw.' in text) == (n < 5)


def test_no_test_images(make_run, data, tmp_path):
    run, record = make_run('one_cycle')
    with pytest.raises(ValueError, match='a report needs test images, and cifar10 has none here'):
        write_report(record, run.model, replace(data, test=data.test[:0]), tmp_path/'page.html')
    with pytest.raises(ValueError, match='sample must be a whole number of at least 1'): write_report(record, run.model, data, tmp_path/'page.html', sample=0)
    assert not list(tmp_path.iterdir())


def test_text():
    assert report._to_text(to_plain(recipes()['one_cycle'].config.augment)) == (
        'Steps(steps=[Crop(pad=4, mode=reflect, p=1.0), Flip(p=0.5, vertical=False), Cutout(side=8, p=1.0, fill=[125, 123, 114], inside=True)])')
    assert report._to_text({'a': 1, 'b': None, 'c': [1, [2, 3]], 'd': {'e': 4}}) == 'a 1, c [1, [2, 3]], d (e=4)'
    assert report._to_text(()) == report._to_text([]) == report._to_text(None) == 'none' and report._to_text(['a', ['b']]) == 'a, [b]'
    assert report._escape('<b>&"') == '&lt;b&gt;&amp;&quot;'


def test_class_names_cannot_break_the_page(make_run, data):
    run, record = make_run('one_cycle')
    named = replace(data.test, classes=tuple(f'<i>{c}' for c in data.classes))
    preds = replace(predict(run.model, data.test, progress=False), split=named)
    text = report._lines(report.class_table(preds)) + report._pairs(preds)
    assert '&lt;i&gt;zero' in text and '<i>' not in text and np.unique(preds.predicted).size


def test_a_network_that_collapsed(make_run, data, tmp_path):
    "t-SNE on features that do not differ ends the process: the report says so in words"
    record = make_run('one_cycle')[1]
    model = CustomResNet(8)
    with torch.no_grad():
        for p in model.parameters(): p.zero_()
    page = write_report(record, model, data, tmp_path/'page.html', sample=5).read_text(encoding='utf-8')
    Page(page)
    assert 'Nothing to draw: an embedding takes at least 5 images whose features differ' in page


@pytest.mark.parametrize('change,says', [
    (dict(seconds='long'), 'its seconds is missing, or of another kind'), (dict(epochs=[]), 'it has no epochs'), (dict(epochs='x'), 'its epochs are not a list'),
    (dict(test_acc=2), 'its test_acc must be a number at least 0 and at most 1 (got 2)'), (dict(steps_per_epoch=10**12), 'its steps_per_epoch must be'),
    (dict(schedule={'kind': 'OneCycle', 'lr_max': 1}), 'its schedule cannot be used'), (dict(schedule={'kind': 'Popen'}), 'its schedule cannot be used'),
    (dict(schedule=dict(kind='OneCycle', lr_min=0, lr_max=1, epochs=10**9)), 'its schedule cannot be used'), (dict(network={}), 'its network has no class'),
    (dict(config={'optim': 1}), 'its config has no batch_size'), (dict(mean=['a', 0, 0]), 'its mean must be a finite number'), (dict(environment=3), 'its environment is of another kind')])
def test_records_with_odd_fields(make_run, change, says):
    record = make_run('one_cycle')[1]
    assert check_record(record) is record
    with pytest.raises(ValueError) as e: check_record(record | change)
    assert says in str(e.value) and '\n' not in str(e.value)
    for name in 'epochs', 'schedule', 'augment', 'config', 'data':
        with pytest.raises(ValueError): check_record({k: v for k, v in record.items() if k != name})
