"""Make the recorded runs that results/ lacks, most important first.

usage: python .ci/results.py cpu|gpu [SECONDS]     stop in good order after so many seconds
       python .ci/results.py bench                 measure the speed on this CPU again, and write it down
       python .ci/results.py demo                  the same for `make demo`, three times
       python .ci/results.py analysis              the same for predicting all test images, and for a report
"""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # also where the package is not installed

# Records that a chapter makes when it is run with CIFAR_RESNET_RERUN=1.
BY_CHAPTERS = {'feeding': '00_data', 'first_steps': '01_model', 'lr_range': '02_lr_finder', 'bench_cpu': '03_one_cycle'}


def run_chapters():
    "Run the chapters whose records are missing"
    from cifar_resnet.data import record_names
    for chapter in sorted({c for name, c in BY_CHAPTERS.items() if name not in record_names()}):
        print(f'\nnbs/{chapter}.ipynb, to make its records', flush=True)
        subprocess.run([sys.executable, ROOT/'.ci'/'run_chapters.py', ROOT/'nbs'/f'{chapter}.ipynb'], check=True, env={**os.environ, 'CIFAR_RESNET_RERUN': '1'})


def bench():
    from cifar_resnet.data import get_data, save_record
    from cifar_resnet.train import compare_speed, speed_table
    record = compare_speed(get_data('cifar10'))
    print(speed_table(record), save_record('bench_cpu', record), sep='\n')


def demo(times=3):
    "How long `make demo` takes once everything is installed, and what it gives"
    import json
    from cifar_resnet.data import save_record
    seconds, accs = [], []
    for _ in range(times):
        seconds.append(seconds_of(lambda: subprocess.run(['make', '-s', 'demo'], cwd=ROOT, check=True)))
        accs.append(json.loads((ROOT/'runs'/'demo'/'run.json').read_text(encoding='utf-8'))['test_acc'])
    record = dict(data='digits', trained_on='cpu', rounds=times, demo_seconds=seconds, test_acc=accs)
    print(f'{min(seconds):.0f} to {max(seconds):.0f} s, test accuracy {accs}', save_record('demo', record), sep='\n')


def seconds_of(work):
    import time
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def analysis(times=3):
    "How long it takes to ask about all test images of CIFAR-10, and to write a report on them"
    import tempfile
    from cifar_resnet.analysis import predict, write_report
    from cifar_resnet.data import get_data, load_record, save_record
    from cifar_resnet.model import load_weights
    data, model, run = get_data('cifar10'), load_weights('one_cycle_24')[0], load_record('one_cycle_24')
    asked = [seconds_of(lambda: predict(model, data.test, progress=False)) for _ in range(times)]
    with tempfile.TemporaryDirectory() as folder: written = [seconds_of(lambda: write_report(run, model, data, Path(folder)/'report.html'))]
    record = dict(data='cifar10', trained_on='cpu', images=len(data.test), predict_seconds=asked, report_seconds=written)
    print(f'{min(asked):.0f} to {max(asked):.0f} s to predict, {written[0]:.0f} s for a report', save_record('analysis_cpu', record), sep='\n')


def main(kind='', seconds='0'):
    from cifar_resnet.data import DataError
    try:
        if kind in ('bench', 'demo', 'analysis'): return dict(bench=bench, demo=demo, analysis=analysis)[kind]()
        from cifar_resnet.records import make_missing
        make_missing(kind, float(seconds))
        if kind == 'cpu' and not float(seconds): run_chapters()
    except (DataError, ValueError) as e: sys.exit(f'results: {e}')


if __name__ == '__main__': main(*sys.argv[1:])
