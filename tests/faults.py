"""Kill training at random moments, resume it, and compare with an uninterrupted run.

usage: python tests/faults.py TRIALS [SEED]

A moment is a step of progress, not a time. The child counts its training steps, and the times it opens, renames or removes a file. At the
moment drawn it kills itself, or it sets a limit, also drawn, that kills it while it writes a file longer than that. Every run is a forked child.
"""
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # equal sums in all runs; safe to fork

from dataclasses import replace  # noqa: E402

import torch  # noqa: E402
import torch._dynamo  # noqa: E402, F401  optimizers import it, slowly: once for all children
from torch.optim.optimizer import register_optimizer_step_pre_hook  # noqa: E402

from cifar_resnet.all import CustomResNet, OneCycle, fit, get_data  # noqa: E402

LEFT = ['best.safetensors', 'epochs.csv', 'final.safetensors', 'last.pt', 'run.json']  # the files of a complete run

digits = get_data('digits')
DATA = replace(digits, train=digits.train[:256], valid=digits.valid[:64], test=digits.test[:64])


def train(out):
    "Train, from the checkpoint if there is one; return the results that a resumed run must reproduce"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    last = out/'last.pt'
    run = fit(CustomResNet(8, drop=.1), DATA, OneCycle(.02, .2, epochs=4, peak_epoch=1), batch_size=64, ema=.9,
              out=out, resume=last if last.exists() else None, progress=False)
    weights = b''.join(v.contiguous().numpy().tobytes() for v in run.model.state_dict().values())
    history = [{k: v for k, v in e.items() if k not in ('seconds', 'images_per_second')} for e in run.history]
    return dict(weights=hashlib.sha256(weights).hexdigest(), history=history, test_acc=run.test_acc)


def count_moments(out, act):
    "Call `act(n)` at moment n of a run, counted from 1; return a function that returns the count so far"
    n = 0

    def moment(*_):
        nonlocal n
        n += 1
        act(n)

    def audit(event, args):
        if event in ('open', 'os.rename', 'os.remove') and str(args[0]).startswith(f'{out}{os.sep}'): moment()
    sys.addaudithook(audit)
    register_optimizer_step_pre_hook(moment)
    return lambda: n


def die(size):
    "Kill this process: now, or, given a size, when it writes a file longer than `size` bytes"
    if size is None: os.kill(os.getpid(), signal.SIGKILL)
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def in_a_child(out, result, kill=None):
    "Run `train`, with a call of `die(size)` if `kill` is (moment, size); return True if the run completed"
    pid = os.fork()
    if pid == 0:
        try:
            moments = count_moments(out, lambda n: kill and n == kill[0] and die(kill[1]))
            outcome = train(out)
            result.write_text(json.dumps(dict(outcome=outcome, moments=moments())))
        except BaseException as e:
            print(f'the run failed: {e!r}', file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in ((0, -signal.SIGKILL, -signal.SIGXFSZ) if kill else (0,)): sys.exit(f'a run failed with exit code {code}')
    return code == 0


def describe(kill): return f'at moment {kill[0]}' + ('' if kill[1] is None else f' + {kill[1]:,} bytes')


def main(trials, seed=0):
    rng, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        in_a_child(folder/'whole', folder/'whole.json')
        whole, longest = json.loads((folder/'whole.json').read_text()), max(p.stat().st_size for p in (folder/'whole').iterdir())
        def draw(): return rng.randint(1, whole['moments']), rng.choice([None, rng.randrange(longest)])
        for trial in range(trials):
            out, result, kills = folder/f'{trial}', folder/f'{trial}.json', [draw()]
            while in_a_child(out, result, kills[0]):  # no file was longer than the limit: draw again
                shutil.rmtree(out)
                kills = [draw()]
            again = draw()
            if not in_a_child(out, result, again):
                kills.append(again)
                in_a_child(out, result)
            left = sorted(p.name for p in out.iterdir() if p.name != '.lock')
            same = json.loads(result.read_text())['outcome'] == whole['outcome'] and left == LEFT
            failed += not same
            print(f"trial {trial}: killed {' and '.join(map(describe, kills))}, of {whole['moments']} moments; {'identical' if same else 'DIFFERENT'}; left: {', '.join(left)}", flush=True)
    print(f'{trials - failed} passed, {failed} failed')
    return failed > 0


if __name__ == '__main__': sys.exit(main(*map(int, sys.argv[1:])))
