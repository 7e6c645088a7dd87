"""Build the site into _docs/: with Quarto where it is installed, else with nbdev's own processing and smalldocs."""
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.config import get_config

ROOT = Path(__file__).resolve().parent.parent


def with_quarto():
    subprocess.run([Path(sys.executable).parent/'nbdev_docs'], cwd=ROOT, check=True)


def with_smalldocs():
    from nbdev.doclinks import _build_modidx
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    refresh_quarto_yml()
    _build_modidx()
    processed = proc_nbs(force=True)
    subprocess.run([Path(sys.executable).parent/'smalldocs', 'render', processed], cwd=ROOT, check=True)
    built = processed/get_config().doc_path.name
    shutil.rmtree(ROOT/'_docs', ignore_errors=True)
    shutil.move(built, ROOT/'_docs')


if __name__ == '__main__':
    with_quarto() if shutil.which('quarto') else with_smalldocs()
    print(ROOT/'_docs'/'index.html')
