"""One request has one meaning: every stream of the corpus is refused, whole and byte by byte."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.server.smuggling_corpus import BODIES, HEADS
from tests.server.wire import LoopServer, Recorder, feed, serving

ALL = [*HEADS, *BODIES]


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[LoopServer, Recorder]]:
    app = Recorder()
    with serving(app) as server:
        yield server, app


def test_the_corpus_is_large_and_distinct() -> None:
    names = [name for name, _ in ALL]
    assert len(names) >= 150
    assert len(set(names)) == len(names)
    assert len({stream for _, stream in ALL}) == len(names)


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("stream", [pytest.param(stream, id=name) for name, stream in ALL])
def test_refused_and_closed(stream: bytes, step: int) -> None:
    if step < len(stream) // 4096:
        pytest.skip("too long to feed in such small steps")
    app = Recorder()
    transport = asyncio.run(feed(app, stream, step))
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in transport.written
    assert transport.closed
    assert app.seen == []


@pytest.mark.parametrize("stream", [pytest.param(stream, id=name) for name, stream in ALL])
def test_refused_on_a_socket(refusing: tuple[LoopServer, Recorder], stream: bytes) -> None:
    server, app = refusing
    wire = server.connect()
    wire.send(stream)
    answer = wire.answer()
    assert answer.status == 400
    assert answer.closes
    code = answer.headers["x-ms-error-code"]
    assert code in {"InvalidInput", "InvalidHeaderValue", "MissingRequiredHeader", "InvalidUri"}
    assert f"<Code>{code}</Code>".encode() in answer.body
    assert wire.ended()
    assert app.seen == []
    wire.close()
