"""Run the whole test suite: every notebook with nbdev_test, then tests/ with pytest. The last line counts both."""
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent
WORKERS = str(min(os.cpu_count() or 1, 8))


def say_what_needs_cifar10():
    "Print where CIFAR-10 is; if it is not found, list the checks that do not run"
    if folder := os.environ.get('CIFAR_RESNET_DATA'): os.environ['CIFAR_RESNET_DATA'] = str(Path(folder).expanduser().resolve())
    from cifar_resnet.data import NotFound, get_data
    try: return print(f"CIFAR-10 from {get_data('cifar10', download=False).source}")
    except NotFound as e:
        if folder: sys.exit(f'{e}\n0 passed, 1 failed')
        print(f'{e}. So the chapters run on digits, and these checks, which need CIFAR-10, are skipped:')
    for path in sorted((ROOT/'nbs').glob('*.ipynb')):
        for cell in nbformat.read(path, 4).cells:
            for what in re.findall(r"^@needs_cifar10\(\w+, '(.+)'\)", cell.source, re.M): print(f'  {path.name}: {what}')


def run_chapters():
    "Run the notebooks; return (passed, failed)"
    n = len(list((ROOT/'nbs').glob('*.ipynb')))
    run = subprocess.run([SCRIPTS/'nbdev_test', '--timing', '--n_workers', WORKERS], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    print(run.stderr, end='')
    _, _, listed = run.stderr.partition('nbdev Tests Failed On The Following Notebooks:')
    failed = len(re.findall(r'^\t\S+\.ipynb', listed, re.M))
    if run.returncode and not failed: failed = n  # it ended before it printed the list
    return n - failed, failed


def run_pytest(args):
    "Run tests/; return (passed, failed, skipped)"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder)/'report.xml'
        subprocess.run([sys.executable, '-m', 'pytest', '-q', '-rs', '-n', WORKERS, '--dist', 'worksteal', '--durations=8', f'--junitxml={report}', 'tests', *args], cwd=ROOT)
        if not report.exists(): return 0, 1, 0
        suite = ET.parse(report).getroot().find('testsuite')
    n, failed, skipped = int(suite.get('tests')), int(suite.get('failures')) + int(suite.get('errors')), int(suite.get('skipped'))
    return n - failed - skipped, failed, skipped


def main():
    os.environ['IN_TEST'] = '1'
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # as many processes as cores, each with one thread
    say_what_needs_cifar10()
    print('\nChapters', flush=True)
    chapters = run_chapters()
    print('\nTests', flush=True)
    passed, failed, skipped = run_pytest(sys.argv[1:])
    passed, failed = passed + chapters[0], failed + chapters[1]
    print(f'\n{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''))
    return failed > 0


if __name__ == '__main__': sys.exit(main())
