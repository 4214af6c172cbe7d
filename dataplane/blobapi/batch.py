"""Blob Batch on the wire: a multipart/mixed body of requests in, one of answers out.

Source: REST page "Blob Batch", and the recordings for the exact form of the answer. The reader is strict, as a part is
a request of its own and must not have two meanings: lines end with CRLF, a part is one application/http request without
a body, no header occurs twice, nothing stands before the first or after the last boundary. All parts are Delete Blob or
all are Set Blob Tier, which also rules out a batch in a batch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dataplane.blobapi import limits, uri
from dataplane.blobapi.errors import BlobError, ErrorCode

#: Refusals of a whole body that the service answers with 202 all the same, and one part without a Content-ID: the
#: answer's head is out before it reads the parts. SDKs turn that part into the error of the call.
INSIDE: Final = frozenset({ErrorCode.INVALID_INPUT, ErrorCode.EXCEEDS_MAX_BATCH_REQUEST_COUNT})

_CRLF: Final = b"\r\n"
_CONTENT_TYPE: Final = re.compile(
    r"""multipart/mixed\s*;\s*boundary=(?:"([^"\\]{1,70})"|([^\s";,]{1,70}))\s*\Z""", re.IGNORECASE | re.ASCII
)
#: RFC 2046 section 5.1.1; a space may not end it.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]*[0-9A-Za-z'()+_,\-./:=?]\Z")
_REQUEST_LINE: Final = re.compile(r"([A-Z]{3,7}) (/[\x21-\x7e]*|https?://[\x21-\x7e]+) HTTP/1\.1\Z")
_HEADER: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\U0010ffff]*?)[ \t]*\Z")
_CONTENT_ID: Final = re.compile(r"[\x21-\x7e]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class BatchPart:
    """One request of a batch. Header names are in lower case. `content_id` is "" when the part had none."""

    content_id: str
    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The answer to one part. `headers` in order and complete, Content-Length included when there is a body."""

    content_id: str
    status: int
    reason: str
    headers: Sequence[tuple[str, str]] = field(default=())
    body: bytes = b""


def boundary(content_type: str | None) -> bytes:
    """The boundary that the Content-Type names. Raises BlobError MissingRequiredHeader, InvalidHeaderValue."""
    if content_type is None:
        raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name="Content-Type")
    match = _CONTENT_TYPE.match(content_type)
    text = (match[1] or match[2]) if match else ""
    if _BOUNDARY.match(text) is None:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name="Content-Type", header_value=content_type)
    return text.encode("ascii")


def parse(content_type: str | None, body: bytes) -> list[BatchPart]:
    """The parts of a batch.

    Raises BlobError MissingRequiredHeader, InvalidHeaderValue, RequestBodyTooLarge; and for what is wrong inside the
    body InvalidInput with a reason or ExceedsMaxBatchRequestCount, which belong into a part of the answer (INSIDE).
    """
    if len(body) > limits.batch_body_bytes_max:
        raise BlobError(ErrorCode.REQUEST_BODY_TOO_LARGE)
    parts = [_part(piece) for piece in _pieces(boundary(content_type), body)]
    kinds = {_kind(part) for part in parts}
    if len(kinds) > 1:
        raise _refused("All sub requests of a batch must be of the same operation.")
    return parts


def _pieces(name: bytes, body: bytes) -> list[bytes]:
    delimiter = _CRLF + b"--" + name
    first, *pieces = (_CRLF + body).split(delimiter)
    if first.strip(_CRLF) or len(pieces) < 2:
        raise _refused("The body is not a multipart document with the boundary of the Content-Type.")
    last = pieces.pop()
    if last[:2] != b"--" or last[2:].strip(b" \t\r\n"):
        raise _refused("The body does not end with the closing boundary.")
    if len(pieces) > limits.batch_requests_max:
        raise BlobError(ErrorCode.EXCEEDS_MAX_BATCH_REQUEST_COUNT)
    return pieces


def _part(piece: bytes) -> BatchPart:
    line, found, rest = piece.partition(_CRLF)
    if line.strip(b" \t") or not found:
        raise _refused("A boundary is followed by something else than a line end.")
    head, found, request = rest.partition(_CRLF * 2)
    if not found:
        raise _refused("A sub request lacks the blank line after its part headers.")
    part_headers = _headers(head)
    if part_headers.get("content-type", "").lower() != "application/http":
        raise _refused("A sub request's Content-Type must be application/http.")
    if part_headers.get("content-transfer-encoding", "binary").lower() != "binary":
        raise _refused("A sub request's Content-Transfer-Encoding must be binary.")
    content_id = part_headers.get("content-id", "")
    if content_id and _CONTENT_ID.match(content_id) is None:
        raise _refused("A Content-ID is not valid.")
    return _request(content_id, request)


def _request(content_id: str, text: bytes) -> BatchPart:
    head, _, body = text.partition(_CRLF * 2)
    if body.strip(_CRLF):
        raise _refused("A sub request may not have a body.")
    line, _, rest = head.partition(_CRLF)
    match = _REQUEST_LINE.match(_text(line))
    if match is None:
        raise _refused("A sub request's request line is not valid.")
    headers = _headers(rest)
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _refused("A sub request may not have a body.")
    return BatchPart(content_id, match[1], match[2], headers)


def _headers(block: bytes) -> dict[str, str]:
    if len(block) > limits.batch_part_header_bytes_max:
        raise _refused("The headers of a sub request are too long.")
    lines = [line for line in block.split(_CRLF) if line]
    if len(lines) > limits.batch_part_header_count_max:
        raise _refused("A sub request has too many headers.")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.match(_text(line))
        if match is None:
            raise _refused("A header of a sub request is not valid.")
        name = match[1].lower()
        if name in headers:
            raise _refused(f"The header {name} occurs twice in a sub request.")
        headers[name] = match[2]
    return headers


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("A sub request's head is not UTF-8.") from None


def _kind(part: BatchPart) -> str:
    """delete or tier. Raises BlobError InvalidInput for any other operation."""
    _, query = uri.split_target(part.target)
    names = uri.parse_query(query)
    comp = names.get("comp", "").lower()
    if "restype" not in names:
        if part.method == "DELETE" and not comp:
            return "delete"
        if part.method == "PUT" and comp == "tier":
            return "tier"
    raise _refused("Only Delete Blob and Set Blob Tier are supported in a batch.")


def _refused(reason: str) -> BlobError:
    return BlobError(ErrorCode.INVALID_INPUT, reason=reason)


def render(boundary_name: str, answers: Sequence[BatchAnswer]) -> bytes:
    """The body of a batch's answer; its Content-Type is `multipart/mixed; boundary=` + the boundary."""
    pieces: list[bytes] = []
    for answer in answers:
        lines = [f"--{boundary_name}", "Content-Type: application/http"]
        if answer.content_id:
            lines.append(f"Content-ID: {answer.content_id}")
        lines += ["", f"HTTP/1.1 {answer.status} {answer.reason}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        pieces.append("\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape"))
        if answer.body:
            pieces += (answer.body, _CRLF)
    pieces.append(f"--{boundary_name}--".encode("ascii"))
    return b"".join(pieces)
