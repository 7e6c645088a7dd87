import contextlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'Agg')
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    "No CIFAR-10 in the environment or in the cache: only what a test puts somewhere is there"
    monkeypatch.delenv('CIFAR_RESNET_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    return tmp_path


class Mirror:
    """A web server on 127.0.0.1 that serves one file, badly if asked to.

    `behave(request)` is called for each GET with a `Request`; it writes whatever it likes.
    """
    def __init__(self, content): self.content, self.requests = content, []

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

            def serve_cut(self):  # hangs up after half of what was asked for
                status, body, extra = self._wanted()
                self._send(status, body[:len(body)//2], length=len(body), **extra)

            def serve_norange(self): self._send(200, mirror.content)  # sends all of it, whatever was asked for

            def serve_html(self): self._send(200, b'<html>please accept our cookies</html>', kind='text/html; charset=utf-8')

            def serve_htmlbig(self): self._send(200, b'<html>' + b' '*(len(mirror.content) - 6), kind='text/html')

            def serve_other(self): self._send(200, b'x'*len(mirror.content))  # the right size, other bytes

            def serve_short(self): self._send(200, mirror.content[:100])  # a whole answer, of another size

            def serve_missing(self): self._send(404, b'not here', kind='text/plain')

            def serve_busy(self): self._send(503, b'later', kind='text/plain')

            def serve_rude(self): self.connection.close()  # hangs up at once

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

            def serve_endless(self): self._unmeasured(b'more'*100_000)  # does not stop where the file ends

            def serve_garbage(self): self.wfile.write(b'SSH-2.0-\x1b[31mhello\r\n\r\n')

            def serve_loop(self):
                self.send_response(302)
                self.send_header('Location', self.path)
                self.send_header('Content-Length', '0')
                self.end_headers()

            def serve_slow(self):  # trickles
                status, body, extra = self._wanted()
                self._send(status, b'', length=len(body), **extra)
                step = max(1, len(body)//40)
                for i in range(0, len(body), step):
                    self.wfile.write(body[i:i+step])
                    self.wfile.flush()
                    threading.Event().wait(.1)

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()

    def url(self, manner): return f'http://127.0.0.1:{self.server.server_port}/{manner}'


@pytest.fixture(scope='session')
def root(): return ROOT
