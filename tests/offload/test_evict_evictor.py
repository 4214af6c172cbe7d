"""The evictor: room on a disk, coldest first; by age; when an operator asks; and what low space changes."""

import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.config import Account
from agent.offload.database import Queue
from agent.offload.evict import choice
from agent.offload.evict.space import Marks, Mode, Use
from agent.offload.evict.spaces import Found, Spaces
from agent.offload.look import Stores
from agent.offload.queries import Filter
from agent.offload.rows import Change, Read
from agent.offload.states import Residency
from dataplane.store.store import Store
from tests.observability.faults import small_disk
from tests.offload.evict_support import ACCOUNT, CONTAINER, DAY_NS, Asked, Node, node, offline
from tests.offload.upload_support import World

pytestmark = pytest.mark.trio
SECONDS_MAX = 60.0
BLOB = 10_000
DISK = 100_000  # bytes of the disk that the tests pretend to have


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def pretended(root: Path, store: Store) -> list[Found]:
    """A look at a disk of DISK bytes, which holds the blobs and nothing else."""
    used = sum(path.stat().st_size for path in (root / CONTAINER).rglob("*") if path.is_file())
    return [Found("", 1, Use(used, DISK))]


async def until(condition: Callable[[], bool]) -> None:
    await until_async(partial(_answered, condition))


async def _answered(condition: Callable[[], bool]) -> bool:
    return condition()


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    end = trio.current_time() + SECONDS_MAX
    while not await condition():
        assert trio.current_time() < end
        await trio.sleep(0.02)


def disk(edge: Node) -> dict[str, Any]:
    """What is said of the one disk, {} before the first look."""
    return next(iter(edge.evictor.document()["disks"]), {})


def here(edge: Node) -> set[str]:
    """The names of the blobs whose bytes are here."""
    return {path.name for path in (edge.root / CONTAINER).rglob("*") if path.is_file() and path.stat().st_size}


async def read(edge: Node, *names: str) -> None:
    """As a worker's journal says it."""
    now = time.time_ns()
    reads = [Read(ACCOUNT, CONTAINER, name, now) for name in names]
    await edge.queue(lambda queue: queue.ingest("w0", 1, [], reads))


async def test_a_full_disk_is_emptied_down_to_its_low_mark_coldest_first(world: World, root: Path) -> None:
    async with node(world, root, uses=partial(pretended, root), space_low_percent=50.0) as edge:
        for number in range(9):
            await edge.copied(str(number), b"x" * BLOB)
        await read(edge, "0", "1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edge.evictor.run)
            await until(lambda: len(here(edge)) == 5)
            await until(lambda: disk(edge)["mode"] == "normal")
            nursery.cancel_scope.cancel()
        assert here(edge) == {"0", "1", "6", "7", "8"}
        said = edge.evictor.document()
        assert (said["evicted_blobs"], said["evicted_bytes"]) == (4, 4 * BLOB)
        assert said["disks"][0]["bytes_percent"] == 50
        rows = [await edge.row(str(number)) for number in range(9)]
        assert [row.residency for row in rows].count(Residency.REMOTE) == 4


async def test_a_disk_that_nothing_can_leave_says_why(world: World, root: Path) -> None:
    rules = ({"glob": "kept*", "upload": "now"}, {"evict": "space"})
    async with node(world, root, *rules, uses=partial(pretended, root)) as edge:
        for number in range(8):
            await edge.copied(f"kept{number}", b"x" * BLOB)
        await edge.copied("linked", b"x" * BLOB)
        os.link(root / CONTAINER / "linked", root / "elsewhere")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edge.evictor.run)
            await until(lambda: bool(disk(edge).get("stuck")))
            nursery.cancel_scope.cancel()
        said = disk(edge)
        assert (said["mode"], said["of"]) == ("evict", [ACCOUNT])
        assert said["stays"] == {"no rule evicts it": 8, "its file has other names (hard links)": 1}
        assert len(here(edge)) == 9


async def test_offline_a_disk_waits_for_the_link_until_it_is_in_low_space(world: World, root: Path) -> None:
    async with node(world, root, uses=partial(pretended, root)) as edge:
        for number in range(9):
            await edge.copied(str(number), b"x" * BLOB)
        offline(edge.watch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edge.evictor.run)
            await until(lambda: disk(edge).get("stays") == {"the link is down": 9})
            assert len(here(edge)) == 9
            assert not disk(edge)["stuck"]
            assert edge.evictor.keep(ACCOUNT, CONTAINER)
            edge.put("more", b"x" * BLOB)
            await until(lambda: len(here(edge)) < 9)
            nursery.cancel_scope.cancel()
        assert "more" in here(edge)


async def is_due(edge: Node) -> bool:
    return bool(await edge.queue(lambda queue: queue.take(time.time_ns(), 1, ())))


async def test_low_space_hurries_uploads_and_keeps_no_recall(world: World, root: Path) -> None:
    rule = {"upload": "age", "age_days": 3, "evict": "space"}
    async with node(world, root, rule, uses=partial(pretended, root)) as edge:
        edge.put("old", b"x" * 93_000)
        now = time.time_ns()
        await edge.queue(lambda queue: queue.note([Change(ACCOUNT, CONTAINER, "old", now, now + 3 * DAY_NS, 900, 0)]))
        assert not await is_due(edge)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edge.evictor.run)
            await until_async(partial(is_due, edge))
            assert edge.evictor.spaces.mode(ACCOUNT, CONTAINER) is Mode.LOW_SPACE
            assert not edge.evictor.keep(ACCOUNT, CONTAINER)
            assert edge.evictor.document()["low_space"]
            nursery.cancel_scope.cancel()
        _, looked = await edge.stores.look(edge.rules, await edge.row("old"), time.time_ns())
        assert looked is not None
        looked.blob.close()
        assert looked.decision.due_at <= time.time_ns()
        assert looked.decision.priority == 0


async def test_a_mapped_container_counts_on_its_own_disk(world: World, root: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path) as mounted:
        async with node(world, root, mapped=mounted, space_low_percent=0.1, space_high_percent=99.0) as edge:
            await edge.evictor.spaces.look()
            modes = {tuple(each["of"]): each for each in edge.evictor.document()["disks"]}
            assert modes.keys() == {(ACCOUNT,), (f"{ACCOUNT}/{CONTAINER}",)}
            assert edge.evictor.spaces.disk(ACCOUNT, "other") is not edge.evictor.spaces.disk(ACCOUNT, CONTAINER)
        async with node(world, root, mapped=mounted, space_low_percent=30.0, space_high_percent=50.0) as edge:
            names = [f"{number:03}" for number in range(60)]
            await edge.copied("000", b"x" * BLOB)
            use = os.statvfs(mounted)
            size = int(0.6 * use.f_bavail * use.f_frsize / len(names))
            for name in names:
                await edge.copied(name, b"x" * size)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(edge.evictor.run)
                await until(lambda: edge.evictor.evicted_count > 0)
                await until(lambda: edge.evictor.spaces.mode(ACCOUNT, CONTAINER) is Mode.NORMAL)
                nursery.cancel_scope.cancel()
            disk_now = edge.evictor.spaces.disk(ACCOUNT, CONTAINER)
            assert disk_now is not None
            assert disk_now.use.bytes_percent <= 30
            assert 0 < sum(path.stat().st_size > 0 for path in mounted.iterdir() if path.is_file()) < len(names)


async def test_a_mount_that_hangs_keeps_no_other_from_being_looked_at(tmp_path: Path) -> None:
    healed = threading.Event()
    accounts = [Account(name=name, root=str(tmp_path / name)) for name in ("hung", "well")]
    for name in ("hung", "well"):
        (tmp_path / name).mkdir()

    def uses(store: Store) -> list[Found]:
        if Path(os.readlink(f"/proc/self/fd/{store.mount.root_fd}")).name == "hung":
            healed.wait(SECONDS_MAX)
        return [Found("", store.mount.root_fd, Use(95, 100))]

    spaces = Spaces(Stores(accounts), Marks(75, 85, 92), uses)
    try:
        with trio.fail_after(SECONDS_MAX / 2):
            await spaces.look()
        assert spaces.mode("well", "any") is Mode.LOW_SPACE
        assert spaces.mode("hung", "any") is Mode.NORMAL
    finally:
        healed.set()


async def test_what_was_not_used_for_long_goes_by_its_age(world: World, root: Path) -> None:
    async with node(world, root, {"evict": "age", "evict_days": 3}) as edge:
        for name in ("old", "read", "new"):
            await edge.copied(name, b"x" * BLOB)
        for name in ("old", "read"):
            await edge.queue(partial(_older, name))
        await read(edge, "read")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edge.evictor.run)
            await until(lambda: edge.evictor.evicted_count == 1)
            nursery.cancel_scope.cancel()
        assert here(edge) == {"read", "new"}


def _older(name: str, queue: Queue) -> None:
    """As if the row's version were four days old."""
    queue._connection.execute("UPDATE blobs SET modified_ns = modified_ns - ? WHERE name = ?", (4 * DAY_NS, name))


async def test_what_a_rule_deletes_after_upload_goes_soon_and_is_told(
    world: World, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blobedge.offload")
    async with node(world, root, {"delete_after_upload": True}) as edge:
        await edge.copied("a", b"x" * BLOB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edge.evictor.run)
            await until(lambda: edge.state("a") is None)
            await until(lambda: f"ttl_days): 1 in {ACCOUNT}/{CONTAINER}" in caplog.text)
            nursery.cancel_scope.cancel()
        assert await edge.gone("a")
        said = edge.evictor.document()
        assert (said["expired_blobs"], said["evicted_blobs"], said["evicted_bytes"]) == (1, 0, 0)
        assert edge.world.bytes_of("a") == b"x" * BLOB


async def test_an_operator_evicts_at_once_and_hears_why_not(world: World, root: Path) -> None:
    async with node(world, root, {"glob": "pin*", "pin": True}, {"upload": "now"}) as edge:
        for name in ("a", "b", "other", "pinned"):
            await edge.copied(name, b"x" * BLOB)
        now = time.time_ns()
        await edge.queue(lambda queue: queue.note([Change(ACCOUNT, CONTAINER, "queued", now, now, 0, 0)]))
        told = Asked()
        await edge.evictor.evict(Filter(ACCOUNT, CONTAINER, "b"), told)
        assert (told.blobs, told.bytes, told.kept) == (1, BLOB, {})
        await edge.evictor.evict(Filter(ACCOUNT), told)
        at = f"{ACCOUNT}/{CONTAINER}"
        assert (told.blobs, told.bytes) == (3, 3 * BLOB)
        assert told.kept == {
            "pinned": [f"{at}/pinned"],
            "the cloud does not have it yet": [f"{at}/queued"],
        }
        assert here(edge) == {"pinned"}


async def test_more_than_a_batch_goes(world: World, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "BATCH_ROWS", 4)
    monkeypatch.setattr(choice, "PAGE_ROWS", 5)
    async with node(world, root, uses=partial(pretended, root), space_low_percent=1.0, space_high_percent=2.0) as edge:
        for number in range(23):
            await edge.copied(str(number), b"x" * 4_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edge.evictor.run)
            await until(lambda: len(here(edge)) == 0)
            nursery.cancel_scope.cancel()
