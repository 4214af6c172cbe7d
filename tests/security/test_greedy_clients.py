"""Slow and greedy clients (attack input 10): what one costs is bounded, and the others do not notice.

Memory is that of the workers as the kernel counts it. The bounds are for the growth that stays or shows up during an
attack, and generous enough for a busy machine; an unbounded buffer exceeds them at once.
"""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.security.client import EVERY_LETTER, Stranger, parse_answer
from tests.security.endpoint import Endpoint

PUT: Final = {"x-ms-blob-type": "BlockBlob"}
MIB: Final = 1 << 20
IDLE_CONNECTIONS: Final = 6000
IDLE_BYTES_MAX: Final = 24 * 1024  # of a worker, for each idle connection
GREEDY_BYTES_MAX: Final = 64 * MIB  # of a worker, for one request
WAIT_SECONDS: Final = 15.0
STALLED_SECONDS: Final = 4.0  # a flood that is not read for so long has been stopped


def connect(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection(("127.0.0.1", endpoint.port), WAIT_SECONDS)


def growth(before: dict[int, int], after: dict[int, int]) -> int:
    """The largest growth of any worker; all of them must still be there."""
    assert before.keys() == after.keys()
    return max(after[pid] - before[pid] for pid in before)


def put_head(stranger: Stranger, target: str, *headers: str) -> bytes:
    """The head of an upload with a SAS; `headers` say how its body comes."""
    lines = [
        f"PUT /victim{target} HTTP/1.1",
        "Host: a",
        "x-ms-version: 2023-11-03",
        "x-ms-blob-type: BlockBlob",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def flood(connected: socket.socket, piece: bytes, bytes_max: int) -> tuple[int, bytes]:
    """Send the same again and again until told to stop; (bytes sent, what was answered)."""
    sent = 0
    connected.settimeout(STALLED_SECONDS)
    with contextlib.suppress(ConnectionError, TimeoutError):
        while sent < bytes_max:
            connected.sendall(piece)
            sent += len(piece)
    raw = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while data := connected.recv(1 << 16):
            raw += data
            if b"\r\n\r\n" in raw:
                break
    return sent, raw


@pytest.fixture
def token(stranger: Stranger) -> str:
    return stranger.account_sas(EVERY_LETTER)


def test_a_huge_chunked_upload_takes_no_memory(
    endpoint: Endpoint, stranger: Stranger, container: str, token: str
) -> None:
    """No end in sight: streamed to the disk, cut off at the limit of the version, and nothing of it stays. An old
    version's limit is 64 MiB, so that the test need not fill the disk."""
    head = put_head(stranger, f"/{container}/huge?{token}", "Transfer-Encoding: chunked").replace(
        b"2023-11-03", b"2015-12-11"
    )
    before = endpoint.rss_bytes()
    with connect(endpoint) as connected:
        connected.sendall(head)
        sent, raw = flood(connected, b"100000\r\n" + bytes(MIB) + b"\r\n", 5 << 30)
        during = endpoint.rss_bytes()
    assert growth(before, during) < GREEDY_BYTES_MAX
    assert sent < 512 * MIB
    if raw:
        assert parse_answer(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", "HEAD")[0].status == 413, raw
    assert stranger.signed("GET", f"/{container}/huge").status == 404
    staging = endpoint.root / ".blobedge" / "staging"
    for _ in range(200):
        left = [path for path in staging.rglob("*") if path.is_file() and path.stat().st_size > MIB]
        if not left:
            break
        stranger.signed("HEAD", f"/{container}/huge")
    assert left == []


def test_a_large_upload_takes_little_memory(endpoint: Endpoint, stranger: Stranger, container: str, token: str) -> None:
    before = endpoint.rss_bytes()
    size = 192 * MIB
    with connect(endpoint) as connected:
        connected.sendall(put_head(stranger, f"/{container}/large?{token}", f"Content-Length: {size}"))
        for _ in range(size // MIB):
            connected.sendall(bytes(MIB))
        during = endpoint.rss_bytes()
        answer, _ = parse_answer(connected.recv(1 << 16), "PUT")
    assert answer.status == 201
    assert growth(before, during) < GREEDY_BYTES_MAX
    assert stranger.signed("DELETE", f"/{container}/large").status == 202


@pytest.mark.parametrize("length", [5001 * MIB, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 64, 10**30])
def test_impossible_lengths_are_refused_at_once(
    endpoint: Endpoint, stranger: Stranger, container: str, token: str, length: int
) -> None:
    for comp in ("", "&comp=block&blockid=MQ%3D%3D", "&comp=blocklist", "&comp=tags"):
        with connect(endpoint) as connected:
            connected.sendall(put_head(stranger, f"/{container}/b?{token}{comp}", f"Content-Length: {length}"))
            answer, rest = parse_answer(connected.recv(1 << 16), "PUT")
        assert answer.status in (400, 413), (comp, answer)
        assert rest == b""


ENDLESS: Final = {
    "headers": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"x-a: " + b"b" * 1000 + b"\r\n"),
    "one-header": (b"GET / HTTP/1.1\r\nHost: a\r\nx-a: ", b"b" * 1024),
    "header-name": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"b" * 1024),
    "target": (b"GET /", b"a" * 1024),
    "method": (b"", b"A" * 1024),
    "empty-lines": (b"", b"\r\n" * 512),
    "query": (b"GET /?", b"a=b&" * 256),
    "chunk-size": (b"PUT {t} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 1024),
    "chunk-extension": (b"PUT {t} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a=b;" * 256),
    "trailers": (b"PUT {t} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x-a: b\r\n" * 128),
    "pipeline": (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 32),
    "unread-body": (b"PUT /nobody/c/b HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", b"a" * 65536),
    "binary": (b"", bytes(range(256)) * 8),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 1024),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\x06\x04\0\0\0\0\0" * 100),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_never_ends_is_cut_off(
    endpoint: Endpoint, stranger: Stranger, container: str, token: str, kind: str
) -> None:
    start, piece = ENDLESS[kind]
    start = start.replace(b"{t}", f"/victim/{container}/b?{token}".encode())
    before = endpoint.rss_bytes()
    with connect(endpoint) as connected:
        connected.sendall(start)
        sent, _ = flood(connected, piece, 256 * MIB)
        assert growth(before, endpoint.rss_bytes()) < 16 * MIB
    assert sent < 256 * MIB or kind == "unread-body"
    assert stranger.signed("GET", "/", "comp=list").status == 200


_UPLOAD: Final = b"PUT {t} HTTP/1.1\r\nHost: a\r\nx-ms-version: 2023-11-03\r\nx-ms-blob-type: BlockBlob\r\n"
SLOW: Final = {
    "nothing": b"",
    "half-a-head": b"GET / HTTP/1.1\r\nHos",
    "no-body": _UPLOAD + b"Content-Length: 5\r\n\r\n",
    "half-a-body": _UPLOAD + b"Content-Length: 5\r\n\r\nab",
    "silent-after-continue": _UPLOAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    "half-a-chunk": _UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
}


def test_slow_requests_are_cut_off(endpoint: Endpoint, stranger: Stranger, container: str, token: str) -> None:
    """All at once: heads get 2 s here, bodies 3 s without a byte (endpoint.py)."""
    started = time.monotonic()
    target = f"/victim/{container}/slow?{token}".encode()
    held = {}
    for kind, data in SLOW.items():
        held[kind] = connect(endpoint)
        held[kind].sendall(data.replace(b"{t}", target))
    for kind, connected in held.items():
        with contextlib.suppress(ConnectionResetError):
            while connected.recv(1 << 16):
                pass
        connected.close()
        assert time.monotonic() - started < WAIT_SECONDS, kind
    assert stranger.signed("GET", f"/{container}/slow").status == 404


def test_a_client_that_reads_nothing_holds_nothing(
    endpoint: Endpoint, stranger: Stranger, container: str, token: str
) -> None:
    """Zero window on a large answer, many times."""
    with (endpoint.root / container / "big").open("wb") as file:
        file.truncate(256 * MIB)
    before = endpoint.rss_bytes()
    request = f"GET /victim/{container}/big?{token} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    held = [connect(endpoint) for _ in range(100)]
    for connected in held:
        connected.sendall(request * 8)
    started = time.monotonic()
    for _ in range(50):
        assert stranger.signed("HEAD", f"/{container}/big").status == 200
    assert time.monotonic() - started < 20
    assert growth(before, endpoint.rss_bytes()) < GREEDY_BYTES_MAX
    for connected in held:
        connected.close()


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(IDLE_CONNECTIONS, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_are_cheap(endpoint: Endpoint, stranger: Stranger, many_descriptors: int) -> None:
    """Thousands of connections that were used once and are kept: they cost little, and others are served."""
    before = endpoint.rss_bytes()
    held: list[socket.socket] = []
    request = b"GET /victim/?comp=list HTTP/1.1\r\nHost: a\r\n\r\n"
    try:
        for _ in range(many_descriptors):
            connected = connect(endpoint)
            connected.sendall(request)
            held.append(connected)
        for connected in held:
            assert connected.recv(1 << 16).startswith(b"HTTP/1.1 ")
        during = endpoint.rss_bytes()
        assert stranger.signed("GET", "/", "comp=list").status == 200
        assert growth(before, during) < many_descriptors * IDLE_BYTES_MAX
    finally:
        for connected in held:
            connected.close()
    assert stranger.signed("GET", "/", "comp=list").status == 200
