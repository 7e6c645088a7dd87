"""Training that is killed and resumed ends with the same weights, bit for bit: three trials here, twenty in `make test-faults`."""


def test_killed_and_resumed(root, start):
    run = start(root/'tests'/'faults.py', 3).wait()
    assert run.returncode == 0 and run.stdout.endswith('3 passed, 0 failed\n'), run.stdout + run.stderr
