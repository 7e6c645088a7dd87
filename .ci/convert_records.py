"""Bring records of version 0.1.0 into today's shape: python .ci/convert_records.py [FILE …], all of results/ when none is named.

A run that was started with the old package ends with an old record; this converts it. A record in today's shape is left alone.
"""
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from cifar_resnet import recipes as R
from cifar_resnet.anatomy import count_macs
from cifar_resnet.augment import Crop, Cutout, Flip, Steps
from cifar_resnet.core import results_folders, to_plain, write_atomic
from cifar_resnet.data import CIFAR10_MEAN, CIFAR10_STD
from cifar_resnet.device import Optim
from cifar_resnet.model import CustomResNet
from cifar_resnet.train import OneCycle

RENAMED = {'-mended': '-fixed', 'made-anew': 'rebuilt', 'normalise': 'normalize'}


def rename(name):
    for old, new in RENAMED.items(): name = name.replace(old, new)
    return name


def read_augment(old):
    "A dict of BatchAugment's fields, or the text of Steps"
    if isinstance(old, dict): return Steps((Crop(old['pad']), *[Flip(old['flip'])]*(old['flip'] > 0), Cutout(old['cutout'], fill=old['fill'])))
    words = dict(Steps=Steps, Crop=Crop, Flip=lambda p, upside_down: Flip(p, upside_down), Cutout=lambda side, p, fill, whole=True: Cutout(side, p, fill, whole),
                 ResizedCrop=R.ResizedCrop, Grey=R.Gray)
    return eval(old, {'__builtins__': {}}, words)


def convert(old):
    recipe = rename(old.get('recipe', 'one_cycle'))
    optim, schedule = Optim(**old['config']['optim']), {k: v for k, v in old['schedule'].items() if k not in ('pct', 'div', 'final_div')}
    if schedule['momentum'] is None and schedule['lr_min'] == schedule['lr_max']:  # a constant rate stood for a rebuilt optimizer
        source = R.find_recipes(recipe)[0]
        optim, schedule = replace(optim, rebuilt_at=schedule['lr_max']), to_plain(source.schedule.stretch(schedule['epochs']))
        schedule.pop('kind')
    schedule, n = OneCycle(**schedule), old['steps_per_epoch']
    overlapping = old['n_params'] == 4_058_122
    softmax = dict(softmax=True) if old.get('body') == 'SoftmaxNet' or recipe in ('eva8_s8', 'eva8_resnetf') else {}
    net = R.OverlappingNet() if overlapping else CustomResNet(**old['network'] | softmax)
    source = R.find_recipes(recipe)[0] if recipe in R.recipes() or recipe.endswith('-fixed') else R.ONE_CYCLE
    def last_rate(epoch): return optim.rebuilt_at or schedule.at(epoch*n - 1, n)[0]
    new = dict(old, recipe=recipe, name=rename(old['name']), network={'class': type(net).__name__, 'config': to_plain(net.config)},
               mean=list(source.mean or CIFAR10_MEAN), std=list(source.std or CIFAR10_STD), schedule=to_plain(schedule), augment=to_plain(read_augment(old['augment'])),
               epochs=[dict(e, lr=last_rate(e['epoch'])) for e in old['epochs']], pflop=6*count_macs(net)*old['images']*len(old['epochs'])/1e15)
    new['config'] = dict(optim=to_plain(optim), **{k: v for k, v in old['config'].items() if k != 'optim'})
    new.pop('body', None)
    return new


def convert_weights(path):
    "Name the network's class in a file of weights; return what a record says of the file"
    from safetensors import safe_open
    from safetensors.torch import save
    with safe_open(path, 'pt') as f: about, state = json.loads(f.metadata()['cifar_resnet']), {k: f.get_tensor(k) for k in f.keys()}
    content = save(state, {'cifar_resnet': json.dumps({'class': 'CustomResNet'} | about)})
    write_atomic(path, content)
    return dict(file=path.name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def is_old(record): return isinstance(record.get('epochs'), list) and 'kind' not in record.get('schedule', {'kind': 1})


def main(paths):
    for path in paths:
        record = json.loads(path.read_text(encoding='utf-8'))
        if not is_old(record): continue
        new, target = convert(record), path.with_name(rename(path.name))
        if 'weights' in new: new['weights'] = convert_weights(path.with_name(new['weights']['file']))
        write_atomic(target, (json.dumps(new, indent=1) + '\n').encode())
        if target != path: path.unlink()
        print(target.name)


if __name__ == '__main__': main([Path(p).resolve() for p in sys.argv[1:]] or sorted(results_folders()[0].rglob('*.json')))
