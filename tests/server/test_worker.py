"""A worker process from outside, as its supervisor sees it: boot, readiness, heartbeat, drain, every way to end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dataplane.ipc import control, slots
from dataplane.ipc.series import read
from dataplane.ipc.settings import AccountSettings, ListenerSettings, Settings, to_json
from dataplane.ipc.slots import Counter
from tests.support import ACCOUNT, ANSWER_SECONDS_MAX, KEY, WireClient

CHECKOUT = Path(__file__).parent.parent.parent


@dataclass
class Started:
    """A worker process and the supervisor's ends of what joins them."""

    process: "subprocess.Popen[bytes]"
    channel: control.Channel
    slot: slots.Slot
    port: int

    def said(self) -> control.Message | None:
        """The next message; None at end of file."""
        return self.channel.receive()

    def ended(self) -> int:
        return self.process.wait(ANSWER_SECONDS_MAX)


Starter = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start a worker over an empty root; `change` alters its settings, `message` is said instead of Start."""
    running: list[Started] = []
    root = tmp_path / "root"
    root.mkdir()
    listening = socket.create_server(("127.0.0.1", 0))
    slot_fd = slots.create("test-worker")
    port = listening.getsockname()[1]

    def starter(
        change: Callable[[Settings], Settings] = lambda settings: settings,
        message: control.Message | None = None,
        *python: str,
    ) -> Started:
        account = AccountSettings(ACCOUNT, str(root), (KEY,), durability="relaxed")
        listener = ListenerSettings(listening.fileno(), "http", "127.0.0.1", port)
        settings = change(Settings(0, 1, slot_fd, (listener,), (account,), access_log=True, drain_seconds=5.0))
        ours, theirs = control.pair()
        ours.send(message or control.Start(to_json(settings)))
        process = subprocess.Popen(
            [sys.executable, *python, "-m", "dataplane", "--control-fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno(), slot_fd, listening.fileno()], cwd=CHECKOUT, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        started = Started(process, ours, slots.Slot(slot_fd), port)
        running.append(started)
        return started

    yield starter
    for each in running:
        each.process.kill()
        each.process.communicate()
        each.channel.close()
        each.slot.close()
    listening.close()
    os.close(slot_fd)


def ready(started: Started) -> WireClient:
    said = started.said()
    assert isinstance(said, control.Ready)
    assert said.pid == started.process.pid
    (mount,) = said.mounts
    assert (mount.account, mount.container, mount.read_only) == (ACCOUNT, "", False)
    assert mount.capabilities["records"] in ("xattr", "sidecar")
    return WireClient(started.port)


def test_serves_and_counts(start: Starter) -> None:
    started = start()
    client = ready(started)
    assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
    assert client.request("PUT", "/cont/b", None, {"x-ms-blob-type": "BlockBlob"}, b"hello").status == 201
    assert client.request("GET", "/absent", {"restype": "container"}).status == 404
    client.close()
    slot = started.slot
    assert slot.pid == started.process.pid
    assert time.monotonic_ns() - slot.heartbeat_ns < 5_000_000_000
    requests = read(slot).requests
    assert {
        (labels.operation, labels.status, labels.error_code, labels.auth): sums.count
        for labels, sums in requests.items()
    } == {
        ("CREATE_CONTAINER", 201, "", "AccountKey"): 1,
        ("PUT_BLOB", 201, "", "AccountKey"): 1,
        ("GET_CONTAINER_PROPERTIES", 404, "ContainerNotFound", "AccountKey"): 1,
    }
    assert sum(sums.bytes_in for sums in requests.values()) == 5
    assert slot.get(Counter.COMMITTED_WRITES) == 2
    started.channel.send(control.Stop(5.0))
    assert started.ended() == control.EXIT_OK
    out, _ = started.process.communicate()
    assert [line.count(b'"statusCode":') for line in out.splitlines()] == [1, 1, 1]


def end_by_message(started: Started) -> None:
    started.channel.send(control.Stop(5.0))


def end_by_signal(started: Started) -> None:
    started.process.send_signal(signal.SIGTERM)


def end_by_death_of_the_supervisor(started: Started) -> None:
    started.channel.close()


@pytest.mark.parametrize("end", [end_by_message, end_by_signal, end_by_death_of_the_supervisor])
def test_finishes_what_it_began(start: Starter, end: Callable[[Started], None]) -> None:
    started = start()
    client = ready(started)
    assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
    client.close()
    body = b"x" * 100_000
    with socket.create_connection(("127.0.0.1", started.port)) as upload:
        upload.sendall(_unsent_body_head(body))  # answered with 100 once the handler reads
        assert upload.recv(100).startswith(b"HTTP/1.1 100 ")
        end(started)
        upload.sendall(body)
        answer = upload.recv(65536)
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"Connection: close" in answer
    assert started.ended() == control.EXIT_OK


def _unsent_body_head(body: bytes) -> bytes:
    """The head of a signed Put Blob that waits for "100 Continue"."""
    sent: list[bytes] = []
    link = WireClient(0)

    def capture(method: str, target: str, headers: dict[str, str], _: bytes = b"") -> object:
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        sent.append("\r\n".join(lines).encode())
        return None

    link.send = capture  # type: ignore[method-assign, assignment]
    headers = {"x-ms-blob-type": "BlockBlob", "expect": "100-continue"}
    link.request("PUT", "/cont/late", None, headers, body)
    return sent[0]


def test_a_drain_that_takes_too_long_is_cut(start: Starter) -> None:
    started = start()
    client = ready(started)
    assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
    client.close()
    with socket.create_connection(("127.0.0.1", started.port)) as upload:
        upload.sendall(_unsent_body_head(b"x" * 100_000))
        assert upload.recv(100).startswith(b"HTTP/1.1 100 ")
        started.channel.send(control.Stop(0.2))
        assert upload.recv(100) == b""
    assert started.ended() == control.EXIT_OK


def test_log_level(start: Starter) -> None:
    started = start()
    ready(started).close()
    started.channel.send(control.LogLevel("debug"))
    started.channel.send(control.Stop(1.0))
    assert started.ended() == control.EXIT_OK


def test_interrupt_is_the_supervisors(start: Starter) -> None:
    started = start()
    client = ready(started)
    started.process.send_signal(signal.SIGINT)
    assert client.request("GET", "/absent", {"restype": "container"}).status == 404
    client.close()


def test_abort_prints_the_stacks(start: Starter) -> None:
    started = start()
    ready(started).close()
    started.process.send_signal(signal.SIGABRT)
    assert started.ended() == -signal.SIGABRT
    _, err = started.process.communicate()
    assert b"Fatal Python error: Aborted" in err
    assert b"worker.py" in err


# --- what cannot boot says so and is not tried again ---


def change_account(**changes: object) -> Callable[[Settings], Settings]:
    def change(settings: Settings) -> Settings:
        return replace(settings, accounts=(replace(settings.accounts[0], **changes),))  # type: ignore[arg-type]

    return change


def change_listener(**changes: object) -> Callable[[Settings], Settings]:
    def change(settings: Settings) -> Settings:
        return replace(settings, listeners=(replace(settings.listeners[0], **changes),))  # type: ignore[arg-type]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_account(root="/nonexistent/root"), "/nonexistent/root"),
        (change_account(keys=("not base64!",)), "base64"),
        (change_account(keys=()), "no key"),
        (change_listener(fd=999), "no socket"),
        (change_listener(scheme="https", tls_cert="/nonexistent.pem", tls_key="/nonexistent.pem"), "certificate"),
        (lambda settings: replace(settings, slot_fd=0), "slot"),
    ],
)
def test_boot_failures(start: Starter, change: Callable[[Settings], Settings], reason: str) -> None:
    started = start(change)
    failed = started.said()
    assert isinstance(failed, control.Failed)
    assert reason in failed.reason
    assert KEY not in failed.reason
    assert started.ended() == control.EXIT_BOOT_FAILED


@pytest.mark.parametrize("message", [control.Stop(1.0), control.Start({"version": 99})])
def test_a_start_that_is_none(start: Starter, message: control.Message) -> None:
    started = start(message=message)
    assert isinstance(started.said(), control.Failed)
    assert started.ended() == control.EXIT_BOOT_FAILED


def test_assertions_stay_on(start: Starter) -> None:
    started = start(lambda settings: settings, None, "-O")
    failed = started.said()
    assert isinstance(failed, control.Failed)
    assert "assertions" in failed.reason
    assert started.ended() == control.EXIT_BOOT_FAILED
