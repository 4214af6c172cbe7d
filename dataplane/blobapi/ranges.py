"""Range and x-ms-range: from a header to the bytes of a blob of known size.

Guarantees that what comes back lies inside the blob. A header that is malformed, or names several ranges, is ignored as
if it had not been sent (RFC 9110 section 14.2 allows it, recordings of the service show it); only a well-formed range
that begins at or behind the end is an error. The REST page "Specifying the range header for Blob service operations"
knows `bytes=a-b` and `bytes=a-`; the suffix form `bytes=-n` is honoured as RFC 9110 says, because a client that sends
it wants the tail and would mistake the whole blob for it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi.errors import BlobError, ErrorCode

#: Twenty digits hold 2**64 - 1; longer numbers are no offsets, and int() of thousands of digits is slow.
_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,20})-([0-9]{1,20})?|-([0-9]{1,20}))\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """A well-formed range as asked for, in bytes; `first` None means the last `last` bytes."""

    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of a blob: `offset` and `length`, both in bytes and inside a blob of `size` bytes."""

    offset: int
    length: int
    size: int

    @property
    def content_range(self) -> str:
        """The value of Content-Range."""
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{self.size}"


def parse_range(headers: Mapping[str, str]) -> RangeRequest | None:
    """The range that a request asks for, None when it asks for none that is well formed. x-ms-range hides Range."""
    text = headers.get("x-ms-range") or headers.get("range")
    return parse_range_value(text) if text else None


def parse_range_value(text: str) -> RangeRequest | None:
    """The range in the value of a header (also x-ms-source-range), None when it is malformed."""
    match = _RANGE.match(text.strip())
    if match is None:
        return None
    if match[3] is not None:
        return RangeRequest(None, int(match[3]))
    first, last = int(match[1]), int(match[2]) if match[2] is not None else None
    if last is not None and last < first:
        return None
    return RangeRequest(first, last)


def resolve(request: RangeRequest, size: int) -> ByteRange:
    """The bytes of a blob of `size` bytes that a range means; an end behind the blob's is clipped.

    Raises BlobError 416 InvalidRange, with Content-Range, when there is no such byte.
    """
    if request.first is None:
        length = min(request.last or 0, size)
        first, last = size - length, size - 1
    else:
        first = request.first
        last = size - 1 if request.last is None else min(request.last, size - 1)
    if first >= size:
        raise BlobError(ErrorCode.INVALID_RANGE, headers=(("Content-Range", f"bytes */{size}"),))
    return ByteRange(first, last - first + 1, size)
