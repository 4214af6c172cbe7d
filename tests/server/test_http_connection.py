"""A connection over a real socket: order, pipelining, expectations, early answers, deadlines, disconnects."""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterator

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Response
from dataplane.server.answer import refusal
from dataplane.server.body import BodyReader, ClientDisconnected
from dataplane.server.connection import HttpConnection
from dataplane.server.head import RawRequest
from dataplane.server.options import ServerContext, ServerOptions
from tests.server.wire import LoopServer, MemoryTransport, Recorder, feed, serving

MIB = 1024 * 1024


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def put(target: str, body: bytes, *headers: str) -> bytes:
    lines = [f"PUT {target} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(target: str, *pieces: bytes) -> bytes:
    head = f"PUT {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def server(recorder: Recorder) -> Iterator[LoopServer]:
    with serving(recorder) as started:
        yield started


# --- messages ---

STREAM = (
    get("/a")
    + put("/b", b"hello")
    + chunked("/c", b"one", b"two", b"x" * 300)
    + put("/d", b"")
    + get("/e", "Connection: Keep-Alive")
    + put("/f", b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")
    + chunked("/g")
    + get("/h", "Connection: close")
)
SEEN = [
    ("GET", "/a", b""),
    ("PUT", "/b", b"hello"),
    ("PUT", "/c", b"onetwo" + b"x" * 300),
    ("PUT", "/d", b""),
    ("GET", "/e", b""),
    ("PUT", "/f", b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("PUT", "/g", b""),
    ("GET", "/h", b""),
]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 17, 64, 1 << 20])
def test_a_stream_means_the_same_however_it_is_cut(step: int) -> None:
    app = Recorder()
    transport = asyncio.run(feed(app, STREAM + get("/after-close"), step))
    assert [(seen.method, seen.target, seen.body) for seen in app.seen] == SEEN
    assert transport.written.count(b"HTTP/1.1 200 OK\r\n") == len(SEEN)
    assert transport.closed


def test_pipelined_requests_are_answered_in_order(server: LoopServer) -> None:
    wire = server.connect()
    wire.send(b"".join(put(f"/{n}", b"x" * n) for n in range(100)))
    for n in range(100):
        assert wire.answer().headers["x-seen"] == f"PUT /{n} {n}"


def test_large_bodies_come_through_whole(server: LoopServer, recorder: Recorder) -> None:
    data = bytes(range(256)) * (5 * 4096) + b"end"
    wire = server.connect()
    for request in (put("/l", data), chunked("/c", data[:MIB], data[MIB : MIB + 1], data[MIB + 1 :])):
        wire.send(request)
        answer = wire.answer()
        assert answer.body == data
        assert recorder.seen[-1].body == data


def test_head_answers_have_a_length_and_no_body(server: LoopServer) -> None:
    wire = server.connect()
    wire.send(get("/x").replace(b"GET", b"HEAD") + get("/y"))
    answer = wire.answer(head_only=True)
    assert answer.headers["content-length"] == "7"
    assert wire.answer().headers["x-seen"] == "GET /y 0"


def test_http_1_0_is_answered_and_closed(server: LoopServer) -> None:
    wire = server.connect()
    wire.send(b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = wire.answer()
    assert answer.closes
    assert answer.body == b"nothing"
    assert wire.ended()


def test_a_half_closed_client_gets_its_answers(server: LoopServer) -> None:
    wire = server.connect()
    wire.send(get("/one") + get("/two"))
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.answer().headers["x-seen"] == "GET /one 0"
    assert wire.answer().headers["x-seen"] == "GET /two 0"
    assert wire.ended()


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_never_have_a_body(status: int) -> None:
    async def app(request: RawRequest, body: BodyReader) -> Response:
        return Response(status, [("ETag", '"a"')], b"ignored")

    with serving(app) as server:
        wire = server.connect()
        wire.send(get("/a") + get("/b"))
        for _ in range(2):
            answer = wire.answer()
            assert answer.status == status
            assert "content-length" not in answer.headers


# --- try_sync ---


class Both(Recorder):
    """Answers /now at once."""

    def try_sync(self, request: RawRequest) -> Response | None:
        if request.target == "/bug":
            raise ZeroDivisionError
        if request.target == "/refuse":
            raise BlobError(ErrorCode.INVALID_RANGE)
        return Response(200, [("x-seen", "sync")], b"now") if request.target == "/now" else None


def test_the_synchronous_path_keeps_the_order() -> None:
    with serving(Both()) as server:
        wire = server.connect()
        wire.send(b"".join(get("/now") + get("/later") for _ in range(50)) + put("/now", b"x") + get("/refuse"))
        for _ in range(50):
            assert wire.answer().body == b"now"
            assert wire.answer().headers["x-seen"] == "GET /later 0"
        assert wire.answer().headers["x-seen"] == "PUT /now 1"
        assert wire.answer().status == 416


def test_a_bug_in_the_synchronous_path_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Both()) as server:
        wire = server.connect()
        wire.send(get("/bug"))
        assert wire.answer().status == 500
        assert wire.ended()
    assert "ZeroDivisionError" in caplog.text


# --- answers that must not be sent ---


@pytest.mark.parametrize(
    "header",
    [("x-a", "b\r\nSet-Cookie: c"), ("x-a", "b\nc"), ("x-a", "b\rc"), ("x-a", "b\0"), ("x-a\r\nb", "c"), ("x a", "b"),
     ("", "b"), ("Content-Length", "5"), ("transfer-encoding", "chunked"), ("Connection", "keep-alive")],
)  # fmt: skip
def test_no_header_can_split_an_answer(header: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    async def app(request: RawRequest, body: BodyReader) -> Response:
        return Response(200, [header], b"x")

    with serving(app) as server:
        wire = server.connect()
        wire.send(get("/a"))
        answer = wire.answer()
        assert answer.status == 500
        assert set(answer.headers) == {
            "content-type", "x-ms-request-id", "x-ms-error-code", "content-length", "date", "connection",
        }  # fmt: skip
        assert wire.ended()
        assert server.server.counters.bugs == 1
    assert "AnswerError" in caplog.text


def test_a_bug_of_a_handler_is_a_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(request: RawRequest, body: BodyReader) -> Response:
        raise ZeroDivisionError

    with serving(app) as server:
        wire = server.connect()
        wire.send(get("/a"))
        answer = wire.answer()
        assert (answer.status, answer.headers["x-ms-error-code"]) == (500, "InternalError")
        assert b"ZeroDivision" not in answer.body
    assert "ZeroDivisionError" in caplog.text


def test_what_is_no_answer_at_all_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def app(request: RawRequest, body: BodyReader) -> Response:
        return None  # type: ignore[return-value]

    with serving(app) as server:
        wire = server.connect()
        wire.send(get("/a"))
        assert wire.ended()
        assert server.server.counters.bugs == 1
    assert "AttributeError" in caplog.text


# --- Expect and early answers ---


class Picky:
    """/refuse answers before it reads; /limit reads at most 10 bytes; anything else reads all."""

    async def __call__(self, request: RawRequest, body: BodyReader) -> Response:
        if request.target == "/refuse":
            return Response(403, [], b"no")
        if request.target == "/skip":
            return Response(200, [("x-skipped", str(await body.skip(100)))])
        try:
            data = await body.read_all(10 if request.target == "/limit" else 10 * MIB)
        except BlobError as error:
            return refusal(error, lambda: 0.0)
        return Response(201, [("x-length", str(len(data)))])


@pytest.fixture(scope="module")
def picky() -> Iterator[LoopServer]:
    with serving(Picky()) as started:
        yield started


def test_continue_is_sent_when_the_body_is_read(picky: LoopServer) -> None:
    wire = picky.connect()
    wire.send(put("/a", b"hello", "Expect: 100-continue")[:-5])
    assert wire.answer().status == 100
    wire.send(b"hello" + get("/next"))
    assert wire.answer().headers["x-length"] == "5"
    assert wire.answer().status == 201


@pytest.mark.parametrize("target", ["/refuse", "/limit"])
def test_an_early_refusal_is_the_only_answer(picky: LoopServer, target: str) -> None:
    wire = picky.connect()
    wire.send(put(target, b"hello world", "Expect: 100-continue")[:-11])
    answer = wire.answer()
    assert answer.status in (403, 413)
    assert answer.closes, "whether the body comes is unknown"
    assert wire.ended()


def test_a_body_that_came_in_spite_of_expect_needs_no_continue(picky: LoopServer) -> None:
    wire = picky.connect()
    wire.send(put("/a", b"hello", "Expect: 100-continue") + get("/b"))
    assert wire.answer().status == 201
    assert wire.answer().status == 201


@pytest.mark.parametrize("length", [5, 1000, limits.body_drain_bytes_max])
def test_a_short_unread_body_is_drained(picky: LoopServer, length: int) -> None:
    """The rest of a refused body is never read as a request."""
    wire = picky.connect()
    body = (get("/hidden") * (length // 30 + 1))[:length]
    request = put("/refuse", body)
    wire.send(request[: -length + 1])
    answer = wire.answer()
    assert (answer.status, answer.closes) == (403, False)
    wire.send(request[-length + 1 :] + put("/a", b"abc"))
    assert wire.answer().headers["x-length"] == "3"


@pytest.mark.parametrize("sent", [0, 1000, 2 * MIB])
def test_a_long_unread_body_closes_and_the_answer_arrives(picky: LoopServer, sent: int) -> None:
    wire = picky.connect()
    wire.send(put("/refuse", bytes(8 * MIB))[: 200 + sent])
    answer = wire.answer()
    assert (answer.status, answer.closes, answer.body) == (403, True, b"no")
    assert wire.ended()


def test_an_unread_chunked_body_closes(picky: LoopServer) -> None:
    wire = picky.connect()
    wire.send(chunked("/refuse", b"abc")[:-5])
    assert wire.answer().closes
    assert wire.ended()


def test_skip(picky: LoopServer) -> None:
    wire = picky.connect()
    wire.send(put("/skip", b"x" * 100) + put("/skip", b"x" * 101) + chunked("/skip", b"x" * 101) + get("/skip"))
    assert [wire.answer().headers["x-skipped"] for _ in range(4)] == ["True", "False", "False", "True"]


# --- bodies under pressure ---


def test_a_body_that_nobody_reads_is_not_buffered_without_bound() -> None:
    release = asyncio.Event()
    taken: list[int] = []

    async def app(request: RawRequest, body: BodyReader) -> Response:
        await release.wait()
        async for piece in body.chunks():
            taken.append(len(piece))
            assert len(piece) <= limits.body_piece_bytes_max
        return Response(201)

    with serving(app) as server:
        wire = server.connect()
        wire.socket.setblocking(False)
        request = put("/a", bytes(64 * MIB))
        sent = 0
        with contextlib.suppress(BlockingIOError):  # when the kernel's buffers and ours are full
            while sent < len(request):
                sent += wire.socket.send(request[sent : sent + 65536])
                server.call(asyncio.sleep(0))
        assert sent < 32 * MIB
        server.loop.call_soon_threadsafe(release.set)
        wire.socket.setblocking(True)
        wire.send(request[sent:])
        assert wire.answer().status == 201
        assert sum(taken) == 64 * MIB
        assert len(taken) < 64 + 8, "pieces are large"


def test_a_piece_stays_valid_until_the_next_is_asked_for() -> None:
    data = b"".join(n.to_bytes(4, "big") for n in range(2 * MIB))

    async def app(request: RawRequest, body: BodyReader) -> Response:
        whole = bytearray()
        async for piece in body.chunks():
            before = bytes(piece)
            await asyncio.sleep(0.002)  # the socket goes on filling the other buffer
            assert bytes(piece) == before
            whole += piece
        return Response(200, [], bytes(whole))

    with serving(app) as server:
        wire = server.connect()
        for request in (put("/a", data), chunked("/b", data)):
            wire.send(request)
            assert wire.answer().body == data


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(
    "beginning",
    [
        get("/a")[:-2],
        put("/a", bytes(200_000))[:200],
        put("/a", bytes(5 * MIB))[:200],
        chunked("/a", bytes(5 * MIB))[:200],
    ],
    ids=["head", "short body", "long body", "chunks"],
)
def test_clients_that_stop_half_way_cost_little_memory(beginning: bytes) -> None:
    """Both ends of the connections are in this process."""
    with serving(Recorder()) as server:
        server.connect().send(beginning)
        before = resident_bytes()
        for _ in range(200):
            server.connect().send(beginning)
        server.until(lambda: server.server.counters.open == 201)
        server.call(asyncio.sleep(0.01))
        assert (resident_bytes() - before) / 200 < 24 * 1024


# --- deadlines ---

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
