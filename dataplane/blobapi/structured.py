"""Structured message bodies (`x-ms-structured-body: XSM/1.0; properties=crc64`): content in segments with checksums.

All integers are little-endian. A message is: a header of 13 bytes (version 1, message length u64, flags u16, number of
segments u16); for each segment a header of 10 bytes (number from 1 u16, content length u64), its content, and with flag
1 a CRC-64 of 8 bytes; and with flag 1 a CRC-64 of the whole content. The format is not on a REST page; it is that of
the Python SDK (azure/storage/blob/_shared/streams.py), against which the tests run both directions.

The decoder takes a body in pieces of any size, gives its content back as it comes, and holds at most a header of it.
Content that it has given back is good only once finish() returned. The CRC of the whole is joined from those of the
segments, so that every byte is summed once.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import Final

from dataplane.blobapi.checksums import CRC64_BYTES, check_crc64, crc64, crc64_bytes, joined_crc64
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.limits import MIB

BODY_HEADER: Final = "x-ms-structured-body"
LENGTH_HEADER: Final = "x-ms-structured-content-length"
BODY_VALUE: Final = "XSM/1.0; properties=crc64"

MESSAGE_HEADER_BYTES: Final = 13
SEGMENT_HEADER_BYTES: Final = 10
SEGMENTS_MAX: Final = 0xFFFF
SEGMENT_BYTES: Final = 4 * MIB
_VERSION: Final = 1
_FLAG_CRC64: Final = 1


def wanted(headers: Mapping[str, str]) -> bool:
    """Whether a request has, or asks for, a structured body. Raises BlobError InvalidHeaderValue for another kind."""
    text = headers.get(BODY_HEADER)
    if not text:
        return False
    if text.replace(" ", "").lower() != BODY_VALUE.replace(" ", "").lower():
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=BODY_HEADER, header_value=text)
    return True


def content_length(headers: Mapping[str, str]) -> int:
    """The announced length of a structured upload's content, in bytes.

    Raises BlobError MissingRequiredHeader or InvalidHeaderValue.
    """
    text = headers.get(LENGTH_HEADER)
    if not text:
        raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name=LENGTH_HEADER)
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=LENGTH_HEADER, header_value=text)
    return int(text)


class _Part(Enum):
    MESSAGE_HEADER = auto()
    SEGMENT_HEADER = auto()
    CONTENT = auto()
    SEGMENT_FOOTER = auto()
    MESSAGE_FOOTER = auto()
    END = auto()


class StructuredDecoder:
    """Takes a structured body apart. `message_bytes` is its Content-Length (None: chunked), `content_bytes` the length
    announced for its content; a message that says otherwise is refused with BlobError InvalidInput, and one whose
    checksums do not fit with Crc64Mismatch."""

    def __init__(self, message_bytes: int | None, content_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._content_bytes = content_bytes
        self._part = _Part.MESSAGE_HEADER
        self._buffer = bytearray()
        self._checked = False  # the message has checksums
        self._segments = 0
        self._segment = 0
        self._segment_bytes = 0
        self._left = 0  # of the segment's content
        self._content_seen = 0
        self._segment_crc = 0
        self._message_crc = 0

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The content in the next piece of the body, in pieces. Consume it before the next call."""
        view = memoryview(data)
        while True:
            if self._part is _Part.END:
                if view:
                    raise _malformed("bytes after the end of the message")
                return
            if self._part is _Part.CONTENT:
                if not view:
                    return
                piece = bytes(view[: self._left])
                view = view[len(piece) :]
                self._take_content(piece)
                yield piece
                continue
            need = self._length() - len(self._buffer)
            self._buffer += view[:need]
            view = view[need:]
            if len(self._buffer) < self._length():
                return
            fields = bytes(self._buffer)
            self._buffer.clear()
            self._take_fields(fields)

    def finish(self) -> None:
        """The body has ended. Raises BlobError InvalidInput when the message has not."""
        if self._part is not _Part.END:
            raise _malformed("the message is incomplete")

    def _length(self) -> int:
        if self._part is _Part.MESSAGE_HEADER:
            return MESSAGE_HEADER_BYTES
        return SEGMENT_HEADER_BYTES if self._part is _Part.SEGMENT_HEADER else CRC64_BYTES

    def _take_content(self, piece: bytes) -> None:
        if self._checked:
            self._segment_crc = crc64(piece, self._segment_crc)
        self._content_seen += len(piece)
        self._left -= len(piece)
        if self._left == 0:
            self._end_of_content()

    def _take_fields(self, fields: bytes) -> None:
        if self._part is _Part.MESSAGE_HEADER:
            self._take_message_header(fields)
        elif self._part is _Part.SEGMENT_HEADER:
            self._take_segment_header(fields)
        elif self._part is _Part.SEGMENT_FOOTER:
            check_crc64(fields, crc64_bytes(self._segment_crc))
            self._end_of_segment()
        else:
            check_crc64(fields, crc64_bytes(self._message_crc))
            self._part = _Part.END

    def _take_message_header(self, fields: bytes) -> None:
        length, flags = int.from_bytes(fields[1:9], "little"), int.from_bytes(fields[9:11], "little")
        self._segments = int.from_bytes(fields[11:13], "little")
        if fields[0] != _VERSION:
            raise _malformed("unknown version of structured message")
        if flags & ~_FLAG_CRC64:
            raise _malformed("unknown property of a structured message")
        self._checked = flags == _FLAG_CRC64
        if self._segments == 0:
            raise _malformed("a message without segments")
        expected = message_length(self._content_bytes, self._segments, self._checked)
        if length != expected or (self._message_bytes is not None and length != self._message_bytes):
            raise _malformed("the length of the message does not fit its content")
        self._part = _Part.SEGMENT_HEADER

    def _take_segment_header(self, fields: bytes) -> None:
        self._segment += 1
        if int.from_bytes(fields[:2], "little") != self._segment:
            raise _malformed("segments out of order")
        self._left = self._segment_bytes = int.from_bytes(fields[2:10], "little")
        remaining = self._content_bytes - self._content_seen
        last = self._segment == self._segments
        if self._left > remaining or (last and self._left != remaining):
            raise _malformed("the length of a segment does not fit the content")
        self._segment_crc = 0
        self._part = _Part.CONTENT
        if self._left == 0:
            self._end_of_content()

    def _end_of_content(self) -> None:
        if self._checked:
            self._part = _Part.SEGMENT_FOOTER
        else:
            self._end_of_segment()

    def _end_of_segment(self) -> None:
        if self._checked:
            before = self._content_seen - self._segment_bytes
            self._message_crc = joined_crc64(self._message_crc, before, self._segment_crc, self._segment_bytes)
        if self._segment < self._segments:
            self._part = _Part.SEGMENT_HEADER
        else:
            self._part = _Part.MESSAGE_FOOTER if self._checked else _Part.END


def _malformed(reason: str) -> BlobError:
    return BlobError(ErrorCode.INVALID_INPUT, reason=reason)


def message_length(content_bytes: int, segments: int, checked: bool = True) -> int:
    """The length in bytes of a message of so many segments with content of so many bytes."""
    footer = CRC64_BYTES if checked else 0
    return MESSAGE_HEADER_BYTES + segments * (SEGMENT_HEADER_BYTES + footer) + content_bytes + footer


def segment_count(content_bytes: int) -> tuple[int, int]:
    """(number of segments, content bytes of each but the last) that a message made here has."""
    size = SEGMENT_BYTES
    while content_bytes > size * SEGMENTS_MAX:
        size *= 2
    return max(1, -(-content_bytes // size)), size


def encoded_length(content_bytes: int) -> int:
    """The length in bytes of what encode() makes of so much content."""
    return message_length(content_bytes, segment_count(content_bytes)[0])


def encode(read: Callable[[int], bytes], content_bytes: int) -> Iterator[bytes]:
    """A message with checksums around content_bytes of content. `read(n)` gives the next 1 to n bytes of it, b"" at an
    end that comes too early; then EOFError is raised. No piece is longer than what read() gave."""
    segments, size = segment_count(content_bytes)
    length = message_length(content_bytes, segments)
    yield (
        _VERSION.to_bytes(1, "little")
        + length.to_bytes(8, "little")
        + _FLAG_CRC64.to_bytes(2, "little")
        + segments.to_bytes(2, "little")
    )
    done = message_crc = 0
    for number in range(1, segments + 1):
        segment = min(size, content_bytes - done)
        yield number.to_bytes(2, "little") + segment.to_bytes(8, "little")
        left, crc = segment, 0
        while left:
            piece = read(left)
            if not piece:
                raise EOFError("content ended early")
            crc = crc64(piece, crc)
            left -= len(piece)
            yield piece
        message_crc = joined_crc64(message_crc, done, crc, segment)
        done += segment
        yield crc64_bytes(crc)
    yield crc64_bytes(message_crc)
