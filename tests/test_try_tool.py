"""What .ci/try_tool.py puts into the built site, where a part is missing: without a network, without npm, and without building the site."""
import json
import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT/'.ci'))
import try_tool  # noqa: E402

from cifar_resnet import export  # noqa: E402

PLACEHOLDER = '<main><div id="try-tool">\n<p>The tool runs on the built site.</p>\n</div><p>after</p></main>'


@pytest.fixture
def site(tmp_path, monkeypatch):
    "A site with the placeholder, and an empty cache"
    monkeypatch.setattr(try_tool, 'CACHE', tmp_path/'cache')
    (tmp_path/'site').mkdir()
    (tmp_path/'site'/'try.html').write_text(PLACEHOLDER)
    return tmp_path/'site'


def npm(tmp_path, monkeypatch, script=None):
    "Put this script in the place of npm; none when not given"
    (tmp_path/'bin').mkdir(exist_ok=True)
    if script is not None:
        (tmp_path/'bin'/'npm').write_text(f'#!/bin/sh\n{script}\n')
        (tmp_path/'bin'/'npm').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path/"bin"}:/bin:/usr/bin' if script is not None else str(tmp_path/'bin'))


FAKE = 'mkdir -p node_modules/onnxruntime-web/dist; for f in ' + ' '.join(try_tool.PARTS) + '; do echo $f > node_modules/onnxruntime-web/dist/$f; done; echo called >> CALLS'


def is_without(site):
    page = (site/'try.html').read_text()
    return page == f'<main>{try_tool.WITHOUT}<p>after</p></main>' and not (site/'try').exists()


def test_without_npm(site, tmp_path, monkeypatch, capsys):
    npm(tmp_path, monkeypatch)
    try_tool.add_tool(site)
    assert is_without(site) and capsys.readouterr().out == 'The page "Try it" is built without its tool: npm was not found\n'


def test_without_a_network(site, tmp_path, monkeypatch, capsys):
    npm(tmp_path, monkeypatch, 'echo "npm error code ENOTFOUND" >&2; echo "npm error network request failed" >&2; exit 1')
    try_tool.add_tool(site)
    assert is_without(site) and capsys.readouterr().out.endswith('npm could not install onnxruntime-web: network request failed\n')
    assert not list((tmp_path/'cache').iterdir())  # nothing half-made stays


def test_without_the_onnx_packages(site, tmp_path, monkeypatch, capsys):
    npm(tmp_path, monkeypatch, FAKE.replace('CALLS', str(tmp_path/'calls')))
    monkeypatch.setattr(export, 'find_spec', lambda name: None)
    try_tool.add_tool(site)
    assert is_without(site) and 'pip install onnx onnxscript' in capsys.readouterr().out


def test_the_second_build_needs_no_npm(site, tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, FAKE.replace('CALLS', str(tmp_path/'calls')))
    first = try_tool.install_runtime()
    assert sorted(p.name for p in first.iterdir()) == sorted(try_tool.PARTS) and (tmp_path/'calls').read_text() == 'called\n'
    (tmp_path/'bin'/'npm').unlink()
    assert try_tool.install_runtime() == first and [p.name for p in (tmp_path/'cache').iterdir()] == [first.name]


def test_a_page_without_the_placeholder_is_an_error(site):
    (site/'try.html').write_text('<main></main>')
    with pytest.raises(ValueError, match='has no <div id="try-tool">'): try_tool.add_tool(site)


def test_every_package_is_fixed_and_has_a_checksum():
    wanted, lock = (json.loads((try_tool.HERE/name).read_text()) for name in ('package.json', 'package-lock.json'))
    packages = {name: entry for name, entry in lock['packages'].items() if name}
    assert packages['node_modules/onnxruntime-web']['version'] == wanted['dependencies']['onnxruntime-web'] and re.fullmatch(r'[\d.]+', wanted['dependencies']['onnxruntime-web'])
    assert all(entry['integrity'].startswith('sha512-') and 'resolved' not in entry for entry in packages.values())
