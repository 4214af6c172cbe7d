"""What connections share: the application, the limits in force, buffers, threads, counters."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from dataplane.blobapi import limits
from dataplane.blobapi.message import Response
from dataplane.server.answer import DateLine
from dataplane.server.body import BodyReader, BufferPool, NoSource
from dataplane.server.head import RawRequest
from dataplane.server.mountpools import MountPools
from dataplane.server.outbox import Outbox

if TYPE_CHECKING:
    from dataplane.server.connection import HttpConnection


class Application(Protocol):
    """What answers requests. It turns its own refusals into answers; what it raises nevertheless is answered here."""

    async def __call__(self, request: RawRequest, body: BodyReader) -> Response: ...


#: The optional fast path of an application, an attribute `try_sync`: the answer to a request without a body if it can
#: be given without waiting, else None; then nothing has happened yet and the coroutine is started. See connection.py.
TrySync = Callable[[RawRequest], Response | None]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The limits of connections, in seconds and bytes; tests make them small.

    `quick_reads` declares that files are on a local file system, for those that do not tell cached from cold (tmpfs).
    """

    head_read_seconds_max: float = limits.head_read_seconds_max
    body_idle_seconds_max: float = limits.body_idle_seconds_max
    send_idle_seconds_max: float = limits.send_idle_seconds_max
    keep_alive_seconds_max: float = limits.keep_alive_seconds_max
    linger_seconds_max: float = limits.linger_seconds_max
    drain_idle_seconds: float = limits.drain_idle_seconds
    connections_max: int = limits.connections_max
    quick_reads: bool = False


@dataclass(slots=True)
class Counters:
    """Totals since the start, and `open` connections now."""

    open: int = 0
    accepted: int = 0
    requests: int = 0
    refused_heads: int = 0
    timeouts: int = 0
    disconnects: int = 0
    bugs: int = 0
    truncated_files: int = 0


@dataclass(slots=True)
class ServerContext:
    """One worker's server. `clock` is wall time in seconds, for Date; deadlines use the loop's own clock."""

    app: Callable[[RawRequest, BodyReader], Awaitable[Response]]
    loop: asyncio.AbstractEventLoop
    pools: MountPools = field(default_factory=MountPools)
    options: ServerOptions = field(default_factory=ServerOptions)
    clock: Callable[[], float] = time.time
    counters: Counters = field(default_factory=Counters)
    buffers: BufferPool = field(default_factory=BufferPool)
    arriving: "WeakSet[HttpConnection]" = field(default_factory=WeakSet)  # accepted; TLS shakes hands
    connections: "set[HttpConnection]" = field(default_factory=set)
    draining: bool = False
    emptied: asyncio.Event = field(default_factory=asyncio.Event)  # set whenever the last connection has gone
    try_sync: TrySync | None = field(init=False)
    date: DateLine = field(init=False)
    outbox: Outbox = field(init=False)
    receive_buffer: memoryview = field(init=False)
    file_buffer: memoryview = field(init=False)  # what is read in the loop and written at once
    empty_body: BodyReader = field(init=False)  # of all requests without one; reading it changes nothing

    def __post_init__(self) -> None:
        self.try_sync = getattr(self.app, "try_sync", None)
        self.date = DateLine(self.clock)
        self.outbox = Outbox(self.loop)
        self.empty_body = BodyReader(0, NoSource(), self.buffers)
        self.file_buffer = memoryview(bytearray(limits.tls_slice_bytes_max))
        self.receive_buffer = memoryview(bytearray(limits.receive_buffer_bytes))
