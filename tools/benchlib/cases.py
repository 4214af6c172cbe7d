"""The five cases: what is prepared, what is timed, what the figure is, and the target against a peer."""

import os
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from . import azure
from .peers import Endpoint
from .wrk import WrkResult, run_wrk

KIB = 1 << 10
MIB = 1 << 20
SMALL_BYTES = 4 * KIB
SMALL_BLOBS = 1000
LARGE_BYTES = 256 * MIB
BLOCK_BYTES = 8 * MIB
BLOCKS = 64
BLOCK_CONNECTIONS = 8
LIST_BLOBS = 5000
SEED_CONNECTIONS = 8
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How long one timed run lasts, with how many connections, and the factor on every data size.

    `scale` below 1 is for trying the tool out; its figures mean nothing.
    """

    seconds: float = 3.0
    connections: int = 16
    client_threads: int = 1
    scale: float = 1.0

    def scaled(self, count: int) -> int:
        """Return a count or size reduced by `scale`, at least 1."""
        return max(1, int(count * self.scale))


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run: the case's figure (in its unit), and what else was seen."""

    rate: float
    requests: int
    elapsed_s: float
    failed: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


class Case(ABC):
    """One comparison. `reference` is the peer that the target ratio is measured against."""

    name: str
    title: str
    unit: str
    reference: str
    target_ratio: float
    peers: tuple[str, ...]

    @abstractmethod
    def prepare(self, endpoint: Endpoint, settings: Settings) -> None:
        """Make the data, check that the peer answers it rightly, and warm the peer up; not timed."""

    @abstractmethod
    def run(self, endpoint: Endpoint, settings: Settings) -> Sample:
        """Do one timed run."""

    def clean_round(self, endpoint: Endpoint) -> None:  # noqa: B027 - most cases have nothing to remove
        """Remove what one run wrote; not timed."""


def seed(endpoint: Endpoint, container: str, names: list[str], body: bytes) -> None:
    """Create a container with blobs of one content, over a few connections."""
    azure.create_container(endpoint, container)

    def fill(part: list[str]) -> None:
        with azure.connect(endpoint) as connection:
            for name in part:
                azure.put_blob(connection, endpoint, f"{container}/{name}", body)

    with ThreadPoolExecutor(SEED_CONNECTIONS) as pool:
        list(pool.map(fill, [names[start::SEED_CONNECTIONS] for start in range(SEED_CONNECTIONS)]))


def small_sample(result: WrkResult) -> Sample:
    """Turn wrk's result into a sample in requests a second; failed requests do not count as done."""
    done = result.requests - result.failed
    rate = done / result.elapsed_s
    return Sample(rate, result.requests, result.elapsed_s, result.failed, result.p50_ms, result.p99_ms)


class GetSmall(Case):
    """Get Blob of 4 KiB over a set of names, keep-alive."""

    name = "get-4k"
    title = "GET 4 KiB"
    unit = "req/s"
    reference = "azurite"
    target_ratio = 10.0
    peers = ("blobedge", "azurite", "nginx")
    container = "get-4k"

    def prepare(self, endpoint: Endpoint, settings: Settings) -> None:
        body = os.urandom(SMALL_BYTES)
        names = [f"blob-{k:08d}" for k in range(settings.scaled(SMALL_BLOBS))]
        seed(endpoint, self.container, names, body)
        with azure.connect(endpoint) as connection:
            if azure.get_blob(connection, endpoint, f"{self.container}/{names[-1]}") != body:
                raise azure.OperationFailed("get blob: not the content that was put")
        self._load(endpoint, settings, WARM_UP_S)

    def run(self, endpoint: Endpoint, settings: Settings) -> Sample:
        return small_sample(self._load(endpoint, settings, settings.seconds))

    def _load(self, endpoint: Endpoint, settings: Settings, seconds: float) -> WrkResult:
        return run_wrk(
            endpoint,
            "GET",
            f"{self.container}/blob-",
            names=settings.scaled(SMALL_BLOBS),
            body_bytes=0,
            connections=settings.connections,
            threads=settings.client_threads,
            seconds=seconds,
        )


class PutSmall(Case):
    """Put Blob of 4 KiB, a new name each time, into a container made for the run."""

    name = "put-4k"
    title = "PUT 4 KiB durable"
    unit = "req/s"
    reference = "azurite"
    target_ratio = 4.0
    peers = ("blobedge", "azurite")
    container = "put-4k"

    def __init__(self) -> None:
        self._runs = 0

    def prepare(self, endpoint: Endpoint, settings: Settings) -> None:
        self._timed(endpoint, settings, WARM_UP_S)

    def run(self, endpoint: Endpoint, settings: Settings) -> Sample:
        return self._timed(endpoint, settings, settings.seconds)

    def _timed(self, endpoint: Endpoint, settings: Settings, seconds: float) -> Sample:
        # Nothing is deleted before the end: servers remove what was deleted in the background, and that
        # would disturb the next run.
        self._runs += 1
        azure.create_container(endpoint, self._container())
        return small_sample(
            run_wrk(
                endpoint,
                "PUT",
                f"{self._container()}/blob-",
                names=0,
                body_bytes=SMALL_BYTES,
                connections=settings.connections,
                threads=settings.client_threads,
                seconds=seconds,
            )
        )

    def _container(self) -> str:
        return f"{self.container}-{self._runs}"


class GetLarge(Case):
    """Get Blob of 256 MiB, one connection, from the page cache; nginx uses sendfile."""

    name = "get-256m"
    title = "GET 256 MiB"
    unit = "MiB/s"
    reference = "nginx"
    target_ratio = 0.9
    peers = ("blobedge", "azurite", "nginx")
    path = "get-256m/large"

    def prepare(self, endpoint: Endpoint, settings: Settings) -> None:
        body = os.urandom(settings.scaled(LARGE_BYTES))
        azure.create_container(endpoint, self.path.partition("/")[0])
        with azure.connect(endpoint) as connection:
            if endpoint.document_root is not None:
                azure.put_blob(connection, endpoint, self.path, body)
            else:
                parts = range(0, len(body), BLOCK_BYTES)
                for index, start in enumerate(parts):
                    part = memoryview(body)[start : start + BLOCK_BYTES]
                    azure.put_block(connection, endpoint, self.path, index, part)
                azure.put_block_list(connection, endpoint, self.path, len(parts))
            if azure.get_blob(connection, endpoint, self.path) != body:
                raise azure.OperationFailed("get large blob: not the content that was put")

    def run(self, endpoint: Endpoint, settings: Settings) -> Sample:
        request = azure.head(endpoint, "GET", self.path)
        count = total = 0
        with azure.connect(endpoint) as connection:
            start = time.perf_counter()
            while (elapsed := time.perf_counter() - start) < settings.seconds or not count:
                response = azure.expect(connection.exchange(request), 200, "get large blob")
                total += response.body_bytes
                count += 1
        return Sample(total / MIB / elapsed, count, elapsed)


class PutBlocks(Case):
    """One upload of 512 MiB: 64 Put Block of 8 MiB over 8 connections, then Put Block List."""

    name = "blocks-512m"
    title = "512 MiB in 8 MiB blocks"
    unit = "MiB/s"
    reference = "azurite"
    target_ratio = 1.5
    peers = ("blobedge", "azurite")
    path = "blocks-512m/large"

    def prepare(self, endpoint: Endpoint, settings: Settings) -> None:
        azure.create_container(endpoint, self.path.partition("/")[0])
        size = settings.scaled(BLOCK_BYTES)
        self._upload(endpoint, size, BLOCK_CONNECTIONS)
        with azure.connect(endpoint) as connection:
            content = azure.get_blob(connection, endpoint, self.path)
        if content != bytes(self._data(size)[:size]) * BLOCK_CONNECTIONS:
            raise azure.OperationFailed("block upload: not the content that was put")
        self.clean_round(endpoint)

    def run(self, endpoint: Endpoint, settings: Settings) -> Sample:
        size = settings.scaled(BLOCK_BYTES)
        elapsed = self._upload(endpoint, size, BLOCKS)
        return Sample(size * BLOCKS / MIB / elapsed, BLOCKS + 1, elapsed)

    def clean_round(self, endpoint: Endpoint) -> None:
        with azure.connect(endpoint) as connection:
            azure.delete_blob(connection, endpoint, self.path)

    def _data(self, size: int) -> memoryview:
        return memoryview(b"blobedge" * (size // 8 + 1))[:size]

    def _upload(self, endpoint: Endpoint, size: int, blocks: int) -> float:
        body = self._data(size)

        def send(indexes: range) -> None:
            with azure.connect(endpoint) as connection:
                for index in indexes:
                    azure.put_block(connection, endpoint, self.path, index, body)

        shares = [range(first, blocks, BLOCK_CONNECTIONS) for first in range(BLOCK_CONNECTIONS)]
        start = time.perf_counter()
        with ThreadPoolExecutor(BLOCK_CONNECTIONS) as pool:
            list(pool.map(send, shares))
        with azure.connect(endpoint) as connection:
            azure.put_block_list(connection, endpoint, self.path, blocks)
        return time.perf_counter() - start


class ListPage(Case):
    """List Blobs, flat, one page of 5,000 blobs, one connection."""

    name = "list-5000"
    title = "list page of 5,000 blobs"
    unit = "pages/s"
    reference = "azurite"
    target_ratio = 5.0
    peers = ("blobedge", "azurite")
    container = "list-5000"
    query = "restype=container&comp=list&maxresults=5000"

    def prepare(self, endpoint: Endpoint, settings: Settings) -> None:
        count = settings.scaled(LIST_BLOBS)
        seed(endpoint, self.container, [f"folder/blob-{k:08d}" for k in range(count)], b"x")
        with azure.connect(endpoint) as connection:
            request = azure.head(endpoint, "GET", self.container, self.query)
            page = azure.expect(connection.exchange(request, keep_body=True), 200, "list blobs").body
        if page.count(b"<Name>folder/blob-") != count:
            raise azure.OperationFailed(f"list blobs: {page.count(b'<Name>')} names on the page, not {count}")

    def run(self, endpoint: Endpoint, settings: Settings) -> Sample:
        request = azure.head(endpoint, "GET", self.container, self.query)
        count = 0
        with azure.connect(endpoint) as connection:
            start = time.perf_counter()
            while (elapsed := time.perf_counter() - start) < settings.seconds or not count:
                azure.expect(connection.exchange(request), 200, "list blobs")
                count += 1
        return Sample(count / elapsed, count, elapsed)


CASES: tuple[type[Case], ...] = (GetSmall, GetLarge, PutSmall, PutBlocks, ListPage)
