"""Training that is killed and resumed ends at the same weights, bit for bit: three trials here, twenty in `make test-faults`."""
import subprocess
import sys


def test_killed_and_resumed(root):
    run = subprocess.run([sys.executable, root/'tests'/'faults.py', '3'], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0 and run.stdout.endswith('3 passed, 0 failed\n'), run.stdout + run.stderr
