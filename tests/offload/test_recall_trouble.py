"""Recalls when something is wrong, or changes meanwhile: with the copy, with the blob here, with the room for it."""

import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from agent.offload.cloud import Cloud
from agent.offload.look import Stores
from agent.offload.recall import leftovers, shelf
from agent.offload.recall.reasons import NotComing
from agent.offload.recall.shelf import Key, Shelf, Space
from dataplane.blobapi.model import Remote
from dataplane.ipc.recalls import Failed, Want
from dataplane.store.errors import NotEvictable
from dataplane.store.staging import StagedFile
from dataplane.store.store import Store
from tests.offload.azurite import Exchange
from tests.offload.lab.proxy import Proxy
from tests.offload.recall_support import (
    CONTAINER,
    MIB,
    SECONDS_MAX,
    Node,
    Worker,
    downloads,
    eventually,
    held,
    running,
    stub,
)
from tests.offload.upload_support import World
from tests.store.support import changed, delete, put

WINDOW = 2 * MIB


async def why(made: Node, key: Key, start: int, end: int) -> str:
    """Why a read failed."""
    async with Worker(made.socket_path) as worker:
        heard = await worker.read(key, start, end)
    assert isinstance(heard, Failed), heard
    return heard.why


@pytest.mark.trio
@pytest.mark.parametrize("forged", ["owner", "size"])
async def test_a_stub_that_somebody_forges_ends_its_own_recall_only(
    forged: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is another user's, or it stands for a blob of another size once the bytes have come."""

    def give(*_: object) -> None:
        raise NotEvictable("its file belongs to another user")

    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(MIB)
        key, other = stub(made, world, "forged", data), stub(made, world, "other", data)
        if forged == "owner":
            monkeypatch.setattr("dataplane.store.stubs._give", give)
        else:
            swap = Shelf.swap

            async def late(self: Shelf, key: Key, remote: Remote, staged: StagedFile) -> str | None:
                more = replace(remote, size=remote.size + 1)
                made.store.run(made.store.retarget(key.ref(), key.etag, more))
                return await swap(self, key, remote, staged)

            monkeypatch.setattr(Shelf, "swap", late)
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, MIB) == data
        await eventually(lambda: made.recalls.document()["open"] == 0)
        assert made.is_stub(key)
        monkeypatch.undo()
        async with Worker(made.socket_path) as worker:
            assert await worker.read(other, 0, MIB) == data
        await eventually(lambda: not made.is_stub(other))


# --- the copy ----------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_an_archived_copy_is_said_to_be_one(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "cold", b"x" * MIB)
        world.container.get_blob_client("copy of cold").set_standard_blob_tier("Archive")
        assert await why(made, key, 0, MIB) == "archived"
        assert made.is_stub(key)


@pytest.mark.trio
@pytest.mark.parametrize("bad", ["deleted", "longer", "shorter", "other bytes", "other container"])
async def test_a_copy_that_is_not_there_any_more(bad: str, world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(MIB)
        key = stub(made, world, "lost", data)
        copy = world.container.get_blob_client("copy of lost")
        if bad == "deleted":
            copy.delete_blob()
        elif bad == "other container":
            state = made.store.stat_blob(key.ref())
            assert state is not None
            remote = state.properties.remote
            assert remote is not None
            made.store.run(made.store.retarget(key.ref(), key.etag, replace(remote, container="nowhere")))
        else:
            other = {"longer": data + b"!", "shorter": data[:-1], "other bytes": data[::-1]}[bad]
            copy.upload_blob(other, overwrite=True)
        assert await why(made, key, 0, MIB) == "missing"
        assert await why(made, key, MIB - 5, MIB) == "missing"
        assert made.news.gone == [key]
        assert made.is_stub(key)


@pytest.mark.trio
async def test_properties_that_were_changed_there_do_not_matter(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(MIB)
        key = stub(made, world, "meta", data)
        world.container.get_blob_client("copy of meta").set_blob_metadata({"somebody": "else"})
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, MIB) == data


@pytest.mark.trio
async def test_properties_that_are_changed_there_in_the_middle_do_not_matter(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(MIB)
        key = stub(made, world, "moving", data)

        def cut(exchange: Exchange) -> None:
            exchange.truncate_answer = MIB // 2

            def then(_next: Exchange) -> None:
                world.proxy.fault = lambda exchange: None
                world.container.get_blob_client("copy of moving").set_blob_metadata({"somebody": "else"})

            world.proxy.fault = then

        world.proxy.fault = cut
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, MIB) == data
        await eventually(lambda: made.news.arrivals)


# --- the blob here -----------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_blob_that_is_here_is_another_version(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "again", b"x" * MIB)
        put(made.store, "again", b"newer")
        assert await why(made, key, 0, MIB) == "changed"
        assert await why(made, key._replace(name="never was"), 0, MIB) == "changed"
        assert await why(made, key._replace(account="nobodys"), 0, MIB) == "failed"


@pytest.mark.trio
@pytest.mark.parametrize("what", ["overwritten", "deleted"])
async def test_what_happens_to_a_blob_while_it_comes_counts(what: str, world: World, tmp_path: Path) -> None:
    reached, token = trio.Event(), trio.lowlevel.current_trio_token()
    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(MIB)
        key = stub(made, world, "race", data)
        read: list[object] = []
        async with trio.open_nursery() as nursery:
            with held(world, lambda: token.run_sync_soon(reached.set)):

                async def one() -> None:
                    async with Worker(made.socket_path) as worker:
                        read.append(await worker.read(key, 0, MIB))

                nursery.start_soon(one)
                await reached.wait()
                if what == "overwritten":
                    put(made.store, "race", b"newer")
                else:
                    delete(made.store, "race")
        assert read == [data]  # of the version that the reader opened
        await eventually(lambda: not made.staged())
        assert not made.news.arrivals
        state = made.store.stat_blob(key.ref())
        assert state is None if what == "deleted" else state is not None and state.size == len(b"newer")


@pytest.mark.trio
async def test_properties_that_change_while_it_comes_stay(world: World, tmp_path: Path) -> None:
    reached, token = trio.Event(), trio.lowlevel.current_trio_token()
    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(MIB)
        key = stub(made, world, "renamed", data)
        async with trio.open_nursery() as nursery:
            with held(world, lambda: token.run_sync_soon(reached.set)):
                nursery.start_soon(made.recalls.bring, *key[:3])
                await reached.wait()
                made.store.run(made.store.update(key.ref(), changed(metadata={"new": "one"})))
        state = made.store.stat_blob(key.ref())
        assert state is not None
        assert state.properties.remote is None
        assert state.properties.metadata == {"new": "one"}
        assert made.content(key) == data
        assert made.news.arrivals == [key._replace(etag=state.properties.etag)]


@pytest.mark.trio
async def test_a_blob_can_be_evicted_again_at_once_and_be_read_again(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(MIB)
        key = stub(made, world, "twice", data)
        state = made.store.stat_blob(key.ref())
        assert state is not None
        remote = state.properties.remote
        assert remote is not None
        async with Worker(made.socket_path) as still_reading:
            for _ in range(3):
                assert await still_reading.read(key, 0, 10) == data[:10]
                async with Worker(made.socket_path) as worker:
                    assert await worker.read(key, 0, MIB) == data
                await eventually(lambda: not made.is_stub(key) and not made.recalls.document()["open"])
                made.store.run(made.store.evict(key.ref(), key.etag, remote))


@pytest.mark.trio
async def test_an_operator_brings_a_blob_back(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        data = os.urandom(3 * MIB)
        key = stub(made, world, "brought", data)
        came: list[int] = []
        await made.recalls.bring(*key[:3], came.append)
        assert sum(came) == len(data)
        assert made.content(key) == data
        await made.recalls.bring(*key[:3])  # it is here
        world.container.get_blob_client("copy of brought").delete_blob()
        other = stub(made, world, "gone", data)
        world.container.get_blob_client("copy of gone").delete_blob()
        with pytest.raises(NotComing) as raised:
            await made.recalls.bring(*other[:3])
        assert raised.value.message.why == "missing"


# --- room --------------------------------------------------------------------------------------------------------


class Tight(Shelf):
    """A mount that has little room left."""

    free_bytes = 0
    looks = 0

    async def make(self, key: Key) -> Space:
        space = await super().make(key)
        Tight.looks += 1
        space.free_bytes = self.free_bytes
        return space


@pytest.mark.trio
@pytest.mark.parametrize("how", ["low-space mode", "no room for all of it"])
async def test_what_may_not_stay_comes_in_windows(
    how: str, world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path
) -> None:
    proxy, cloud = streamed
    Tight.free_bytes = 5 * MIB
    tight = {"shelf": Tight, "spare_bytes": 0} if how != "low-space mode" else {"keep": lambda *_: False}
    data = os.urandom(6 * MIB + 3)
    most = 0
    async with running(cloud, tmp_path, **tight) as made:
        key = stub(made, world, "window", data)

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, sum(each.st_blocks * 512 for each in made.staged()))
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with Worker(made.socket_path) as worker:
                assert await worker.read(key, 0, len(data), WINDOW) == data
                assert await worker.read(key, 100, 200) == data[100:200]
            nursery.cancel_scope.cancel()
        await eventually(lambda: not made.staged())
        assert most <= 2 * WINDOW + MIB
        assert sum(downloads(proxy)) == len(data) + 100
        assert made.is_stub(key)


@pytest.mark.trio
async def test_readers_of_a_window_share_it(world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path) -> None:
    proxy, cloud = streamed
    data = os.urandom(WINDOW)
    async with running(cloud, tmp_path, keep=lambda *_: False) as made:
        key = stub(made, world, "shared", data)
        done = 0
        everybody = trio.Event()

        async def one() -> None:
            nonlocal done
            async with Worker(made.socket_path) as worker:
                assert await worker.read(key, 0, len(data), WINDOW) == data
                done += 1
                if done == 16:
                    everybody.set()
                await everybody.wait()

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(one)
        assert downloads(proxy) == [len(data)]


@pytest.mark.trio
async def test_damage_is_found_in_windows_too(world: World, tmp_path: Path) -> None:
    data = os.urandom(2 * WINDOW)

    def flip(exchange: Exchange) -> None:
        exchange.edit_answer = lambda answer: answer[:-MIB] + bytes([answer[-MIB] ^ 1]) + answer[1 - MIB :]

    async with running(world.cloud, tmp_path, keep=lambda *_: False) as made:
        key = stub(made, world, "bad window", data)
        world.proxy.fault = flip
        async with Worker(made.socket_path) as worker:
            heard = await worker.read(key, 0, len(data), WINDOW)
        assert isinstance(heard, Failed)
        assert worker.told_max < len(data)


@pytest.mark.trio
async def test_no_room_at_all_is_said(world: World, tmp_path: Path) -> None:
    Tight.free_bytes = MIB
    async with running(world.cloud, tmp_path, shelf=Tight, spare_bytes=0, room_seconds=0) as made:
        key = stub(made, world, "full", b"x" * 3 * MIB)
        assert await why(made, key, 0, 3 * MIB) == "space"
        with pytest.raises(NotComing) as raised:
            await made.recalls.bring(*key[:3])
        assert raised.value.message.why == "space"
        await eventually(lambda: not made.staged())


@pytest.mark.trio
async def test_room_is_promised_once(world: World, tmp_path: Path) -> None:
    """Two blobs that fit one at a time do not fill the disk together."""
    Tight.free_bytes = 3 * MIB
    reached, token = trio.Event(), trio.lowlevel.current_trio_token()
    async with running(world.cloud, tmp_path, shelf=Tight, spare_bytes=0, room_seconds=0) as made:
        one, two = (stub(made, world, name, os.urandom(2 * MIB)) for name in ("one", "two"))
        async with trio.open_nursery() as nursery:
            with held(world, lambda: token.run_sync_soon(reached.set)):
                nursery.start_soon(made.recalls.bring, *one[:3])
                await reached.wait()
                assert await why(made, two, 0, 2 * MIB) == "space"
        assert not made.is_stub(one)


@pytest.mark.trio
async def test_who_finds_no_room_waits_until_some_is_made(world: World, tmp_path: Path) -> None:
    Tight.free_bytes, Tight.looks = MIB, 0
    data = os.urandom(3 * MIB)
    async with running(world.cloud, tmp_path, shelf=Tight, spare_bytes=0) as made:
        key = stub(made, world, "patience", data)

        async def evict() -> None:
            await eventually(lambda: Tight.looks > 0)
            Tight.free_bytes = 4 * MIB

        async with trio.open_nursery() as nursery, Worker(made.socket_path) as worker:
            nursery.start_soon(evict)
            assert await worker.read(key, 0, len(data)) == data
        assert Tight.looks > 1
        await eventually(lambda: not made.is_stub(key))


@pytest.mark.trio
async def test_a_wait_in_vain_spares_the_next_ones(world: World, tmp_path: Path) -> None:
    Tight.free_bytes, Tight.looks = MIB, 0
    async with running(world.cloud, tmp_path, shelf=Tight, spare_bytes=0, room_seconds=0.1) as made:
        one, two = (stub(made, world, name, b"x" * 3 * MIB) for name in ("one", "two"))
        assert await why(made, one, 0, 3 * MIB) == "space"
        looks = Tight.looks
        assert looks > 1
        assert await why(made, two, 0, 3 * MIB) == "space"
        assert Tight.looks == looks + 1


# --- what stays behind -------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_reader_that_leaves_before_its_file_is_made_leaves_none(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount takes its time, and who asked has gone."""
    asked, go_on, token, really = trio.Event(), threading.Event(), trio.lowlevel.current_trio_token(), shelf._make

    def slow(store: Store, container: str) -> Space:
        token.run_sync_soon(asked.set)
        go_on.wait(SECONDS_MAX)
        return really(store, container)

    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "slow", b"x" * MIB)
        monkeypatch.setattr(shelf, "_make", slow)
        async with Worker(made.socket_path) as worker:
            await worker.say(Want(*key, 0, 10, 10))
            await asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        monkeypatch.undo()
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, MIB) == b"x" * MIB
        await eventually(lambda: not made.staged() and not made.is_stub(key))


@pytest.mark.trio
async def test_an_idle_recall_is_dropped(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path, idle_seconds=0.0) as made:
        key = stub(made, world, "idle", b"x" * MIB)
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, 10) == b"x" * 10
            assert len(made.staged()) == 1
        await eventually(lambda: not made.staged())
        assert not made.recalls.document()["open"]


@pytest.mark.trio
async def test_what_a_killed_sidecar_left_goes_and_what_is_in_use_stays(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "used", hashlib.shake_256(b"used").digest(MIB))
        async with Worker(made.socket_path) as worker:
            await worker.say(Want(*key, 0, 10, 10))
            await worker.hear()
            (used,) = made.staged()
            left = made.store.stage(CONTAINER)
            os.fchmod(left.fd, 0o1600)
            upload = made.store.stage(CONTAINER)
            assert len(made.staged()) == 2
            assert leftovers.clear(made.store) == 1
            assert [each.st_ino for each in made.staged()] == [used.st_ino]
            assert upload.withdraw()
            assert not left.withdraw()
            stores = Stores([])
            await leftovers.clear_all(stores)
