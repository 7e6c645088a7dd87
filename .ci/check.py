"""Is what is made from something else what it would be made into now? Prints what is not, and how to mend it."""
import re
import subprocess
import sys
from pathlib import Path

import cells
import nbformat
import readme
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent


def contents():
    paths = [*ROOT.glob('nbs/*.ipynb'), *ROOT.glob('cifar_resnet/**/*.py'), ROOT/'pyproject.toml']
    return {p: p.read_bytes() for p in paths}


def changed_by(command):
    "Files that `command` changes; everything is put back as it was"
    before = contents()
    try:
        subprocess.run([SCRIPTS/command], cwd=ROOT, check=True)
        after = contents()
    finally:
        for path in contents().keys() - before.keys(): path.unlink()
        for path, text in before.items():
            if not path.exists() or path.read_bytes() != text: path.write_bytes(text)
    return sorted(str(p.relative_to(ROOT)) for p in before.keys() | after.keys() if before.get(p) != after.get(p))


def unmet():
    "Requirements of settings.ini that no line of the lock meets"
    lines = [l.split('#')[0].strip() for l in (ROOT/'requirements.lock').read_text().splitlines()]
    pins = [Requirement(l) for l in lines if l]
    cfg = cells.settings()
    wanted = [Requirement(l) for key in ('requirements', 'dev_requirements') for l in cfg[key].splitlines() if l.strip()]
    def met(want):
        mine = [p for p in pins if p.name.lower().replace('_', '-') == want.name.lower().replace('_', '-')]
        return mine and all(want.specifier.contains(next(iter(p.specifier)).version, prereleases=True) for p in mine)
    loose = [str(p) for p in pins if len(p.specifier) != 1 or next(iter(p.specifier)).operator != '==']
    bad_torch = [str(p) for p in pins if p.name == 'torch' and '2.13.0' in str(p.specifier)]
    return [str(w) for w in wanted if not met(w)] + loose + bad_torch


def tells_of_this_machine():
    "Notebooks whose saved outputs name a folder of the machine they were run on"
    return [p.name for p in sorted(ROOT.glob('nbs/*.ipynb')) if re.search(r'site-packages|/home/|/root/|/Users/', p.read_text(encoding='utf-8'))]


def without_results():
    "Notebooks whose saved outputs are errors, or of a quick run, or figures without a picture"
    for path in sorted(ROOT.glob('nbs/*.ipynb')):
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type != 'code': continue
            said = ''.join(o.get('text', '') for o in cell.outputs)
            if any(o.output_type == 'error' for o in cell.outputs): yield f'{path.name} holds an error'
            if re.search(r'^This chapter runs on digits|^skipped: .*this run is on digits', said, re.M): yield f'{path.name} was run on digits'
            if re.search(r'^#\| label: fig-', cell.source, re.M) and not any('image/' in kind for o in cell.outputs for kind in o.get('data', {})): yield f'{path.name} has a figure without a picture'


def main():
    problems = []
    problems += [f'{what}: make run-chapters' for what in dict.fromkeys(without_results())]
    if named := tells_of_this_machine(): problems.append(f"saved outputs name folders of this machine in {', '.join(named)}: mend the cell and run it again")
    if files := changed_by('nbdev_export'): problems.append(f"nbdev_export changes {', '.join(files)}: make export")
    if files := changed_by('nbdev_clean'): problems.append(f"nbdev_clean changes {', '.join(files)}: make export")
    picture = ROOT/readme.PICTURE
    if readme.render() != ((ROOT/'README.md').read_text(encoding='utf-8'), picture.read_bytes() if picture.exists() else b''): problems.append('README.md or its picture is not what nbs/index.ipynb gives: make readme')
    if missing := unmet(): problems.append(f"requirements.lock does not meet settings.ini for {', '.join(missing)}: make lock")
    try: cells.main(check=True)
    except SystemExit as e: problems.append(str(e))
    for p in problems: print(p, file=sys.stderr)
    print(f'check: {"nothing is out of date" if not problems else f"{len(problems)} to mend"}')
    return bool(problems)


if __name__ == '__main__': sys.exit(main())
