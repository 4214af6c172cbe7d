"""Answers that are held until the end of the loop's turn: in order, whole, and never forgotten."""

import asyncio
import socket
from typing import Any

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.message import Response
from dataplane.server.body import BodyReader
from dataplane.server.connection import HttpConnection
from dataplane.server.head import RawRequest
from dataplane.server.options import ServerContext, ServerOptions
from dataplane.server.outbox import Outbox
from tests.server.wire import LoopServer, MemoryTransport, serving

BODY = 1000
IDLE_SECONDS = 0.1


class Echo:
    """Answers at once with the target, repeated."""

    async def __call__(self, request: RawRequest, body: BodyReader) -> Response:
        await body.read_all(BODY)
        return self.try_sync(request)

    def try_sync(self, request: RawRequest) -> Response:
        return Response(200, [], request.target.encode() * BODY)


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


class Slow(MemoryTransport):
    """Full from the first byte that is written; `take` is its client."""

    connection: HttpConnection
    taken = 0

    def write(self, data: Any) -> None:
        super().write(data)
        self.connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.written) - self.taken

    def take(self, count: int) -> None:
        self.taken += count


class Counting:
    def __init__(self) -> None:
        self.count = 0

    def flush(self) -> None:
        self.count += 1


def test_what_is_added_is_written_at_the_end_of_the_turn_and_once() -> None:
    async def scene() -> None:
        outbox, holders = Outbox(asyncio.get_running_loop()), [Counting() for _ in range(3)]
        for holder in holders:
            outbox.add(holder)
        assert [holder.count for holder in holders] == [0, 0, 0]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [holder.count for holder in holders] == [1, 1, 1]

    asyncio.run(scene())


def test_only_so_many_wait_for_each_other() -> None:
    async def scene() -> None:
        outbox, holder = Outbox(asyncio.get_running_loop()), Counting()
        for _ in range(limits.outbox_answers_max):
            outbox.add(holder)
        assert holder.count == limits.outbox_answers_max

    asyncio.run(scene())


def test_many_connections_each_get_their_answers_in_order() -> None:
    with serving(Echo()) as server:
        wires = [server.connect() for _ in range(3 * limits.outbox_answers_max)]
        for turn in range(5):
            for number, wire in enumerate(wires):
                wire.send(get(f"/{number}/{turn}/a") + get(f"/{number}/{turn}/b"))
            for number, wire in enumerate(wires):
                for part in "ab":
                    assert wire.answer().body == f"/{number}/{turn}/{part}".encode() * BODY


def _two(server: LoopServer) -> None:
    """Connections that make every answer on another one worth holding."""
    for _ in range(2):
        wire = server.connect()
        wire.send(get("/here"))
        wire.answer()


@pytest.mark.parametrize("after", ["", "close", "half", "expect"])
def test_what_follows_an_answer_does_not_overtake_it(after: str) -> None:
    with serving(Echo()) as server:
        _two(server)
        wire = server.connect()
        following = {
            "close": get("/last", "Connection: close"),
            "expect": b"PUT /last HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        }
        wire.send(get("/first") + following.get(after, b""))
        if after == "half":
            wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer().body == b"/first" * BODY
        if after == "expect":
            assert wire.answer(head_only=True).status == 100
            wire.send(b"ok")
        if after in following:
            assert wire.answer().body == b"/last" * BODY
        if after in ("half", "close"):
            assert wire.ended()


def test_a_connection_that_is_aborted_or_closed_first_lets_the_answer_out() -> None:
    async def scene(end: str) -> bytes:
        context = ServerContext(Echo(), asyncio.get_running_loop())
        other = HttpConnection(context, False)
        other.connection_made(MemoryTransport())
        connection = HttpConnection(context, False)
        transport = MemoryTransport()
        connection.connection_made(transport)
        request = get("/x")
        connection.get_buffer(-1)[: len(request)] = request
        connection.buffer_updated(len(request))
        assert not transport.written  # it is held
        if end == "abort":
            connection.abort()
        else:
            connection.eof_received()
        written = bytes(transport.written)
        connection.connection_lost(None)
        other.connection_lost(None)
        return written

    for end in ("abort", "eof"):
        assert asyncio.run(scene(end)).endswith(b"/x" * BODY)


def test_a_client_that_takes_a_held_answer_slowly_is_waited_for() -> None:
    async def scene() -> bool:
        options = ServerOptions(keep_alive_seconds_max=IDLE_SECONDS, send_idle_seconds_max=IDLE_SECONDS)
        context = ServerContext(Echo(), asyncio.get_running_loop(), options=options)
        other, connection, transport = HttpConnection(context, False), HttpConnection(context, False), Slow()
        other.connection_made(MemoryTransport())
        transport.connection = connection
        connection.connection_made(transport)
        request = get("/x")
        connection.get_buffer(-1)[: len(request)] = request
        connection.buffer_updated(len(request))
        for _ in range(20):
            await asyncio.sleep(IDLE_SECONDS / 5)
            transport.take(1)
        for each in (connection, other):
            each.connection_lost(None)
        return transport.closed

    assert not asyncio.run(scene())
