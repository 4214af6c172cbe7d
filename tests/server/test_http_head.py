"""Heads: what is read from a proper one, and that independent parsers read the same from whatever is accepted."""

import contextlib
from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError
from dataplane.server.head import RawRequest, check_partial, parse_head
from tests.server.smuggling_corpus import BODIES, HEADS


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def test_a_whole_head() -> None:
    request = parse_head(
        head(
            "PUT /account/c/b%20c?comp=block&blockid=AA%3D HTTP/1.1",
            "Host: 127.0.0.1:10000",
            "x-ms-Meta-Name:\t value with  blanks \t",
            "Content-Length: 12",
            "Accept: a/b",
            "Accept: c/d",
            "Empty:",
        )
    )
    assert request.method == "PUT"
    assert request.target == "/account/c/b%20c?comp=block&blockid=AA%3D"
    assert request.headers == {
        "host": "127.0.0.1:10000",
        "x-ms-meta-Name": "value with  blanks",
        "content-length": "12",
        "accept": "a/b, c/d",
        "empty": "",
    }
    assert request.content_length == 12
    assert request.has_body
    assert request.keep_alive
    assert not request.chunked


def test_bytes_that_are_no_utf8_come_through_unchanged() -> None:
    request = parse_head(b"GET /a\xff HTTP/1.1\r\nHost: a\r\nX-Ms-Meta-A: \xfe\xc3\xa4")
    assert request.target.encode("utf-8", "surrogateescape") == b"/a\xff"
    assert request.headers["x-ms-meta-A"].encode("utf-8", "surrogateescape") == b"\xfe\xc3\xa4"


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\x1c", "\xa0"])
def test_what_only_unicode_calls_a_line_end_or_a_blank_is_text(separator: str) -> None:
    if separator == "\x1c":
        with pytest.raises(BlobError):
            parse_head(head("GET / HTTP/1.1", "Host: a", f"X: {separator}b{separator}"))
        return
    request = parse_head(head("GET / HTTP/1.1", "Host: a", f"X: {separator}b{separator}"))
    assert request.headers["x"] == f"{separator}b{separator}"


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "te, CLOSE", False),
        ("1.1", "closed", True),
        ("1.1", "keep-alive", True),
        ("1.0", None, False),
        ("1.0", "keep-alive", False),
    ],
)
def test_whether_the_connection_is_kept(version: str, connection: str | None, kept: bool) -> None:
    lines = [f"GET / HTTP/{version}", "Host: a"]
    if connection is not None:
        lines.append(f"Connection: {connection}")
    assert parse_head(head(*lines)).keep_alive is kept


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_expectation(expectation: str) -> None:
    request = parse_head(head("PUT / HTTP/1.1", "Host: a", f"Expect: {expectation}", "Content-Length: 1"))
    assert request.expects_continue


def test_http_1_0_needs_no_host_and_has_no_expectation() -> None:
    request = parse_head(head("PUT / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1"))
    assert not request.expects_continue


@pytest.mark.parametrize(
    ("target", "host"),
    [("http://a/b", "a"), ("https://A:80/b?c", "a:80"), ("http://a", "A"), ("/http://b/", "a"), ("//b/c", "a")],
)
def test_targets(target: str, host: str) -> None:
    assert parse_head(head(f"GET {target} HTTP/1.1", f"Host: {host}")).target == target


def test_options_of_the_server() -> None:
    assert parse_head(head("OPTIONS * HTTP/1.1", "Host: a")).target == "*"


@pytest.mark.parametrize("host", ["a", "a.b-c_d~e:80", "127.0.0.1", "[::1]", "[::1]:443", "[::ffff:127.0.0.1]"])
def test_hosts(host: str) -> None:
    assert parse_head(head("GET / HTTP/1.1", f"Host: {host}")).headers["host"] == host


def test_a_name_without_colon_is_refused_also_when_the_name_was_seen() -> None:
    parse_head(head("GET / HTTP/1.1", "Host: a", "Accept: b"))
    with pytest.raises(BlobError):
        parse_head(head("GET / HTTP/1.1", "Host: a", "Accept"))


def test_many_different_names_do_not_fill_the_memory() -> None:
    for start in range(0, 5000, 100):
        parse_head(head("GET / HTTP/1.1", "Host: a", *(f"X-{start + n}: y" for n in range(100))))
    from dataplane.server import head as module

    assert len(module._names) <= module._CACHED_NAMES_MAX


def test_limits_are_inclusive() -> None:
    target = "/" + "a" * (limits.request_target_bytes_max - 1)
    assert parse_head(head(f"GET {target} HTTP/1.1", "Host: a")).target == target
    count = limits.request_header_count_max - 2
    assert len(parse_head(head("GET / HTTP/1.1", "Host: a", *(f"X-{n}: y" for n in range(count)))).headers) == count + 1


# --- other parsers as oracles ---


def read_by_llhttp(data: bytes) -> tuple[str, bytes, list[tuple[bytes, bytes]]] | None:
    class Events:
        def __init__(self) -> None:
            self.target = b""
            self.headers: list[tuple[bytes, bytes]] = []
            self.complete = False

        def on_url(self, url: bytes) -> None:
            self.target += url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers.append((name, value))

        def on_headers_complete(self) -> None:
            self.complete = True

    events = Events()
    parser: Any = httptools.HttpRequestParser(events)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    return (parser.get_method().decode(), events.target, events.headers) if events.complete else None


def read_by_h11(data: bytes) -> h11.Request | None:
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def accepted(data: bytes) -> RawRequest | None:
    """What we read, None after a refusal, which has to close the connection."""
    refused: BlobError
    try:
        return parse_head(data)
    except BlobError as error:
        refused = error
    assert refused.close
    return None


def in_lower_case(request: RawRequest) -> dict[str, bytes]:
    """The headers as the oracles name them; they do not know about metadata, whose case is kept."""
    found: dict[str, bytes] = {}
    for name, value in request.headers.items():
        key, data = name.lower(), value.encode("utf-8", "surrogateescape")
        found[key] = found[key] + b", " + data if key in found else data
    return found


def assert_same(data: bytes, ours: RawRequest) -> None:
    """What we read is what h11 reads, and llhttp where it accepts the head (it knows fewer methods and targets)."""
    expected: dict[str, bytes] = {}
    theirs = read_by_h11(data)
    if theirs is not None:
        assert theirs.method == ours.method.encode()
        assert theirs.target == ours.target.encode("utf-8", "surrogateescape")
        for name, value in theirs.headers:
            key = name.decode()
            expected[key] = expected[key] + b", " + value if key in expected else value
        assert expected == in_lower_case(ours)
    llhttp = read_by_llhttp(data)
    if llhttp is not None:
        method, target, fields = llhttp
        assert method == ours.method
        assert target == ours.target.encode("utf-8", "surrogateescape")
        joined: dict[str, bytes] = {}
        for raw_name, value in fields:
            key, value = raw_name.decode().lower(), value.strip(b" \t")
            joined[key] = joined[key] + b", " + value if key in joined else value
        assert joined == in_lower_case(ours)


_names = st.sampled_from(
    ["Host", "Content-Length", "Transfer-Encoding", "Connection", "x-ms-meta-a", "Accept", "Expect", "X", "Via", "Date"]
)
_values = st.one_of(
    st.sampled_from(["a", "5", "05", "chunked", "close", "100-continue", "", " b\t", "a, b", "a:1"]),
    st.text(st.characters(min_codepoint=9, max_codepoint=0x2FF, exclude_characters="\r\n"), max_size=8),
)
_glue = st.sampled_from([": "] * 12 + [":", ":\t", " : ", "", " "])
_ends = st.sampled_from(["\r\n"] * 20 + ["\n", "\r", "\r\n ", "\r\r\n"])
_lines = st.lists(st.tuples(_names, _glue, _values, _ends).map("".join), max_size=5)
_starts = st.tuples(
    st.sampled_from(["GET", "PUT", "POST", "get", "OPTIONS", "PROPFIND", "G T"]),
    st.sampled_from([" "] * 9 + ["  ", "\t"]),
    st.sampled_from(["/", "/a?b=c", "/%2e%2e", "*", "http://a/b", "/ä", "/a b", ""]),
    st.sampled_from([" HTTP/1.1"] * 9 + [" HTTP/1.0", " HTTP/1.2", "", " HTTP/1.1 "]),
    _ends,
).map("".join)
_heads = st.tuples(_starts, _lines).map(lambda parts: (parts[0] + "Host: a\r\n" + "".join(parts[1])).encode())


@settings(max_examples=1500, deadline=None)
@given(_heads)
def test_what_is_accepted_others_read_alike(lines: bytes) -> None:
    end = (lines + b"\r\n").find(b"\r\n\r\n")
    if end < 0:
        return
    ours = accepted(lines[:end])
    if ours is not None:
        assert_same(lines[:end] + b"\r\n\r\n", ours)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(HEADS + BODIES), st.data())
def test_mutations_of_the_corpus_never_crash_and_read_alike(vector: tuple[str, bytes], data: st.DataObject) -> None:
    stream = bytearray(vector[1][:4096])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from([b"", b"\r\n", b":", b" ", b"5"]))
    end = stream.find(b"\r\n\r\n")
    if end < 0:
        with contextlib.suppress(BlobError):
            check_partial(bytes(stream), 0)
        return
    ours = accepted(bytes(stream[:end]))
    if ours is not None:
        assert_same(bytes(stream[:end]) + b"\r\n\r\n", ours)


@settings(max_examples=300, deadline=None)
@given(_heads, st.integers(1, 40))
def test_a_beginning_is_refused_only_if_the_whole_is(lines: bytes, step: int) -> None:
    """check_partial never refuses what parse_head would accept, however the bytes arrive."""
    end = (lines + b"\r\n").find(b"\r\n\r\n")
    if end < 0:
        return
    whole = lines[:end]
    try:
        parse_head(whole)
    except BlobError:
        return
    whole += b"\r\n\r"
    checked = 0
    for length in range(step, len(whole), step):
        check_partial(whole[:length], checked)
        checked = length
