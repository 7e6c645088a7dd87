"""The full network at batch 512, beside a data set as large as CIFAR-10, trains in less than 3 GB."""
import subprocess
import sys

from processes import HANG

RUN = """
from dataclasses import replace
import numpy as np, torch
from cifar_resnet.all import CustomResNet, OneCycle, fit, get_data
from cifar_resnet.device import peak_memory
digits = get_data('digits')
room = [np.ones((60_000, 32, 32, 3), np.uint8) for _ in range(2)]  # the arrays, and their copy on the device
few = replace(digits, train=digits.train[:512], valid=digits.valid[:0], test=digits.test[:100])
fit(CustomResNet(logit_scale=.125), few, OneCycle(.01, .01, 1, 0), batch_size=512, device='cpu', progress=False)
print(peak_memory(torch.device('cpu')))
"""


def test_peak_memory():
    run = subprocess.run([sys.executable, '-c', RUN], capture_output=True, text=True, timeout=HANG)
    assert run.returncode == 0, run.stderr
    assert 500 < float(run.stdout) < 3000, f'{run.stdout} MB'
