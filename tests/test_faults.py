"""Training that is killed and resumed ends with the same weights, bit for bit: three trials here, forty in `make test-faults`."""
import os


def test_killed_at_every_kind_of_step(root, start, record_property):
    trials = 40 if os.environ.get('CIFAR_RESNET_LONG') == '1' else 3
    run = start(root/'tests'/'faults.py', trials).wait()
    assert run.returncode == 0 and run.stdout.endswith(f'{trials} passed, 0 failed\n'), run.stdout + run.stderr
    record_property('cases', trials), record_property('promise', 'test_killed_at_every_kind_of_step')
