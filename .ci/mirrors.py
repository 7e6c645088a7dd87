"""Download CIFAR-10 from each mirror by itself and say which of them still have it. Exit code 1 if one of them has not."""
import sys
import tempfile
import time
from dataclasses import replace

from cifar_resnet.core import DataError
from cifar_resnet.fetch import CIFAR10_ARCHIVE, fetch


def main():
    failed = 0
    for url in CIFAR10_ARCHIVE.urls:
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            try: fetch(replace(CIFAR10_ARCHIVE, urls=(url,)), folder)
            except DataError as e: failed, verdict = failed + 1, f'FAILED: {e}'
            else: verdict = f'complete and correct after {time.time() - start:.0f} s'
        print(f'{url}\n    {verdict}', flush=True)
    print(f'{len(CIFAR10_ARCHIVE.urls) - failed} passed, {failed} failed')
    return failed > 0


if __name__ == '__main__': sys.exit(main())
