"""Looking at everything: what the queue does not know as it is, is found, in pages, from where a scan stopped."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agent.config import Account
from agent.config_offload import Offload, Rule
from agent.offload import scan
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.look import Looked, Stores, look, open_store
from agent.offload.queries import Filter, Known
from agent.offload.rows import Change, Copy, Failure, Row
from agent.offload.rules import Rules
from agent.offload.scan import Done, Place, Scanner
from agent.offload.states import Hold, Residency
from dataplane.blobapi.model import LOST, BlobProperties, BlobState, Remote

pytestmark = pytest.mark.trio

RULES = Rules(Offload(rules=[Rule(containers=["data*"], upload="now")]), ["acct"])
LATER = 4_000_000_000_000_000_000


class World:
    """A mount, a queue, and a scanner of the one into the other."""

    def __init__(self, scratch: Path) -> None:
        self.root = scratch / "root"
        self.root.mkdir()
        account = Account(name="acct", root=str(self.root))
        self.store = open_store(account)
        self.queue = AsyncQueue(Queue(scratch / "state" / "queue.db"))
        self.scanner = Scanner(Stores([account]), self.queue, RULES)

    def write(self, *names: str, data: bytes = b"x") -> None:
        """Write files as another program does."""
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    async def scan(self, *, again: bool = False) -> Done:
        """Look at all of it, from the beginning."""
        return await self.scanner.scan(self.scanner.beginning(Place(again=again)))

    def rows(self) -> dict[str, Row]:
        page = self.queue.queue.rows(Filter(), None, 100_000)
        return {f"{row.container}/{row.name}": row for row in page.rows}

    def look(self, row: Row) -> Looked | None:
        found = look(self.store, RULES, row, LATER)
        if found is not None:
            found.blob.close()
        return found

    def settle(self) -> None:
        """As if every queued blob had been sent, and every missing one forgotten."""
        queue = self.queue.queue
        for row in self.rows().values():
            found = self.look(row)
            if found is None:
                assert queue.gone(row)
                continue
            assert queue.changed(row, found.seen, found.decision.turn, LATER)
            assert queue.copied(row, Copy(found.seen.etag, "0x1", "there", row.name, 1))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.queue.queue.close()
    made.store.close()


async def test_it_finds_what_is_new_changed_and_gone_and_nothing_else(world: World) -> None:
    world.write("data/a", "data/b/c", "data/d", "other/not-for-a-rule")
    await world.scan()
    assert set(world.rows()) == {"data/a", "data/b/c", "data/d"}
    world.settle()
    done = await world.scan()
    assert (done.blobs, done.found) == (3, 0)
    world.write("data/a", data=b"changed")
    (world.root / "data" / "d").unlink()
    world.write("data/new")
    assert (await world.scan()).found == 3
    queued = {name for name, row in world.rows().items() if row.residency is Residency.QUEUED}
    assert queued == {"data/a", "data/d", "data/new"}


async def test_pages_meet_at_any_name_and_a_scan_goes_on_where_it_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE_BLOBS", 3)
    monkeypatch.setattr(scan, "ROWS_MAX", 2)
    monkeypatch.setattr(scan, "SLEEP_FACTOR", 0.0)
    names = [f"data/{number:02}" for number in range(20)]
    world.write(*names)
    with trio.CancelScope() as cancelled:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.scan)
            while world.scanner.place is None or world.scanner.place.blobs < 6:
                await trio.lowlevel.checkpoint()
            cancelled.cancel()
    stopped = await world.scanner.unfinished()
    assert 6 <= stopped["acct"].blobs < 20
    done = await world.scanner.scan(stopped)
    assert done.blobs == 20
    assert sorted(world.rows()) == names
    assert await world.scanner.unfinished() == {}
    world.settle()
    for name in names:
        (world.root / name).unlink()
    assert (await world.scan()).found == 20


async def test_a_container_that_is_gone_is_looked_at_blob_by_blob(world: World) -> None:
    world.write("data1/a", "data1/b")
    await world.scan()
    world.settle()
    (world.root / "data1" / "a").unlink()
    (world.root / "data1" / "b").unlink()
    (world.root / "data1").rmdir()
    await world.scanner.scan_container("acct", "data1")
    assert {row.residency for row in world.rows().values()} == {Residency.QUEUED}


async def test_what_waits_for_its_turn_is_put_off_by_a_later_change_only(world: World) -> None:
    world.write("data/a")
    await world.scan()
    first = world.rows()["data/a"].revision
    assert (await world.scan()).found == 0
    os.utime(world.root / "data" / "a", (4e9, 4e9))
    await world.scan()
    assert world.rows()["data/a"].revision > first


async def test_without_a_link_it_is_known_how_large_what_waits_is(world: World) -> None:
    """Journals say no sizes, and nothing that waits for a link is looked at."""
    world.write("data/noted", data=b"x" * 300)
    await world.queue(lambda queue: queue.note([Change("acct", "data", "noted", LATER, LATER, 0, 0)]))
    world.write("data/found", data=b"x" * 20)
    await world.scan()
    assert {name: (row.size, row.etag) for name, row in world.rows().items()} == {
        "data/noted": (300, ""),
        "data/found": (20, ""),
    }
    world.write("data/found", data=b"x" * 21)
    await world.scan()
    assert world.rows()["data/found"].size == 21


async def test_what_will_never_go_is_looked_at_again_when_it_is_another_file_also_an_older_one(world: World) -> None:
    world.write("data/a")
    await world.scan()
    row = world.rows()["data/a"]
    found = world.look(row)
    assert found is not None
    assert world.queue.queue.changed(row, found.seen, found.decision.turn, LATER)
    assert world.queue.queue.failed(row, Failure("poison", "400", Hold.POISON))
    assert (await world.scan()).found == 0
    os.replace(world.root / "data" / "a", world.root / "moved-away")
    world.write("data/a", data=b"other")
    os.utime(world.root / "data" / "a", (1e9, 1e9))  # restored from a backup
    assert (await world.scan()).found == 1
    assert world.rows()["data/a"].hold is not Hold.POISON


async def test_other_rules_ask_again_about_what_was_kept(world: World) -> None:
    world.write("data/a")
    await world.scan()
    row = world.rows()["data/a"]
    found = world.look(row)
    assert found is not None
    assert world.queue.queue.kept(row, found.seen)
    assert (await world.scan()).found == 0
    assert (await world.scan(again=True)).found == 1


async def test_a_name_that_is_no_text_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PAGE_BLOBS", 1)
    monkeypatch.setattr(scan, "SLEEP_FACTOR", 0.0)
    world.write("data/a", "data/z")
    with open(os.fsencode(world.root / "data") + b"/m\xff", "wb") as file:  # noqa: ASYNC230
        file.write(b"x")
    await world.scan()
    assert set(world.rows()) == {"data/a", "data/z"}


async def test_what_was_noted_while_the_clock_was_ahead_gets_its_turn_now(world: World) -> None:
    world.write("data/a")
    now, ahead = time.time_ns(), time.time_ns() + 10 * 365 * 86_400 * 10**9
    world.queue.queue.note([Change("acct", "data", "a", ahead, ahead + 1, 0, 0)])
    assert world.queue.queue.take(now, 1, ()) == []
    assert (await world.scan()).found == 1
    assert [row.name for row in world.queue.queue.take(time.time_ns(), 1, ())] == ["a"]
    assert (await world.scan()).found == 0


STUB = Remote(1, b"m" * 16, "0x1", "there", "a", "e", 0, 0o644)


@pytest.mark.parametrize(
    ("residency", "remote", "differs"),
    [
        (Residency.COPIED, None, False),
        (Residency.COPIED, STUB, True),  # evicted, and killed before that was reported
        (Residency.COPIED, LOST, False),  # which a look cannot mend
        (Residency.REMOTE, STUB, False),
        (Residency.REMOTE, None, True),  # recalled, likewise
        (Residency.LOCAL, None, False),
    ],
)
async def test_a_stub_that_counts_as_here_and_bytes_that_count_as_away_are_looked_at(
    residency: Residency, remote: Remote | None, differs: bool
) -> None:
    row = Known("a", "e", residency, 1, 1, "e", "0x1", Hold.NONE)
    state = BlobState("a", 1, BlobProperties("e", 1, 1, remote=remote))
    assert scan._differs(row, state, False, LATER) is differs
