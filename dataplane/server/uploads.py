"""Receive the content of a blob or a block: small ones in memory, large ones into a staged file, checksums on the way.

A large body holds two pieces of memory whatever its length: a data thread hashes and writes one while the socket fills
the other. One that meets a full disk waits a while for room, if the node can make some. Nothing is kept of a body that
turns out too long, incomplete or wrong.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dataplane.blobapi import limits, structured
from dataplane.blobapi.checksums import BodyDigest, Purpose
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.structured import StructuredDecoder
from dataplane.server.call import Call
from dataplane.server.diskpool import Kept
from dataplane.store.errors import NoSpace
from dataplane.store.staging import StagedFile

_LARGE_SINCE = "2019-12-12"
_MEDIUM_SINCE = "2016-05-31"


@dataclass(frozen=True, slots=True)
class Upload:
    """Content that arrived whole. Whoever gets it hands `content` to a job of the store, or discards it."""

    content: bytes | StagedFile
    digest: BodyDigest
    structured: bool

    def response_headers(self) -> list[tuple[str, str]]:
        """The checksums that the answer echoes."""
        headers = self.digest.response_headers()
        if self.structured:
            headers.append((structured.BODY_HEADER, structured.BODY_VALUE))
        return headers


def put_blob_bytes_max(version: str) -> int:
    """The longest Put Blob of a version (REST page "Put Blob")."""
    if version >= _LARGE_SINCE:
        return limits.put_blob_bytes_max
    if version >= _MEDIUM_SINCE:
        return limits.put_blob_bytes_max_before_2019_12_12
    return limits.put_blob_bytes_max_before_2016_05_31


def block_bytes_max(version: str) -> int:
    """The longest block of a version (REST page "Put Block")."""
    if version >= _LARGE_SINCE:
        return limits.block_bytes_max
    if version >= _MEDIUM_SINCE:
        return limits.block_bytes_max_before_2019_12_12
    return limits.block_bytes_max_before_2016_05_31


class Receiver:
    """Reads one body. What the headers alone forbid is refused on construction, before a byte of it is read:
    BlobError MissingContentLengthHeader, RequestBodyTooLarge, and those of BodyDigest and of structured bodies."""

    def __init__(self, call: Call, purpose: Purpose, bytes_max: int) -> None:
        request = call.request
        if request.content_length is None and not request.chunked:
            raise BlobError(ErrorCode.MISSING_CONTENT_LENGTH)
        self._call = call
        self._bytes_max = bytes_max
        self._digest = BodyDigest(request.headers, call.version, purpose)
        self._decoder: StructuredDecoder | None = None
        self._size = 0  # of the content so far
        self._unwritten: deque[bytes | memoryview] = deque()
        self.length = request.content_length
        if structured.wanted(request.headers):
            self.length = structured.content_length(request.headers)
            self._decoder = StructuredDecoder(request.content_length, self.length)
        if self.length is not None and self.length > bytes_max:
            raise _too_large(bytes_max)

    @property
    def large(self) -> bool:
        """Whether the content goes to a file, so that it is worth looking first whether it will be taken."""
        return self.length is None or self.length > limits.small_body_bytes_max

    async def receive(self, stage: Callable[[], StagedFile]) -> Upload:
        """The content; `stage` makes the file for a large one. Raises BlobError Md5Mismatch, Crc64Mismatch,
        RequestBodyTooLarge, InvalidInput; StoreError."""
        content = await (self._to_file(stage) if self.large else self._to_memory())
        return Upload(content, self._digest, self._decoder is not None)

    async def _to_memory(self) -> bytes:
        bytes_max = limits.small_body_bytes_max
        if self._decoder is not None:
            bytes_max = structured.message_length(bytes_max, structured.SEGMENTS_MAX)
        body = await self._call.body.read_all(bytes_max)
        if len(body) <= limits.hash_inline_bytes_max:
            return self._whole(body)
        return await self._call.blocking(self._whole, body)

    def _whole(self, body: bytes) -> bytes:
        content = body if self._decoder is None else b"".join(self._decoder.feed(body))
        self._digest.update(content)
        self._finish()
        return content

    async def _to_file(self, stage: Callable[[], StagedFile]) -> StagedFile:
        staging = Kept(stage)
        try:
            staged = await self._call.blocking(staging)
            async for piece in self._call.body.chunks():
                await self._write(staged, piece)
            self._finish()
        except asyncio.CancelledError:
            if staging.value is not None:
                self._call.node.behind(self._call.pools, staging.value.discard)
            raise
        except BaseException:
            if staging.value is not None:
                await self._call.pools.data_pool.run_admitted(staging.value.discard)
            raise
        return staged

    async def _write(self, staged: StagedFile, piece: bytes | memoryview) -> None:
        low_space = self._call.node.low_space
        try:
            await self._call.blocking(self._take, staged, piece)
        except NoSpace:
            if low_space is None:
                raise  # nobody makes room
            await low_space.patiently(lambda: self._call.blocking(self._write_rest, staged))

    def _take(self, staged: StagedFile, piece: bytes | memoryview) -> None:
        contents: Iterable[bytes | memoryview] = (piece,) if self._decoder is None else self._decoder.feed(piece)
        for content in contents:
            self._size += len(content)
            if self._size > self._bytes_max:
                raise _too_large(self._bytes_max)
            self._digest.update(content)
            self._unwritten.append(content)
        self._write_rest(staged)

    def _write_rest(self, staged: StagedFile) -> None:
        """What the last piece has left. After NoSpace it goes on where that stopped."""
        while self._unwritten:
            content, before = self._unwritten[0], staged.size
            try:
                staged.write(content)
            except NoSpace:
                self._unwritten[0] = memoryview(content)[staged.size - before :]
                raise
            self._unwritten.popleft()

    def _finish(self) -> None:
        if self._decoder is not None:
            self._decoder.finish()
        self._digest.finish()


def _too_large(bytes_max: int) -> BlobError:
    return BlobError(ErrorCode.REQUEST_BODY_TOO_LARGE, detail=(("MaxLimit", str(bytes_max)),))
