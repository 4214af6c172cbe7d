"""azure-storage-blob.aio: the asynchronous client with real parallelism, against all workers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
from azure.storage.blob import ContainerClient
from azure.storage.blob.aio import BlobServiceClient
from azure.storage.blob.aio import ContainerClient as AsyncContainerClient

from .client_tools import python_client
from .endpoint import Endpoint
from .trees import KIB, MIB, content

PARALLEL = 16


@pytest.fixture
def with_container(
    endpoint: Endpoint, container: ContainerClient
) -> Callable[[Callable[[AsyncContainerClient], Awaitable[None]]], None]:
    """Run a coroutine function with an asynchronous client of the test's container."""
    python_client("aiohttp")

    async def main(body: Callable[[AsyncContainerClient], Awaitable[None]]) -> None:
        async with BlobServiceClient.from_connection_string(
            endpoint.connection_string, max_single_put_size=256 * KIB, max_block_size=256 * KIB, retry_total=0
        ) as service:
            await body(service.get_container_client(str(container.container_name)))

    return lambda body: asyncio.run(main(body))


Runner = Callable[[Callable[[AsyncContainerClient], Awaitable[None]]], None]


def test_many_blobs_in_parallel(with_container: Runner) -> None:
    """Uploads, downloads, listing and deletion of many blobs at once."""
    files = {f"many/{number:03} +%": content(f"{number}", 1 + number * 5000) for number in range(100)}

    async def body(container: AsyncContainerClient) -> None:
        gate = asyncio.Semaphore(PARALLEL)

        async def up(name: str) -> None:
            async with gate:
                await container.upload_blob(name, files[name], metadata={"n": name[5:8]})

        async def down(name: str) -> bytes:
            async with gate:
                stream = await container.download_blob(name)
                return await stream.readall()

        await asyncio.gather(*(up(name) for name in files))
        assert [blob.name async for blob in container.list_blobs(results_per_page=7)] == sorted(files)
        assert await asyncio.gather(*(down(name) for name in files)) == list(files.values())
        answers = [answer.status_code async for answer in await container.delete_blobs(*files)]
        assert answers == [202] * len(files)
        assert [name async for name in container.list_blob_names()] == []

    with_container(body)


def test_blocks_and_ranges_in_parallel(with_container: Runner) -> None:
    """One blob in parallel blocks from an asynchronous stream, and back in parallel ranges."""
    data = content("aio big", 6 * MIB + 11)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    async def body(container: AsyncContainerClient) -> None:
        await container.upload_blob("big", pieces(), max_concurrency=8)
        stream = await container.download_blob("big", max_concurrency=8)
        assert await stream.readall() == data
        part = await container.download_blob("big", offset=MIB - 3, length=2 * MIB)
        assert await part.readall() == data[MIB - 3 : 3 * MIB - 3]
        chunks = [chunk async for chunk in (await container.download_blob("big")).chunks()]
        assert b"".join(chunks) == data

    with_container(body)


def test_races_have_one_winner(with_container: Runner) -> None:
    """Creation and compare-and-swap by many at once: exactly one wins, whichever worker it reached."""

    async def body(container: AsyncContainerClient) -> None:
        async def create(number: int) -> bool:
            try:
                await container.upload_blob("once", str(number).encode())
            except ResourceExistsError:
                return False
            return True

        created = await asyncio.gather(*(create(number) for number in range(PARALLEL)))
        assert sum(created) == 1
        blob = container.get_blob_client("once")
        assert await (await blob.download_blob()).readall() == str(created.index(True)).encode()

        etag = (await blob.get_blob_properties()).etag

        async def swap(number: int) -> bool:
            try:
                await blob.upload_blob(
                    f"swap {number}", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified
                )
            except ResourceModifiedError:
                return False
            return True

        swapped = await asyncio.gather(*(swap(number) for number in range(PARALLEL)))
        assert sum(swapped) == 1
        assert await (await blob.download_blob()).readall() == f"swap {swapped.index(True)}".encode()

    with_container(body)


def test_readers_never_see_a_mix(with_container: Runner) -> None:
    """While one blob is replaced over and over, each read gives one version, whole."""
    versions = [bytes([number]) * (200 * KIB) for number in range(20)]

    async def body(container: AsyncContainerClient) -> None:
        await container.upload_blob("x", versions[0])
        done = asyncio.Event()

        async def write() -> None:
            for version in versions[1:]:
                await container.upload_blob("x", version, overwrite=True)
            done.set()

        async def read() -> int:
            count = 0
            while not done.is_set():
                data = await (await container.download_blob("x")).readall()
                assert data in versions, "a read mixed two versions"
                count += 1
            return count

        readers = [asyncio.create_task(read()) for _ in range(4)]
        await write()
        assert sum(await asyncio.gather(*readers)) > 0

    with_container(body)


def test_leases_snapshots_and_tags(with_container: Runner) -> None:
    """The remaining operations through the asynchronous client."""

    async def body(container: AsyncContainerClient) -> None:
        blob = await container.upload_blob("x", b"one", tags={"aio": "yes"})
        lease = await blob.acquire_lease(15)
        await blob.set_blob_metadata({"k": "v"}, lease=lease)
        await lease.release()
        snapshot = await blob.create_snapshot()
        await blob.upload_blob(b"two", overwrite=True)
        then = container.get_blob_client("x", snapshot=str(snapshot["snapshot"]))
        assert await (await then.download_blob()).readall() == b"one"
        assert (await then.get_blob_properties()).metadata == {"k": "v"}
        await then.close()
        copy = container.get_blob_client("copy")
        await copy.start_copy_from_url(blob.url)
        assert await (await copy.download_blob()).readall() == b"two"
        await blob.set_blob_tags({"aio": "later"})
        assert await blob.get_blob_tags() == {"aio": "later"}
        found = [one.name async for one in container.find_blobs_by_tags("aio = 'later'")]
        assert found == ["x"]

    with_container(body)
