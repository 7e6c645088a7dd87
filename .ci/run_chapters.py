"""Run chapters in a real Jupyter kernel, every cell of them, and keep the outputs; note how long each took.

usage: python .ci/run_chapters.py [nbs/00_data.ipynb …]     all chapters when none is named
"""
import base64
import re
import sys
import time
from pathlib import Path

import figures
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.config import get_config

NOTEBOOKS = get_config().nbs_path
BOXES = f'import sys; sys.path.append({str(Path(__file__).resolve().parent)!r}); import figures; figures.register(); sys.path.pop(); del sys, figures'  # before the first cell: saved figures say where their photographs are


def as_a_terminal_shows(text):
    "Return what is left on the screen: the last state of every progress bar, and nothing of bars that were cleared"
    lines = (re.split(r'\r', line) for line in re.sub(r'(?m)^W\d{4} .*\n?', '', text).split('\n'))  # without PyTorch's log lines
    return '\n'.join(next((part for part in reversed(states) if part), '').rstrip() for states in lines)


def with_fewer_colors(png):
    "Reduce a large PNG in base64, as notebooks save it"
    return base64.b64encode(figures.with_few_colors(base64.b64decode(png))).decode()


def tidy(cell):
    for out in cell.get('outputs', []):
        if out.output_type == 'stream': out.text = as_a_terminal_shows(out.text)
        elif 'image/png' in out.get('data', {}): out.data['image/png'] = with_fewer_colors(out.data['image/png'])
    def lasts(o): return o.text.strip() if o.output_type == 'stream' else 'application/vnd.jupyter.widget-view+json' not in o.get('data', {})
    cell.outputs = [o for o in cell.get('outputs', []) if lasts(o)]


def run(path):
    nb, start = nbformat.read(path, 4), time.time()
    nb.cells.insert(0, nbformat.v4.new_code_cell(BOXES))
    NotebookClient(nb, timeout=None, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}, coalesce_streams=True).execute()
    del nb.cells[0]
    for cell in nb.cells:
        if cell.cell_type == 'code': tidy(cell)
    nb.metadata.pop('widgets', None)
    path.write_text(nbformat.writes(nb) + '\n', encoding='utf-8')
    seconds = time.time() - start
    print(f'{path.name}: {seconds:.0f} s', flush=True)
    return seconds


def note_seconds(name, seconds):
    "The head of each chapter says how long it runs; a test compares it with this record"
    from cifar_resnet.core import load_record, record_names, save_record
    known = load_record('chapters')['run_seconds'] if 'chapters' in record_names() else {}
    save_record('chapters', dict(data='cifar10', run_seconds={**known, name: round(seconds, 1)}))


def main(paths):
    from cifar_resnet.data import course_data
    if course_data().name != 'cifar10': sys.exit('The pages show runs on CIFAR-10: set CIFAR_RESNET_DATA to its folder, and CIFAR_RESNET_QUICK to nothing')
    for path in paths:
        if not path.is_file(): sys.exit(f'{path} is not there')
    for path in paths:
        try: note_seconds(path.stem, run(path))
        except CellExecutionError as e: sys.exit(f'{e}\n{path.name} failed; it is left as it was')


if __name__ == '__main__': main([Path(name).resolve() for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob('*.ipynb')))
