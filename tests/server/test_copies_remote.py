"""Copies from outside, and pending ones: a TLS server of the test is the outside, on 127.0.0.1."""

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dataplane.blobapi import limits
from dataplane.ipc.settings import CopySource
from dataplane.server.remotesource import rule_for
from tests.support import ACCOUNT, Answer, InProcessServer, WireClient

WAIT_SECONDS_MAX = 20.0
CONTENT = bytes(range(256)) * 4096
SYNC = {"x-ms-requires-sync": "true"}
PUT = {"x-ms-blob-type": "BlockBlob"}


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = directory / "cert.pem", directory / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, private


class Outside:
    """An https server with the test's own mischief; `seen` has the requests that reached it."""

    def __init__(self, pem: Path, private: Path) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.gate = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem, private)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(WAIT_SECONDS_MAX)

    def close(self) -> None:
        self.gate.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_SECONDS_MAX)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_get("/{name:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context)
        await site.start()
        self.port: int = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.raw_path, {name.lower(): value for name, value in request.headers.items()}))
        name = request.match_info["name"]
        if name == "redirect":
            raise web.HTTPFound("/blob")
        if name.startswith("status-"):
            return web.Response(status=int(name.removeprefix("status-")))
        if name in ("slow", "cut"):
            return await self._slowly(request, cut=name == "cut")
        if name == "chunked":
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(b"abc")
            return response
        headers = {"ETag": '"0xREMOTE"', "Content-Type": "text/x", "x-ms-meta-k": "v", "Content-Encoding": "gzip"}
        wanted = request.http_range
        if wanted.start is not None:
            part = CONTENT[wanted]
            return web.Response(status=206, body=part, headers=headers)
        return web.Response(body=CONTENT, headers=headers)

    async def _slowly(self, request: web.Request, cut: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT)), "x-ms-meta-k": "v"})
        await response.prepare(request)
        await response.write(CONTENT[:100_000])
        if cut:
            assert request.transport is not None
            request.transport.abort()
            return response
        await asyncio.to_thread(self.gate.wait, WAIT_SECONDS_MAX)
        with suppress(ConnectionError):
            await response.write(CONTENT[100_000:])
        return response


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def outside(tls: tuple[Path, Path]) -> Iterator[Outside]:
    opened = Outside(*tls)
    yield opened
    opened.close()


@pytest.fixture
def server(tmp_path: Path, tls: tuple[Path, Path], outside: Outside) -> Iterator[InProcessServer]:
    rules = (
        CopySource("localhost", outside.port, private=True),
        CopySource("127.0.0.1", outside.port, private=False),
        CopySource("*.example.net"),
    )
    started = InProcessServer(tmp_path / "root", copy_sources=rules, copy_ca_file=str(tls[0]))
    yield started
    started.close()


def copy(client: WireClient, to: str, source: str, more: dict[str, str] | None = None) -> Answer:
    return client.request("PUT", to, None, {"x-ms-copy-source": source, **(more or {})})


def remote(outside: Outside, name: str = "blob", host: str = "localhost") -> str:
    return f"https://{host}:{outside.port}/{name}"


def wait_for_copies(server: InProcessServer) -> None:
    """Until the copies that run now have ended; no polling."""
    asyncio.run_coroutine_threadsafe(server.node.copies.wait(), server._loop).result(WAIT_SECONDS_MAX)


def status(client: WireClient, path: str) -> str:
    return client.request("HEAD", path).headers["x-ms-copy-status"]


# --- remote sources ---


def test_copy_blob_from_outside(server: InProcessServer, client: WireClient, container: str, outside: Outside) -> None:
    answer = copy(client, container + "/b", remote(outside) + "?sig=secret%2F", {"x-ms-meta-own": "1"})
    assert (answer.status, answer.headers["x-ms-copy-status"]) == (202, "pending")
    wait_for_copies(server)
    found = client.request("GET", container + "/b")
    assert found.body == CONTENT
    assert found.headers["x-ms-copy-status"] == "success"
    assert found.headers["x-ms-copy-progress"] == f"{len(CONTENT)}/{len(CONTENT)}"
    assert found.headers["x-ms-copy-source"] == remote(outside)
    assert (found.headers["content-type"], found.headers["content-encoding"]) == ("text/x", "gzip")
    assert (found.headers["x-ms-meta-own"], "x-ms-meta-k" in found.headers) == ("1", False)
    assert found.headers["etag"] != answer.headers["etag"]
    assert outside.seen[0][0] == "/blob?sig=secret%2F"
    assert len(server.node.copies) == 0


@pytest.mark.parametrize("more", [SYNC, PUT])
def test_from_url_from_outside(client: WireClient, container: str, outside: Outside, more: dict[str, str]) -> None:
    assert copy(client, container + "/b", remote(outside), more).status in (201, 202)
    assert client.request("GET", container + "/b").body == CONTENT


def test_block_from_outside_sends_range_conditions_and_token(
    client: WireClient, container: str, outside: Outside
) -> None:
    sent = {
        "x-ms-copy-source": remote(outside),
        "x-ms-source-range": "bytes=10-19",
        "x-ms-source-if-match": '"0xREMOTE"',
        "x-ms-copy-source-authorization": "Bearer token",
    }
    query = {"comp": "block", "blockid": "AAAA"}
    assert client.request("PUT", container + "/b", query, sent).status == 201
    sizes = client.request("GET", container + "/b", {"comp": "blocklist", "blocklisttype": "all"}).xml()
    assert [node.text for node in sizes.iter("Size")] == ["10"]
    headers = outside.seen[0][1]
    assert (headers["range"], headers["if-match"]) == ("bytes=10-19", '"0xREMOTE"')
    assert (headers["authorization"], headers["accept-encoding"]) == ("Bearer token", "identity")
    assert "cookie" not in headers


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("status-404", (404, "CannotVerifyCopySource")),
        ("status-403", (403, "CannotVerifyCopySource")),
        ("status-401", (403, "CannotVerifyCopySource")),
        ("status-304", (304, "CannotVerifyCopySource")),
        ("status-412", (412, "CannotVerifyCopySource")),
        ("status-500", (412, "CannotVerifyCopySource")),
        ("status-206", (412, "CannotVerifyCopySource")),
        ("redirect", (412, "CannotVerifyCopySource")),
        ("chunked", (412, "CannotVerifyCopySource")),
        ("cut", (412, "CannotVerifyCopySource")),
    ],
)
def test_remote_answers_that_are_no_source(
    client: WireClient, container: str, outside: Outside, name: str, answer: tuple[int, str]
) -> None:
    found = copy(client, container + "/b", remote(outside, name), SYNC)
    assert (found.status, found.code) == answer
    assert client.request("HEAD", container + "/b").status == 404
    assert len(outside.seen) == 1  # no redirect was followed, nothing asked twice


@pytest.mark.parametrize("more", [{}, SYNC, PUT])
def test_hosts_that_are_not_allowed_are_never_asked(
    client: WireClient, container: str, outside: Outside, more: dict[str, str]
) -> None:
    other_port = f"https://localhost:{outside.port + 1}/blob"
    plain = f"http://localhost:{outside.port}/blob"
    literal = remote(outside, host="127.0.0.1")  # named, but not as private
    for source in (other_port, plain, literal, remote(outside, host="localhost.evil.net")):
        answer = copy(client, container + "/b", source, more)
        assert (answer.status, answer.code) == (404, "CannotVerifyCopySource")
    assert outside.seen == []


def test_names_that_lead_inside_are_refused(
    server: InProcessServer, client: WireClient, container: str, outside: Outside
) -> None:
    """The rule allows the name, the address that it leads to is loopback: no connection is made."""
    server.node.settings = replace(server.node.settings, copy_sources=(CopySource("localhost", outside.port),))
    answer = copy(client, container + "/b", remote(outside), SYNC)
    assert (answer.status, answer.code) == (412, "CannotVerifyCopySource")
    assert outside.seen == []


def test_certificates_are_checked(
    server: InProcessServer, client: WireClient, container: str, outside: Outside
) -> None:
    server.node.settings = replace(server.node.settings, copy_ca_file="")
    answer = copy(client, container + "/b", remote(outside), SYNC)
    assert (answer.status, answer.code) == (412, "CannotVerifyCopySource")
    assert outside.seen == []


@pytest.mark.parametrize(
    ("host", "port", "found"),
    [
        ("a.example.net", 443, True), ("b.a.example.net", 443, True), ("example.net", 443, False),
        ("evilexample.net", 443, False), ("a.example.net", 8443, False), ("one.host", 8443, True),
        ("two.one.host", 8443, False),
    ],
)  # fmt: skip
def test_rules(host: str, port: int, found: bool) -> None:
    rules = (CopySource("*.example.net"), CopySource("One.Host.", 8443))
    assert (rule_for(host, port, rules) is not None) is found


# --- pending copies ---


def begin(client: WireClient, container: str, outside: Outside, name: str = "slow") -> Answer:
    answer = copy(client, container + "/b", remote(outside, name))
    assert (answer.status, answer.headers["x-ms-copy-status"]) == (202, "pending")
    return answer


def test_a_pending_destination_is_empty_and_locked_for_others(
    server: InProcessServer, client: WireClient, container: str, outside: Outside
) -> None:
    client.request("PUT", container + "/b", None, PUT, b"old content")
    begin(client, container, outside)
    found = client.request("GET", container + "/b")
    assert (found.status, found.body, found.headers["x-ms-copy-status"]) == (200, b"", "pending")
    assert found.headers["x-ms-copy-progress"].endswith(f"/{len(CONTENT)}")
    block = {"comp": "block", "blockid": "AAAA"}
    for answer in (
        client.request("PUT", container + "/b", None, PUT, b"x"),
        copy(client, container + "/b", remote(outside)),
        client.request("PUT", container + "/b", block, None, b"x"),
        client.request("PUT", container + "/b", {"comp": "metadata"}, {"x-ms-meta-a": "1"}),
        client.request("DELETE", container + "/b"),
    ):
        assert (answer.status, answer.code) == (409, "PendingCopyOperation")
    outside.gate.set()
    wait_for_copies(server)
    assert client.request("GET", container + "/b").body == CONTENT
    assert client.request("DELETE", container + "/b").status == 202


def test_abort(server: InProcessServer, client: WireClient, container: str, outside: Outside) -> None:
    copy_id = begin(client, container, outside).headers["x-ms-copy-id"]
    abort = {"x-ms-copy-action": "abort"}
    other = client.request("PUT", container + "/b", {"comp": "copy", "copyid": "other"}, abort)
    assert (other.status, other.code) == (409, "CopyIdMismatch")
    assert client.request("PUT", container + "/b", {"comp": "copy", "copyid": copy_id}, abort).status == 204
    wait_for_copies(server)
    found = client.request("GET", container + "/b")
    assert (found.body, found.headers["x-ms-copy-status"], found.headers["x-ms-meta-k"]) == (b"", "aborted", "v")
    again = client.request("PUT", container + "/b", {"comp": "copy", "copyid": copy_id}, abort)
    assert (again.status, again.code) == (409, "NoPendingCopyOperation")


def test_abort_by_another_worker_ends_the_work(
    server: InProcessServer, client: WireClient, container: str, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that copies hears of it with its next progress note."""
    monkeypatch.setattr(limits, "copy_progress_seconds", 0.01)
    cancel: Callable[[str], None] = lambda copy_id: None  # noqa: E731 - another worker has no such task
    copy_id = begin(client, container, outside).headers["x-ms-copy-id"]
    monkeypatch.setattr(server.node.copies, "cancel", cancel)
    query = {"comp": "copy", "copyid": copy_id}
    assert client.request("PUT", container + "/b", query, {"x-ms-copy-action": "abort"}).status == 204
    wait_for_copies(server)
    assert status(client, container + "/b") == "aborted"


def test_a_source_that_breaks_off_fails_the_copy(
    server: InProcessServer, client: WireClient, container: str, outside: Outside
) -> None:
    begin(client, container, outside, "cut")
    wait_for_copies(server)
    found = client.request("GET", container + "/b")
    assert (found.body, found.headers["x-ms-copy-status"]) == (b"", "failed")
    assert found.headers["x-ms-copy-status-description"]
    assert client.request("PUT", container + "/b", None, PUT, b"x").status == 201


def test_a_worker_that_stops_marks_its_copies_failed(
    server: InProcessServer, client: WireClient, container: str, outside: Outside
) -> None:
    begin(client, container, outside)
    asyncio.run_coroutine_threadsafe(server.node.copies.stop(), server._loop).result(WAIT_SECONDS_MAX)
    assert status(client, container + "/b") == "failed"


def test_a_copy_whose_worker_died_reads_as_failed(
    server: InProcessServer, client: WireClient, container: str, outside: Outside
) -> None:
    """What a killed worker leaves is a pending state that nobody keeps alive; here the clock moves on instead."""
    begin(client, container, outside)
    clock = server.node.clock
    later = (limits.copy_silence_seconds_max + 1) * 1_000_000_000
    server.node.clock = lambda: clock() + later
    found = client.request("HEAD", container + "/b").headers
    assert found["x-ms-copy-status"] == "failed"
    assert "stopped" in found["x-ms-copy-status-description"]
    assert client.request("PUT", container + "/b", None, PUT, b"x").status == 201
    outside.gate.set()
    wait_for_copies(server)
    assert client.request("GET", container + "/b").body == b"x"


def test_only_so_many_at_once(
    server: InProcessServer, client: WireClient, container: str, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.node.copies, "_running_max", 1)
    begin(client, container, outside)
    answer = copy(client, container + "/c", remote(outside))
    assert (answer.status, answer.code) == (503, "ServerBusy")
    outside.gate.set()
    wait_for_copies(server)
    assert copy(client, container + "/c", remote(outside)).status == 202
    wait_for_copies(server)


def test_long_local_copies_are_pending_and_survive_the_sources_end(
    server: InProcessServer, client: WireClient, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "copy_foreground_bytes_max", 100_000)
    monkeypatch.setattr(limits, "copy_piece_bytes_max", 65_536)
    client.request("PUT", container + "/a", None, PUT, CONTENT)
    source = f"http://127.0.0.1:{client.port}/{ACCOUNT}{container}/a"
    answer = copy(client, container + "/b", source)
    assert answer.headers["x-ms-copy-status"] == "pending"
    client.request("DELETE", container + "/a")
    wait_for_copies(server)
    assert client.request("GET", container + "/b").body == CONTENT
    assert status(client, container + "/b") == "success"


def test_progress_is_written_down(
    server: InProcessServer, client: WireClient, container: str, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "copy_progress_seconds", 0.001)
    begin(client, container, outside)
    seen: Any = None
    while seen != f"100000/{len(CONTENT)}":  # ends by the test's time limit otherwise
        seen = client.request("HEAD", container + "/b").headers["x-ms-copy-progress"]
    outside.gate.set()
    wait_for_copies(server)
    assert status(client, container + "/b") == "success"
