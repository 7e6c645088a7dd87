"""What `make check` looks at beside generated files: saved outputs, and the lock."""
import re
import sys
from pathlib import Path

import nbformat
from nbdev.config import get_config


def problems_of(path):
    "Yield what is wrong with the saved outputs of a notebook"
    if re.search(r'site-packages|/home/|/root/|/Users/|/tmp/', path.read_text(encoding='utf-8')): yield 'a saved output or a cell names a folder of one machine'
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != 'code': continue
        text = ''.join(o.get('text', '') for o in cell.outputs)
        if any(o.output_type == 'error' for o in cell.outputs): yield 'a saved output is an error'
        if 'CIFAR_RESNET_QUICK' not in cell.source and re.search(r'^This chapter runs on digits|^skipped: .*this run is on digits', text, re.M): yield 'its saved outputs are of a run on digits'
        if re.search(r'^#\| fig-(cap|alt): [^"\n][^\n]*: ', cell.source, re.M): yield 'a caption or description with a colon needs quotes'
        if re.search(r'^#\| label: fig-', cell.source, re.M) and not any('image/' in kind or kind == 'text/html' for o in cell.outputs for kind in o.get('data', {})): yield 'a figure has no saved output'


def main():
    cfg = get_config()
    problems = [f'{path.name}: {what}' for path in sorted(Path(cfg.nbs_path).glob('*.ipynb')) for what in dict.fromkeys(problems_of(path))]
    if 'torch==2.13.0' in (cfg.config_path/'requirements.lock').read_text(): problems.append('requirements.lock: torch 2.13.0 resolves to a build without torchvision on some machines')
    for p in problems: print(p, file=sys.stderr)
    print('check: everything is up to date' if not problems else f'check: {len(problems)} to fix (saved outputs: make run-chapters)')
    return bool(problems)


if __name__ == '__main__': sys.exit(main())
