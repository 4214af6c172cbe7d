"""Azurite as the cloud, and a proxy in front of it that counts and misbehaves.

The proxy is plain TCP with just enough HTTP to see where requests and answers end: each request of a client is read
whole (head, then Content-Length bytes), offered to a Fault, and passed on. So a test can lose an answer after the
service committed, or reset the connection at any stage, and it knows how many bytes of bodies arrived at the cloud.
"""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.durability.processes import ServerProcess
from tests.wire.azurite import command

ACCOUNT: Final = "devstoreaccount1"
#: Public on purpose: every emulator has it.
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_READY: Final = "Azurite Blob service successfully listens on "
_FLAGS: Final = ("--skipApiVersionCheck", "--silent", "--disableTelemetry")
_BUFFER: Final = 64 * 1024

__all__ = ["ACCOUNT", "KEY", "Exchange", "Proxy", "command", "proxy", "running"]


@contextmanager
def running(scratch: Path, *flags: str) -> Iterator[int]:
    """Azurite on a port of the kernel's choice, its data under `scratch`, for the length of the block; the port."""
    found = command()
    assert found is not None
    argv = [str(found), *_FLAGS, "--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(scratch), *flags]
    process = ServerProcess(argv, _READY, scratch / "azurite.log", scratch)
    try:
        yield int(process.await_ready().rpartition(":")[2])
    finally:
        process.kill_all()


@dataclass(slots=True)
class Exchange:
    """One request as the proxy sees it. A fault may change what is below the line, or use `reset`."""

    number: int
    method: str
    target: str
    head: bytes
    body_size: int
    answer: bytes = b""  # set in advance: the cloud is not asked
    reset_after_body_bytes: int | None = None  # of the request's body; 0: right after its head
    lose_answer: bool = False  # the cloud has done it; the client is reset
    truncate_answer: int | None = None  # bytes of the answer that the client gets
    edit_answer: Callable[[bytes], bytes] | None = None
    edit_body: Callable[[bytes], bytes] | None = None  # must keep the length

    def is_put(self, comp: str = "") -> bool:
        """Put Blob, or the PUT with this comp."""
        found = re.search(r"[?&]comp=(\w+)", self.target)
        return self.method == "PUT" and (found.group(1) if found else "") == comp


Fault = Callable[[Exchange], None]


@dataclass(slots=True)
class Proxy:
    """A running proxy. `fault` may be set at any time; it is called on the threads of connections, one at a time."""

    port: int
    fault: Fault = lambda exchange: None
    body_bytes: int = 0  # of requests, that went on to the cloud
    log: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self, method: str, target: str, head: bytes, size: int) -> Exchange:
        with self.lock:
            exchange = Exchange(len(self.log), method, target, head, size)
            self.log.append(f"{method} {target.partition('sig=')[0]}")
            self.fault(exchange)
            return exchange

    def count(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(re.search(pattern, line) is not None for line in self.log)


@contextmanager
def proxy(cloud_port: int) -> Iterator[Proxy]:
    """A proxy for the length of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    made = Proxy(listener.getsockname()[1])
    open_sockets: set[socket.socket] = set()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", cloud_port)) as cloud:
            open_sockets.update((client, cloud))
            while _exchange(made, client, cloud):
                pass

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in open_sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        thread.join()


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _exchange(proxy: Proxy, client: socket.socket, cloud: socket.socket) -> bool:
    """One request and its answer; whether the connection goes on."""
    head, rest = _read_head(client)
    if not head:
        return False
    method, target = head.split(b" ", 2)[:2]
    size = _length(head)
    exchange = proxy.offer(method.decode(), target.decode(), head, size)
    if exchange.reset_after_body_bytes is not None and exchange.reset_after_body_bytes == 0:
        reset(client)
        return False
    if exchange.answer:
        _read_body(client, rest, size)
        client.sendall(exchange.answer)
        return False
    cloud.sendall(head)
    if not _pass_body(proxy, exchange, client, cloud, rest, size):
        return False
    answer = _read_answer(cloud, head_only=method == b"HEAD")
    if exchange.lose_answer or not answer:
        reset(client)
        return False
    if exchange.edit_answer:
        answer = exchange.edit_answer(answer)
    if exchange.truncate_answer is not None:
        client.sendall(answer[: exchange.truncate_answer])
        return False
    client.sendall(answer)
    return True


def _pass_body(
    proxy: Proxy, exchange: Exchange, client: socket.socket, cloud: socket.socket, rest: bytes, size: int
) -> bool:
    """Pass a request's body on, counted; False when a fault ended it."""
    if exchange.edit_body:
        rest = exchange.edit_body(_read_body(client, rest, size))
    passed = 0
    while passed < size:
        piece = rest or client.recv(_BUFFER)
        rest = b""
        if not piece:
            return False
        cloud.sendall(piece)
        passed += len(piece)
        with proxy.lock:
            proxy.body_bytes += len(piece)
        if exchange.reset_after_body_bytes is not None and passed >= exchange.reset_after_body_bytes:
            reset(client)
            return False
    return True


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(_BUFFER)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _read_body(sock: socket.socket, rest: bytes, size: int) -> bytes:
    data = bytearray(rest)
    while len(data) < size:
        piece = sock.recv(_BUFFER)
        if not piece:
            break
        data += piece
    return bytes(data)


def _read_answer(sock: socket.socket, *, head_only: bool) -> bytes:
    head, rest = _read_head(sock)
    if not head or head_only or head.split(b" ", 2)[1] in (b"204", b"304"):
        return head
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        data = rest
        while not data.endswith(b"0\r\n\r\n"):
            piece = sock.recv(_BUFFER)
            if not piece:
                break
            data += piece
        return head + data
    return head + _read_body(sock, rest, _length(head))


def _length(head: bytes) -> int:
    found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return int(found.group(1)) if found else 0
