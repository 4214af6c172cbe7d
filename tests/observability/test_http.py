"""The admin listener against callers that mean no good, over real sockets."""

from pathlib import Path

import h11
import pytest
import trio

from agent.observability import http
from tests.observability.support import FakeService, config, connect, exchange, running

TOKEN = "0123456789abcdef0123"
HOST = b"Host: localhost\r\n"


async def ask(tmp_path: Path, data: bytes, token: bool = False) -> bytes:
    """What a loopback listener answers to the bytes."""
    admin = {"listen": ["http://127.0.0.1:0"]}
    if token:
        file = tmp_path / "token"
        file.write_text(TOKEN + "\n")
        admin["token_file"] = str(file)  # type: ignore[assignment]
    async with running(FakeService(config(tmp_path, admin=admin))) as (url,):
        return await exchange(url, data)


HOSTILE = {
    "foreign host": (b"GET /status HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 421),
    "foreign host that looks like ours": (b"GET /status HTTP/1.1\r\nHost: localhost.example\r\n\r\n", 421),
    "short form of an address": (b"GET /status HTTP/1.1\r\nHost: 127.1\r\n\r\n", 421),
    "no host": (b"GET /status HTTP/1.0\r\n\r\n", 421),
    "two hosts": (b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    "method": (b"POST /status HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 405),
    "body": (b"GET /status HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 400),
    "chunks": (b"GET /status HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "both lengths": (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "unknown page": (b"GET /secret HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "encoded page": (b"GET /%73tatus HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "dots": (b"GET /health/../status HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "absolute form": (b"GET http://localhost/status HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "many fields": (b"GET /status?" + b"a&" * 99 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "field twice": (b"GET /status?a=1&a=2 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "long head": (b"GET /status HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    "endless head": (b"GET /" + b"x" * 20_000, 431),
    "noise": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "space in the name": (b"GET /status HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
}


@pytest.mark.trio
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_requests_are_refused(tmp_path: Path, name: str) -> None:
    data, status = HOSTILE[name]
    answer = await ask(tmp_path, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"worker" not in answer


@pytest.mark.trio
@pytest.mark.parametrize("host", ["localhost", "localhost:80", "LOCALHOST", "127.0.0.1:9", "[::1]", "[::1]:80"])
async def test_names_of_the_loopback_are_answered(tmp_path: Path, host: str) -> None:
    answer = await ask(tmp_path, f"GET /status?x=1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 "), answer


@pytest.mark.trio
async def test_head_has_the_length_and_no_body_and_what_follows_is_not_read(tmp_path: Path) -> None:
    request = b"HEAD /status HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await ask(tmp_path, request * 2)
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="HEAD", target="/status", headers=[("Host", "localhost")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(answer)
    assert isinstance(parser.next_event(), h11.Response)
    assert isinstance(parser.next_event(), h11.EndOfMessage)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.trio
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer", 401),
    ],
)
async def test_token(tmp_path: Path, value: str, status: int) -> None:
    header = f"Authorization: {value}\r\n" if value else ""
    answer = await ask(tmp_path, f"GET /status HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode(), token=True)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert TOKEN.encode() not in answer


@pytest.mark.trio
async def test_a_slow_caller_is_let_go_and_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_SECONDS_MAX", 0.2)
    async with running(FakeService(config(tmp_path, admin={"listen": ["http://127.0.0.1:0"]}))) as (url,):
        assert (await exchange(url, b"GET /status HTT")).startswith(b"HTTP/1.1 408 ")


@pytest.mark.trio
async def test_one_connection_too_many_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_COUNT_MAX", 3)
    request = b"GET /status HTTP/1.1\r\n" + HOST + b"\r\n"
    async with running(FakeService(config(tmp_path, admin={"listen": ["http://127.0.0.1:0"]}))) as (url,):
        idle = [connect(url) for _ in range(3)]
        try:
            assert (await exchange(url, request)).startswith(b"HTTP/1.1 503 ")
        finally:
            for sock in idle:
                sock.close()
        while not (answer := await exchange(url, request)).startswith(b"HTTP/1.1 200 "):
            assert answer.startswith(b"HTTP/1.1 503 ")  # until the server has seen them go


@pytest.mark.trio
async def test_a_page_that_fails_or_hangs_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_query: object) -> http.Response:
        raise RuntimeError("a bug")

    async def hangs(_query: object) -> http.Response:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(http, "ANSWER_SECONDS_MAX", 0.2)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.Server({"/fails": fails, "/hangs": hangs}).serve, listener, http.Guard())
        for path, status in (("/fails", 500), ("/hangs", 503), ("/fails", 500)):
            answer = await exchange(url, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"a bug" not in answer
        nursery.cancel_scope.cancel()
