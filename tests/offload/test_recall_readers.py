"""Readers of stubs, through the sidecar's socket, with Azurite behind a proxy that counts: who gets which bytes, and
what moves for it."""

import hashlib
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from agent.offload import linkwatch
from agent.offload.cloud import Cloud
from agent.offload.link import Link
from agent.offload.recall.fetch import PIECE_BYTES_MAX
from agent.offload.recall.shelf import Key
from dataplane.ipc.recalls import LAST_BYTES, Failed, Want
from dataplane.store.store import BlobRef
from tests.offload.lab.faults import Act, Fault
from tests.offload.lab.proxy import Proxy
from tests.offload.recall_support import (
    ACCOUNT,
    CONTAINER,
    MIB,
    SECONDS_MAX,
    Worker,
    downloads,
    eventually,
    held,
    running,
    stub,
)
from tests.offload.upload_support import World

WINDOW = 4 * MIB


@pytest.mark.trio
async def test_64_readers_of_one_stub_are_one_download(
    world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path
) -> None:
    proxy, cloud = streamed
    data = os.urandom(9 * MIB + 17)
    async with running(cloud, tmp_path) as made:
        key = stub(made, world, "all", data)
        read: list[object] = []

        async def one() -> None:
            async with Worker(made.socket_path) as worker:
                found = await worker.read(key, 0, len(data), WINDOW)
            if isinstance(found, Failed) and found.why == "changed":  # it came too late: the blob is here
                found = made.content(key)
            read.append(found == data)

        async with trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(one)
        assert read == [True] * 64
        await eventually(lambda: made.news.arrivals)
        assert downloads(proxy) == [len(data)]
        assert made.content(key) == data
        assert made.news.arrivals == [key]
        assert made.recalls.document()["downloads"] == 1
        assert not made.staged()


@pytest.mark.trio
async def test_a_range_moves_its_range_only(world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path) -> None:
    proxy, cloud = streamed
    data = os.urandom(32 * MIB)
    async with running(cloud, tmp_path) as made:
        key = stub(made, world, "ranges", data)
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 5 * MIB, 6 * MIB) == data[5 * MIB : 6 * MIB]
            assert await worker.read(key, 5 * MIB + 100, 6 * MIB) == data[5 * MIB + 100 : 6 * MIB]
        assert downloads(proxy) == [MIB]
        assert not made.news.arrivals


@pytest.mark.trio
async def test_ranges_that_cover_all_of_it_bring_it_back(
    world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path
) -> None:
    proxy, cloud = streamed
    data = os.urandom(8 * MIB + 5)
    async with running(cloud, tmp_path) as made:
        key = stub(made, world, "blocks", data)

        async def one(start: int) -> None:
            async with Worker(made.socket_path) as worker:
                end = min(start + MIB, len(data))
                assert await worker.read(key, start, end) == data[start:end]

        async with trio.open_nursery() as nursery:
            for start in reversed(range(0, len(data), MIB)):
                nursery.start_soon(one, start)
        await eventually(lambda: made.news.arrivals)
        assert made.content(key) == data
        assert sum(downloads(proxy)) == len(data)


@pytest.mark.trio
async def test_a_reader_that_goes_away_stops_the_download(
    world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path
) -> None:
    _, cloud = streamed
    data = os.urandom(4 * MIB)
    async with running(cloud, tmp_path) as made:
        key = stub(made, world, "left", data)
        async with Worker(made.socket_path) as worker:
            await worker.say(Want(*key, 0, MIB, MIB))
            await worker.hear()
        await eventually(lambda: not made.recalls.document()["readers"])
        assert made.recalls.document()["bytes"] <= MIB
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, len(data), WINDOW) == data
        assert made.recalls.document()["bytes"] == len(data)


@pytest.mark.trio
async def test_a_download_goes_on_where_it_was_cut(world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path) -> None:
    proxy, cloud = streamed
    data = os.urandom(6 * MIB)
    async with running(cloud, tmp_path) as made:
        key = stub(made, world, "cut", data)
        proxy.meet(Fault(Act.TRUNCATE))
        async with Worker(made.socket_path) as worker:
            reading = await worker.read(key, 0, len(data), WINDOW)
        assert isinstance(reading, Failed)  # each try brought half of the rest, until three brought almost none
        proxy.meet()
        made.link(Link.ONLINE)
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, len(data), WINDOW) == data
        await eventually(lambda: made.news.arrivals)
        assert made.recalls.document()["bytes"] == len(data)


@pytest.mark.trio
async def test_damaged_bytes_are_never_told_whole(world: World, tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)

    def flip(answer: bytes) -> bytes:
        at = len(answer) - MIB
        return answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]

    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "damaged", data)
        world.proxy.fault = lambda exchange: setattr(exchange, "edit_answer", flip)
        async with Worker(made.socket_path) as worker:
            heard = await worker.read(key, 0, len(data))
        assert isinstance(heard, Failed)
        assert worker.told_max <= len(data) - LAST_BYTES
        assert made.is_stub(key)
        assert not made.news.arrivals
        world.proxy.fault = lambda exchange: None
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, len(data)) == data
        await eventually(lambda: made.news.arrivals)


@pytest.mark.trio
async def test_offline_is_said_at_once(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "offline", b"x" * MIB)
        made.link(Link.OFFLINE)
        async with Worker(made.socket_path) as worker:
            heard = await worker.read(key, 0, MIB)
        assert isinstance(heard, Failed)
        assert heard.why == "offline"
        assert not world.proxy.count("GET")


@pytest.mark.trio
async def test_a_link_that_goes_down_ends_the_waiting(world: World, tmp_path: Path) -> None:
    reached = trio.Event()
    token = trio.lowlevel.current_trio_token()
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "hangs", b"x" * MIB)
        with held(world, lambda: token.run_sync_soon(reached.set)):
            async with Worker(made.socket_path) as worker:
                await worker.say(Want(*key, 0, MIB, MIB))
                await reached.wait()
                made.link(Link.OFFLINE)
                heard = await worker.hear()
        assert isinstance(heard, Failed)
        assert heard.why == "offline"


@pytest.mark.trio
@pytest.mark.parametrize("seed", range(6))
async def test_any_mixture_of_readers_gets_its_bytes_and_none_is_fetched_twice(
    seed: int, world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path
) -> None:
    """Whole reads, ranges, large and small windows, readers that leave in the middle: from one seed."""
    _, cloud = streamed
    chance = random.Random(seed)
    data = chance.randbytes(chance.randrange(1, 12 * MIB))
    async with running(cloud, tmp_path) as made:
        key = stub(made, world, "mixed", data)

        async def one(number: int) -> None:
            mine = random.Random(f"{seed} {number}")
            start = mine.choice((0, mine.randrange(len(data))))
            end = mine.choice((len(data), mine.randrange(start, len(data) + 1)))
            window = mine.choice((1000, 100_000, MIB, WINDOW)) if end - start < MIB else WINDOW
            await trio.sleep(mine.random() / 20)
            async with Worker(made.socket_path) as worker:
                with trio.move_on_after(mine.choice((0.02, SECONDS_MAX))):
                    found = await worker.read(key, start, end, window)
                    here = isinstance(found, Failed) and found.why == "changed"  # it is a file again
                    assert here or found == data[start:end]

        async with trio.open_nursery() as nursery:
            for number in range(24):
                nursery.start_soon(one, number)
        counted = made.recalls.document()
        waste = counted["downloads"] * PIECE_BYTES_MAX  # what was in flight when a download was cut short
        assert counted["bytes"] <= len(data) + waste
        assert not counted["failures"]
        if not made.is_stub(key):
            assert made.content(key) == data


@pytest.mark.trio
@pytest.mark.parametrize("kept", [True, False])
async def test_whatever_breaks_no_reader_gets_a_wrong_byte(
    kept: bool, world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path
) -> None:
    proxy, cloud = streamed
    data = random.Random(7).randbytes(5 * MIB)
    proxy.meet(Fault(Act.TRUNCATE, 0.3), Fault(Act.RESET_BEFORE, 0.1), Fault(Act.REFUSE, 0.1, status=503))
    async with running(cloud, tmp_path, keep=lambda *_: kept) as made:
        key = stub(made, world, "rough", data)

        async def one(number: int) -> None:
            mine = random.Random(number)
            start = mine.choice((0, mine.randrange(len(data))))
            found: object = None
            while found != data[start:]:
                made.link(Link.ONLINE)
                async with Worker(made.socket_path) as worker:
                    found = await worker.read(key, start, len(data), MIB)
                if isinstance(found, Failed) and found.why == "changed":
                    return
                assert isinstance(found, Failed) or found == data[start:]

        with trio.fail_after(SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(one, number)


@pytest.mark.trio
async def test_a_link_that_swallows_everything_is_found_out(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is uploaded that would show it, and the time-out of a socket is a minute."""
    monkeypatch.setattr(linkwatch, "SUSPECT_SECONDS", 0.3)
    async with running(world.cloud, tmp_path, answer_seconds=SECONDS_MAX * 2) as made:
        key = stub(made, world, "hole", b"x" * MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.watch.run)
            with held(world, lambda: None), trio.fail_after(SECONDS_MAX):
                async with Worker(made.socket_path) as worker:
                    found = await worker.read(key, 0, MIB)
            assert isinstance(found, Failed)
            assert found.why == "offline"
            nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_stub_without_bytes_needs_no_cloud(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        first = stub(made, world, "first", b"x")
        state = made.store.stat_blob(first.ref())
        assert state is not None
        assert state.properties.remote is not None
        empty = replace(state.properties.remote, size=0, md5=hashlib.md5(b"").digest())
        ref = BlobRef(CONTAINER, "empty")
        made.store.run(made.store.plant(ref, replace(state.properties, etag="0xE", remote=empty)))
        key = Key(ACCOUNT, CONTAINER, "empty", "0xE")
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, 0) == b""
        await eventually(lambda: made.news.arrivals == [key])
        assert not made.is_stub(key)
        assert not world.proxy.count("GET")
