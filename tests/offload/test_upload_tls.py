"""Uploads over TLS, against servers that answer a byte at a time or never, and against leases in the cloud."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from agent.offload.cloud import Cloud, host_and_port
from agent.offload.credentials import CloudSettings
from agent.offload.failures import CloudFailed, Kind
from agent.offload.link import probe
from agent.offload.transport import Errand
from agent.offload.upload import Guard, Outcome, upload
from tests.clients.authority import TlsFiles, issue
from tests.offload import azurite
from tests.offload.azurite import ACCOUNT, KEY
from tests.offload.upload_support import MIB, NODE, To, World, key_file, source


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    now = datetime.datetime.now(datetime.UTC)
    return issue(tmp_path_factory.mktemp("tls"), host_names=["localhost"], addresses=["127.0.0.1"], now=now)


def send(cloud: Cloud, path: Path, data: bytes, container: str, errand: Errand | None = None) -> Outcome:
    with source(path, data) as version:
        return upload(cloud, version, To(container, "b"), Guard(), errand or Errand(), node=NODE)


@contextmanager
def cloud_at(endpoint: str, scratch: Path, ca: Path | None = None) -> Iterator[Cloud]:
    cloud = Cloud(CloudSettings(endpoint, "key_file", key_file(scratch), ca_file=ca))
    try:
        yield cloud
    finally:
        cloud.close()


def test_tls_with_an_authority_of_our_own_and_without_it(tls: TlsFiles, tmp_path: Path) -> None:
    if azurite.command() is None:
        pytest.skip("NOTHING IS SENT OVER TLS: run tools/test")
    (tmp_path / "azurite").mkdir()
    flags = ("--cert", str(tls.certificate), "--key", str(tls.key))
    with azurite.running(tmp_path / "azurite", *flags) as port:
        endpoint = f"https://127.0.0.1:{port}/{ACCOUNT}"
        credential = {"account_name": ACCOUNT, "account_key": KEY}
        with BlobServiceClient(endpoint, credential=credential, connection_verify=str(tls.ca)) as service:
            container = service.create_container("tls")
            with cloud_at(endpoint, tmp_path, tls.ca) as cloud:
                for size in (1000, 9 * MIB):
                    data = bytes(size)
                    send(cloud, tmp_path / "f", data, "tls")
                    assert container.download_blob("b").readall() == data
        context = ssl.create_default_context(cafile=str(tls.ca))
        assert probe(["127.0.0.1"], *host_and_port(endpoint), context)
        with cloud_at(endpoint, tmp_path) as cloud, pytest.raises(CloudFailed) as raised:
            send(cloud, tmp_path / "f", b"data", "tls")
    assert raised.value.fault.kind is Kind.OPERATOR
    assert "certificate" in raised.value.fault.text


@contextmanager
def server(serve: Callable[[socket.socket], None], tls: TlsFiles | None) -> Iterator[int]:
    """Each connection gets `serve` on a thread of its own; all are closed at the end."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
    listener = socket.create_server((str(ipaddress.IPv4Address("127.0.0.1")), 0))
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = []

    def one(client: socket.socket) -> None:
        with suppress(OSError, ValueError):
            wrapped = context.wrap_socket(client, server_side=True) if context else client
            open_sockets.append(wrapped)
            serve(wrapped)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                threads.append(threading.Thread(target=one, args=(client,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for each in open_sockets:
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for each in open_sockets:
            each.close()


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 201 Created\r\nx-endless: "], ids=["silent", "endless"])
def test_who_never_ends_an_answer_is_left_when_the_errand_is_stopped(
    tls: TlsFiles, tmp_path: Path, encrypted: bool, answer: bytes, size: int
) -> None:
    asked, over = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        while piece := sock.recv(64 * 1024):
            asked.set()
            if answer and b"\r\n\r\n" in piece:
                sock.sendall(answer)
                while not over.wait(0.01):
                    sock.sendall(b"x")  # below the limit of a header line for the time of the test

    codes: list[str] = []
    with server(serve, tls if encrypted else None) as port:
        scheme = "https" if encrypted else "http"
        with cloud_at(f"{scheme}://127.0.0.1:{port}/{ACCOUNT}", tmp_path, tls.ca) as cloud:
            errand = Errand()

            def work() -> None:
                try:
                    send(cloud, tmp_path / "f", bytes(size), "c", errand)
                except CloudFailed as failed:
                    codes.append(failed.fault.code)

            thread = threading.Thread(target=work)
            thread.start()
            assert asked.wait(30)
            errand.stop()
            thread.join(30)
            ended = not thread.is_alive()
            over.set()
            thread.join()
    assert ended
    assert codes == ["Cancelled"]


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with cloud_at(f"http://127.0.0.1:{port}/{ACCOUNT}", tmp_path) as cloud, pytest.raises(CloudFailed) as raised:
        send(cloud, tmp_path / "f", b"data", "c")
    assert raised.value.fault.kind is Kind.LINK
    assert not raised.value.maybe_done or raised.value.fault.code == "ServiceRequestError"


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "large"])
def test_a_lease_in_the_cloud_is_waited_for(world: World, tmp_path: Path, size: int) -> None:
    with source(tmp_path / "f", b"first", etag="0x8DC0000000000A0") as version:
        first = world.send(version)
    lease = world.container.get_blob_client("b").acquire_lease()
    with source(tmp_path / "f", bytes(size)) as version:
        with pytest.raises(CloudFailed) as raised:
            world.send(version, etag=first.cloud_etag)
        assert raised.value.fault.kind is Kind.LATER
        assert "lease" in raised.value.fault.text
        assert world.bytes_of() == b"first"
        lease.release()
        world.send(version, etag=first.cloud_etag, again=True)
    assert world.bytes_of() == bytes(size)
