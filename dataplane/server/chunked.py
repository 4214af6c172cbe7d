"""The chunked transfer coding (RFC 9112 section 7.1), decoded piece by piece. Pure.

Guarantees: a size is 1 to 16 hexadecimal digits and nothing else; extensions and trailer fields are refused, as no
storage client sends them and hops disagree about them; what is buffered is one size line of at most 18 bytes, whatever
the other side sends. Payload is never copied here: it is handed on as views of what was fed.
"""

import re
from typing import Final

from dataplane.blobapi import limits
from dataplane.server.head import malformed

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_SIZE_LINE_BYTES_MAX: Final = 18
_CRLF: Final = b"\r\n"


class ChunkedDecoder:
    """Feed it bytes as they arrive; `complete` tells that the body has ended."""

    __slots__ = ("_left", "_line", "_line_kind", "_small_count", "complete")

    def __init__(self) -> None:
        self.complete = False
        self._left = 0  # payload bytes of the present chunk still to come
        self._small_count = 0
        self._line = bytearray()  # the beginning of a line that has not arrived whole
        self._line_kind = "size"  # what the next line is: "size", "end" of a chunk, "last" of the body

    def feed(self, data: memoryview) -> tuple[list[memoryview], int]:
        """(payload pieces in order, how many bytes of `data` belong to this body).

        Bytes beyond the body are left to the caller. Raises BlobError InvalidInput for anything but the one spelling.
        """
        pieces: list[memoryview] = []
        at = 0
        while at < len(data) and not self.complete:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
            else:
                at += self._take_line(data[at : at + _SIZE_LINE_BYTES_MAX])
        return pieces, at

    def _take_line(self, data: memoryview) -> int:
        """Add to the present line up to its CRLF, act on a whole one; how many bytes were used."""
        known = len(self._line)
        self._line += data[: _SIZE_LINE_BYTES_MAX - known]
        end = self._line.find(_CRLF)
        if end < 0:
            self._check_unfinished()
            return len(self._line) - known
        line = bytes(self._line[:end])
        self._line.clear()
        self._end_line(line)
        return end + len(_CRLF) - known

    def _check_unfinished(self) -> None:
        """Refuse at once what no further byte can make right."""
        line = self._line[:-1] if self._line.endswith(b"\r") else self._line
        if self._line_kind == "size":
            proper = _SIZE.fullmatch(line) is not None if line else not self._line
        else:
            proper = not line
        if not proper:
            raise malformed("A chunk of the request body is not well formed.")

    def _end_line(self, line: bytes) -> None:
        if self._line_kind == "size":
            size = int(line, 16) if _SIZE.fullmatch(line) else -1
            if not 0 <= size <= limits.put_blob_bytes_max:
                raise malformed("The size of a chunk is not well formed or too large.")
            self._small_count += size <= limits.small_chunk_bytes_max
            if self._small_count > limits.small_chunks_count_max:
                raise malformed("The request body comes in too many short chunks.")
            self._left = size
            self._line_kind = "end" if size else "last"
        elif line:
            raise malformed("A chunk does not end where it said, or the body has trailer fields.")
        elif self._line_kind == "end":
            self._line_kind = "size"
        else:
            self.complete = True
