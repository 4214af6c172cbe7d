"""A glance at the cloud changes what was said of it, and says nothing when all is as it was."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from agent.config import Cloud, Config
from agent.sidecar import glance
from tests.observability.support import KEY

WAS_THERE: dict[str, Any] = {
    "configured": True, "reachable": True, "step": "", "reason": "", "addresses": ["127.0.0.1"],
    "rtt_milliseconds": 1.5, "clock_skew_seconds": 0.2, "at": 1.0,
}  # fmt: skip


def config(port: int) -> Config:
    account = {"name": "acct", "root": "/", "key1": KEY}
    return Config.model_validate({"accounts": [account], "cloud": Cloud(endpoint=f"http://127.0.0.1:{port}/acct")})


@contextlib.contextmanager
def mute_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what asks for a connection, as a cut line does."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_all_is_as_it_was() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert glance.cloud(config(port), WAS_THERE) is None
    assert glance.cloud(config(port), {**WAS_THERE, "reachable": False, "step": "tcp"}) is None
    assert glance.cloud(config(port), {**WAS_THERE, "reachable": False, "step": "tls"}) is None  # for a whole look


def test_nothing_to_look_at() -> None:
    none = config(1).model_copy(update={"cloud": None})
    assert glance.cloud(none, {"configured": False, "addresses": []}) is None
    assert glance.cloud(config(1), {}) is None  # before the first report
    assert glance.cloud(config(1), {"error": "no answer within 35 s"}) is None


def test_a_port_that_refuses_and_one_that_is_mute() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    gone = glance.cloud(config(port), WAS_THERE)
    assert gone is not None
    assert (gone["reachable"], gone["step"]) == (False, "tcp")
    assert "refused" in gone["reason"]
    assert gone["at"] > WAS_THERE["at"]
    with mute_port() as port:
        gone = glance.cloud(config(port), WAS_THERE)
    assert gone is not None
    assert "no answer within 1 s" in gone["reason"]


def test_a_cloud_that_is_back_is_looked_at_as_a_whole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.0)  # it accepts for the kernel, and never answers: the walk says so
        port = server.getsockname()[1]
        found = glance.cloud(config(port), {**WAS_THERE, "reachable": False, "step": "tcp"})
    assert found is not None
    assert (found["reachable"], found["step"]) == (False, "http")


def test_the_end_of_a_glance_is_a_reset() -> None:
    """So a NAT on the way has the port back at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert glance.cloud(config(server.getsockname()[1]), WAS_THERE) is None
        accepted, _ = server.accept()
        with accepted, contextlib.suppress(ConnectionResetError):
            accepted.recv(1)
            raise AssertionError("an orderly end")
