"""A small keep-alive HTTP/1.1 client that is never the bottleneck of a transfer.

Request heads are made once as bytes; bodies are sent from one buffer; a body that nobody looks at is read
with MSG_TRUNC, which lets the kernel drop the bytes of a TCP stream without copying them (tcp(7)), so
that a big GET measures the server and the loopback, not Python.

It understands what the three servers under test send: Content-Length and chunked bodies. It is no
general client: no redirects, no trailers, no informational answers.
"""

import socket
from dataclasses import dataclass
from types import TracebackType

RECEIVE_BYTES = 1 << 20
HEAD_BYTES_MAX = 64 << 10
TIMEOUT_S = 120.0


class WireError(Exception):
    """The peer closed early or sent something that is not the HTTP this client knows."""


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers (lower-case names), the number of body bytes, and the body if it was kept."""

    status: int
    headers: dict[str, str]
    body_bytes: int
    body: bytes


def request_head(method: str, target: str, host: str, headers: dict[str, str]) -> bytes:
    """Return the head of a request as it goes on the wire; `target` is already percent-encoded."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class Connection:
    """One keep-alive connection; use as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._pending = b""  # received, not yet consumed

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def exchange(self, head: bytes, body: bytes | memoryview = b"", *, keep_body: bool = False) -> Response:
        """Send one request and read its whole answer. Raises WireError or OSError."""
        self._socket.sendall(head)
        if len(body):
            self._socket.sendall(body)
        status, headers = self._read_head()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunked(status, headers, keep_body)
        length = int(headers.get("content-length", "0"))
        if keep_body:
            content = self._take(length)
            return Response(status, headers, length, content)
        self._discard(length)
        return Response(status, headers, length, b"")

    def _receive(self) -> bytes:
        count = self._socket.recv_into(self._buffer)
        if count == 0:
            raise WireError("connection closed by the server")
        return bytes(self._view[:count])

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while (end := self._pending.find(b"\r\n\r\n")) < 0:
            if len(self._pending) > HEAD_BYTES_MAX:
                raise WireError("response head too long")
            self._pending += self._receive()
        status_line, *lines = self._pending[:end].decode("latin-1").split("\r\n")
        self._pending = self._pending[end + 4 :]
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(status_line.split(" ", 2)[1]), headers

    def _take(self, length: int) -> bytes:
        parts = [self._pending]
        have = len(self._pending)
        while have < length:
            parts.append(self._receive())
            have += len(parts[-1])
        received = b"".join(parts)
        self._pending = received[length:]
        return received[:length]

    def _discard(self, length: int) -> None:
        buffered = min(length, len(self._pending))
        self._pending = self._pending[buffered:]
        left = length - buffered
        while left:
            count = self._socket.recv_into(self._buffer, min(left, RECEIVE_BYTES), socket.MSG_TRUNC)
            if count == 0:
                raise WireError(f"connection closed with {left} body bytes missing")
            left -= count

    def _read_chunked(self, status: int, headers: dict[str, str], keep_body: bool) -> Response:
        parts: list[bytes] = []
        total = 0
        while True:
            while (end := self._pending.find(b"\r\n")) < 0:
                self._pending += self._receive()
            size = int(self._pending[:end].partition(b";")[0], 16)
            self._pending = self._pending[end + 2 :]
            if keep_body:
                parts.append(self._take(size))
            else:
                self._discard(size)
            if self._take(2) != b"\r\n":
                raise WireError("chunk does not end with CR LF")
            total += size
            if size == 0:
                return Response(status, headers, total, b"".join(parts))
