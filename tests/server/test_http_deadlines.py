"""Connections that end: deadlines, disconnects, and too many of them."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from dataplane.blobapi.message import Response
from dataplane.server.body import BodyReader, ClientDisconnected
from dataplane.server.connection import HttpConnection
from dataplane.server.head import RawRequest
from dataplane.server.options import ServerContext, ServerOptions
from tests.server.wire import LoopServer, MemoryTransport, Recorder, chunked, get, put, serving

MIB = 1024 * 1024

QUICK = ServerOptions(
    head_read_seconds_max=0.05,
    body_idle_seconds_max=0.05,
    send_idle_seconds_max=0.05,
    keep_alive_seconds_max=0.05,
    linger_seconds_max=0.05,
)


@pytest.fixture(scope="module")
def impatient() -> Iterator[LoopServer]:
    with serving(Recorder(), QUICK) as started:
        yield started


def test_a_head_that_does_not_end_is_cut_off(impatient: LoopServer) -> None:
    wire = impatient.connect()
    wire.send(get("/a")[:-2])
    answer = wire.answer()
    assert (answer.status, answer.closes) == (408, True)
    assert wire.ended()


def test_a_head_that_dribbles_in_gets_no_more_time() -> None:
    """Progress does not move the deadline of a head."""
    with serving(Recorder(), ServerOptions(head_read_seconds_max=0.2)) as server:
        wire = server.connect()
        wire.socket.settimeout(0.01)
        started = server.loop.time()
        dribble = iter(get("/a" + "b" * 1000))
        received = b""
        while not received:
            wire.send(bytes([next(dribble)]))
            try:
                received = wire.socket.recv(65536)
            except TimeoutError:
                continue
        assert received.startswith(b"HTTP/1.1 408")
        assert server.loop.time() - started < 1


def test_a_connection_that_says_nothing_is_closed(impatient: LoopServer) -> None:
    assert impatient.connect().ended()


def test_an_idle_connection_is_closed_after_its_answer(impatient: LoopServer) -> None:
    wire = impatient.connect()
    wire.send(get("/a"))
    assert wire.answer().status == 200
    assert wire.ended()


@pytest.mark.parametrize("request_bytes", [put("/a", b"hello")[:-1], chunked("/a", b"abc")[:-5]])
def test_a_body_that_stops_is_a_408(impatient: LoopServer, request_bytes: bytes) -> None:
    wire = impatient.connect()
    wire.send(request_bytes)
    answer = wire.answer()
    assert (answer.status, answer.headers["x-ms-error-code"], answer.closes) == (408, "RequestTimeout", True)
    assert wire.ended()


def test_expect_and_silence(impatient: LoopServer) -> None:
    wire = impatient.connect()
    wire.send(put("/a", b"hello", "Expect: 100-continue")[:-5])
    assert wire.answer().status == 100
    assert wire.answer().status == 408
    assert wire.ended()


def test_a_slow_handler_is_not_a_slow_client() -> None:
    async def app(request: RawRequest, body: BodyReader) -> Response:
        await asyncio.sleep(0.15)
        return Response(200, [], await body.read_all(10 * MIB))

    with serving(app, QUICK) as server:
        wire = server.connect()
        wire.send(get("/a"))
        assert wire.answer().status == 200
        wire = server.connect()
        wire.send(put("/a", bytes(2 * MIB)))  # more than is buffered before the handler reads
        assert len(wire.answer().body) == 2 * MIB


def test_a_client_that_takes_no_answers_is_cut_off() -> None:
    async def app(request: RawRequest, body: BodyReader) -> Response:
        return Response(200, [], bytes(MIB))

    with serving(app, QUICK) as server:
        wire = server.connect(receive_bytes=4096)
        wire.send(get("/a") * 200)
        server.until(lambda: server.server.counters.timeouts == 1)
        server.until(lambda: server.server.counters.open == 0)


def test_answers_that_wait_for_the_client_hold_its_next_requests_back() -> None:
    answered = 0

    async def app(request: RawRequest, body: BodyReader) -> Response:
        nonlocal answered
        answered += 1
        return Response(200, [], bytes(MIB))

    with serving(app) as server:
        wire = server.connect(receive_bytes=4096)
        wire.send(get("/a") * 60)
        server.until(lambda: answered >= 1)
        for _ in range(50):
            server.call(asyncio.sleep(0))
        assert answered < 20
        for _ in range(60):
            assert len(wire.answer().body) == MIB
        assert answered == 60


# --- disconnects ---


def test_a_disconnect_during_the_body_reaches_its_reader() -> None:
    outcome: list[str] = []

    async def app(request: RawRequest, body: BodyReader) -> Response:
        try:
            await body.read_all(MIB)
        except ClientDisconnected:
            outcome.append(request.target)
            raise
        return Response(200)

    with serving(app) as server:
        for target, reset in (("/fin", False), ("/rst", True)):
            wire = server.connect()
            wire.send(put(target, b"hello")[:-1])
            server.until(lambda: server.server.counters.open == 1)
            wire.reset() if reset else wire.close()
            server.until(lambda: server.server.counters.open == 0)
        server.until(lambda: len(outcome) == 2)
        assert outcome == ["/fin", "/rst"]
        assert server.server.counters.bugs == 0


def test_a_reset_cancels_a_handler_that_works() -> None:
    outcome: list[str] = []
    started = asyncio.Event()

    async def app(request: RawRequest, body: BodyReader) -> Response:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        return Response(200)

    with serving(app) as server:
        wire = server.connect()
        wire.send(put("/a", b"hello"))
        server.call(started.wait())
        wire.reset()
        server.until(lambda: outcome == ["cancelled"])
        assert server.server.counters.disconnects == 1


def test_an_answer_for_nobody_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that finishes although its client is gone."""
    gone = asyncio.Event()

    async def app(request: RawRequest, body: BodyReader) -> Response:
        try:
            await gone.wait()
        except asyncio.CancelledError:
            return Response(200, [], b"too late")
        return Response(200)

    with serving(app) as server:
        wire = server.connect()
        wire.send(get("/a"))
        server.until(lambda: server.server.counters.requests == 1)
        wire.reset()
        server.until(lambda: server.server.counters.open == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_too_many_connections_are_answered_503() -> None:
    with serving(Recorder(), ServerOptions(connections_max=2)) as server:
        kept = [server.connect() for _ in range(2)]
        for wire in kept:
            wire.send(get("/a"))
            assert wire.answer().status == 200
        refused = server.connect()
        answer = refused.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        refused.close()
        kept[0].close()
        server.until(lambda: server.server.counters.open < 2)
        wire = server.connect()
        wire.send(get("/a"))
        assert wire.answer().status == 200


def test_an_idle_connection_is_looked_at_once_more_before_it_closes() -> None:
    """A request that arrives between the deadline and the close is served."""

    async def race() -> bytes:
        loop = asyncio.get_running_loop()
        transport = MemoryTransport()
        context = ServerContext(Recorder(), loop, options=ServerOptions(keep_alive_seconds_max=0))
        connection = HttpConnection(context, secure=False)
        connection.connection_made(transport)
        request = get("/a")
        connection._expired()
        assert not transport.closed
        connection.get_buffer(0)[: len(request)] = request
        connection.buffer_updated(len(request))
        for _ in range(5):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return bytes(transport.written)

    assert asyncio.run(race()).startswith(b"HTTP/1.1 200 OK")
