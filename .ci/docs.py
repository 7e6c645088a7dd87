"""Build the site into _docs/: with Quarto where it is installed, else with nbdev's own processing and smalldocs.

`smalldocs` takes smalldocs also where Quarto is; `preview` serves the site on this machine, and builds it again on every change.
"""
import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import finish
import try_tool
from nbdev.config import get_config

ROOT = get_config().config_path
PAGES = ROOT/'_pages'  # what smalldocs reads: the processed notebooks, under the names that Quarto gives their pages
SCRIPTS = Path(sys.executable).parent
NUMBERED = re.compile(r'(?<![/\w])\d+[a-z]?_(\w+\.ipynb)')  # not in addresses, which go on to name the real file


HOME = f'{get_config().doc_host}{get_config().doc_baseurl}/'  # nbdev links names to their pages by the site's address


def as_quarto_names_it(text):
    "Name pages as Quarto does (data.html for 00_data.ipynb, by the `output-file` that smalldocs does not read), and link within the site"
    text = re.sub(r'"output-file: \S+\\n",?\s*', '', NUMBERED.sub(r'\1', text)).replace(HOME, '')
    text = re.sub(r'\[(`[\w.]+`)\]\(\w+\.html#_\w+\)', r'\1', text)  # a private name has no heading to link to
    return re.sub(r'(\]\(\w+\.html#\w+)\.\w+\)', r'\1)', text)  # a method is documented with its class


def prepare():
    "For the processes that nbdev starts"
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT/'.ci'), os.environ.get('PYTHONPATH')]))  # for shown.py


def process(pages=PAGES):
    "Notebooks that are new go through nbdev, and into the folder that smalldocs reads"
    from nbdev.doclinks import _build_modidx
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    refresh_quarto_yml()
    _build_modidx()
    pages.mkdir(exist_ok=True)
    sources = {p.name for p in (ROOT/'nbs').glob('*.ipynb')}
    named = Counter(NUMBERED.sub(r'\1', name) for name in sources)
    if twice := [name for name, n in named.items() if n > 1]: sys.exit(f"two notebooks would make the same page: {', '.join(twice)}")
    for path in proc_nbs().iterdir():
        if not path.is_file() or path.suffix == '.ipynb' and path.name not in sources: continue
        content = path.read_bytes()
        if path.suffix in ('.ipynb', '.yml'): content = as_quarto_names_it(content.decode()).encode()
        page = pages/NUMBERED.sub(r'\1', path.name)
        if not page.exists() or page.read_bytes() != content: page.write_bytes(content)
    for page in pages.glob('*.ipynb'):
        if page.name not in named: page.unlink()


def start_afresh(pages=PAGES):
    for folder in pages, ROOT/'_proc': shutil.rmtree(folder, ignore_errors=True)


def build(how):
    if how != 'smalldocs' and shutil.which('quarto'): subprocess.run([SCRIPTS/'nbdev_docs'], cwd=ROOT, check=True)
    else:
        start_afresh()
        process()
        subprocess.run([SCRIPTS/'smalldocs', 'render', PAGES], cwd=ROOT, check=True)
        shutil.rmtree(ROOT/'_docs', ignore_errors=True)
        shutil.move(PAGES/get_config().doc_path.name, ROOT/'_docs')
    try_tool.add_tool(ROOT/'_docs')
    finish.finish(ROOT/'_docs')


def sources():
    found = {}
    for path in [ROOT/'_quarto.yml', *(ROOT/'nbs').glob('*.ipynb'), *(ROOT/'nbs').glob('*.css')]:
        with suppress(OSError): found[path] = path.stat().st_mtime  # an editor may be replacing it
    return found


def in_use(port):
    with socket.socket() as s: return s.connect_ex(('127.0.0.1', port)) == 0


def preview(port, options):
    if shutil.which('quarto'): return subprocess.run([SCRIPTS/'nbdev_preview'], cwd=ROOT).returncode
    pages = ROOT/'_preview'
    if in_use(port): return f'port {port} is in use: choose another with --port (a preview may be running already)'
    server = None
    try:
        start_afresh(pages)
        process(pages)
        server = subprocess.Popen([SCRIPTS/'smalldocs', 'preview', pages, '--port', str(port), *options], cwd=ROOT)  # it rebuilds and reloads when a page changes
        seen = sources()
        while server.poll() is None:
            time.sleep(1)
            if (now := sources()) == seen: continue
            seen = now
            try: process(pages)
            except Exception as e: print(f'not shown yet, it cannot be read: {e}', file=sys.stderr)
        return server.returncode
    except KeyboardInterrupt: return 0
    finally:
        if server: server.terminate()


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('how', nargs='?', default='', choices=['', 'smalldocs', 'preview'])
    parser.add_argument('--port', type=int, default=4200, help='of the preview')
    parser.add_argument('--no-browser', action='store_true', help='do not open the preview')
    args = parser.parse_args()
    prepare()
    if args.how == 'preview': sys.exit(preview(args.port, ['--no-browser']*args.no_browser))
    build(args.how)
    print(ROOT/'_docs'/'index.html')
