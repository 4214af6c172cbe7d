"""A disk that is half as large as the data set, writes that never stop, reads as a working set makes them, and a link
that goes away in the middle.

Promised: a write never meets a full disk. While something may be evicted it is not refused either; when nothing may be,
it is refused with a 503 that says so, before the disk is full. A read is answered with the blob's bytes; of a blob that
is in the cloud alone with a 503 while there is no link, or no room even to pass its bytes on.

BLOBEDGE_PRESSURE_SEED makes it another story of the same kind.
"""

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient

from agent.observability import client
from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.edge import Edge, edge

CONTAINER = "camera"
SEED = int(os.environ.get("BLOBEDGE_PRESSURE_SEED", "8"))
DISK_BYTES = 256 << 20
BLOB_BYTES = 512 << 10
BLOBS = 2 * DISK_BYTES // BLOB_BYTES
WRITES_PER_SECOND = 10  # 5 MiB/s
READERS = 2
READS_PER_SECOND = 20  # of each reader
ZIPF = 1.1
FULL_SECONDS_MAX = 120.0  # for the disk to fill up without a link
RELIEF_SECONDS_MAX = 60.0  # for writes to be taken again once the link is back
SAID = "The node's disk is almost full, and nothing more can be moved to the cloud now."
RULES = """
[offload]
space_low_percent = 45
space_high_percent = 52
low_space_percent = 60
reserve_percent = 72
[[offload.rules]]
upload = "now"
evict = "space"
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Edge]:
    need()
    if not os.path.exists("/dev/loop-control") or shutil.which("mkfs.ext4") is None:
        pytest.skip("A DISK OF ITS OWN NEEDS loop devices and mkfs.ext4")
    with disk(tmp_path), lab(tmp_path) as made, edge(made, tmp_path, RULES) as node:
        node.make_container(CONTAINER)
        yield node


@contextmanager
def disk(home: Path) -> Iterator[None]:
    """Mount a small ext4 where the node's account will be."""
    image, root = home / "disk.img", home / "root"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-I", "512", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(root)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False)


@dataclass(slots=True)
class Shift:
    """What clients saw in one part of the story: seconds of each request, and what was refused (status, message)."""

    writes: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    refused_writes: list[tuple[int, str]] = field(default_factory=list)
    refused_reads: list[tuple[int, str]] = field(default_factory=list)

    def told(self, name: str) -> str:
        """One line for a person."""
        p99 = [f"{1000 * percentile(times, 0.99):.0f} ms" for times in (self.writes, self.reads)]
        return (
            f"{name}: {len(self.writes)} writes, p99 {p99[0]}, {len(self.refused_writes)} refused; "
            f"{len(self.reads)} reads, p99 {p99[1]}, {len(self.refused_reads)} refused"
        )


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] if times else 0.0


class Plant:
    """Clients of a node, each with its own thread: one writes, the others read what was written."""

    def __init__(self, node: Edge) -> None:
        self.node = node
        self.written: dict[str, bytes] = {}  # name: MD5 of what was acknowledged
        self.names: list[str] = []  # the same in order
        self.wrong: list[str] = []  # what no client may ever see
        self.shift = Shift()
        self.stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(self._write, 1.0 / WRITES_PER_SECOND, SEED))]
        for number in range(READERS):
            arguments = (self._read, 1.0 / READS_PER_SECOND, SEED + 1 + number)
            self._threads.append(threading.Thread(target=self._run, args=arguments))

    def __enter__(self) -> "Plant":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def next_shift(self) -> Shift:
        """A new part of the story begins; what clients saw in the one before."""
        before, self.shift = self.shift, Shift()
        return before

    def _run(self, act: Callable[[BlobServiceClient, random.Random], None], pause: float, seed: int) -> None:
        chance = random.Random(seed)
        try:
            with self.node.service() as service:
                while not self.stop.wait(pause):
                    act(service, chance)
        except Exception as error:  # a thread that dies unseen would end the story well
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _write(self, service: BlobServiceClient, chance: random.Random) -> None:
        content = chance.randbytes(BLOB_BYTES)
        name = f"{len(self.names):05}"
        shift, began = self.shift, time.monotonic()
        try:
            service.get_blob_client(CONTAINER, name).upload_blob(content, overwrite=True)
        except HttpResponseError as error:
            shift.refused_writes.append((error.status_code or 0, str(error.message)))
            return
        shift.writes.append(time.monotonic() - began)
        self.written[name] = hashlib.md5(content).digest()
        self.names.append(name)

    def _read(self, service: BlobServiceClient, chance: random.Random) -> None:
        """The newest blobs are read most: rank r with a weight of r to the power of -ZIPF."""
        names = self.names
        if not names:
            return
        rank = min(int(chance.paretovariate(ZIPF - 1.0)), len(names))
        name = names[-rank]
        shift, began = self.shift, time.monotonic()
        try:
            content = service.get_blob_client(CONTAINER, name).download_blob().readall()
        except HttpResponseError as error:
            shift.refused_reads.append((error.status_code or 0, str(error.message)))
            return
        shift.reads.append(time.monotonic() - began)
        if hashlib.md5(content).digest() != self.written[name]:
            self.wrong.append(f"{name} has other bytes than were written")


def eviction(node: Edge) -> dict[str, Any]:
    """What status says of eviction."""
    _, status = client.get(f"unix:{node.scratch}/admin.sock", "/status")
    found: list[dict[str, Any]] = [each for each in status["reports"] if each["kind"] == "offload"]
    return dict(found[0].get("eviction", {})) if found else {}


def until(node: Edge, seconds: float, condition: Callable[[], object]) -> float:
    """Wait for it; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{eviction(node)} {node.tail()}"
        time.sleep(0.1)
    return time.monotonic() - began


def local_copies(node: Edge) -> int:
    """Blobs that the cloud has, and whose bytes are still here."""
    return len(node.rows("--residency", "copied"))


@pytest.mark.timeout(900)
def test_a_disk_half_as_large_as_the_data(node: Edge) -> None:
    with Plant(node) as plant:
        until(node, 300.0, lambda: len(plant.names) >= BLOBS or plant.wrong)
        online = plant.next_shift()

        node.lab.link.cut()
        until(node, FULL_SECONDS_MAX, lambda: plant.shift.refused_writes or plant.wrong)
        at_refusal = eviction(node), local_copies(node)
        until(node, FULL_SECONDS_MAX, lambda: len(plant.shift.refused_writes) > WRITES_PER_SECOND or plant.wrong)
        offline = plant.next_shift()

        node.lab.heal()
        written = len(plant.names)
        relief = until(node, RELIEF_SECONDS_MAX, lambda: len(plant.names) > written or plant.wrong)
        until(node, RELIEF_SECONDS_MAX, lambda: not eviction(node)["low_space"] or plant.wrong)
        healing = plant.next_shift()
        until(node, 300.0, lambda: len(plant.names) >= written + BLOBS // 4 or plant.wrong)
        after = plant.next_shift()
    shifts = {"online": online, "offline": offline, "healing": healing, "after": after}
    print("\n".join([f"seed {SEED}", *(shift.told(name) for name, shift in shifts.items())]))
    print(
        f"writes went on {relief:.1f} s after the link was back; {at_refusal[1]} copies were here at the first refusal"
    )

    assert plant.wrong == []
    assert online.refused_writes == [], "refused while something could be evicted"
    assert online.refused_reads == []
    assert {status for status, _ in offline.refused_writes} == {503}
    assert all(SAID in message for _, message in offline.refused_writes)
    assert at_refusal[0]["low_space"]
    assert at_refusal[1] == 0, "refused although copies could still be evicted"
    assert {status for status, _ in offline.refused_reads + healing.refused_reads + healing.refused_writes} <= {503}
    assert after.refused_reads == after.refused_writes == []
    assert every_blob_reads_back(node, plant.written) == []


def every_blob_reads_back(node: Edge, written: dict[str, bytes]) -> list[str]:
    """The names of blobs that are not what was written."""
    wrong = []
    with node.service() as service:
        for name, md5 in written.items():
            content = service.get_blob_client(CONTAINER, name).download_blob().readall()
            if hashlib.md5(content).digest() != md5:
                wrong.append(name)
    return wrong
