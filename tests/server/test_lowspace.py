"""Writes on a mount that is almost full: they wait for the sidecar to make room, and are refused before their bodies
are staged when there is none; nothing else is."""

import asyncio
import io
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.structured import BODY_HEADER, BODY_VALUE, LENGTH_HEADER, encode
from dataplane.server.diskpool import DiskPools, PoolLimits
from dataplane.server.lowspace import MESSAGE, PATIENCE_SECONDS, SECONDS, LowSpace, use_percent
from dataplane.server.node import Account
from tests.observability.faults import filled, small_disk
from tests.support import Answer, InProcessServer, WireClient

LONG_BYTES = 9_000_001
BLOCK = {"x-ms-blob-type": "BlockBlob"}


def found(blocks: int, free: int, available: int, files: int = 0, free_files: int = 0) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, blocks, free, available, files, free_files, free_files, 0, 255))


def test_use_is_what_df_shows() -> None:
    assert use_percent(found(1000, 500, 500)) == 50
    assert use_percent(found(1000, 100, 50)) == pytest.approx(100 * 900 / 950)  # 50 blocks are root's
    assert use_percent(found(1000, 0, 0)) == 100
    assert use_percent(found(0, 0, 0)) == 0
    assert use_percent(found(1000, 900, 900, 100, 4)) == 96  # of the inodes


class OneMount:
    """An account, as far as LowSpace looks at it, and a disk that a test fills."""

    def __init__(self) -> None:
        self.pools_ = DiskPools("test", PoolLimits(1, 1, 8))
        self.used = 10
        self.looks = 0
        self.now = 100.0
        self.room_at = float("inf")  # when somebody makes room
        self.root_fd = 7
        self.store = self
        self.fails = False

    def pools(self, container: str) -> DiskPools:
        return self.pools_

    def mounts(self) -> Iterator[tuple[str, "OneMount"]]:
        yield "", self

    def look(self, fd: int) -> os.statvfs_result:
        assert fd == self.root_fd
        self.looks += 1
        if self.fails:
            raise OSError(5, "no")
        used = self.used if self.now < self.room_at else 10
        return found(100, 100 - used, 100 - used)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def low_space_of(mount: OneMount) -> LowSpace:
    return LowSpace(97, lambda: mount.now, mount.look, mount.sleep)


async def refused(low_space: LowSpace, mount: OneMount) -> bool:
    try:
        await low_space.check(cast(Account, mount), "box")
    except BlobError as error:
        return error.code is ErrorCode.SERVER_BUSY
    return False


def test_one_look_a_second_decides_for_all() -> None:
    mount = OneMount()
    low_space = low_space_of(mount)

    async def story() -> list[Any]:
        seen: list[Any] = [await asyncio.gather(*(refused(low_space, mount) for _ in range(20))), mount.looks]
        mount.used = 97
        mount.now += SECONDS * 0.9
        return [*seen, await refused(low_space, mount), mount.looks]

    assert asyncio.run(story()) == [[False] * 20, 1, False, 1]


def test_bodies_that_could_fill_a_small_disk_are_looked_after_at_once() -> None:
    """The room up to the reserve is 87 blocks; an eighth of that may be let through unseen."""
    mount = OneMount()
    low_space = low_space_of(mount)
    body_bytes = 4 * 4096

    async def story() -> list[int]:
        looks = []
        for _ in range(5):
            await low_space.check(cast(Account, mount), "box", body_bytes)
            looks.append(mount.looks)
        mount.used, mount.room_at = 97, mount.now + 2 * SECONDS
        await low_space.check(cast(Account, mount), "box", 3 * body_bytes)  # no second has passed
        return [*looks, int(mount.now - 100)]

    assert asyncio.run(story()) == [1, 1, 2, 2, 3, 2 * SECONDS]


def test_who_finds_it_full_waits_for_room_and_is_refused_when_none_comes() -> None:
    mount = OneMount()
    mount.used = 97
    low_space = low_space_of(mount)

    async def story() -> list[Any]:
        began = mount.now
        seen: list[Any] = [await refused(low_space, mount), mount.now - began]
        began, looks = mount.now, mount.looks
        mount.now += SECONDS / 2
        seen += [await refused(low_space, mount), mount.looks - looks]  # at once, as it has been full for long
        mount.now += SECONDS
        seen += [await refused(low_space, mount), mount.looks - looks, mount.now - began]
        mount.used = 96
        mount.now += SECONDS
        seen += [await refused(low_space, mount)]
        mount.used = 97  # anew, so there is patience anew
        mount.now += SECONDS
        began, mount.room_at = mount.now, mount.now + 3 * SECONDS
        return [*seen, await refused(low_space, mount), mount.now - began]

    assert asyncio.run(story()) == [True, PATIENCE_SECONDS, True, 0, True, 1, 1.5 * SECONDS, False, False, 3 * SECONDS]


def test_only_so_many_wait() -> None:
    mount = OneMount()
    mount.used = 97
    room = asyncio.Event()

    async def sleep(_: float) -> None:
        await room.wait()
        mount.now += SECONDS

    low_space = LowSpace(97, lambda: mount.now, mount.look, sleep)
    count_max = limits.waiting_for_room_count_max

    async def story() -> list[bool]:
        asked = [asyncio.create_task(refused(low_space, mount)) for _ in range(count_max + 5)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        asked[0].cancel()  # one that goes away leaves its place to another
        await asyncio.wait(asked[:1])
        asked.append(asyncio.create_task(refused(low_space, mount)))
        mount.used = 10
        asyncio.get_running_loop().call_soon(room.set)
        return await asyncio.gather(*asked[1:])

    assert sorted(asyncio.run(story())) == [False] * count_max + [True] * 5


def test_nobody_waits_while_the_worker_stops() -> None:
    mount = OneMount()
    mount.used = 97
    low_space = low_space_of(mount)

    async def story() -> list[Any]:
        low_space.stop_waiting()
        began = mount.now
        return [await refused(low_space, mount), mount.now - began]

    assert asyncio.run(story()) == [True, 0]


def test_a_look_of_long_ago_takes_no_patience_away() -> None:
    mount = OneMount()
    mount.used = 97
    low_space = low_space_of(mount)

    async def story() -> list[bool]:
        seen = [await refused(low_space, mount)]
        mount.now += 3600
        mount.room_at = mount.now + 3 * SECONDS
        return [*seen, await refused(low_space, mount)]

    assert asyncio.run(story()) == [True, False]


def test_a_mount_whose_use_cannot_be_told_is_not_refused() -> None:
    mount = OneMount()
    mount.used, mount.fails = 97, True
    assert asyncio.run(refused(low_space_of(mount), mount)) is False


def test_a_caller_that_goes_away_leaves_the_look_to_the_others() -> None:
    mount = OneMount()
    low_space = low_space_of(mount)

    async def story() -> bool:
        first = asyncio.create_task(refused(low_space, mount))
        others = asyncio.create_task(refused(low_space, mount))
        await asyncio.sleep(0)
        first.cancel()
        return await others

    assert asyncio.run(story()) is False
    assert mount.looks == 1


class FastClock:
    """The monotonic clock, and naps that cost nothing."""

    def __init__(self) -> None:
        self.slept = 0.0

    def seconds(self) -> float:
        return time.monotonic() + self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.fixture
def full(tmp_path: Path) -> Iterator[InProcessServer]:
    """A server for which any use of the disk is too much, once its first blobs are there."""
    started = InProcessServer(tmp_path / "root")
    client = started.client()
    client.request("PUT", "/box", {"restype": "container"})
    assert put(client, "/box/b").status == 201
    client.request("PUT", "/box/b2", {"comp": "block", "blockid": "AAAA"}, None, b"block")
    client.close()
    clock = FastClock()
    started.node.low_space = LowSpace(0.000001, clock.seconds, lambda fd: found(100, 3, 3), clock.sleep)
    yield started
    started.close()


def put(client: WireClient, path: str) -> Answer:
    return client.request("PUT", path, None, BLOCK, b"hello")


def test_what_is_refused_and_what_goes_on(full: InProcessServer) -> None:
    client = full.client()
    source = {"x-ms-copy-source": f"http://127.0.0.1:{client.port}/{client.account}/box/b"}
    refusals = [
        put(client, "/box/c"),
        client.request("PUT", "/box/c", {"comp": "block", "blockid": "AAAA"}, None, b"x" * 300_000),
        client.request("PUT", "/box/c", {"comp": "block", "blockid": "AAAA"}, source),
        client.request("PUT", "/box/c", None, source),
        client.request("PUT", "/box/c", None, {**source, "x-ms-requires-sync": "true"}),
        client.request("PUT", "/box/c", None, {**source, **BLOCK}),
        client.request("PUT", "/box/b", {"comp": "snapshot"}),
    ]
    for answer in refusals:
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "ServerBusy", "30")
        assert MESSAGE.encode() in answer.body
    body = b"<BlockList><Latest>AAAA</Latest></BlockList>"
    assert client.request("PUT", "/box/b2", {"comp": "blocklist"}, None, body).status == 201
    assert client.request("PUT", "/box/b", {"comp": "metadata"}, {"x-ms-meta-k": "v"}).status == 200
    assert client.request("GET", "/box/b").body == b"hello"
    assert client.request("DELETE", "/box/b").status == 202
    client.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as mounted:
        yield mounted


@pytest.mark.parametrize("structured", [False, True])
def test_a_long_body_that_meets_a_full_disk_goes_on_when_there_is_room(disk: Path, structured: bool) -> None:
    started, client = with_container(disk)
    content = os.urandom(LONG_BYTES)
    headers, body = dict(BLOCK), content
    if structured:
        headers |= {BODY_HEADER: BODY_VALUE, LENGTH_HEADER: str(len(content))}
        body = b"".join(encode(io.BytesIO(content).read, len(content)))
    with filled(disk), ExitStack() as stack:
        clock = FastClock()

        async def room(seconds: float) -> None:
            await clock.sleep(seconds)
            if clock.slept > 2 * SECONDS:
                (disk / "filler").unlink(missing_ok=True)

        started.node.low_space = LowSpace(97, clock.seconds, lambda fd: found(10**6, 10**6, 10**6), room)
        stack.callback(started.close)
        assert client.request("PUT", "/box/long", None, headers, body).status == 201
        assert clock.slept > 2 * SECONDS
        assert client.request("GET", "/box/long").body == content
        client.close()


def test_a_long_body_is_refused_when_nothing_makes_room(disk: Path) -> None:
    started, client = with_container(disk)
    with filled(disk):
        clock = FastClock()
        started.node.low_space = LowSpace(97, clock.seconds, lambda fd: found(10**6, 10**6, 10**6), clock.sleep)
        answer = client.request("PUT", "/box/long", None, BLOCK, bytes(LONG_BYTES))
        assert (answer.status, answer.code) == (503, "InsufficientStorage")
        assert clock.slept >= PATIENCE_SECONDS
        started.node.low_space = None  # without [offload] nobody makes room
        answer = client.request("PUT", "/box/long", None, BLOCK, bytes(LONG_BYTES))
        assert (answer.status, answer.code) == (503, "InsufficientStorage")
        client.close()
        started.close()


def with_container(disk: Path) -> tuple[InProcessServer, WireClient]:
    started = InProcessServer(disk / "root")
    client = started.client()
    assert client.request("PUT", "/box", {"restype": "container"}).status == 201
    return started, client


def test_a_node_that_has_room(tmp_path: Path) -> None:
    started = InProcessServer(tmp_path / "root", reserve_percent=100.0)
    client = started.client()
    client.request("PUT", "/box", {"restype": "container"})
    assert started.node.low_space is not None
    assert put(client, "/box/b").status == 201
    client.close()
    started.close()
