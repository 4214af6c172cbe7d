"""Requests tell where their time went: in the access log, in the slots, and, when slow, in the worker's log."""

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dataplane.ipc.settings import LimitSettings
from dataplane.server.sendfile import FileTransfer
from dataplane.server.slow import LINES_MAX, WINDOW_SECONDS, SlowLog, Spent
from dataplane.store.store import Store
from dataplane.store.syncs import sync_together
from tests.support import Answer, InProcessServer, WireClient

SLOW_SECONDS = 0.05
HELD_SECONDS = 0.2
PHASES = ("queueMs", "diskMs", "sendMs")


# --- the line, and how many there are ---


def test_the_parts_add_up() -> None:
    spent = Spent(10_000_000_000, 1_000_000_000, 2_000_000_000, 3_000_000_000)
    assert str(spent) == "10.000 s (queue 1.000, disk 2.000, send 3.000, other 4.000)"
    found = spent.milliseconds()
    assert found.pop("durationMs") == sum(found.values()) == 10_000


def test_a_flood_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    timers: list[tuple[float, Callable[[], None]]] = []
    slow = SlowLog(1, lambda seconds, function: timers.append((seconds, function)))
    for _ in range(2):
        caplog.clear()
        for number in range(LINES_MAX + 7):
            slow.tell(f"r{number}", "GetBlob", 200, "", Spent(9, 0, 9, 0))
        assert len(caplog.records) == LINES_MAX
        seconds, over = timers.pop()
        assert (seconds, timers) == (WINDOW_SECONDS, [])
        over()
        assert caplog.records[-1].getMessage() == "7 more slow requests in the last 60 s"
        assert caplog.records[-1].__dict__["fields"] == {"leftOut": 7}


def test_a_window_with_few_says_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    timers: list[Callable[[], None]] = []
    slow = SlowLog(1, lambda _, function: timers.append(function))
    slow.tell("r", "GetBlob", 200, "", Spent(9, 0, 9, 0))
    timers.pop()()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("spent", "level"), [(Spent(90, 0, 89, 0), "WARNING"), (Spent(90, 0, 0, 89), "INFO")])
def test_it_is_a_warning_when_the_node_was_slow(spent: Spent, level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    SlowLog(50, lambda *_: None).tell("r", "GetBlob", 200, "", spent)
    assert [each.levelname for each in caplog.records] == [level]


# --- a server ---


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[InProcessServer]:
    """Tells what takes SLOW_SECONDS, and samples nothing else."""
    started = InProcessServer(tmp_path / "root", access_sample=0.0, slow_seconds=SLOW_SECONDS)
    yield started
    started.close()


@pytest.fixture
def slow_client(slow_server: InProcessServer, caplog: pytest.LogCaptureFixture) -> Iterator[WireClient]:
    caplog.set_level(logging.INFO, "dataplane.server.slow")
    opened = slow_server.client()
    assert opened.request("PUT", "/cont", {"restype": "container"}).status == 201
    yield opened
    opened.close()


def told(server: InProcessServer, caplog: pytest.LogCaptureFixture, operation: str) -> dict[str, Any]:
    """The access line of the slow operation, after the worker's own line was compared with it."""
    (line,) = [line for line in server.log() if line["operationName"] == operation]
    (fields,) = [fields for fields in _slow_fields(caplog) if fields["operationName"] == operation]
    assert fields["correlationId"] == line["correlationId"]
    assert fields["durationMs"] == pytest.approx(line["durationMs"], abs=0.002)
    assert fields["durationMs"] >= SLOW_SECONDS * 1000
    return line


def _slow_fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [each.__dict__["fields"] for each in caplog.records if each.name == "dataplane.server.slow"]


def largest(line: dict[str, Any]) -> str:
    assert sum(line[phase] for phase in PHASES) <= line["durationMs"] + 0.002  # three are rounded
    assert line["serverLatencyMs"] == pytest.approx(line["durationMs"] - line["sendMs"], abs=0.002)
    return max(PHASES, key=lambda phase: float(line[phase]))


def held(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same on a disk that takes HELD_SECONDS for it."""

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(HELD_SECONDS)
        return function(*args, **kwargs)

    return slowly


@pytest.mark.parametrize("local", [True, False], ids=["in the loop", "on a thread"])
@pytest.mark.parametrize(
    ("method", "query", "function", "operation"),
    [
        ("GET", {}, "open_blob", "GetBlob"),
        ("HEAD", {}, "stat_blob", "GetBlobProperties"),
        ("GET", {"comp": "metadata"}, "stat_blob", "GetBlobMetadata"),
    ],
)
def test_a_slow_read_says_disk(
    slow_server: InProcessServer, slow_client: WireClient, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, local: bool, method: str, query: dict[str, str], function: str, operation: str,
) -> None:  # fmt: skip
    put = slow_client.request("PUT", "/cont/b", None, {"x-ms-blob-type": "BlockBlob"}, b"x" * 100)
    assert put.status == 201
    monkeypatch.setattr(Store, "local", lambda _: local)
    monkeypatch.setattr(Store, function, held(getattr(Store, function)))
    assert slow_client.request(method, "/cont/b", query).status == 200
    line = told(slow_server, caplog, operation)
    assert largest(line) == "diskMs"
    assert line["diskMs"] >= HELD_SECONDS * 1000


def test_a_container_that_is_slow_to_look_up_says_disk(
    slow_server: InProcessServer, slow_client: WireClient, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Store, "local", lambda _: False)
    monkeypatch.setattr(Store, "container", held(Store.container))
    assert slow_client.request("GET", "/cont", {"restype": "container"}).status == 200
    line = told(slow_server, caplog, "GetContainerProperties")
    assert largest(line) == "diskMs"


def test_a_mount_that_hangs_says_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its request is answered for while the call still hangs."""
    monkeypatch.setattr(Store, "local", lambda _: False)
    limits = LimitSettings(storage_seconds_max=HELD_SECONDS)
    server = InProcessServer(tmp_path / "root", access_sample=0.0, slow_seconds=SLOW_SECONDS, limits=limits)
    client, resumed = server.client(), threading.Event()
    try:
        assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
        monkeypatch.setattr(Store, "stat_blob", lambda *_: resumed.wait(30))
        assert client.request("HEAD", "/cont/b").code == "OperationTimedOut"
        line = told(server, caplog, "GetBlobProperties")
        assert largest(line) == "diskMs"
        assert line["diskMs"] >= HELD_SECONDS * 500  # it is given up after so long; the pool's look is a coarse one
    finally:
        resumed.set()
        client.close()
        server.close()


def test_a_slow_sync_says_disk(
    slow_server: InProcessServer, slow_client: WireClient, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("dataplane.store.commit.sync_together", held(sync_together))
    answer = slow_client.request("PUT", "/cont/b", None, {"x-ms-blob-type": "BlockBlob"}, b"x")
    assert answer.status == 201
    line = told(slow_server, caplog, "PutBlob")
    assert largest(line) == "diskMs"
    assert line["diskMs"] >= HELD_SECONDS * 1000


def test_a_slow_client_says_send_and_is_no_warning(
    slow_server: InProcessServer, slow_client: WireClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = b"x" * 100_000
    unsent = _Unsent(slow_server.port)
    unsent.request("PUT", "/cont/b", None, {"x-ms-blob-type": "BlockBlob"}, body)
    connection = http.client.HTTPConnection("127.0.0.1", slow_server.port, timeout=30)
    connection.putrequest("PUT", f"/{slow_client.account}/cont/b", skip_host=True, skip_accept_encoding=True)
    for name, value in unsent.signed.items():
        connection.putheader(name, value)
    connection.endheaders()
    time.sleep(HELD_SECONDS)  # the client's pace, nothing that is waited for
    connection.send(body)
    assert connection.getresponse().status == 201
    connection.close()
    line = told(slow_server, caplog, "PutBlob")
    assert largest(line) == "sendMs"
    (record,) = [each for each in caplog.records if each.name == "dataplane.server.slow"]
    assert record.levelno == (logging.WARNING if line["serverLatencyMs"] >= SLOW_SECONDS * 1000 else logging.INFO)


LONG = b"x" * 8_000_000  # more than the buffers of both sockets hold


def test_a_client_that_takes_its_answer_slowly_says_send(
    slow_server: InProcessServer, slow_client: WireClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert slow_client.request("PUT", "/cont/b", None, {"x-ms-blob-type": "BlockBlob"}, LONG).status == 201
    unsent = _Unsent(slow_server.port)
    unsent.request("GET", "/cont/b")
    head = "".join(f"{name}: {value}\r\n" for name, value in unsent.signed.items())
    with socket.create_connection(("127.0.0.1", slow_server.port)) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        link.sendall(f"GET /{slow_client.account}/cont/b HTTP/1.1\r\n{head}connection: close\r\n\r\n".encode())
        assert link.recv(1000).startswith(b"HTTP/1.1 200 ")
        time.sleep(HELD_SECONDS)  # the client's pace, nothing that is waited for
        while link.recv(1 << 20):
            pass
    poll(lambda: any(line["operationName"] == "GetBlob" for line in slow_server.log()))
    line = told(slow_server, caplog, "GetBlob")
    assert largest(line) == "sendMs"
    assert line["sendMs"] >= HELD_SECONDS * 1000


@pytest.mark.parametrize("broken_off", [False, True], ids=["taken", "broken off"])
def test_a_file_that_is_slow_to_read_while_it_is_sent_says_disk(
    slow_server: InProcessServer, slow_client: WireClient, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, broken_off: bool,
) -> None:  # fmt: skip
    assert slow_client.request("PUT", "/cont/b", None, {"x-ms-blob-type": "BlockBlob"}, LONG).status == 201
    monkeypatch.setattr("dataplane.server.sendfile.is_cached", lambda *_: False)
    read = held(FileTransfer._sendfile_cold)
    monkeypatch.setattr(FileTransfer, "_sendfile_cold", held(lambda _: 1 // 0) if broken_off else read)
    if broken_off:
        with pytest.raises(http.client.HTTPException):
            slow_client.request("GET", "/cont/b")
    else:
        assert slow_client.request("GET", "/cont/b").body == LONG
    poll(lambda: any(line["operationName"] == "GetBlob" for line in slow_server.log()))
    line = told(slow_server, caplog, "GetBlob")
    assert largest(line) == "diskMs"
    assert line["diskMs"] >= HELD_SECONDS * 1000


def poll(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class _Unsent(WireClient):
    """Signs requests and keeps their headers, and sends nothing."""

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        self.signed = headers
        return Answer(0, "", {}, b"")


def test_what_is_quick_is_not_told(
    slow_server: InProcessServer, slow_client: WireClient, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(_slow_fields(caplog))
    for _ in range(20):
        slow_client.request("GET", "/cont", {"restype": "container"})
    told_now = len(_slow_fields(caplog)) - before  # on a machine that stands still for a while some may be
    assert len([line for line in slow_server.log() if line["operationName"] == "GetContainerProperties"]) == told_now


def test_a_fault_of_ours_is_always_in_the_access_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = InProcessServer(tmp_path / "root", access_sample=0.0)
    client = server.client()
    try:
        assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
        monkeypatch.setattr(Store, "stat_blob", lambda *_: 1 // 0)
        answer = client.request("HEAD", "/cont/b")
        assert answer.status == 500
        (line,) = server.log()
        assert (line["statusCode"], line["correlationId"]) == (500, answer.headers["x-ms-request-id"])
    finally:
        client.close()
        server.close()
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.__dict__["fields"]["correlationId"] == line["correlationId"]


def test_sampled_lines_are_an_exact_share(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "root", access_sample=0.1)
    client = server.client()
    try:
        for _ in range(300):
            client.request("GET", "/absent", {"restype": "container"})
        assert abs(len(server.log()) - 30) <= 3
    finally:
        client.close()
        server.close()


def test_every_line_of_any_mix_adds_up(server: InProcessServer, client: WireClient, container: str) -> None:
    block = {"comp": "block", "blockid": "MQ=="}
    for size in (0, 10, 100_000, 3_000_000):
        client.request("PUT", f"{container}/b{size}", None, {"x-ms-blob-type": "BlockBlob"}, b"x" * size)
        client.request("PUT", f"{container}/c", block, None, b"x" * size)
        client.request("GET", f"{container}/b{size}")
    client.request(
        "PUT", f"{container}/c", {"comp": "blocklist"}, None, b"<BlockList><Latest>MQ==</Latest></BlockList>"
    )
    client.request("GET", container, {"restype": "container", "comp": "list"})
    client.request("DELETE", f"{container}/c")
    lines = server.log()
    assert len(lines) >= 15
    for line in lines:
        assert all(line[phase] >= 0 for phase in PHASES)
        largest(line)
    written = [line for line in lines if line["operationName"] == "PutBlob" and line["statusCode"] == 201]
    assert written
    assert all(line["diskMs"] > 0 for line in written)
