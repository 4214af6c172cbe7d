"""A request's body on its way from the socket to a handler.

Two buffers circulate: the socket fills one while the handler works on the other; with both full, reading pauses. So an
upload holds at most two pieces whatever its size, and a body that nobody reads holds one. A piece is handed on when its
buffer is full or the body has ended, never earlier: the handler's cost is per piece (a trip to a thread, a write).

A body that arrived together with its head is one bytes object and never waits.

Rejected: asyncio.StreamReader (copies everything twice, unbounded pieces) and an async generator for `chunks` (its
finaliser runs whenever the collector likes; a plain iterator needs none).
"""

import asyncio
import mmap
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode

NOTHING: Final = memoryview(b"")
Buffer = bytearray | mmap.mmap
_SMALL_BUFFER_BYTES: Final = 8 * limits.KIB


class ClientDisconnected(Exception):
    """The client went away before its body was complete. A handler lets it pass; nobody is left to answer."""


class BodySource(Protocol):
    """The connection, as its body sees it."""

    def body_wanted(self) -> None:
        """The handler reads for the first time: send "100 Continue" if the client waits for it."""

    def body_resume(self) -> None:
        """There is room again: read from the socket, with the idle deadline running."""

    def body_pause(self) -> None:
        """No room: stop reading, and the idle deadline with it."""


class NoSource:
    """The source of a body that has nothing to send."""

    def body_wanted(self) -> None:
        return None

    def body_resume(self) -> None:
        return None

    def body_pause(self) -> None:
        return None


class BufferPool:
    """Buffers for pieces, kept between uploads. Their sizes are `body_piece_bytes_min` and `_max`."""

    def __init__(self, spare_count_max: int = limits.spare_buffers_max) -> None:
        self._spare_count_max = spare_count_max
        self._spare: dict[int, list[Buffer]] = {}

    def take(self, size: int) -> Buffer:
        """A buffer of exactly `size` bytes with arbitrary contents. A fresh large one takes no memory until it is
        written (a bytearray would, it is zeroed), so a client that announces much and sends little costs little."""
        spare = self._spare.get(size)
        if spare:
            return spare.pop()
        return bytearray(size) if size <= _SMALL_BUFFER_BYTES else mmap.mmap(-1, size)

    def give(self, buffer: Buffer) -> None:
        """Return a buffer. Odd sizes (small bodies) are not kept."""
        if len(buffer) in (limits.body_piece_bytes_min, limits.body_piece_bytes_max):
            spare = self._spare.setdefault(len(buffer), [])
            if len(spare) < self._spare_count_max:
                spare.append(buffer)


class _Piece:
    """A buffer with what it holds so far."""

    __slots__ = ("buffer", "filled", "view")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.view = memoryview(buffer)
        self.filled = 0

    def room(self) -> int:
        return len(self.buffer) - self.filled


class BodyReader:
    """The body of one request. Handlers use `length`, `read_all`, `chunks` and `skip`; the connection the rest.

    Reading raises BlobError RequestTimeout when the client sends nothing for too long, BlobError InvalidInput for
    broken chunks, ClientDisconnected when the client went away. The body can be read once.
    """

    __slots__ = (
        "_error", "_filling", "_held", "_left", "_paused", "_pool", "_ready", "_source", "_started", "_waiter",
        "_whole", "complete", "length", "waited_ns",
    )  # fmt: skip

    def __init__(self, length: int | None, source: BodySource, pool: BufferPool) -> None:
        self.length = length
        self.complete = length == 0  # every byte has arrived
        self.waited_ns = 0  # what the handler has waited for the client
        self._left = length  # bytes that have not arrived; None for a chunked body
        self._source = source
        self._pool = pool
        self._whole: bytes | None = None
        self._filling: _Piece | None = None
        self._ready: _Piece | None = None
        self._held: _Piece | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._started = False
        self._paused = False

    # --- handlers ---

    async def read_all(self, bytes_max: int) -> bytes:
        """The whole body. Raises BlobError RequestBodyTooLarge beyond `bytes_max`, before anything is read if the
        length is known, so that a client that waits for "100 Continue" keeps its bytes."""
        if self.length is not None and self.length > bytes_max:
            raise BlobError(ErrorCode.REQUEST_BODY_TOO_LARGE)
        whole = self._take_whole()
        if whole is not None:
            if len(whole) > bytes_max:
                raise BlobError(ErrorCode.REQUEST_BODY_TOO_LARGE)
            return whole
        collected = bytearray()
        async for piece in self.chunks():
            if len(collected) + len(piece) > bytes_max:
                raise BlobError(ErrorCode.REQUEST_BODY_TOO_LARGE)
            collected += piece
        return bytes(collected)

    def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The body in large pieces (up to 1 MiB); a piece is valid until the next one is asked for."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        return self

    async def __anext__(self) -> bytes | memoryview:
        if self._whole is not None:
            whole = self._take_whole()
            return whole or await self.__anext__()
        if self._held is not None:
            self._pool.give(self._held.buffer)
            self._held = None
        self._start()
        while self._ready is None:
            if self._error is not None:
                raise self._error
            if self.complete:
                raise StopAsyncIteration
            await self._arrival()
        self._held, self._ready = self._ready, None
        self._publish_if_due()
        self._make_room()
        return self._held.view[: self._held.filled]

    async def skip(self, bytes_max: int) -> bool:
        """Read the rest and forget it; False as soon as it is longer than `bytes_max`."""
        if self._left is not None and self._left > bytes_max:
            return False
        skipped = 0
        async for piece in self.chunks():
            skipped += len(piece)
            if skipped > bytes_max:
                return False
        return True

    # --- the connection ---

    @property
    def missing(self) -> int | None:
        """Bytes that have not arrived yet; None when unknown (an incomplete chunked body)."""
        return 0 if self.complete else self._left

    @property
    def started(self) -> bool:
        """Whether the handler has begun to read."""
        return self._started

    @property
    def touched(self) -> bool:
        """Whether any byte has arrived."""
        return self.complete or self._left != self.length or (self._filling is not None and self._filling.filled > 0)

    @property
    def failed(self) -> bool:
        """Whether the rest will never come."""
        return self._error is not None

    def set_whole(self, data: bytes) -> None:
        """The complete body, when it arrived with the head."""
        self._whole = data
        self._left = 0
        self.complete = True

    def window(self) -> memoryview:
        """Where the next bytes of a body with a known length go: never longer than the rest of the body."""
        piece = self._filling
        if piece is None or self._left is None:
            return NOTHING
        return piece.view[piece.filled : piece.filled + self._left]

    def room(self) -> int:
        """How many payload bytes can be fed at once."""
        return 0 if self._filling is None else self._filling.room()

    def advance(self, count: int) -> None:
        """`count` bytes were received into the window, or copied to it."""
        piece = self._filling
        assert piece is not None
        assert count <= piece.room()
        piece.filled += count
        if self._left is not None:
            self._left -= count
            self.complete = self._left == 0
        self._publish_if_due()
        self._make_room()

    def feed(self, data: memoryview) -> None:
        """Copy payload in; not more than `room()`."""
        self.open_room()
        piece = self._filling
        assert piece is not None
        piece.view[piece.filled : piece.filled + len(data)] = data
        self.advance(len(data))

    def finish(self) -> None:
        """A chunked body has ended."""
        self.complete = True
        self._left = 0
        self._publish_if_due()
        self._wake()

    def fail(self, error: Exception) -> None:
        """The rest will not come; whoever reads gets `error`, after the pieces that are ready."""
        if self._error is None and not self.complete:
            self._error = error
            self._source.body_pause()
            self._wake()

    def leave(self) -> None:
        """The request is answered without its handler, which may still use its pieces: they never come back."""
        self.fail(ClientDisconnected())
        self._filling = self._ready = self._held = None

    def open_room(self) -> None:
        """Have a buffer to fill, once it is known that the body does not come in one read with its head."""
        if self._filling is None and not self.complete:
            self._filling = _Piece(self._pool.take(self._size(limits.body_piece_bytes_min)))

    def release(self) -> None:
        """The request is over: buffers go back. Only when no handler can touch a piece any more."""
        for piece in (self._filling, self._ready, self._held):
            if piece is not None:
                self._pool.give(piece.buffer)
        self._filling = self._ready = self._held = None
        self._whole = None

    # --- inside ---

    def _take_whole(self) -> bytes | None:
        whole, self._whole = self._whole, None
        return whole

    def _start(self) -> None:
        if not self._started:
            self._started = True
            if not self.complete:
                self._source.body_wanted()
                self._make_room()

    async def _arrival(self) -> None:
        assert self._waiter is None, "two readers of one body"
        self._waiter = asyncio.get_running_loop().create_future()
        begun_ns = time.perf_counter_ns()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.waited_ns += time.perf_counter_ns() - begun_ns

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _publish_if_due(self) -> None:
        """A full buffer, or the last one, becomes the ready piece when that place is free."""
        piece = self._filling
        if piece is None or self._ready is not None or not piece.filled:
            return
        if self.complete or not piece.room():
            self._ready, self._filling = piece, None
            self._wake()

    def _make_room(self) -> None:
        """A new buffer if one of the two is free and the handler has begun, else pause; resume when it had paused."""
        if self.complete:
            return
        if self._filling is None and self._started and (self._ready is None or self._held is None):
            self._filling = _Piece(self._pool.take(self._size(limits.body_piece_bytes_max)))
        if self.room():
            if self._paused:
                self._paused = False
                self._source.body_resume()
        elif not self._paused:
            self._paused = True
            self._source.body_pause()

    def _size(self, wanted: int) -> int:
        """The size of the next buffer: what is left of a short body, else one of the two kept sizes."""
        if self._left is None or self._left >= limits.body_piece_bytes_max:
            return wanted
        return min(self._left, wanted)
