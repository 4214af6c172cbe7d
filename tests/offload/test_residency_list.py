"""What `blobedge ls` is answered: the mount as it is, and where the bytes of each blob are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.config import Account
from agent.config_offload import Offload, Rule
from agent.offload import listing
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.jobs import Jobs
from agent.offload.look import Stores
from agent.offload.queries import Filter
from agent.offload.residency import Residency as Pages
from agent.offload.rows import Change, Copy, Row, Seen, Turn
from agent.offload.rules import Rules
from agent.offload.states import Residency
from dataplane.blobapi.model import LOST, BlobProperties, BlobState, Remote
from tests.offload.test_engine_api import Api, StubEngine, serving

NOW = 2_000_000_000_000_000_000
SENT = Rules(
    Offload(rules=[Rule(prefix="a/", upload="now", pin=True), Rule(containers=["data"], upload="now")]), ["acct"]
)


def state(remote: Remote | None = None, etag: str = "0x1") -> BlobState:
    return BlobState("n", 7, BlobProperties(etag, 1_000, 1_000, remote=remote))


def row(scratch: Path, *, copied: str = "", reread: bool = False) -> Row:
    """A row as the queue makes it: of version 0x1, which is copied where `copied` says a version."""
    with Queue(scratch / "queue.db") as queue:
        queue.note([Change("acct", "data", "n", NOW, NOW, 0, 0)])
        (found,) = queue.take(NOW, 1, ())
        if copied:
            queue.changed(found, Seen(copied, 7, NOW), Turn(NOW, 0, 0), NOW)
            (found,) = queue.take(NOW, 1, ())
            queue.copied(found, Copy(copied, "cloud", "far", "away/n", NOW))
        (found,) = queue.rows(Filter()).rows
        return found


def test_what_the_queue_does_not_know_is_local_or_waits_for_the_cloud() -> None:
    assert listing.describe(state(), None, sent=False).residency == Residency.LOCAL
    queued = listing.describe(state(), None, sent=True)
    assert (queued.residency, queued.unprotected_since) == (Residency.QUEUED, 1_000 * 10**9)


def test_a_copy_counts_for_the_version_that_it_is_of(tmp_path: Path) -> None:
    copied = row(tmp_path, copied="0x1")
    here = listing.describe(state(), copied, sent=True)
    assert (here.residency, here.cloud, here.unprotected_since) == (Residency.COPIED, "far/away/n", 0)
    changed = listing.describe(state(etag="0x2"), copied, sent=True)
    assert (changed.residency, changed.unprotected_since) == (Residency.QUEUED, 1_000 * 10**9)
    assert listing.describe(state(etag="0x2"), copied, sent=False).residency == Residency.LOCAL


def test_since_when_the_cloud_lacks_it_is_what_the_queue_noted(tmp_path: Path) -> None:
    queued = replace_row(row(tmp_path), changed_at=NOW - 5)
    assert listing.describe(state(), queued, sent=True).unprotected_since == NOW - 5


def replace_row(found: Row, **values: Any) -> Row:
    return found._replace(**values)


def test_a_stub_is_remote_whatever_the_queue_says_and_one_without_a_record_is_lost(tmp_path: Path) -> None:
    remote = Remote(7, b"", "e", "far", "away/n", "0x1", 0, 0o644)
    for known in (None, row(tmp_path, copied="0x1")):
        found = listing.describe(state(remote), known, sent=True)
        assert (found.residency, found.cloud, found.unprotected_since) == (Residency.REMOTE, "far/away/n", 0)
    lost = listing.describe(replace_state(LOST), None, sent=True)
    assert (lost.residency, lost.cloud) == (listing.LOST, "")


def replace_state(remote: Remote) -> BlobState:
    found = state()
    return BlobState(found.name, 0, replace(found.properties, remote=remote))


@asynccontextmanager
async def mounted(scratch: Path) -> AsyncIterator[Api]:
    """A served queue, and a mount with a few files."""
    root = scratch / "root"
    for name in ("data/a/1", "data/a/2", "data/b", "other/c"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    with Queue(scratch / "queue.db") as queue:
        queue.note([Change("acct", "data", "b", NOW, NOW, 0, 0)])
        shared, stores = AsyncQueue(queue), Stores([Account(name="acct", root=str(root))])
        async with trio.open_nursery() as nursery:
            pages = Pages(stores, SENT, shared, Jobs(nursery), {}).routes()
            async with serving(scratch, shared, StubEngine(), pages) as api:
                yield api
            nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_container_is_listed_by_its_folders_or_by_all_names_in_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with mounted(tmp_path) as api:
        _, page = await api.ask("GET", "/residency/ls", account="acct", container="data")
        assert [each.get("prefix") or each["name"] for each in page["entries"]] == ["a/", "b"]
        _, page = await api.ask("GET", "/residency/ls", account="acct", container="data", recursive="1", limit="2")
        assert [(each["name"], each["residency"]) for each in page["entries"]] == [("a/1", "queued"), ("a/2", "queued")]
        again = {"container": "data", "recursive": "1", "start": page["after"]}
        _, page = await api.ask("GET", "/residency/ls", account="acct", **again)
        assert ([each["name"] for each in page["entries"]], page["after"]) == (["b"], None)
        assert not page["entries"][0]["pinned"]
        _, page = await api.ask("GET", "/residency/ls", account="acct", container="other")
        assert page["entries"][0]["residency"] == "local"
        _, page = await api.ask("GET", "/residency/ls", account="acct", container="data", prefix="a/2")
        assert [(each["name"], each["pinned"]) for each in page["entries"]] == [("a/2", True)]  # by its rule


@pytest.mark.trio
async def test_an_account_is_listed_with_the_sums_of_its_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with mounted(tmp_path) as api:
        _, page = await api.ask("GET", "/residency/ls", account="acct")
        found = {each["container"]: each for each in page["entries"]}
        assert set(found) == {"data", "other"}
        assert found["data"]["blobs"]["queued"] == 1
        assert (found["data"]["unprotected_since"], found["other"]["unprotected_since"]) == (NOW, 0)


@pytest.mark.trio
@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"account": "none"}, 404, "no account"),
        ({"account": "acct", "container": "none"}, 404, "acct/none"),
        ({"account": "acct", "container": "data", "limit": "0"}, 400, "limit"),
    ],
)
async def test_what_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: dict[str, str], status: int, said: str
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    async with mounted(tmp_path) as api:
        answered, text = await api.ask("GET", "/residency/ls", **query)
        assert answered == status
        assert said in text
