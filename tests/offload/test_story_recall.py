"""Clients read what only the cloud has, over the lab's link, where each byte that comes back is counted.

AzCopy and rclone download a container that is all stubs, while the rule of its neighbour evicts and more is evicted by
command; many readers of one stub, over all workers, are one download; a range of a large stub moves its range.

BLOBEDGE_RECALL_MIB: size of the stub that a range is read of; the promise is told of 1024.
"""

import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from tests.clients.azcopy import AzCopy
from tests.clients.client_tools import azcopy_path, client_environment, rclone_path
from tests.clients.endpoint import Endpoint
from tests.clients.sas import container_sas
from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.edge import ACCOUNT, KEY, Edge, edge
from tests.offload.lab.freeing import evict, stubs
from tests.offload.lab.oracle import Freed, freed_too_early
from tests.offload.lab.settling import EVERYTHING_AT_ONCE, settle

MIB = 1 << 20
STUBS, OTHERS = "stubs", "others"
SMALL_COUNT = 200
LARGE_BYTES = (24 * MIB, 33 * MIB + 7)
OTHERS_COUNT = 8  # written, sent and evicted in each round of what goes on beside
RANGE_BYTES = MIB
RANGE_MOVES_BYTES_MAX = 2 * MIB
STUB_MIB = int(os.environ.get("BLOBEDGE_RECALL_MIB", "64"))
READERS = 64
SHARED_BYTES = 20 * MIB + 17
CLIENT_SECONDS_MAX = 120.0

Digests = dict[str, bytes]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Edge]:
    need()
    with lab(tmp_path) as made, edge(made, tmp_path, EVERYTHING_AT_ONCE) as node:
        for container in (STUBS, OTHERS):
            node.make_container(container)
        yield node


@pytest.fixture
def azcopy(tmp_path: Path) -> AzCopy:
    return AzCopy(azcopy_path(), tmp_path / "azcopy", client_environment(tmp_path))


def write(service: BlobServiceClient, container: str, name: str, content: bytes) -> bytes:
    """Write a blob, and return its MD5."""
    service.get_blob_client(container, name).upload_blob(content, overwrite=True)
    return hashlib.md5(content).digest()


def all_stubs(node: Edge, sizes: dict[str, int]) -> Digests:
    """Blobs of these sizes that only the cloud has, with their MD5s."""
    chance = random.Random(5)
    with node.service() as service:
        digests = {name: write(service, STUBS, name, chance.randbytes(size)) for name, size in sizes.items()}
    settle(node, STUBS)
    evict(node, STUBS)
    assert len(stubs(node, STUBS)) == len(sizes)
    return digests


def mixed_sizes() -> dict[str, int]:
    """Many small blobs, and some that clients read in parts."""
    chance = random.Random(6)
    small = {f"small/{number:03}": chance.randrange(1, 100_000) for number in range(SMALL_COUNT)}
    return small | {f"large/{size}": size for size in LARGE_BYTES}


def tree(directory: Path) -> Digests:
    """What a client downloaded."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.md5(path.read_bytes()).digest() for path in files}


def signed_url(node: Edge) -> str:
    """The container of stubs, with a SAS."""
    with node.service() as service:
        container = service.get_container_client(STUBS)
        return f"{container.url}?{container_sas(Endpoint(ACCOUNT, KEY, node.url), container)}"


@contextmanager
def evictions(node: Edge) -> Iterator[list[Freed]]:
    """Others write, and what they wrote is evicted at once, as is what clients have brought back; until the block ends,
    and once at least. Raises what went wrong."""
    freed: list[Freed] = []
    over = threading.Event()

    def go_on() -> None:
        for number in range(10_000):
            with node.service() as service:
                for each in range(OTHERS_COUNT):
                    write(service, OTHERS, f"{number}/{each}", os.urandom(200_000))
            settle(node, OTHERS)
            freed.extend(evict(node, OTHERS))
            freed.extend(evict(node, STUBS, "small/0"))
            if over.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(go_on)
        try:
            yield freed
        finally:
            over.set()
            work.result()


def nothing_went_wrong(node: Edge, freed: list[Freed]) -> None:
    """Blobs were evicted beside, and none too early."""
    assert {each.blob[0] for each in freed} >= {OTHERS}
    assert freed_too_early(freed, node.lab.proxy.traffic) == []


@pytest.mark.timeout(600)
def test_azcopy_downloads_stubs_while_others_are_evicted(node: Edge, azcopy: AzCopy, tmp_path: Path) -> None:
    digests = all_stubs(node, mixed_sizes())
    url, target = signed_url(node), tmp_path / "target"
    with evictions(node) as freed, node.lab.link.at_edge():
        done = azcopy.run(
            *("copy", url, target, "--recursive", "--as-subdir=false", "--from-to=BlobLocal"),
            *("--check-md5=FailIfDifferent", "--block-size-mb=8"),
        )
    assert done.count("TransfersCompleted") == len(digests)
    assert tree(target) == digests
    nothing_went_wrong(node, freed)


@pytest.mark.timeout(600)
def test_rclone_downloads_stubs_while_others_are_evicted(node: Edge, tmp_path: Path) -> None:
    digests = all_stubs(node, mixed_sizes())
    target = tmp_path / "target"
    command = [rclone_path(), "copy", f":azureblob:{STUBS}", str(target), "--azureblob-sas-url", signed_url(node)]
    command += ["--retries", "1", "--low-level-retries", "1", "--multi-thread-streams", "4"]
    with evictions(node) as freed, node.lab.link.at_edge():
        ran = subprocess.run(
            command, env=client_environment(tmp_path), capture_output=True, text=True, timeout=CLIENT_SECONDS_MAX
        )
    assert ran.returncode == 0, ran.stderr
    assert tree(target) == digests
    nothing_went_wrong(node, freed)


@pytest.mark.timeout(300)
def test_many_readers_of_one_stub_are_one_download(node: Edge) -> None:
    digests = all_stubs(node, {"shared": SHARED_BYTES})
    together = threading.Barrier(READERS)

    def read() -> bytes:
        with node.service() as service:  # a connection of its own, so that all workers have some
            together.wait(CLIENT_SECONDS_MAX)
            client = service.get_blob_client(STUBS, "shared")
            return hashlib.md5(client.download_blob(max_concurrency=1).readall()).digest()

    with ThreadPoolExecutor(READERS) as pool:
        found = [each.result() for each in [pool.submit(read) for _ in range(READERS)]]
    assert set(found) == set(digests.values())
    moved = node.lab.proxy.traffic.bytes_down()[STUBS, "shared"]
    print(f"{READERS} readers of {SHARED_BYTES} bytes moved {moved}")
    assert moved == SHARED_BYTES


@pytest.mark.timeout(300 + STUB_MIB)
def test_a_range_of_a_large_stub_moves_its_range(node: Edge, tmp_path: Path) -> None:
    (source := tmp_path / "source").write_bytes(b"")
    block = random.Random(7).randbytes(MIB)
    with source.open("r+b") as file:
        for number in range(STUB_MIB):
            file.write(number.to_bytes(4) + block[4:])
        file.seek(0)
        with node.service() as service:
            service.get_blob_client(STUBS, "large").upload_blob(file, max_concurrency=2)
    settle(node, STUBS)
    evict(node, STUBS)
    assert stubs(node, STUBS) == {(STUBS, "large")}

    middle = STUB_MIB // 2
    offset = middle * MIB + 4
    with node.service() as service:
        client = service.get_blob_client(STUBS, "large")
        found = client.download_blob(offset=offset, length=RANGE_BYTES).readall()
    assert found == block[4:] + (middle + 1).to_bytes(4)
    moved = node.lab.proxy.traffic.bytes_down()[STUBS, "large"]
    print(f"{RANGE_BYTES} bytes of {STUB_MIB} MiB moved {moved}")
    assert RANGE_BYTES <= moved <= RANGE_MOVES_BYTES_MAX
    assert stubs(node, STUBS) == {(STUBS, "large")}
