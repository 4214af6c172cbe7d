"""Answers to reads that need the bytes themselves: the checksum of a range, and structured bodies.

A plain read hands the file to the connection and looks at no byte. These do, on a data thread. A range with a checksum
has at most 4 MiB and is held in memory; a structured body may be of any length, so beyond that it is written to a
staging file first, which the connection then sends: constant memory, at the price of writing it once. That is the right
side to pay on, as SDKs ask for structured bodies only where the caller wants end-to-end checks.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Final

from dataplane.blobapi import limits, structured
from dataplane.blobapi.checksums import crc64, crc64_bytes, encoded
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.limits import MIB
from dataplane.blobapi.message import FileBody
from dataplane.blobapi.ranges import ByteRange
from dataplane.server.call import Call
from dataplane.store.errors import StorageUnavailable, translated
from dataplane.store.mount import Mount
from dataplane.store.staging import StagedFile

MD5_REQUEST: Final = "x-ms-range-get-content-md5"
CRC64_REQUEST: Final = "x-ms-range-get-content-crc64"
_PIECE_BYTES: Final = MIB

Header = tuple[str, str]


def needs_bytes(headers: Mapping[str, str]) -> bool:
    """Whether a Get Blob asks for anything that this module does."""
    return structured.BODY_HEADER in headers or MD5_REQUEST in headers or CRC64_REQUEST in headers


class CheckedRead:
    """What one Get Blob asks to compute. Raises on construction BlobError InvalidHeaderValue or
    BothCrc64AndMd5HeaderPresent."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._md5 = _flag(headers, MD5_REQUEST)
        self._crc64 = _flag(headers, CRC64_REQUEST)
        self._structured = structured.wanted(headers)
        if self._md5 and self._crc64:
            raise BlobError(ErrorCode.BOTH_CHECKSUMS)

    @property
    def computes(self) -> bool:
        """Whether the bytes are needed here; flags may be "false"."""
        return self._md5 or self._crc64 or self._structured

    def check(self, part: ByteRange | None) -> None:
        """REST page "Get Blob": a checksum needs a range, of at most 4 MiB. Raises BlobError InvalidHeaderValue,
        OutOfRangeInput."""
        if not (self._md5 or self._crc64):
            return
        if part is None:
            name = MD5_REQUEST if self._md5 else CRC64_REQUEST
            raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=name, header_value="true")
        if part.length > limits.range_checksum_bytes_max:
            raise BlobError(ErrorCode.OUT_OF_RANGE_INPUT)

    async def answer(self, call: Call, fd: int, offset: int, length: int) -> tuple[list[Header], bytes | FileBody]:
        """Headers to add and the body. `fd` stays the caller's, unless the body is a FileBody with it."""
        if self._structured:
            if length > limits.structured_read_bytes_max:
                raise BlobError(ErrorCode.OUT_OF_RANGE_INPUT)
            headers = [(structured.BODY_HEADER, structured.BODY_VALUE), (structured.LENGTH_HEADER, str(length))]
            message = _Message(call.store.mount, fd, offset, length)
            try:
                return headers, await call.blocking(message.make)
            except BaseException:
                message.close()
                raise
        if self._md5 or self._crc64:
            header, content = await call.blocking(_range_checksum, fd, offset, length, self._md5)
            return [header], content
        return [], FileBody(fd, offset, length) if length else b""


def _flag(headers: Mapping[str, str], name: str) -> bool:
    text = headers.get(name, "").lower()
    if text not in ("", "true", "false"):
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=name, header_value=headers[name])
    return text == "true"


def _range_checksum(fd: int, offset: int, length: int, md5: bool) -> tuple[Header, bytes]:
    content = _read(fd, offset, length)
    if md5:
        return ("Content-MD5", encoded(hashlib.md5(content, usedforsecurity=False).digest())), content
    return ("x-ms-content-crc64", encoded(crc64_bytes(crc64(content)))), content


def _read(fd: int, offset: int, length: int) -> bytes:
    """Exactly these bytes. Raises StoreError, also when the file has become shorter."""
    pieces = []
    reader = _Reader(fd, offset)
    while length:
        piece = reader(length)
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


class _Reader:
    """Reads on through a file. Raises StoreError, also at an end that comes too early."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = offset

    def __call__(self, bytes_max: int) -> bytes:
        with translated("read"):
            piece = os.pread(self._fd, min(bytes_max, _PIECE_BYTES), self._offset)
        if not piece:
            raise StorageUnavailable("read: the file became shorter")
        self._offset += len(piece)
        return piece


class _Message:
    """A structured body in the making. It keeps the descriptor that it opens, as the caller may be cancelled while
    another thread works; make()'s result is the caller's, close() is for when it never got it."""

    def __init__(self, mount: Mount, fd: int, offset: int, length: int) -> None:
        """`mount` is where to write a long message: not the blob's own, which may be read-only."""
        self._mount = mount
        self._reader = _Reader(fd, offset)
        self._length = length
        self._body: bytes | FileBody = b""

    def make(self) -> bytes | FileBody:
        """The body. Raises StoreError."""
        pieces = structured.encode(self._reader, self._length)
        if self._length <= limits.range_checksum_bytes_max:
            return b"".join(pieces)
        staged = StagedFile.create(self._mount)
        try:
            for piece in pieces:
                staged.write(piece)
            self._body = FileBody(os.dup(staged.fd), 0, staged.size)
        finally:
            staged.discard()
        return self._body

    def close(self) -> None:
        if isinstance(self._body, FileBody):
            os.close(self._body.fd)
