"""A CONNECT proxy that leads one public name to a loopback port, so that unmodified clients reach the
endpoint by name.

Clients that hardwire `https://ACCOUNT.blob.core.windows.net` honour HTTPS_PROXY. Guarantee: any target that
is not in the table is refused with 403 and never connected to, so a test cannot leave this machine by
accident. Editing /etc/hosts and listening on 443 was rejected: both need root and would disturb the machine
the tests run on.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

HEAD_BYTES_MAX = 16 * 1024
PIECE_BYTES = 256 * 1024

Address = tuple[str, int]


class Tunnel:
    """The running proxy: `url` for HTTPS_PROXY, and what was asked of it."""

    def __init__(self, targets: Mapping[str, Address]) -> None:
        self._targets = dict(targets)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connected: list[str] = []
        self.refused: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting; connections that are open end with their clients."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
                piece = client.recv(4096)
                if not piece:
                    return
                head += piece
            method, _, rest = head.decode("latin-1").partition(" ")
            target = rest.partition(" ")[0]
            if method != "CONNECT" or target not in self._targets:
                self.refused.append(f"{method} {target}")
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            self.connected.append(target)
            with socket.create_connection(self._targets[target]) as upstream:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
                back.start()
                _pump(client, upstream)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until end of stream, then pass the end on; a reset on either side ends both directions."""
    try:
        while piece := source.recv(PIECE_BYTES):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tunnel(targets: Mapping[str, Address]) -> Iterator[Tunnel]:
    """Run a proxy for the length of the block; `targets` maps "name:port" to a loopback address."""
    proxy = Tunnel(targets)
    try:
        yield proxy
    finally:
        proxy.close()
