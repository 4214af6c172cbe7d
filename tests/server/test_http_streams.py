"""Whole streams against other implementations: every request that we see in a stream, they see, with the same body.

We may stop earlier (we refuse more), and they may refuse what we accept; a request that both read must be the same one
at the same place, as everything else is a way to smuggle.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.smuggling_corpus import BODIES, HEADS
from tests.server.test_http_connection import STREAM
from tests.server.wire import Recorder, feed

Message = tuple[str, bytes, bytes]  # method, target, body
Reader = Callable[[bytes], tuple[list[Message], bool]]


def ours(stream: bytes, step: int) -> list[Message]:
    app = Recorder()
    asyncio.run(feed(app, stream, step))
    return [(seen.method, seen.target.encode("utf-8", "surrogateescape"), seen.body) for seen in app.seen]


def by_h11(stream: bytes) -> tuple[list[Message], bool]:
    """(messages, whether it then refused the stream)."""
    messages: list[Message] = []
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(stream)
    body = b""
    request: h11.Request | None = None
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return messages, True
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            if request.method == b"CONNECT":
                return messages, True  # a tunnel; we refuse it
            messages.append((request.method.decode(), request.target, body))
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is h11.MUST_CLOSE:
                return messages, False
            connection.start_next_cycle()
        else:
            return messages, False


def by_llhttp(stream: bytes) -> tuple[list[Message], bool]:
    messages: list[Message] = []

    class Events:
        target = b""
        body = b""

        def on_message_begin(self) -> None:
            self.target = self.body = b""

        def on_url(self, url: bytes) -> None:
            self.target += url

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            messages.append((parser.get_method().decode(), self.target, self.body))

    parser: Any = httptools.HttpRequestParser(Events())
    try:
        parser.feed_data(stream)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return messages, True
    return messages, False


def assert_no_other_meaning(stream: bytes, step: int, reader: Reader) -> None:
    mine = ours(stream, step)
    theirs, refused = reader(stream)
    both = min(len(mine), len(theirs))
    assert mine[:both] == theirs[:both]
    assert len(mine) <= len(theirs) or refused, "we see a request where they wait for the end of one"


_messages = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        b"POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 29\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n!!",
        b"HEAD /e HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        b"DELETE /f HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        *(stream for _, stream in (HEADS + BODIES) if len(stream) < 400),
    ]
)
_mutations = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 3),
        st.sampled_from(
            [b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"0", b"5", b";", b",", b"\0", b"\r\n\r\n", b"HTTP/1.1",
             b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"]
        ),
    ),
    max_size=3,
)  # fmt: skip
_streams = st.tuples(st.lists(_messages, min_size=1, max_size=4), _mutations)


def mutated(messages: list[bytes], mutations: list[tuple[int, int, bytes]]) -> bytes:
    stream = b"".join(messages)
    for at, removed, inserted in mutations:
        at %= len(stream) + 1
        stream = stream[:at] + inserted + stream[at + removed :]
    return stream


@pytest.mark.parametrize("reader", [by_h11, by_llhttp])
@settings(max_examples=1000, deadline=None)
@given(_streams, st.sampled_from([1 << 20, 1, 7]))
def test_streams_have_no_other_meaning(reader: Reader, parts: tuple[list[bytes], Any], step: int) -> None:
    assert_no_other_meaning(mutated(*parts), step, reader)


@settings(max_examples=300, deadline=None)
@given(_streams)
def test_streams_mean_the_same_however_they_are_cut(parts: tuple[list[bytes], Any]) -> None:
    stream = mutated(*parts)
    whole = ours(stream, 1 << 20)
    assert ours(stream, 1) == whole
    assert ours(stream, 11) == whole


@pytest.mark.parametrize("reader", [by_h11, by_llhttp])
def test_the_oracles_read_a_proper_stream_as_we_do(reader: Reader) -> None:
    theirs, _ = reader(STREAM)
    assert theirs == ours(STREAM, 1 << 20)
