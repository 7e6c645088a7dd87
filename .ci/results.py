"""Make recorded runs and measurements.

usage: python .ci/results.py cpu|gpu       the planned runs that results/ lacks, most valuable first; interrupt at any moment, the next call continues
       python .ci/results.py bench         the speed of training on this CPU, beside the baseline
       python .ci/results.py demo          the seconds that `make demo` takes, three times
       python .ci/results.py analysis      the seconds of predicting all test images, and of a report
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
    from cifar_resnet.records import compare_speed, speed_table
    record = compare_speed(get_data('cifar10'))
    print(speed_table(record), save_record('bench_cpu', record), sep='\n')


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


def main(kind=''):
    from cifar_resnet.core import DataError, TrainingError
    from cifar_resnet.records import make_missing
    try: dict(bench=bench, demo=demo, analysis=analysis).get(kind, lambda: make_missing(kind))()
    except (DataError, TrainingError, ValueError) as e: sys.exit(f'results: {e}')
    except KeyboardInterrupt as e: sys.exit(f'results: {e or "stopped"}')


if __name__ == '__main__': main(*sys.argv[1:])
