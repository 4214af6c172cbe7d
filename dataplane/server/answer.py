"""An answer's head as bytes, and the answers that this layer gives itself.

Guarantees: one Content-Length or none, one Date, no Transfer-Encoding; no header can end its line early, whatever a
handler or a file's record put into it: names are tokens, and the finished head has exactly the line ends that were
meant. An answer that breaks this is a bug of ours and becomes a bare 500.
"""

import re
import time
import uuid
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

from dataplane.blobapi.dates import http_date, iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode, error_body
from dataplane.blobapi.message import Response

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
#: RFC 9110 section 8.6 forbids Content-Length with 204; 304 would have to repeat that of the 200.
_WITHOUT_LENGTH: Final = frozenset({204, 304})
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Only this module writes these.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "trailer", "upgrade"})
_KNOWN_NAMES_MAX: Final = 1024
_known_names: set[str] = set()
_DATE_NAMES: Final = frozenset({"Date", "date"})


class AnswerError(Exception):
    """A handler's answer that must not be sent: a header that is not one line, or one that belongs to this layer."""


class DateLine:
    """The Date header, formatted once a second. `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._second = -1
        self._line = ""

    def line(self) -> str:
        second = int(self.clock())
        if second != self._second:
            self._second = second
            self._line = f"Date: {http_date(second)}\r\n"
        return self._line


def body_length(response: Response) -> int:
    """The bytes of the body itself, whether or not they are sent."""
    return len(response.body) if isinstance(response.body, bytes) else response.body.length


def answer_head(response: Response, date: DateLine, *, close: bool) -> bytes:
    """The status line and all headers with the empty line. Raises AnswerError.

    A Date that the handler gave is kept. `close` announces that the connection ends after this answer.
    """
    headers = response.headers
    names = dict(headers)
    if not _known_names.issuperset(names):
        _check_names(names.keys())
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    if response.status not in _WITHOUT_LENGTH:
        length = response.content_length
        lines.append(f"Content-Length: {body_length(response) if length is None else length}\r\n")
    if "Date" not in names and "date" not in names:
        lines.append(date.line())
    if close:
        lines.append("Connection: close\r\n")
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise AnswerError("a header value holds CR, LF or NUL")
    status_line = _STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} Status\r\n"
    return f"{status_line}{text}\r\n".encode("utf-8", "surrogateescape")


def _check_names(names: Iterable[str]) -> None:
    """Names that were not seen before are tokens, and not those of this module. Remembers them, up to a limit."""
    for name in names:
        if _TOKEN.fullmatch(name) is None:
            raise AnswerError("a header name is not a token")
        if name.lower() in _FRAMING or (name.lower() == "date" and name not in _DATE_NAMES):
            raise AnswerError(f"{name} is written by the connection")
    if len(_known_names) >= _KNOWN_NAMES_MAX:
        _known_names.clear()
    _known_names.update(names)


def refusal(error: BlobError, clock: Callable[[], float]) -> Response:
    """The answer to a request that never reached the application, in Azure's form."""
    request_id = str(uuid.uuid4())
    body = error_body(error, request_id, iso_ticks(int(clock() * 10_000_000)))
    headers = [
        ("Content-Type", "application/xml"),
        ("x-ms-request-id", request_id),
        ("x-ms-error-code", error.code.code),
        *error.headers,
    ]
    return Response(error.code.status, headers, body, close=error.close)


def bug(clock: Callable[[], float]) -> Response:
    """The answer when a handler, or the answer it gave, is broken."""
    return refusal(BlobError(ErrorCode.INTERNAL_ERROR, close=True), clock)
