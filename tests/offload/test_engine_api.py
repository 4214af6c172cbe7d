"""The queue's socket: what it answers, what it refuses, and that reading changes nothing."""

import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from agent.observability.http import Routes
from agent.offload import api
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.rows import Change, Failure
from agent.offload.states import Hold
from tests.observability.support import exchange

NAMES = ("a/1", "a/2", "b & c/ü", "x" * 1024)


class StubEngine:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def status(self) -> dict[str, Any]:
        return {"state": "running"}

    async def pause(self) -> None:
        self.told.append("pause")

    async def resume(self, *, confirm_deletes: bool) -> None:
        self.told.append(f"resume {confirm_deletes}")

    async def scan(self) -> None:
        self.told.append("scan")

    def wake(self) -> None:
        self.told.append("wake")


class Api:
    """A served queue with the blobs of NAMES, of which the first is poisoned."""

    def __init__(self, url: str, engine: StubEngine) -> None:
        self.url, self.engine = url, engine

    async def ask(self, method: str, path: str, **query: str) -> tuple[int, Any]:
        target = f"{path}?{urlencode(query)}" if query else path
        head, _, body = (
            await exchange(self.url, f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        ).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body) if b"application/json" in head else body.decode()


@asynccontextmanager
async def served(scratch: Path) -> AsyncIterator[Api]:
    with Queue(scratch / "queue.db") as queue:
        queue.note(Change("acct", "data", name, 1, 1, 0, number) for number, name in enumerate(NAMES))
        (first,) = queue.take(2, 1, ())
        queue.failed(first, Failure("poison", "never", Hold.POISON))
        async with serving(scratch, AsyncQueue(queue), StubEngine()) as made:
            yield made


@asynccontextmanager
async def serving(
    scratch: Path, queue: AsyncQueue, engine: StubEngine, more: tuple[Routes, Routes] = ({}, {})
) -> AsyncIterator[Api]:
    """The socket of a queue, with further pages."""
    path = scratch / "q.sock"
    sock = api.bind(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.serve, sock, queue, engine, more)
        yield Api(f"unix:{path}", engine)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_pages_follow_each_other_and_filters_narrow_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with served(tmp_path) as asked:
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            status, page = await asked.ask("GET", "/queue/rows", limit="1", **after)
            assert status == 200
            found += [row["name"] for row in page["rows"]]
            if page["after"] is None:
                break
            after = {"after": page["after"]}
        assert found == sorted(NAMES)
        for query, names in (
            ({"prefix": "a/"}, ["a/1", "a/2"]),
            ({"hold": "any"}, ["a/1"]),
            ({"failure": "poison"}, ["a/1"]),
            ({"residency": "queued,going", "hold": "poison,operator"}, ["a/1"]),
            ({"container": "none"}, []),
        ):
            _, page = await asked.ask("GET", "/queue/rows", **query)
            assert [row["name"] for row in page["rows"]] == names
        _, one = await asked.ask("GET", "/queue/blob", account="acct", container="data", name=NAMES[2])
        assert one["row"]["name"] == NAMES[2]
        assert await asked.ask("GET", "/queue/blob", account="acct", container="data", name="no") == (
            200,
            {"row": None},
        )


@pytest.mark.trio
@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("GET", "/queue/rows", {"residency": "lost"}, 400),
        ("GET", "/queue/rows", {"hold": "tight"}, 400),
        ("GET", "/queue/rows", {"failure": "foo"}, 400),
        ("POST", "/queue/act", {"act": "drop", "failure": "foo"}, 400),
        ("GET", "/queue/rows", {"limit": "0"}, 400),
        ("GET", "/queue/rows", {"limit": "²"}, 400),
        ("GET", "/queue/rows", {"after": "no cursor"}, 400),
        ("GET", "/queue/blob", {"account": "acct"}, 400),
        ("GET", "/queue/pause", {}, 404),
        ("GET", "/queue/act", {"act": "drop"}, 404),
        ("GET", "/queue/scan", {}, 404),
        ("HEAD", "/queue/act", {"act": "drop"}, 404),
        ("POST", "/queue/rows", {}, 404),
        ("POST", "/queue/act", {"act": "sell"}, 400),
        ("POST", "/queue/act", {}, 400),
        ("DELETE", "/queue/act", {"act": "drop"}, 405),
    ],
)
async def test_what_is_not_understood_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, query: dict[str, str], status: int
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with served(tmp_path) as asked:
        assert (await asked.ask(method, path, **query))[0] == status
        assert asked.engine.told == []
        assert len((await asked.ask("GET", "/queue/rows"))[1]["rows"]) == len(NAMES)


@pytest.mark.trio
async def test_acts_reach_the_rows_and_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with served(tmp_path) as asked:
        assert await asked.ask("POST", "/queue/act", act="retry", hold="any") == (200, {"rows": 1, "after": None})
        assert await asked.ask("POST", "/queue/act", act="drop", prefix="a/") == (200, {"rows": 2, "after": None})
        await asked.ask("POST", "/queue/pause")
        await asked.ask("POST", "/queue/resume", confirm_deletes="1")
        assert await asked.ask("POST", "/queue/scan") == (200, {"asked": True})
        assert asked.engine.told == ["wake", "wake", "pause", "resume True", "scan"]
        assert [row["name"] for row in (await asked.ask("GET", "/queue/rows"))[1]["rows"]] == sorted(NAMES[2:])


def test_each_queue_has_a_socket_of_its_own_beside_the_admins() -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/blobedge"}
    first, second = (api.socket_path(Path(f"/var/lib/{name}"), environ) for name in "ab")
    assert first.parent == second.parent == Path("/run/blobedge")
    assert first != second
