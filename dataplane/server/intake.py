"""Bytes off the wire into the body of the request in work, by its framing (RFC 9112 section 6.3).

A body with a length is received into its own buffer, never beyond its end, so nothing is copied and the next request's
bytes stay in the kernel. Chunks are decoded from the buffer that all connections share. What is left beyond the end of
the body is handed back: it is the next request.
"""

from dataplane.blobapi.errors import BlobError
from dataplane.server.body import BodyReader, BodySource, BufferPool
from dataplane.server.chunked import ChunkedDecoder
from dataplane.server.head import RawRequest

_NOTHING = b""


class BodyIntake:
    """The receiving side of one body."""

    __slots__ = ("_decoder", "_direct", "body")

    def __init__(self, request: RawRequest, source: BodySource, pool: BufferPool) -> None:
        self.body = BodyReader(request.content_length, source, pool)
        self._decoder = ChunkedDecoder() if request.chunked else None
        self._direct = False

    def begin(self, data: bytes) -> bytes:
        """What arrived together with the head; a body that is complete then never waits. Returns what is left."""
        length = self.body.length
        if length is not None and len(data) >= length:
            self.body.set_whole(data[:length])
            return data[length:]
        self.body.open_room()
        return self._feed(memoryview(data))

    def window(self, shared: memoryview) -> memoryview:
        """Where the socket may write next: the body's own buffer, or as much of the shared one as the body has room."""
        if self._decoder is not None:
            self._direct = False
            return shared[: self.body.room()]
        own = self.body.window()
        self._direct = len(own) > 0
        return own if self._direct else shared

    def received(self, count: int, shared: memoryview) -> bytes:
        """`count` bytes were written to the window. Returns what is left."""
        if self._direct:
            self.body.advance(count)
            return _NOTHING
        return self._feed(shared[:count])

    def _feed(self, data: memoryview) -> bytes:
        if self._decoder is None:
            if data:
                self.body.feed(data)
            return _NOTHING
        try:
            pieces, used = self._decoder.feed(data)
        except BlobError as error:
            self.body.fail(error)
            return _NOTHING
        for piece in pieces:
            self.body.feed(piece)
        if self._decoder.complete:
            self.body.finish()
        return bytes(data[used:])
