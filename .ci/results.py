"""Make recorded runs and measurements.

usage: python .ci/results.py cpu|gpu [NAME]     the planned runs that results/ lacks, most valuable first; with NAME, those whose names begin so;
                                                 interrupt at any moment, the next call continues; a second process beside it takes other runs
       python .ci/results.py bench         the speed of training on this CPU, beside the baseline
       python .ci/results.py demo          the seconds that `make demo` takes, three times
       python .ci/results.py analysis      the seconds of predicting all test images, and of a report
       python .ci/results.py mistakes      accuracy without near copies of training images, and calibration errors with their intervals
       python .ci/results.py views         accuracy and cost of several views of each test image
       python .ci/results.py limits        where the time of a training step goes on this CPU, and how near it is to the machine's limit
       torchrun --nproc_per_node=2 .ci/results.py scaling      the speed of one process and of two on this CPU
"""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # this script also runs where neither the package nor nbdev is installed
sys.path.insert(0, str(ROOT))


def measure_seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bench():
    "Measure the speed on this CPU, and record it"
    from cifar_resnet.core import save_record
    from cifar_resnet.data import get_data
    from cifar_resnet.records import compare_speed, limits_table, speed_table
    record = compare_speed(get_data('cifar10'))
    print(speed_table(record), limits_table(record), save_record('bench_cpu', record), sep='\n')


def demo(times=3):
    "Measure `make demo` where everything is installed"
    from cifar_resnet.core import save_record
    seconds, accs = [], []
    for _ in range(times):
        seconds.append(measure_seconds(lambda: subprocess.run(['make', '-s', 'demo'], cwd=ROOT, check=True)))
        accs.append(json.loads((ROOT/'runs'/'demo'/'run.json').read_text(encoding='utf-8'))['test_acc'])
    record = dict(data='digits', trained_on='cpu', rounds=times, demo_seconds=seconds, test_acc=accs)
    print(f'{min(seconds):.0f} to {max(seconds):.0f} s, test accuracy {accs}', save_record('demo', record), sep='\n')


def analysis(times=3):
    "Measure predicting all test images of CIFAR-10, and writing a report on them"
    from cifar_resnet.analysis import predict
    from cifar_resnet.core import load_record, save_record
    from cifar_resnet.data import get_data
    from cifar_resnet.model import load_weights
    from cifar_resnet.report import write_report
    data, model, run = get_data('cifar10'), load_weights('one_cycle_24')[0], load_record('one_cycle_24')
    predicting = [measure_seconds(lambda: predict(model, data.test, progress=False)) for _ in range(times)]
    with tempfile.TemporaryDirectory() as folder: writing = [measure_seconds(lambda: write_report(run, model, data, Path(folder)/'report.html'))]
    record = dict(data='cifar10', trained_on='cpu', images=len(data.test), predict_seconds=predicting, report_seconds=writing)
    print(f'{min(predicting):.0f} to {max(predicting):.0f} s to predict, {writing[0]:.0f} s for a report', save_record('analysis_cpu', record), sep='\n')


def mistakes(above=.9):
    "Measure the accuracy without the test images that nearly repeat a training image, and the calibration error before and after scaling"
    import numpy as np
    from cifar_resnet.analysis import calibrate, ece_interval, find_near_copies, predict, reliability
    from cifar_resnet.core import save_record
    from cifar_resnet.data import get_data
    from cifar_resnet.model import load_weights
    data, weights = get_data('cifar10'), 'one_cycle_24'
    preds = predict(load_weights(weights)[0], data.test, precision='float32', progress=False)
    found, repeated, correlation = find_near_copies(data.test, data.full, float(above))
    kept = np.setdiff1d(np.arange(len(preds)), found)
    scaled, temperatures = calibrate(preds)
    record = dict(data='cifar10', weights=weights, trained_on='cpu', precision='float32', images=len(preds), correct=int(preds.correct.sum()),
                  near_copies=dict(above=float(above), images=len(found), correct=int(preds[found].correct.sum()), same_label=int((data.test.labels[found] == data.full.labels[repeated]).sum()),
                                   others=len(kept), others_correct=int(preds[kept].correct.sum()), test=found[:8].tolist(), train=repeated[:8].tolist(), correlation=[round(float(r), 4) for r in correlation[:8]]),
                  temperatures=temperatures, **{name: dict(ece=reliability(p)[1], interval=ece_interval(p)) for name, p in (('unscaled', preds), ('scaled', scaled))})
    print(record, save_record('mistakes', record), sep='\n')


def scaling(rounds=5, steps=2, width=64, batch_size=512):
    "Measure the speed of one process with one thread and with two, and of two processes with a thread each, in turns"
    from dataclasses import replace
    import torch
    from cifar_resnet.core import save_record
    from cifar_resnet.data import get_data
    from cifar_resnet.device import World, enter_world
    from cifar_resnet.distributed import join_processes
    from cifar_resnet.model import CustomResNet
    from cifar_resnet.train import FitConfig, OneCycle, Trainer, train_epoch
    with join_processes('cpu') as world:
        data = get_data('cifar10')
        few = replace(data, train=data.train[:steps*batch_size])
        def make_trainer(): return Trainer(CustomResNet(width, logit_scale=.125), few, OneCycle(.01, .02), FitConfig(batch_size=batch_size, device='cpu'))
        with enter_world(World()): alone = make_trainer()
        together, gradients = make_trainer(), torch.zeros(sum(p.numel() for p in alone.model.parameters()))
        def train(trainer, threads):
            if trainer is alone and not world.is_first: return
            torch.set_num_threads(threads)
            train_epoch(trainer)
        ways = {'1 process, 1 thread': lambda: train(alone, 1), '1 process, 2 threads': lambda: train(alone, 2), '2 processes, 1 thread each': lambda: train(together, 1)}
        rates, exchange = {name: [] for name in ways}, []
        for turn in range(rounds + 1):
            for name, way in ways.items():
                world.gather(None)  # both begin together
                seconds = measure_seconds(way)
                if turn: rates[name].append(steps*batch_size/seconds)  # the first turn warms up
            world.gather(None)
            seconds = measure_seconds(lambda: world.sum(gradients))
            if turn: exchange.append(seconds)
        record = dict(data=data.name, trained_on='cpu', width=width, batch_size=batch_size, rounds=rounds, steps=steps, gradients=len(gradients),
                      precision=str(alone.precision.dtype).removeprefix('torch.'), images_per_second=rates, all_reduce_seconds=exchange)
        if world.is_first: print(rates, exchange, save_record('scaling_cpu', record), sep='\n')


def views():
    "Measure accuracy and cost of one, two and six views of the test images, and of six views only where two leave the most doubt"
    from cifar_resnet.anatomy import count_macs
    from cifar_resnet.augment import Batches
    from cifar_resnet.core import save_record
    from cifar_resnet.data import get_data
    from cifar_resnet.model import load_weights
    from cifar_resnet.train import average_views, evaluate
    test, (model, _) = get_data('cifar10').test, load_weights('one_cycle_24')
    def accuracy(share): return float((average_views(model, test, share).argmax(1).numpy() == test.labels).mean())
    shares = [0, .02, .05, .1, .2, .5, 1]
    record = dict(data='cifar10', weights='one_cycle_24', trained_on='cpu', pflop_one=2*count_macs(model)*len(test)/1e15,
                  test_acc=evaluate(model, Batches(test, 1000))[1], shares=shares, accs=[accuracy(share) for share in shares])
    print(record, save_record('views', record), sep='\n')


def train_steps(how, side=32, steps=4, profile=False, batch_size=512):
    "Train for some steps in this process; print the seconds of each, and the time in each kind of operation"
    from dataclasses import replace
    import torch
    from cifar_resnet import device, train
    from cifar_resnet.data import get_data
    from cifar_resnet.model import CustomResNet
    from cifar_resnet.train import FitConfig, OneCycle, Trainer, train_epoch
    if how == 'before': train.reuse_memory = lambda: None
    if how != 'both': device.Conv2d._joined = lambda self, x: 1
    data = get_data('cifar10')
    few = replace(data, train=data.train[:batch_size], valid=data.valid[:0])
    torch.manual_seed(0)
    trainer = Trainer(CustomResNet(logit_scale=.125), few, OneCycle(.01, .02), FitConfig(batch_size=batch_size, device='cpu', sizes=(int(side),)))
    seconds = [measure_seconds(lambda: train_epoch(trainer)) for _ in range(int(steps) + 4)][4:]  # the first ones warm up, and fill the memory that is kept
    found = dict(seconds=seconds, peak_memory_mb=train.peak_memory(trainer.device))
    if profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            for _ in range(2): train_epoch(trainer)
        found['operations'] = {e.key: e.self_cpu_time_total/2e6 for e in seen.key_averages() if e.self_cpu_time_total > 2e3}
    print('\n' + json.dumps(found))


def limits(rounds=5, batch_size=512):
    "Measure, in processes that take turns, what keeping freed memory and joining small maps gain; the rate of the machine; and where the time of a step goes"
    import os
    from cifar_resnet.anatomy import count_macs
    from cifar_resnet.core import save_record
    from cifar_resnet.model import CustomResNet
    from cifar_resnet.records import measure_matrix_rate
    def run(how, *args):
        env = os.environ | dict(THP_MEM_ALLOC_ENABLE='0' if how == 'before' else '1')
        done = subprocess.run([sys.executable, __file__, 'train_steps', how, *map(str, args)], env=env, check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])
    def rate(found): return batch_size*len(found['seconds'])/sum(found['seconds'])
    turns = {how: [] for how in ('before', 'kept', 'both')}
    for turn in range(int(rounds)):
        for how, runs in turns.items(): runs.append(run(how, 32, 4, *[1]*(turn == int(rounds) - 1)))  # the last turn is profiled too
    record = dict(data='cifar10', trained_on='cpu', batch_size=batch_size, rounds=int(rounds), matrix_flops=measure_matrix_rate(), macs=count_macs(CustomResNet()),
                  images_per_second={how: [rate(found) for found in runs] for how, runs in turns.items()},
                  peak_memory_mb={how: [found['peak_memory_mb'] for found in runs] for how, runs in turns.items()},
                  by_side={side: {how: rate(run(how, side)) for how in ('before', 'both')} for side in (16, 24)},
                  operations={how: runs[-1]['operations'] for how, runs in turns.items()})
    print({k: v for k, v in record.items() if k != 'operations'}, save_record('limits_cpu', record), sep='\n')


def main(kind='', *args):
    from cifar_resnet.core import DataError, TrainingError
    from cifar_resnet.records import make_missing
    try: dict(bench=bench, demo=demo, analysis=analysis, mistakes=mistakes, scaling=scaling, views=views, limits=limits, train_steps=train_steps).get(kind, lambda *only: make_missing(kind, only=''.join(only)))(*args)
    except (DataError, TrainingError, ValueError) as e: sys.exit(f'results: {e}')
    except KeyboardInterrupt as e: sys.exit(f'results: {e or "stopped"}')


if __name__ == '__main__': main(*sys.argv[1:])
