"""A connection over a real socket: messages in order, pipelining, and answers that must not be sent as they are."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Response
from dataplane.server.body import BodyReader
from dataplane.server.head import RawRequest
from tests.server.wire import LoopServer, Recorder, chunked, feed, get, put, serving

MIB = 1024 * 1024


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
