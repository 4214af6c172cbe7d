"""The access log: one line per request, with Azure's names and without secrets."""

import base64
import json
import logging
import select
import threading
from pathlib import Path

import pytest

from dataplane.ipc import logs
from dataplane.server import access
from dataplane.server.access import AccessLog, Entry
from dataplane.server.slow import Spent
from tests.support import KEY, InProcessServer, WireClient

ENTRY = Entry(
    ticks=17_000_000_000_000_000, request_id="r", client_request_id="c", peer="10.0.0.1", secure=False, method="PUT",
    operation="PutBlob", account="acct", path="/acct/c/b", version="2023-11-03", status=201, code="", identity="SAS",
    user_agent="agent", body_bytes_in=5, body_bytes_out=0, duration_ns=1_500_000,
    queue_ns=100_000, disk_ns=200_000, send_ns=500_000,
)  # fmt: skip


def test_a_line() -> None:
    found = json.loads(access.line(ENTRY))
    assert found["category"] == "StorageWrite"
    assert found["operationName"] == "PutBlob"
    assert found["statusText"] == "Success"
    assert found["durationMs"] == 1.5
    assert found["serverLatencyMs"] == 1.0
    assert (found["queueMs"], found["diskMs"], found["sendMs"]) == (0.1, 0.2, 0.5)
    assert found["identity"] == {"type": "SAS"}
    assert found["properties"]["requestBodySize"] == 5


def test_every_field_is_explained() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "logs.md").read_text()
    found = json.loads(access.line(ENTRY))
    names = [*found, *(f"properties.{name}" for name in found["properties"])]
    spent = Spent(1, 0, 0, 0).milliseconds()
    record = logging.LogRecord("test", logging.INFO, "file.py", 1, "text", (), (None, None, None))
    names += [*spent, *json.loads(logs.formatter("json", "worker", 0).format(record)), "leftOut"]
    for name in names:
        if name not in ("identity", "properties"):
            assert f"`{name}`" in page, name
    assert "`identity.type`" in page


def test_requests_are_logged_without_secrets(server: InProcessServer, client: WireClient, container: str) -> None:
    headers = {"user-agent": "tests/1 \u202e", "x-ms-client-request-id": "log-me"}
    client.request("GET", container, {"restype": "container", "sig": "TOPSECRET"}, headers)
    client.request("GET", container, {"restype": "container"}, headers)
    lines = [line for line in server.log() if line["properties"]["clientRequestId"] == "log-me"]
    assert [line["statusCode"] for line in lines] == [403, 200]
    assert lines[1]["objectKey"] == f"/{client.account}{container}"
    assert lines[1]["identity"] == {"type": "AccountKey"}
    assert lines[1]["operationVersion"] == "2023-11-03"
    text = b"".join(server.log_lines)
    for secret in (b"TOPSECRET", KEY.encode(), base64.b64decode(KEY), b"SharedKey "):
        assert secret not in text
    assert text.isascii()


def test_a_stalled_reader_costs_lines_not_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BACKLOG_LINES_MAX", 3)
    blocked, release, written = threading.Event(), threading.Event(), []

    def write(data: bytes) -> None:
        written.append(data)
        blocked.set()
        release.wait(10)

    log = AccessLog(write, flush_seconds=0.001)
    log.add(ENTRY)
    assert blocked.wait(10)
    for _ in range(5):
        log.add(ENTRY)
    release.set()
    log.close(10)
    lines = [json.loads(line) for line in b"".join(written).splitlines()]
    assert [line["category"] for line in lines] == ["StorageWrite"] * 4 + ["Dropped"]
    assert lines[-1]["count"] == 2


def test_lines_of_several_processes_do_not_tear_each_other() -> None:
    """They share one pipe, and the kernel keeps together what is no longer than PIPE_BUF."""
    written: list[bytes] = []
    log = AccessLog(written.append, flush_seconds=60)
    long = ENTRY._replace(path="/acct/c/" + "b" * select.PIPE_BUF)
    entries = [*[ENTRY] * 50, long, *[ENTRY] * 700]
    for entry in entries:
        log.add(entry)
    log.close(10)
    assert b"".join(written).splitlines() == [access.line(entry).encode() for entry in entries]
    assert all(data.endswith(b"\n") for data in written)
    assert [data.count(b"\n") for data in written if len(data) > select.PIPE_BUF] == [1]
    assert len(written) < len(entries) / 3


def test_a_log_that_nobody_reads_any_more() -> None:
    def write(data: bytes) -> None:
        raise BrokenPipeError

    log = AccessLog(write, flush_seconds=0.001)
    log.add(ENTRY)
    log.close(10)
