"""Try the promises of tests/test_promises.py on many random cases, and record how many: `make test-faults`.

usage: python tests/promises.py [SEED]
"""
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from run import ROOT, WORKERS


def run_tests(seed):
    "Return pytest's report on all promises, with many cases of each"
    os.environ.update(CIFAR_RESNET_LONG='1', CIFAR_RESNET_SEED=str(seed), IN_TEST='1')
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder)/'report.xml'
        subprocess.run([sys.executable, '-m', 'pytest', '-q', '-rs', '-n', WORKERS, '--dist', 'worksteal', f'--junitxml={report}', 'tests/test_promises.py', 'tests/test_faults.py'], cwd=ROOT)
        return ET.parse(report).getroot().find('testsuite')


def count_cases(suite):
    "Return {promise: cases}, and the numbers of failed and skipped tests"
    promised = {}
    for test in suite.iter('testcase'):
        found = {p.get('name'): p.get('value') for p in test.iter('property')}
        if 'cases' in found: promised[found['promise']] = promised.get(found['promise'], 0) + int(found['cases'])
    return promised, int(suite.get('failures')) + int(suite.get('errors')), int(suite.get('skipped'))


def main(seed=0):
    began = time.monotonic()
    promised, failed, skipped = count_cases(run_tests(seed))
    for name, cases in promised.items(): print(f'{cases:>6,} {name}')
    print(f'{sum(promised.values()):,} cases, {failed} failed, {skipped} skipped')
    if failed or skipped: sys.exit(1)
    from cifar_resnet.core import save_record
    save_record('promises', dict(cases=promised, seed=seed, seconds=time.monotonic() - began, trained_on='cpu'))


if __name__ == '__main__': main(*map(int, sys.argv[1:]))
