"""How a server stops: requests in work finish, kept-alive connections end politely, queued connections stay queued."""

import asyncio
import gc
import socket
import ssl
from concurrent.futures import Future

import pytest

from dataplane.blobapi.message import Response
from dataplane.server.body import BodyReader
from dataplane.server.head import RawRequest
from dataplane.server.options import ServerOptions
from tests.server.certificate import self_signed
from tests.server.wire import LoopServer, Recorder, Wire, get, put, serving

POLITE = ServerOptions(drain_idle_seconds=0.05)


class Gate:
    """Answers /wait only when told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, request: RawRequest, body: BodyReader) -> Response:
        data = await body.read_all(1000)
        if request.target == "/wait":
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return Response(200, [], data or b"done")


def start_drain(server: LoopServer) -> "Future[None]":
    draining = asyncio.run_coroutine_threadsafe(server.server.drain(), server.loop)
    server.until(lambda: not server.server._servers)
    return draining


def test_a_request_in_work_finishes_and_says_close() -> None:
    gate = Gate()
    with serving(gate, POLITE) as server:
        wire = server.connect()
        wire.send(get("/wait") + get("/pipelined"))
        server.until(lambda: server.server.counters.requests == 1)
        draining = start_drain(server)
        assert not draining.done()
        server.loop.call_soon_threadsafe(gate.open.set)
        answer = wire.answer()
        assert (answer.body, answer.closes) == (b"done", True)
        assert wire.ended()
        draining.result(10)


def test_an_upload_in_flight_finishes() -> None:
    with serving(Recorder(), POLITE) as server:
        wire = server.connect()
        request = put("/a", b"x" * 100_000)
        wire.send(request[:50_000])
        server.until(lambda: server.server.counters.requests == 1)
        draining = start_drain(server)
        wire.send(request[50_000:])
        answer = wire.answer()
        assert (len(answer.body), answer.closes) == (100_000, True)
        draining.result(10)


def test_a_tls_handshake_that_is_under_way_is_waited_for(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with serving(Recorder(), POLITE, tls=tls[0]) as server:
        connected = socket.create_connection(server.address, 10)
        server.until(lambda: len(server.server._context.arriving) == 1)
        draining = start_drain(server)
        with tls[1].wrap_socket(connected, server_hostname="localhost") as secured:
            wire = Wire(secured)
            wire.send(get("/a"))
            assert wire.answer().closes
        draining.result(10)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_a_client_that_gives_its_handshake_up_holds_up_no_drain(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], sent: bytes
) -> None:
    gc.disable()  # what is waited for is not only a cycle that nobody has collected yet
    try:
        with serving(Recorder(), POLITE, tls=tls[0]) as server:
            connected = socket.create_connection(server.address, 10)
            connected.sendall(sent)
            connected.close()
            server.until(lambda: not server.server._context.arriving)
            start_drain(server).result(1)
    finally:
        gc.enable()


def test_an_idle_connection_may_ask_once_more_then_is_closed() -> None:
    with serving(Recorder(), ServerOptions(drain_idle_seconds=5)) as server:
        active, idle = server.connect(), server.connect()
        for wire in (active, idle):
            wire.send(get("/a"))
            assert not wire.answer().closes
        draining = start_drain(server)
        active.send(get("/b"))
        assert active.answer().closes
        assert active.ended()
        idle.close()
        draining.result(10)


def test_idle_connections_are_closed_after_a_moment() -> None:
    with serving(Recorder(), POLITE) as server:
        wires = [server.connect() for _ in range(3)]
        for wire in wires[:2]:
            wire.send(get("/a"))
            wire.answer()
        start_drain(server).result(10)
        assert all(wire.ended() for wire in wires)


def test_a_deadline_ends_what_does_not_finish() -> None:
    gate = Gate()
    with serving(gate, POLITE) as server:
        wire = server.connect()
        wire.send(get("/wait"))
        server.until(lambda: server.server.counters.requests == 1)
        draining = start_drain(server)
        server.loop.call_soon_threadsafe(server.server.abort)
        draining.result(10)
        assert wire.ended()
        server.until(lambda: gate.cancelled == 1)


def test_connections_in_the_queue_are_left_to_the_next_worker() -> None:
    """Another copy of the listening socket is open, as the supervisor's is: nothing is refused or reset."""
    listening = socket.create_server(("127.0.0.1", 0))
    copy = listening.dup()
    with serving(Recorder(), POLITE, listening=listening) as server:
        start_drain(server).result(10)
        waiting = [server.connect() for _ in range(20)]
        for wire in waiting:
            wire.send(get("/queued"))
        with serving(Recorder(), listening=copy):
            for wire in waiting:
                assert wire.answer().headers["x-seen"] == "GET /queued 0"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return self_signed(tmp_path_factory.mktemp("tls"))


def tls_client(server: LoopServer, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> Wire:
    return server.connect_tls(tls[1])


def test_requests_over_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    app = Recorder()
    with serving(app, tls=tls[0]) as server:
        wire = tls_client(server, tls)
        data = bytes(range(256)) * 20_000
        for n in range(3):
            wire.send(put(f"/{n}", data) + get("/small"))
            assert wire.answer().body == data
            assert wire.answer().body == b"nothing"
        wire.send(get("/last", "Connection: close"))
        assert wire.answer().closes
        assert wire.ended()


def test_a_refusal_over_tls_arrives(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with serving(Recorder(), ServerOptions(linger_seconds_max=0.05), tls=tls[0]) as server:
        wire = tls_client(server, tls)
        wire.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        assert wire.answer().status == 400
        assert wire.ended()


def test_drain_over_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with serving(Recorder(), POLITE, tls=tls[0]) as server:
        wire = tls_client(server, tls)
        wire.send(get("/a"))
        wire.answer()
        start_drain(server)
        assert wire.ended()


def test_plain_text_on_a_tls_port_and_tls_on_a_plain_one(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with serving(Recorder(), tls=tls[0]) as server:
        wire = server.connect()
        wire.send(get("/a"))
        assert not wire.everything().startswith(b"HTTP/")
    with serving(Recorder()) as server, pytest.raises((ssl.SSLError, ConnectionError)):
        tls_client(server, tls)
