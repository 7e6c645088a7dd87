"""Build the site into _docs/: with Quarto where it is installed, else with nbdev's own processing and smalldocs.

usage: python .ci/docs.py                builds it
       python .ci/docs.py smalldocs      builds it with smalldocs, also where Quarto is
       python .ci/docs.py preview        builds it, serves it on this machine, and does so again on every change
"""
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from nbdev.config import get_config

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT/'_pages'  # what smalldocs reads: the processed notebooks, under the names that Quarto gives their pages
SCRIPTS = Path(sys.executable).parent
NUMBERED = re.compile(r'(?<![/\w])\d+[a-z]?_(\w+\.ipynb)')  # not in addresses, which go on to name the real file


def as_quarto_names_it(text):
    "Quarto makes data.html of 00_data.ipynb, for it reads the `output-file` that nbdev writes; smalldocs does not"
    return re.sub(r'"output-file: \S+\\n",?\s*', '', NUMBERED.sub(r'\1', text))


def prepare():
    "For the processes that nbdev starts"
    os.environ['PYTHONWARNINGS'] = 'ignore:Found cells containing imports'  # cells that define a function with an import in it
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT/'.ci'), os.environ.get('PYTHONPATH')]))  # for shown.py


def process():
    "Notebooks that are new go through nbdev, and into PAGES"
    from nbdev.doclinks import _build_modidx
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    refresh_quarto_yml()
    _build_modidx()
    PAGES.mkdir(exist_ok=True)
    for path in proc_nbs().iterdir():
        if path.name == '_docs' or path.name.startswith('.'): continue
        page, text = PAGES/NUMBERED.sub(r'\1', path.name), as_quarto_names_it(path.read_text(encoding='utf-8'))
        if not page.exists() or page.read_text(encoding='utf-8') != text: page.write_text(text, encoding='utf-8')


def start_afresh():
    for folder in PAGES, ROOT/'_proc': shutil.rmtree(folder, ignore_errors=True)


def build(how=''):
    if how != 'smalldocs' and shutil.which('quarto'): return subprocess.run([SCRIPTS/'nbdev_docs'], cwd=ROOT, check=True)
    start_afresh()
    process()
    subprocess.run([SCRIPTS/'smalldocs', 'render', PAGES], cwd=ROOT, check=True)
    shutil.rmtree(ROOT/'_docs', ignore_errors=True)
    shutil.move(PAGES/get_config().doc_path.name, ROOT/'_docs')


def sources(): return {p: p.stat().st_mtime for p in [ROOT/'_quarto.yml', *(ROOT/'nbs').glob('*.ipynb'), *(ROOT/'nbs').glob('*.css')]}


def preview():
    if shutil.which('quarto'): return subprocess.run([SCRIPTS/'nbdev_preview'], cwd=ROOT)
    start_afresh()
    process()
    server = subprocess.Popen([SCRIPTS/'smalldocs', 'preview', PAGES, *sys.argv[2:]], cwd=ROOT)  # it rebuilds and reloads when PAGES changes
    try:
        seen = sources()
        while server.poll() is None:
            time.sleep(1)
            if (now := sources()) != seen:
                seen = now
                process()
    except KeyboardInterrupt: pass
    finally: server.terminate()


if __name__ == '__main__':
    prepare()
    if sys.argv[1:2] == ['preview']: sys.exit(preview())
    build(*sys.argv[1:])
    print(ROOT/'_docs'/'index.html')
