"""What is read goes to the journal, by a thread, whichever way the read is answered."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dataplane.journal.reader import segments
from dataplane.journal.record import Kind
from dataplane.journal.writer import Journal
from dataplane.server import heat
from dataplane.server.heat import HeatFlusher
from tests.support import ACCOUNT, InProcessServer

BLOCK = {"x-ms-blob-type": "BlockBlob"}
WAIT_SECONDS = 20.0


def reads(directory: Path) -> list[tuple[str, str, str]]:
    found = [record for segment in segments(directory) for record in segment.read()[0]]
    return [(record.account, record.container, record.name) for record in found if record.kind is Kind.READ]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def test_reads_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heat, "FLUSH_SECONDS", 0.01)
    journal = tmp_path / "journal"
    server = InProcessServer(tmp_path / "root", journal_directory=str(journal))
    client = server.client()
    try:
        client.request("PUT", "/box", {"restype": "container"})
        for name in ("sync", "async", "head", "range", "refused"):
            client.request("PUT", f"/box/{name}", None, BLOCK, b"hello world")
        snapshot = client.request("PUT", "/box/head", {"comp": "snapshot"}).headers["x-ms-snapshot"]
        for _ in range(3):
            assert client.request("GET", "/box/sync").status == 200
        part = {"x-ms-range": "bytes=0-3"}
        assert client.request("GET", "/box/async", headers={**part, "x-ms-range-get-content-md5": "true"}).status == 206
        assert client.request("GET", "/box/range", headers=part).status == 206
        assert client.request("HEAD", "/box/head").status == 200
        assert client.request("GET", "/box/head", {"snapshot": snapshot}).status == 200
        assert client.request("GET", "/box/refused", headers={"If-Match": '"0x1"'}).status == 412
        assert client.request("GET", "/box/absent").status == 404
        expected = [(ACCOUNT, "box", name) for name in ("async", "range", "sync")]
        until(lambda: sorted(reads(journal)) == expected)
    finally:
        client.close()
        server.close()
    assert sorted(reads(journal)) == expected


def test_the_thread_ends_and_the_journal_writes_the_rest(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    flusher = HeatFlusher(journal, 3600)
    journal.read("a", "c", "n")
    flusher.stop(WAIT_SECONDS)
    assert reads(tmp_path) == []
    journal.close()
    assert reads(tmp_path) == [("a", "c", "n")]
