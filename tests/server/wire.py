"""The HTTP layer under test without Azure on top: a server on its own loop thread, and a client that speaks bytes.

`Recorder` is the application: it notes every request it gets with its whole body, so a test can tell how many requests
the server saw in a stream. `MemoryConnection` drives one HttpConnection without a socket, one byte at a time if wanted.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvloop

from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.message import Response
from dataplane.server.answer import refusal
from dataplane.server.body import BodyReader
from dataplane.server.connection import HttpConnection
from dataplane.server.diskpool import PoolLimits
from dataplane.server.head import RawRequest
from dataplane.server.listener import Server, serve
from dataplane.server.mountpools import MountPools
from dataplane.server.options import ServerContext, ServerOptions

WAIT_SECONDS = 10.0
BODY_MAX = 64 * 1024 * 1024
App = Callable[[RawRequest, BodyReader], Awaitable[Response]]


def get(target: str, *headers: str) -> bytes:
    """A request without a body."""
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def put(target: str, body: bytes, *headers: str) -> bytes:
    """One with a body of a stated length."""
    lines = [f"PUT {target} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(target: str, *pieces: bytes) -> bytes:
    """One with a body in chunks."""
    head = f"PUT {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@dataclass(frozen=True)
class Seen:
    """A request as the application got it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Recorder:
    """Answers every request with its method, target and body length, after it has read the body."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def __call__(self, request: RawRequest, body: BodyReader) -> Response:
        try:
            data = await body.read_all(BODY_MAX)
        except BlobError as error:
            return refusal(error, lambda: 0.0)
        self.seen.append(Seen(request.method, request.target, tuple(request.headers.items()), data))
        return Response(200, [("x-seen", f"{request.method} {request.target} {len(data)}")], data or b"nothing")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Wire:
    """A client's end of a connection. Every wait is bounded by WAIT_SECONDS."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(WAIT_SECONDS)
        self._buffer = bytearray()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer. Raises EOFError when the connection ends before it is whole."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head = self._take(self._buffer.index(b"\r\n\r\n"))
        self._take(4)
        lines = head.decode("utf-8", "surrogateescape").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        assert len(headers) == len(lines) - 1, "a header comes twice"
        length = 0 if head_only or status < 200 or status in (204, 304) else int(headers["content-length"])
        while len(self._buffer) < length:
            self._more()
        return Answer(status, headers, self._take(length))

    def ended(self) -> bool:
        """Whether the server sends nothing more and closes (or resets)."""
        try:
            return not self._buffer and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def everything(self) -> bytes:
        """All that comes until the connection ends."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                self._more()
        return bytes(self._buffer)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with RST, as a crashed client's host does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _more(self) -> None:
        data = self.socket.recv(262144)
        if not data:
            raise EOFError
        self._buffer += data


class LoopServer:
    """`app` behind `serve` on an event loop of its own thread."""

    def __init__(
        self,
        app: App,
        options: ServerOptions | None = None,
        tls: ssl.SSLContext | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        listening = listening or socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self.pools = MountPools(PoolLimits(2, 2, 8))
        self._runner: asyncio.Runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._start: Callable[[], Awaitable[Server]] = lambda: serve(
            app, [(listening, tls)], pools=self.pools, options=options
        )
        self._wires: list[Wire] = []
        self._thread.start()
        assert self._ready.wait(WAIT_SECONDS)

    def _run(self) -> None:
        self._runner.run(self._main())
        self._runner.close()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.server: Server = await self._start()
        self._ready.set()
        await self._stop.wait()
        self.server.abort()
        await asyncio.sleep(0)

    def connect(self, *, receive_bytes: int | None = None) -> Wire:
        """A new connection; `receive_bytes` makes its receive buffer small."""
        connected = socket.socket()
        if receive_bytes is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connected.connect(self.address)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wires.append(Wire(connected))
        return self._wires[-1]

    def connect_tls(self, context: ssl.SSLContext) -> Wire:
        plain = socket.create_connection(self.address, WAIT_SECONDS)
        self._wires.append(Wire(context.wrap_socket(plain, server_hostname="localhost")))
        return self._wires[-1]

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_SECONDS)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the server's loop will do."""

        async def poll() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():  # noqa: ASYNC110 - any state of the server, without a hook in it
                    await asyncio.sleep(0.001)

        self.call(poll())

    def close(self) -> None:
        for wire in self._wires:
            wire.close()
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()
        self.pools.close()


@contextlib.contextmanager
def serving(app: App, options: ServerOptions | None = None, **rest: Any) -> Iterator[LoopServer]:
    server = LoopServer(app, options, **rest)
    try:
        yield server
    finally:
        server.close()


class MemoryTransport(asyncio.Transport):
    """Collects what is written; `closed` once the server closed it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def write_eof(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return None


async def feed(app: App, stream: bytes, step: int) -> MemoryTransport:
    """Give a stream to one connection, `step` bytes at a time, and let the handlers finish."""
    transport = MemoryTransport()
    connection = HttpConnection(ServerContext(app, asyncio.get_running_loop()), secure=False)
    connection.connection_made(transport)
    at = 0
    while at < len(stream) and not transport.closed:
        if not transport.reading:
            await asyncio.sleep(0)
            continue
        buffer = connection.get_buffer(65536)
        piece = stream[at : at + min(step, len(buffer))]
        buffer[: len(piece)] = piece
        connection.buffer_updated(len(piece))
        at += len(piece)
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    return transport
