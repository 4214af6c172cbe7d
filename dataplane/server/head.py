"""A request's head: bytes up to the empty line -> RawRequest, or a refusal. Pure; no socket, no clock.

Guarantees: one head has one meaning. Whatever RFC 9112 lets a recipient repair (bare LF, folded lines, several lengths,
space before a colon, an unknown transfer coding) is refused, because the next hop may repair it differently; after a
refusal the connection closes, so bytes that followed it are never read as a request.

Rejected: tokenising with llhttp. The head of a storage SDK's request (11 headers) takes 3.6 us through httptools and
2 us more for the checks that llhttp leaves to its caller; here it takes 5 us with all of them, and a message is read
once, by one reader. llhttp and h11 are the oracles of the tests: what is accepted here, they read the same way.
"""

import re
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode

#: RFC 9110 section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHOD = re.compile(r"[A-Z]{1,24}")
_REQUEST_LINE = re.compile(rb"[A-Z]{1,24} [^\x00-\x20\x7f]+ HTTP/1\.[01]")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,18}")
_HOST = re.compile(r"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)")
#: Every byte that a line may hold: no control character but a tab.
_TEXT: Final = bytes({9, *range(32, 256)} - {127})
_LINE_ENDS: Final = b"\r\n" * (limits.request_header_count_max + 1)
_BARE = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n")
#: Those of Azure's operations and of CORS; any other token is left to the router's refusal.
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"})

#: Lists by their definition, or harmless: several lines mean one line with commas (RFC 9110 section 5.3). A header of
#: one of the families below, or one of those named, may come once only.
_ONCE_FAMILIES = ("x-ms-", "content-", "if-", "access-control-request-", "content_", "transfer")
_ONCE: Final = frozenset(
    {"host", "authorization", "date", "range", "expect", "origin", "user-agent", "referer", "max-forwards", "upgrade"}
)
_CREDENTIALS: Final = frozenset({"authorization", "x-ms-copy-source", "x-ms-copy-source-authorization"})
#: Names that some gateways read as the real ones (CGI turns dashes into underscores).
_LOOKALIKES: Final = frozenset({"content_length", "transfer_encoding", "content-length_", "transfer-encoding_"})

#: Metadata of a request with these methods is not used.
_READING: Final = frozenset({"GET", "HEAD"})
_METADATA: Final = "x-ms-meta-"

#: Header names as sent -> lower-case, after they were found to be tokens. Clients use few, so this holds all of them;
#: somebody who sends thousands only makes it start again.
_CACHED_NAMES_MAX: Final = 1024
_CACHED_NAME_CHARS_MAX: Final = 64
_names: dict[str, str] = {}
_hosts: set[str] = set()


@dataclass(slots=True)
class RawRequest:
    """A head as sent: names lower-case, values without blanks around them, as UTF-8 with surrogateescape.

    Names of user metadata keep their case behind `x-ms-meta-`, as Azure keeps it.
    `content_length` is None without a Content-Length header. `keep_alive` tells whether the client allows another
    request after this one; `expects_continue`, whether it waits for "100 Continue" before its body.
    """

    method: str
    target: str
    headers: dict[str, str]
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    secure: bool = False
    peer: str = ""
    local_port: int = 0

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head on the wire."""
        return self.chunked or bool(self.content_length)


def parse_head(head: bytes) -> RawRequest:
    """Read a head without its last CRLF CRLF. Raises BlobError (InvalidInput, InvalidHeaderValue) with `close` set."""
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    if len(lines) > limits.request_header_count_max:
        raise malformed("The number of headers exceeds the limit.")
    if head.translate(None, _TEXT) != _LINE_ENDS[: 2 * len(lines) - 2]:
        raise malformed("The request head holds a control character or a bare CR or LF.")
    method, target, http11 = _request_line(lines[0])
    del lines[0]
    headers: dict[str, str] = {}
    try:
        for line in lines:
            name, value = line.split(":", 1)
            headers[_names.get(name) or _check_name(name)] = value.strip(" \t")
    except ValueError:
        raise malformed("A header line has no colon.") from None
    if len(headers) != len(lines):
        headers = _join_repeated(lines)
    if method not in _READING and len({name.lower() for name in headers}) != len(headers):
        raise malformed("The names of two metadata headers differ by case only.")
    return _frame(method, target, http11, headers)


def check_partial(data: bytes, start: int) -> None:
    """Refuse the beginning of a head as soon as it can no longer become one, instead of waiting for its end.

    `start` is how much of `data` was checked before. Raises BlobError InvalidInput.
    """
    if len(data) > limits.request_header_bytes_max:
        raise malformed("The request head exceeds the limit.")
    if _BARE.search(data, max(0, start - 1)) or data[start:].translate(None, _TEXT).strip(b"\r\n"):
        raise malformed("The request head holds a control character or a bare CR or LF.")
    line_end = data.find(b"\r\n", 0, limits.request_target_bytes_max)
    if line_end < 0:
        if len(data) >= limits.request_target_bytes_max:
            raise malformed("The request target exceeds the limit.")
    elif start <= line_end + 1 and _REQUEST_LINE.fullmatch(data, 0, line_end) is None:
        raise malformed("The request line is not well formed.")


def malformed(message: str) -> BlobError:
    """The refusal of a message that is not proper HTTP: 400, and the connection closes."""
    return BlobError(ErrorCode.INVALID_INPUT, reason=message, close=True)


def _bad_value(name: str, value: str) -> BlobError:
    """The refusal of a header, which it shows, unless that may hold a signature or a token."""
    shown = None if name in _CREDENTIALS else value
    return BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=name, header_value=shown, close=True)


def _request_line(line: str) -> tuple[str, str, bool]:
    """(method, target, whether HTTP/1.1). The target is any text without blanks; uri.py decodes it."""
    parts = line.split(" ")
    if len(parts) != 3 or "\t" in line:
        raise malformed("The request line is not well formed.")
    method, target, version = parts
    if method not in _METHODS and (_METHOD.fullmatch(method) is None or method == "CONNECT"):
        raise malformed("The request method is not well formed.")  # behind CONNECT a gateway sees a tunnel, no requests
    if not target or len(target) > limits.request_target_bytes_max:
        raise malformed("The request target is empty or exceeds the limit.")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise malformed("The request line does not end in a version of HTTP/1.")
    return method, target, version == "HTTP/1.1"


def _check_name(name: str) -> str:
    """A header name that was not seen before, in lower case (names of user metadata keep theirs, as Azure keeps it).
    A folded line or a blank before the colon is no token."""
    lower = name.lower()
    if _TOKEN.fullmatch(name) is None or lower in _LOOKALIKES:
        raise malformed("A header name is not well formed.")
    if lower.startswith(_METADATA):
        lower = _METADATA + name[len(_METADATA) :]
    if len(name) <= _CACHED_NAME_CHARS_MAX:
        if len(_names) >= _CACHED_NAMES_MAX:
            _names.clear()
        _names[name] = lower
    return lower


def _join_repeated(lines: list[str]) -> dict[str, str]:
    """The headers when a name comes more than once: one value with commas, or a refusal."""
    headers: dict[str, str] = {}
    for line in lines:
        name, value = line.split(":", 1)
        name, value = _names.get(name) or _check_name(name), value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE or name.startswith(_ONCE_FAMILIES):
            raise _bad_value(name, value)
        else:
            headers[name] = f"{headers[name]}, {value}"
    return headers


def _frame(method: str, target: str, http11: bool, headers: dict[str, str]) -> RawRequest:
    """Where the message ends (RFC 9112 section 6) and whether the connection goes on (section 9.3)."""
    if target[0] != "/" or "host" not in headers:
        _check_authority(method, target, http11, headers.get("host"))
    elif headers["host"] not in _hosts:
        _check_host(headers["host"])
    content_length = None
    chunked = "transfer-encoding" in headers
    if chunked and (headers["transfer-encoding"] != "chunked" or "content-length" in headers or not http11):
        raise _bad_value("Transfer-Encoding", headers["transfer-encoding"])
    if "content-length" in headers:
        length = headers["content-length"]
        if _LENGTH.fullmatch(length) is None or int(length) >= 1 << 63:
            raise _bad_value("Content-Length", length)
        content_length = int(length)
    expects = "expect" in headers
    if expects and headers["expect"].lower() != "100-continue":
        raise _bad_value("Expect", headers["expect"])
    keep_alive = http11 and ("connection" not in headers or not _says_close(headers["connection"]))
    return RawRequest(method, target, headers, content_length, chunked, keep_alive, http11 and expects)


def _check_host(host: str) -> None:
    """A Host that was not seen before. Remembers it: a client's is the same in all its requests."""
    if _HOST.fullmatch(host) is None:
        raise _bad_value("Host", host)
    if len(host) <= _CACHED_NAME_CHARS_MAX:
        if len(_hosts) >= _CACHED_NAMES_MAX:
            _hosts.clear()
        _hosts.add(host)


def _check_authority(method: str, target: str, http11: bool, host: str | None) -> None:
    """The rare forms (RFC 9112 section 3.2): no Host, `*`, and an absolute target, which must agree with the Host."""
    if host is None and http11:
        raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name="Host", close=True)
    if host is not None and _HOST.fullmatch(host) is None:
        raise _bad_value("Host", host)
    if target[0] == "/" or (target == "*" and method == "OPTIONS"):
        return
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BlobError(ErrorCode.INVALID_URI, close=True)
    if absolute[1].lower() != (host or "").lower():
        raise _bad_value("Host", host or "")


def _says_close(connection: str) -> bool:
    if connection == "keep-alive":
        return False
    return any(option.strip(" \t").lower() == "close" for option in connection.split(","))
