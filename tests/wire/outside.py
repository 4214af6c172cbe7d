"""A copy source outside the endpoint: an https server on the loopback with a certificate of its own.

`/slow` promises a mebibyte and sends none of it before the test ends, so that a copy stays pending; `/cut` promises as
much and hangs up; `/page` says it is a page blob.
"""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

SLOW_BYTES: Final = 1024 * 1024


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    over: threading.Event

    def do_GET(self) -> None:
        blob_type = "PageBlob" if self.path == "/page" else "BlockBlob"
        length = SLOW_BYTES if self.path in ("/slow", "/cut") else 0
        self.send_response(200)
        for name, value in (("Content-Length", str(length)), ("ETag", '"0x1"'), ("x-ms-blob-type", blob_type)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        if self.path == "/slow":
            self.over.wait()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, context: ssl.SSLContext) -> None:
        over = threading.Event()
        super().__init__(("127.0.0.1", 0), type("Handler", (_Handler,), {"over": over}))
        self.over = over
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


@contextmanager
def outside(context: ssl.SSLContext) -> Iterator[str]:
    """The URL of such a server, for the length of the block."""
    server = _Server(context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.over.set()
        server.shutdown()
        with suppress(OSError):
            server.server_close()
        thread.join()
