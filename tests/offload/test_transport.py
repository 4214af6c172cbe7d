"""Which connections requests go over, and what becomes of a request that is given up."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest
import requests

from agent.offload import transport
from agent.offload.failures import CloudFailed
from agent.offload.transport import Errand
from tests.offload.azurite import reset
from tests.offload.upload_support import DEADLINE_SECONDS, eventually

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BODY_BYTES = 100_000


class Forgetful(socketserver.ThreadingTCPServer):
    """A way that forgets each connection after its first answer, and tells so only when it is used again."""

    daemon_threads = True

    def __init__(self) -> None:
        self.connections = 0
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        assert isinstance(request, socket.socket)
        self.connections += 1
        if request.recv(65536):
            request.sendall(ANSWER)
        if request.recv(65536):
            reset(request)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        self.close_request(request)


@pytest.fixture
def way() -> Iterator[Forgetful]:
    with Forgetful() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_connection_that_was_idle_is_not_used_again(way: Forgetful, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "IDLE_SECONDS_MAX", 0.0)
    with transport.session() as session:
        for _ in range(3):
            assert session.get(f"http://127.0.0.1:{way.server_address[1]}/", timeout=10).status_code == 200
    assert way.connections == 3


def test_one_that_was_used_just_now_is_used_again(way: Forgetful, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "IDLE_SECONDS_MAX", 60.0)  # however slow this machine is
    with transport.session() as session:
        url = f"http://127.0.0.1:{way.server_address[1]}/"
        assert session.get(url, timeout=10).status_code == 200
        with pytest.raises(requests.ConnectionError):
            session.get(url, timeout=10)
    assert way.connections == 1


@pytest.mark.parametrize("stopped", [True, False])
def test_what_is_given_up_is_taken_back_from_the_kernel(stopped: bool) -> None:
    """Else it would go on being sent behind everybody's back, and be done by the cloud once the link is there again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that most of it waits on our side
        url, errand = f"http://127.0.0.1:{server.getsockname()[1]}/", Errand()
        failed = threading.Event()

        def send() -> None:
            with transport.session() as session, errand, pytest.raises((requests.RequestException, CloudFailed)):
                session.put(url, bytes(BODY_BYTES), timeout=DEADLINE_SECONDS if stopped else 0.2)
            failed.set()

        thread = threading.Thread(target=send)
        thread.start()
        cloud, _ = server.accept()
        with cloud:
            assert cloud.recv(1024)
            eventually(lambda: errand.bytes_sent == BODY_BYTES)  # handed to the kernel
            if stopped:
                errand.stop()
            assert failed.wait(DEADLINE_SECONDS)
            thread.join()
            with pytest.raises(ConnectionResetError):
                read_to_the_end(cloud)


def read_to_the_end(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass
