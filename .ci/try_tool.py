"""Put the tool of the page "Try it" into the built site: the recorded network as ONNX, ONNX Runtime for the browser, script and style, in try/.

Where npm or the ONNX packages are missing, the build says so, and the page gets a line in place of the tool. .ci/docs.py calls `add_tool`.
"""
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent/'try'
CACHE = HERE.parent.parent/'.cache'
RUN = 'one_cycle_24'
PARTS = SCRIPT, BINARY = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'  # of onnxruntime-web: its build for one thread, without WebGPU
WITHOUT = '<div id="try-tool"><p>This copy of the site was built without the tool, which needs npm and the ONNX packages.</p></div>'
PLACE = re.compile(r'<div id="try-tool">.*?</div>', re.S)


class Unavailable(Exception):
    "The tool cannot be built here; the message says why"


def install_runtime():
    "Return a folder with the two files of ONNX Runtime; npm downloads and verifies them, the first time"
    lock = (HERE/'package-lock.json').read_bytes()
    kept = CACHE/f'onnxruntime-web-{hashlib.sha256(lock).hexdigest()[:12]}'
    if kept.is_dir(): return kept
    if not shutil.which('npm'): raise Unavailable('npm was not found')
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        for name in 'package.json', 'package-lock.json': shutil.copy(HERE/name, folder)
        done = subprocess.run(['npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund', '--fetch-retries=1', '--fetch-timeout=60000'], cwd=folder, capture_output=True, text=True)
        if done.returncode: raise Unavailable(f'npm could not install onnxruntime-web: {first_error(done.stderr)}')
        wanted = Path(folder)/'wanted'
        wanted.mkdir()
        for name in PARTS: shutil.copy(Path(folder)/'node_modules'/'onnxruntime-web'/'dist'/name, wanted)
        wanted.rename(kept)
    return kept


def first_error(text):
    return next((line.removeprefix('npm error ') for line in text.splitlines() if line.startswith('npm error ') and not line.startswith('npm error code')), 'it gave no reason')


def build_network():
    "Return (ONNX file, names of the classes) of the recorded run: with maps, and with weights in 16 bits"
    from cifar_resnet.core import DataError
    from cifar_resnet.export import to_onnx
    from cifar_resnet.model import load_weights
    try:
        model, notes = load_weights(RUN)
        return to_onnx(model, notes, maps=True, half=True), notes['classes']
    except (DataError, ValueError) as e: raise Unavailable(str(e)) from None


def fill(folder):
    "Write the files of the tool into a folder; return the HTML that starts it"
    from cifar_resnet.cams import map_colors
    from cifar_resnet.interactive import MAP_SCRIPT
    runtime = install_runtime()
    network, classes = build_network()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name = f'{RUN}-{hashlib.sha256(network).hexdigest()[:8]}.onnx'
    (folder/name).write_bytes(network)
    for part in PARTS: shutil.copy(runtime/part, folder)
    shutil.copy(HERE/'tool.css', folder)
    (folder/'tool.js').write_text(MAP_SCRIPT + (HERE/'tool.js').read_text(encoding='utf-8'), encoding='utf-8')
    settings = dict(classes=classes, cells=4, share=.55, colors=map_colors().ravel().tolist(), script=SCRIPT, files=[dict(name=n, size=(folder/n).stat().st_size) for n in (name, BINARY)])
    return (f'<link rel="stylesheet" href="try/tool.css"><div id="try-tool"><noscript>The tool needs JavaScript.</noscript>'
            f'<script type="application/json">{json.dumps(settings)}</script><script type="module" src="try/tool.js"></script></div>')


def add_tool(site):
    "Replace the placeholder on the page by the tool, or by a line that says why it is not there"
    page = site/'try.html'
    text = page.read_text(encoding='utf-8')
    if not PLACE.search(text): raise ValueError(f'{page} has no <div id="try-tool">')
    try: tool = fill(site/'try')
    except Unavailable as e:
        print(f'The page "Try it" is built without its tool: {e}')
        tool = WITHOUT
    page.write_text(PLACE.sub(lambda _: tool, text), encoding='utf-8')
