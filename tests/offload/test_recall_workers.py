"""The two halves of a recall together: clients of a worker, the sidecar's recalls, and Azurite behind a proxy that
counts."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from agent.offload.cloud import Cloud
from agent.offload.link import Link
from dataplane.ipc.settings import AccountSettings
from tests.offload.lab.proxy import Proxy
from tests.offload.recall_support import ACCOUNT, CONTAINER, MIB, Node, downloads, eventually, running, stub
from tests.offload.upload_support import World
from tests.support import KEY, Answer, InProcessServer, WireClient

T = TypeVar("T")

READERS = 64


class _Server(InProcessServer):
    """A worker's server for the account whose stubs the recalls know."""

    async def _serve(self) -> None:
        (account,) = self._settings.accounts
        named = AccountSettings(ACCOUNT, account.root, account.keys, durability="relaxed")
        self._settings = type(self._settings)(
            0, 1, -1, self._settings.listeners, (named,), journal_directory=self._settings.journal_directory
        )
        await super()._serve()


@contextmanager
def worker(made: Node, tmp_path: Path) -> Iterator[InProcessServer]:
    """A worker beside a node's recalls."""
    server = _Server(tmp_path / "mount", journal_directory=str(made.socket_path.parent / "journal"))
    try:
        yield server
    finally:
        server.close()


def get(server: InProcessServer, name: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    client = WireClient(server.port, ACCOUNT, KEY)
    try:
        return client.request(method, f"/{CONTAINER}/{name}", None, headers)
    finally:
        client.close()


async def off_loop(function: Callable[..., T], *args: object) -> T:
    return await trio.to_thread.run_sync(partial(function, *args), limiter=trio.CapacityLimiter(1))


@pytest.mark.trio
async def test_readers_of_one_stub_are_one_download(
    world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path
) -> None:
    proxy, cloud = streamed
    data = os.urandom(20 * MIB + 17)
    async with running(cloud, tmp_path) as made:
        key = stub(made, world, "all", data)
        with worker(made, tmp_path) as server:
            wanted, read = hashlib.md5(data).digest(), []

            async def one() -> None:
                answer = await off_loop(get, server, "all")
                read.append(hashlib.md5(answer.body).digest() == wanted)

            async with trio.open_nursery() as nursery:
                for _ in range(READERS):
                    nursery.start_soon(one)
            assert read == [True] * READERS
            await eventually(lambda: made.news.arrivals)
            assert downloads(proxy) == [len(data)]
            assert not made.is_stub(key)
            answer = await off_loop(get, server, "all")
            assert (answer.body, answer.headers["x-blobedge-residency"]) == (data, "local")
            assert downloads(proxy) == [len(data)]


@pytest.mark.trio
async def test_a_range_moves_its_range_only(world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path) -> None:
    proxy, cloud = streamed
    data = os.urandom(64 * MIB)
    async with running(cloud, tmp_path) as made:
        stub(made, world, "ranges", data)
        with worker(made, tmp_path) as server:
            part = {"x-ms-range": f"bytes={20 * MIB}-{21 * MIB - 1}"}
            answer = await off_loop(get, server, "ranges", part)
            assert (answer.status, answer.body) == (206, data[20 * MIB : 21 * MIB])
            checked = {**part, "x-ms-range-get-content-md5": "true"}
            answer = await off_loop(get, server, "ranges", checked)
            assert (answer.status, answer.body) == (206, data[20 * MIB : 21 * MIB])
            assert sum(downloads(proxy)) == MIB


@pytest.mark.trio
@pytest.mark.parametrize("kept", [True, False])
async def test_windows_follow_each_other(
    world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path, kept: bool
) -> None:
    data = os.urandom(40 * MIB + 3)
    async with running(streamed[1], tmp_path, keep=lambda *_: kept) as made:
        key = stub(made, world, "windows", data)
        with worker(made, tmp_path) as server:
            assert (await off_loop(get, server, "windows")).body == data
        if kept:
            await eventually(lambda: made.news.arrivals)
        assert made.is_stub(key) is not kept


@pytest.mark.trio
async def test_a_snapshot_brings_the_blob(world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path) -> None:
    data = os.urandom(5 * MIB)
    async with running(streamed[1], tmp_path) as made:
        key = stub(made, world, "snapped", data)
        with worker(made, tmp_path) as server:
            client = WireClient(server.port, ACCOUNT, KEY)
            snapped = partial(client.request, "PUT", f"/{CONTAINER}/snapped", {"comp": "snapshot"})
            answer = await off_loop(snapped)
            assert answer.status == 201
            taken = {"snapshot": answer.headers["x-ms-snapshot"]}
            assert client.request("GET", f"/{CONTAINER}/snapped", taken).body == data
            client.close()
        assert not made.is_stub(key)


@pytest.mark.trio
async def test_without_a_link(world: World, streamed: tuple[Proxy, Cloud], tmp_path: Path) -> None:
    proxy, cloud = streamed
    async with running(cloud, tmp_path) as made:
        stub(made, world, "away", b"x" * MIB)
        made.link(Link.OFFLINE)
        with worker(made, tmp_path) as server:
            answer = await off_loop(get, server, "away")
            assert (answer.status, answer.code) == (503, "ServerBusy")
            assert int(answer.headers["retry-after"]) > 0
            assert b"no way to the cloud" in answer.body
            head = await off_loop(get, server, "away", None, "HEAD")
            assert (head.status, head.headers["content-length"]) == (200, str(MIB))
        assert not downloads(proxy)
