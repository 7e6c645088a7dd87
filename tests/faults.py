"""Kill training at random moments, resume it, and compare with a run that nobody disturbed.

usage: python tests/faults.py TRIALS [SEED]

This process only imports; every run is a forked child of its own, killed by SIGKILL. Writing a checkpoint is made slow
(0.1 s between the bytes and the rename), so that many of the kills fall into it.
"""
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # one thread: the same sums in the same order, and quick to fork

import torch  # noqa: E402
import torch._dynamo  # noqa: E402, F401  optimizers import it, late and slowly: here once for all children

from dataclasses import replace  # noqa: E402

from cifar_resnet.data import get_data  # noqa: E402
from cifar_resnet.model import CustomResNet  # noqa: E402
from cifar_resnet.train import OneCycle, fit  # noqa: E402


digits = get_data('digits')
DATA = replace(digits, train=digits.train[:256], valid=digits.valid[:64], test=digits.test[:64])


def train(out, result):
    "A run that goes on from its checkpoint if there is one, and says at its end what came of it"
    flush = os.fsync
    os.fsync = lambda fd: (flush(fd), time.sleep(.1))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    last = out/'last.pt'
    run = fit(CustomResNet(8, drop=.1), DATA, OneCycle(.02, .2, epochs=4, peak_epoch=1), batch_size=64, ema=.9,
              out=out, resume=last if last.exists() else None, progress=False)
    weights = b''.join(v.contiguous().numpy().tobytes() for v in run.model.state_dict().values())
    history = [{k: v for k, v in e.items() if k not in ('seconds', 'images_per_second')} for e in run.history]
    result.write_text(json.dumps(dict(weights=hashlib.sha256(weights).hexdigest(), history=history, test_acc=run.test_acc)))


def in_a_child(out, result, seconds=None):
    "Run `train`; after `seconds`, kill it. True if it came to its end"
    pid = os.fork()
    if pid == 0:
        try: train(out, result)
        except BaseException as e:
            print(f'the run failed: {e!r}', file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG)[0]: return True
            time.sleep(.005)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if status and not os.WIFSIGNALED(status): sys.exit('a run failed by itself: see above')
    return status == 0


def main(trials, seed=0):
    rng, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        folder, start = Path(folder), time.monotonic()
        in_a_child(folder/'whole', folder/'whole.json')
        usual, wanted = time.monotonic() - start, (folder/'whole.json').read_text()
        for trial in range(trials):
            out, result, moments = folder/f'{trial}', folder/f'{trial}.json', []
            while len(moments) < 2:
                moments.append(rng.uniform(.05, 1)*usual)
                if in_a_child(out, result, moments[-1]): break
            else: in_a_child(out, result)
            left = sorted(p.name for p in out.glob('[!.]*'))
            same = result.read_text() == wanted and left == ['best.safetensors', 'final.safetensors', 'last.pt', 'run.json']
            failed += not same
            print(f"trial {trial}: killed after {', '.join(f'{m:.2f}' for m in moments)} s of {usual:.1f}; {'identical' if same else 'DIFFERENT'}; left: {', '.join(left)}", flush=True)
    print(f'{trials - failed} passed, {failed} failed')
    return failed > 0


if __name__ == '__main__': sys.exit(main(*map(int, sys.argv[1:])))
