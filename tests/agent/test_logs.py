"""`blobedge serve` with `[log]` as an operator sets it: what all its processes write, and what the metrics say."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from dataplane.ipc.settings import LogFormat
from tests.support import ACCOUNT, KEY, WireClient

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60.0

CONFIG = """
listen = ["http://127.0.0.1:0"]
workers = 2
[log]
{log}
[admin]
listen = ["unix:{scratch}/admin"]
[[accounts]]
name = "{account}"
root = "{scratch}/root"
key1_file = "{scratch}/key"
"""


class Service:
    """A whole service, whose standard error is a file; with `journal`, one that claims to be the journal's stream."""

    def __init__(self, scratch: Path, log: str, *, journal: bool = False) -> None:
        (scratch / "root").mkdir()
        (scratch / "key").write_text(KEY)
        (scratch / "key").chmod(0o600)
        self._scratch = scratch
        self.config = scratch / "blobedge.toml"
        self.configure(log)
        self.log = scratch / "log"
        self.admin = scratch / "admin"
        environ = dict(os.environ)
        environ.pop("JOURNAL_STREAM", None)
        with self.log.open("wb") as stream:
            if journal:
                status = os.fstat(stream.fileno())
                environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "serve", "--config", str(self.config)],
                cwd=CHECKOUT, env=environ, stdout=subprocess.PIPE, stderr=stream, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.match(r"blobedge ready: http://127\.0\.0\.1:(\d+)/", line)
        assert match is not None, f"{line!r}: {self.log.read_text()}"
        self.port = int(match[1])

    def configure(self, log: str) -> None:
        """Write the configuration with this [log] table; SIGHUP is the caller's."""
        self.config.write_text(CONFIG.format(log=log, scratch=self._scratch, account=ACCOUNT))

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(SECONDS_MAX)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


class Start(Protocol):
    def __call__(self, log: str, *, journal: bool = False) -> Service: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Service] = []

    def starter(log: str, *, journal: bool = False) -> Service:
        started.append(Service(tmp_path, log, journal=journal))
        return started[0]

    yield starter
    for each in started:
        each.stop()


def test_json_is_one_object_per_line_of_all_processes(start: Start) -> None:
    service = start('format = "json"\nlevel = "debug"\naccess = true\nslow_seconds = 1e-9')
    client = WireClient(service.port)
    answer = client.request("PUT", "/cont", {"restype": "container"})
    client.close()
    service.until(lambda: '"category"' in service.log.read_text())
    service.stop()
    records = service.records()
    request = [each for each in records if each.get("correlationId") == answer.headers["x-ms-request-id"]]
    assert {each.get("process", "access line") for each in request} == {"worker", "access line"}
    (slow,) = [each for each in request if "process" in each]
    assert (slow["level"], slow["operationName"], slow["statusCode"]) == ("warning", "CreateContainer", 201)
    assert slow["number"] in (0, 1)
    assert {each["process"] for each in records if "process" in each} >= {"supervisor", "worker"}


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_journal_gets_a_priority_with_every_record(start: Start, style: LogFormat) -> None:
    service = start(f'format = "{style}"\nslow_seconds = 1e-9', journal=True)
    client = WireClient(service.port)
    assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
    client.close()
    service.until(lambda: "slow request" in service.log.read_text())
    service.stop()
    lines = service.lines()
    assert all(re.match(r"<[2-7]>", line) for line in lines), lines
    assert [line[:3] for line in lines if "slow request" in line and "CreateContainer" in line] == ["<4>"]


def test_a_reload_changes_the_format_of_all(start: Start) -> None:
    service = start('format = "text"')
    service.configure('format = "json"\nslow_seconds = 1e-9')
    service.process.send_signal(signal.SIGHUP)
    service.until(lambda: '"reload 1: done"' in service.log.read_text())

    def asked_and_told() -> bool:
        client = WireClient(service.port)  # the first may still come to a worker that has not begun to drain
        assert client.request("GET", "/absent", {"restype": "container"}).status == 404
        client.close()
        return "slow request" in service.log.read_text()

    service.until(asked_and_told)
    service.stop()
    slow = [json.loads(line) for line in service.lines() if "slow request" in line]
    assert slow[0]["process"] == "worker"


def test_a_share_that_is_none_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "blobedge.toml"
    config.write_text('[log]\naccess_sample = 1.5\nslow_seconds = -1\nformat = "xml"\n')
    done = subprocess.run(
        [sys.executable, "-m", "agent", "config", "check", "--no-files", str(config)],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    for name in ("access_sample", "slow_seconds", "format"):
        assert name in done.stderr


def test_the_metrics_have_the_phases_within_the_whole(start: Start) -> None:
    service = start('level = "warning"')
    client = WireClient(service.port)
    assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
    assert client.request("PUT", "/cont/b", None, {"x-ms-blob-type": "BlockBlob"}, b"x" * 300_000).status == 201
    client.close()
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(SECONDS_MAX)
        admin.connect(str(service.admin))
        admin.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
    whole, phases = "blobedge_request_seconds_total", "blobedge_request_phase_seconds_total"
    found = [(name, labels, float(value)) for name, labels, value in re.findall(r"(\w+){(.*)} (.*)", page)]
    seconds = {labels: value for name, labels, value in found if name == phases and '"PutBlob"' in labels}
    (total,) = [value for name, labels, value in found if name == whole and '"PutBlob"' in labels]
    assert len(seconds) == len(("queue", "disk", "send"))
    assert sum(value for labels, value in seconds.items() if '"disk"' in labels) > 0
    assert sum(seconds.values()) <= total
