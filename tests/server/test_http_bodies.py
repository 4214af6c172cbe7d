"""Bodies over a real socket: expectations, answers before the body was read, and bodies that nobody reads."""

import asyncio
import contextlib
import resource
from collections.abc import Iterator

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.message import Response
from dataplane.server.answer import refusal
from dataplane.server.body import BodyReader
from dataplane.server.head import RawRequest
from tests.server.wire import LoopServer, Recorder, chunked, get, put, serving

MIB = 1024 * 1024

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
