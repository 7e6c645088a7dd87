import contextlib
import os
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from processes import Child

os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('OMP_NUM_THREADS', '1')  # equal sums in all processes; safe to fork
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    "Return an empty folder; hide CIFAR-10 in the environment and in the cache"
    monkeypatch.delenv('CIFAR_RESNET_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    return tmp_path


class Mirror:
    """Serve one file on 127.0.0.1, with faults on request: the first part of the path names the method `serve_…` that answers.

    `held` sends half of the file, sets `holding`, and sends the rest when the test sets `released`.
    """
    def __init__(self, content):
        self.content, self.requests = content, []
        self.holding, self.released = threading.Event(), threading.Event()

    def __enter__(self):
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def log_message(self, *args): pass

            def do_GET(self):
                mirror.requests.append((self.path, self.headers.get('Range')))
                self.close_connection = True
                with contextlib.suppress(BrokenPipeError, ConnectionResetError): getattr(self, 'serve_' + self.path.strip('/').split('/')[0])()

            def _send(self, status, body, length=None, kind='application/gzip', **headers):
                self.send_response(status)
                self.send_header('Content-Type', kind)
                self.send_header('Content-Length', str(len(body) if length is None else length))
                self.send_header('Connection', 'close')
                for k, v in headers.items(): self.send_header(k.replace('_', '-'), v)
                self.end_headers()
                self.wfile.write(body)

            def _wanted(self):
                start = int(self.headers['Range'].split('=')[1].rstrip('-')) if self.headers.get('Range') else 0
                extra = {'Content_Range': f'bytes {start}-{len(mirror.content)-1}/{len(mirror.content)}'} if start else {}
                return (206 if start else 200), mirror.content[start:], extra

            def serve_good(self):
                status, body, extra = self._wanted()
                self._send(status, body, **extra)

            def serve_cut(self):  # closes the connection after half of what was requested
                status, body, extra = self._wanted()
                self._send(status, body[:len(body)//2], length=len(body), **extra)

            def serve_norange(self): self._send(200, mirror.content)  # ignores the range

            def serve_html(self): self._send(200, b'<html>please accept our cookies</html>', kind='text/html; charset=utf-8')

            def serve_htmlbig(self): self._send(200, b'<html>' + b' '*(len(mirror.content) - 6), kind='text/html')

            def serve_other(self): self._send(200, b'x'*len(mirror.content))  # the right size, other bytes

            def serve_short(self): self._send(200, mirror.content[:100])  # a complete answer of another size

            def serve_missing(self): self._send(404, b'not here', kind='text/plain')

            def serve_busy(self): self._send(503, b'later', kind='text/plain')

            def serve_rude(self): self.connection.close()  # closes the connection at once

            def serve_evilcut(self):  # other bytes, and only half of them
                status, body, extra = self._wanted()
                self._send(status, b'?'*(len(body)//2), length=len(body), **extra)

            def _unmeasured(self, more=b''):
                self.send_response(200)
                self.send_header('Content-Type', 'application/gzip')
                self.send_header('Connection', 'close')
                self.end_headers()
                self.wfile.write(mirror.content + more)

            def serve_chunked(self):
                self.send_response(200)
                self.send_header('Transfer-Encoding', 'chunked')
                self.end_headers()
                for i in range(0, len(mirror.content), 50_000):
                    piece = mirror.content[i:i+50_000]
                    self.wfile.write(f'{len(piece):x}\r\n'.encode() + piece + b'\r\n')
                self.wfile.write(b'0\r\n\r\n')

            def serve_endless(self): self._unmeasured(b'more'*100_000)  # continues after the end of the file

            def serve_garbage(self): self.wfile.write(b'SSH-2.0-\x1b[31mhello\r\n\r\n')

            def serve_loop(self):
                self.send_response(302)
                self.send_header('Location', self.path)
                self.send_header('Content-Length', '0')
                self.end_headers()

            def serve_drip(self):  # 100 bytes every tenth of a second
                status, body, extra = self._wanted()
                self._send(status, b'', length=len(body), **extra)
                for i in range(0, len(body), 100):
                    self.wfile.write(body[i:i + 100])
                    time.sleep(.1)

            def serve_unsatisfied(self): self._send(416 if self.headers.get('Range') else 200, b'')

            def serve_held(self):  # while it holds, it sends a byte a second, so that the client does not time out
                status, body, extra = self._wanted()
                sent = len(body)//2
                self._send(status, body[:sent], length=len(body), **extra)
                mirror.holding.set()
                while not mirror.released.wait(1):
                    self.wfile.write(body[sent:sent + 1])
                    sent += 1
                self.wfile.write(body[sent:])

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def url(self, manner): return f'http://127.0.0.1:{self.server.server_port}/{manner}'


@pytest.fixture(scope='session')
def root(): return ROOT


@pytest.fixture
def start(tmp_path_factory):
    "Start `Child` processes; kill those still running after the test"
    children = []

    def start(*command, cwd='.', **kwargs):
        children.append(Child(command, cwd, tmp_path_factory.mktemp('child'), **kwargs))
        return children[-1]
    yield start
    for child in children:
        if child.returncode is None: child.kill()


@pytest.fixture(scope='session')
def address():
    "Serve the built site; give its address"
    import browser
    with browser.serve() as base: yield base


@pytest.fixture(scope='session')
def chromium():
    "One Chromium for all tests of a process"
    import browser
    from filelock import FileLock
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        with FileLock(Path(tempfile.gettempdir())/'cifar_resnet-browser.lock'): started = browser.start(p)  # one process installs, the others wait
        yield started
        started.close()
