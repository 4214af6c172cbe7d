"""Byte streams that two HTTP implementations may read differently. Every one has to be refused with 400 and a close.

Each stream ends in, or hides, a second request for `/smuggled`. Families: the request line, line ends, header names and
values, Host, two lengths, odd lengths, transfer codings, chunk framing, versions (RFC 9112 sections 3, 5, 6, 7, 11.2).
"""

from typing import Final

HIDDEN: Final = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
_OK: Final = b"POST /first HTTP/1.1\r\nHost: a\r\n"


def _line(name: str, line: bytes) -> tuple[str, bytes]:
    return name, line + b"\r\nHost: a\r\n\r\n" + HIDDEN


def _field(name: str, field: bytes) -> tuple[str, bytes]:
    return name, _OK + field + b"\r\n\r\n" + HIDDEN


def _chunks(name: str, chunks: bytes) -> tuple[str, bytes]:
    return name, _OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + HIDDEN


_REQUEST_LINES: Final = [
    _line("http09", b"GET /first"),
    _line("http09-space", b"GET /first "),
    _line("http2-preface", b"PRI * HTTP/2.0"),
    _line("version-1.2", b"GET /first HTTP/1.2"),
    _line("version-2.0", b"GET /first HTTP/2.0"),
    _line("version-0.9", b"GET /first HTTP/0.9"),
    _line("version-1.10", b"GET /first HTTP/1.10"),
    _line("version-01.1", b"GET /first HTTP/01.1"),
    _line("version-lower", b"GET /first http/1.1"),
    _line("version-1,1", b"GET /first HTTP/1,1"),
    _line("version-bare", b"GET /first HTTP/1"),
    _line("version-other", b"GET /first ICAP/1.1"),
    _line("two-spaces-after-method", b"GET  /first HTTP/1.1"),
    _line("two-spaces-before-version", b"GET /first  HTTP/1.1"),
    _line("trailing-space", b"GET /first HTTP/1.1 "),
    _line("leading-space", b" GET /first HTTP/1.1"),
    _line("tab-for-space", b"GET\t/first\tHTTP/1.1"),
    _line("tab-in-target", b"GET /fi\trst HTTP/1.1"),
    _line("space-in-target", b"GET /fi rst HTTP/1.1"),
    _line("nul-in-target", b"GET /fi\0rst HTTP/1.1"),
    _line("vt-for-space", b"GET\x0b/first HTTP/1.1"),
    _line("del-in-target", b"GET /fi\x7frst HTTP/1.1"),
    _line("cr-in-target", b"GET /fi\rrst HTTP/1.1"),
    _line("no-target", b"GET HTTP/1.1"),
    _line("empty-target", b"GET  HTTP/1.1"),
    _line("lower-method", b"get /first HTTP/1.1"),
    _line("method-with-colon", b"GET: /first HTTP/1.1"),
    _line("method-with-nul", b"G\0ET /first HTTP/1.1"),
    _line("method-too-long", b"G" * 25 + b" /first HTTP/1.1"),
    _line("authority-form", b"CONNECT a:80 HTTP/1.1"),
    _line("connect-origin-form", b"CONNECT /first HTTP/1.1"),
    _line("relative-target", b"GET first HTTP/1.1"),
    _line("asterisk-get", b"GET * HTTP/1.1"),
    _line("other-scheme", b"GET ftp://a/first HTTP/1.1"),
    _line("absolute-other-host", b"GET http://b/first HTTP/1.1"),
    _line("absolute-userinfo", b"GET http://x@a/first HTTP/1.1"),
    _line("leading-crlf", b"\r\nGET /first HTTP/1.1"),
    _line("response-as-request", b"HTTP/1.1 200 OK"),
    ("tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + HIDDEN),
]
_LINE_ENDS: Final = [
    ("lf-only", b"GET /first HTTP/1.1\nHost: a\n\n" + HIDDEN),
    ("lf-after-request-line", b"GET /first HTTP/1.1\nHost: a\r\n\r\n" + HIDDEN),
    ("lf-after-header", b"GET /first HTTP/1.1\r\nHost: a\nX: y\r\n\r\n" + HIDDEN),
    ("lf-lf-end", b"GET /first HTTP/1.1\r\nHost: a\r\n\n" + HIDDEN),
    ("crlf-lf-end", b"GET /first HTTP/1.1\r\nHost: a\n\r\n" + HIDDEN),
    ("cr-only", b"GET /first HTTP/1.1\rHost: a\r\r" + HIDDEN),
    ("cr-cr-lf", b"GET /first HTTP/1.1\r\r\nHost: a\r\n\r\n" + HIDDEN),
    _field("cr-in-value", b"X: a\rContent-Length: 36"),
    _field("lf-in-value", b"X: a\nContent-Length: 36"),
    _field("cr-at-end-of-value", b"X: a\r"),
    _field("lf-cr-in-value", b"X: a\n\rB: c"),
]
_FIELDS: Final = [
    _field("space-before-colon", b"Content-Length : 36"),
    _field("tab-before-colon", b"Content-Length\t: 36"),
    _field("te-space-before-colon", b"Transfer-Encoding : chunked"),
    _field("space-before-name", b" Content-Length: 36"),
    _field("fold", b"X: a\r\n b"),
    _field("fold-tab", b"X: a\r\n\tb"),
    _field("fold-length", b"Content-Length:\r\n 36"),
    _field("fold-te", b"Transfer-Encoding:\r\n chunked"),
    _field("no-colon", b"Content-Length 36"),
    _field("empty-name", b": a"),
    _field("nul-in-name", b"X\0: a"),
    _field("nul-in-value", b"X: a\0b"),
    _field("bell-in-value", b"X: a\x07b"),
    _field("escape-in-value", b"X: \x1b[0m"),
    _field("vt-in-value", b"X: a\x0bb"),
    _field("del-in-value", b"X: a\x7fb"),
    _field("high-byte-in-name", b"X\xff: a"),
    _field("brackets-in-name", b"X(y): a"),
    _field("slash-in-name", b"X/y: a"),
    _field("quoted-name", b'"Content-Length": 36'),
    _field("underscore-length", b"Content_Length: 36"),
    _field("underscore-te", b"Transfer_Encoding: chunked"),
    _field("two-authorizations", b"Authorization: a\r\nAuthorization: b"),
    _field("two-dates", b"x-ms-date: a\r\nX-MS-Date: b"),
    _field("two-versions", b"x-ms-version: 2021-08-06\r\nx-ms-version: 2015-02-21"),
    _field("two-ranges", b"Range: bytes=0-1\r\nRange: bytes=2-3"),
    _field("two-x-ms-ranges", b"x-ms-range: bytes=0-1\r\nx-ms-range: bytes=2-3"),
    _field("two-metadata", b"x-ms-meta-a: 1\r\nx-ms-meta-A: 2"),
    _field("two-content-types", b"Content-Type: a/b\r\nContent-Type: c/d"),
    _field("two-if-matches", b"If-Match: a\r\nIf-Match: b"),
    _field("two-expects", b"Expect: 100-continue\r\nExpect: 100-continue"),
    _field("other-expectation", b"Expect: 200-ok"),
    _field("expect-list", b"Expect: 100-continue, x"),
    _field("201-headers", b"\r\n".join(b"X-%d: y" % n for n in range(201))),
    _field("64-kib-of-headers", b"X: " + b"a" * 65536),
    ("target-too-long", b"GET /" + b"a" * 16384 + b" HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN),
]
_HOSTS: Final = [
    ("no-host", b"GET /first HTTP/1.1\r\n\r\n" + HIDDEN),
    ("two-hosts", b"GET /first HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + HIDDEN),
    ("two-equal-hosts", b"GET /first HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n" + HIDDEN),
    ("empty-host", b"GET /first HTTP/1.1\r\nHost:\r\n\r\n" + HIDDEN),
    ("host-list", b"GET /first HTTP/1.1\r\nHost: a, b\r\n\r\n" + HIDDEN),
    ("host-space", b"GET /first HTTP/1.1\r\nHost: a b\r\n\r\n" + HIDDEN),
    ("host-path", b"GET /first HTTP/1.1\r\nHost: a/b\r\n\r\n" + HIDDEN),
    ("host-userinfo", b"GET /first HTTP/1.1\r\nHost: x@a\r\n\r\n" + HIDDEN),
    ("host-query", b"GET /first HTTP/1.1\r\nHost: a?b\r\n\r\n" + HIDDEN),
    ("host-port-text", b"GET /first HTTP/1.1\r\nHost: a:b\r\n\r\n" + HIDDEN),
    ("host-two-ports", b"GET /first HTTP/1.1\r\nHost: a:1:2\r\n\r\n" + HIDDEN),
]
_LENGTHS: Final = [
    _field(f"length-{value.decode('latin-1')!r}", b"Content-Length: " + value)
    for value in (
        b"+5", b"-5", b"0x5", b"5,5", b"5, 5", b"5 5", b"5;", b"5.0", b"5e0", b"05", b"00", b"", b"a", b"5a", b"\xb25",
        b"1_0", b"0b1", b"\xd9\xa5", b"99999999999999999999", b"9223372036854775808", b'"5"', b"5\t5", b"-0", b"0 0",
    )
] + [
    _field("two-lengths", b"Content-Length: 36\r\nContent-Length: 0"),
    _field("two-equal-lengths", b"Content-Length: 36\r\nContent-Length: 36"),
    _field("two-zero-lengths", b"Content-Length: 0\r\ncontent-length: 0"),
]  # fmt: skip
_CODINGS: Final = [
    _field("cl-te", b"Content-Length: 36\r\nTransfer-Encoding: chunked"),
    _field("te-cl", b"Transfer-Encoding: chunked\r\nContent-Length: 36"),
    _field("zero-cl-te", b"Content-Length: 0\r\nTransfer-Encoding: chunked"),
    ("te-in-1.0", b"POST /first HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    _field("two-tes", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    _field("te-and-identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    *(
        _field(f"te-{value.decode('latin-1')!r}", b"Transfer-Encoding: " + value)
        for value in (
            b"xchunked", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"chunked,",
            b", chunked", b"Chunked", b"CHUNKED", b'"chunked"', b"chunked;q=1", b"chunk", b"chunkedx", b"\xffchunked",
            b"chunked\x0b", b"'chunked'", b"", b"chunked identity", b"x",
        )
    ),
]  # fmt: skip
#: The head is proper, the body is not: the handler may start, but sees no body and no second request.
BODIES: Final = [
    _chunks("size-17-digits", b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-16-digits", b"FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-wraps-64", b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-prefix", b"0x3\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-plus", b"+3\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-minus", b"-3\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-minus-zero", b"-0\r\n\r\n"),
    _chunks("size-empty", b"\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-underscore", b"1_0\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-space-before", b" 3\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-space-after", b"3 \r\nabc\r\n0\r\n\r\n"),
    _chunks("size-tab-after", b"3\t\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-letters", b"3g\r\nabc\r\n0\r\n\r\n"),
    _chunks("size-non-ascii-digit", b"\xd9\xa3\r\nabc\r\n0\r\n\r\n"),
    _chunks("extension", b"3;a=b\r\nabc\r\n0\r\n\r\n"),
    _chunks("extension-empty", b"3;\r\nabc\r\n0\r\n\r\n"),
    _chunks("extension-lf", b"3;\nxx\r\nabc\r\n0\r\n\r\n"),
    _chunks("extension-on-last", b"0;a\r\n\r\n"),
    _chunks("size-lf", b"3\nabc\r\n0\r\n\r\n"),
    _chunks("size-cr", b"3\rabc\r\n0\r\n\r\n"),
    _chunks("size-cr-cr-lf", b"3\r\r\nabc\r\n0\r\n\r\n"),
    _chunks("data-lf", b"3\r\nabc\n0\r\n\r\n"),
    _chunks("data-without-end", b"3\r\nabc0\r\n\r\n"),
    _chunks("data-longer", b"3\r\nabcd\r\n0\r\n\r\n"),
    _chunks("data-shorter", b"4\r\nabc\r\n0\r\n\r\n"),
    _chunks("data-cr-x", b"3\r\nabc\rX0\r\n\r\n"),
    _chunks("last-lf", b"3\r\nabc\r\n0\n\n"),
    _chunks("last-lf-end", b"3\r\nabc\r\n0\r\n\n"),
    _chunks("trailer", b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"),
    _chunks("trailer-length", b"3\r\nabc\r\n0\r\nContent-Length: 36\r\n\r\n"),
    _chunks("no-last-chunk", b"3\r\nabc\r\n"),
    _chunks("nul", b"\0\r\n\r\n"),
]
HEADS: Final = [*_REQUEST_LINES, *_LINE_ENDS, *_FIELDS, *_HOSTS, *_LENGTHS, *_CODINGS]
