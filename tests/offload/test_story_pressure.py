"""A disk that is half as large as the data set, writes that never stop, reads by Zipf's law, and a link that goes away
in the middle.

Promised: a write never meets a full disk. While something may be evicted it is not refused either, though it may have
to wait for it; when nothing may be, it is refused with a 503 that says so, before the disk is full. A read is answered
with the blob's bytes; of a blob that is in the cloud alone with a 503 while there is no link, or no room even to pass
its bytes on.

Each read is of the blob of rank r with a probability proportional to r to the power of -ZIPF, over all blobs that are
there by then. One reader ranks the newest first, as who looks at what just came; the other one the oldest, as who
needs the same few again and again, whatever else comes.

BLOBEDGE_PRESSURE_SEED makes it another story of the same kind, BLOBEDGE_PRESSURE_DISK_MIB one on another disk.
BLOBEDGE_PRESSURE_OUTAGE_SECONDS has the link away for so long at least, refusals or not, and clients do everything
BLOBEDGE_PRESSURE_SLOWER times less often meanwhile: 3600 and 10 are an hour in the middle.
"""

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
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
OUTAGE_SECONDS = float(os.environ.get("BLOBEDGE_PRESSURE_OUTAGE_SECONDS", "0"))
SLOWER = float(os.environ.get("BLOBEDGE_PRESSURE_SLOWER", "1"))
DISK_MIB = int(os.environ.get("BLOBEDGE_PRESSURE_DISK_MIB", "96"))
DISK_BYTES = DISK_MIB << 20
BLOB_BYTES = 512 << 10
BLOBS = 2 * DISK_BYTES // BLOB_BYTES
WRITES_PER_SECOND = 10  # 5 MiB/s
READS_PER_SECOND = 10  # of each reader
LOOKS_PER_SECOND = 20  # at how full the disk is
ZIPF = 1.1
SUMS = list(accumulate(rank**-ZIPF for rank in range(1, 4 * BLOBS)))  # of the weights of all ranks so far
REFUSALS = 10  # that are seen before the link comes back
ONLINE_SECONDS_MAX = 3 * DISK_MIB  # for the data to be written, and for a part of it
FULL_SECONDS_MAX = 2 * DISK_MIB * SLOWER  # for the disk to fill up without a link
RELIEF_SECONDS_MAX = 60.0  # for writes to be taken again once the link is back
CALM_SECONDS_MAX = 2 * DISK_MIB  # for the disk to have room again
CHECKERS = 4  # that read everything back in the end
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
    """What clients saw in one part of the story: seconds of each request, what was refused (status, message), and how
    full the disk was at most, in percent."""

    writes: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    refused_writes: list[tuple[int, str]] = field(default_factory=list)
    refused_reads: list[tuple[int, str]] = field(default_factory=list)
    fullest: float = 0.0

    def told(self, name: str) -> str:
        """One line for a person."""
        return (
            f"{name}: {len(self.writes)} writes, {in_words(self.writes)}, {len(self.refused_writes)} refused; "
            f"{len(self.reads)} reads, {in_words(self.reads)}, {len(self.refused_reads)} refused; "
            f"the disk was {self.fullest:.1f} % full at most"
        )


def in_words(seconds: list[float]) -> str:
    """The median, the 99th percentile and the most."""
    if not seconds:
        return "none"
    ordered = sorted(1000 * each for each in seconds)
    return f"p50 {ordered[len(ordered) // 2]:.0f} p99 {ordered[int(0.99 * len(ordered))]:.0f} max {ordered[-1]:.0f} ms"


def zipf(count: int, chance: random.Random) -> int:
    """A rank, 1 to `count`."""
    return 1 + bisect_left(SUMS, chance.random() * SUMS[count - 1], 0, count - 1)


Act = Callable[[BlobServiceClient, random.Random], None]


class Plant:
    """Clients of a node, each with its own thread: one writes, two read what was written, one looks at the disk."""

    def __init__(self, node: Edge) -> None:
        self.node = node
        self.written: dict[str, bytes] = {}  # name: MD5 of what was acknowledged
        self.names: list[str] = []  # the same in order
        self.wrong: list[str] = []  # what no client may ever see
        self.shift = Shift()
        self.slower = 1.0  # than they are by themselves
        self.stop = threading.Event()
        everyone: list[tuple[Act, float]] = [
            (self._write, WRITES_PER_SECOND),
            (self._read_new, READS_PER_SECOND),
            (self._read_old, READS_PER_SECOND),
            (self._look, LOOKS_PER_SECOND),
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(act, 1.0 / each_second, SEED + number))
            for number, (act, each_second) in enumerate(everyone)
        ]

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

    def _run(self, act: Act, pause: float, seed: int) -> None:
        chance = random.Random(seed)
        try:
            with self.node.service() as service:
                wait = 0.0
                while not self.stop.wait(wait):
                    began = time.monotonic()
                    act(service, chance)
                    wait = max(0.0, pause * self.slower - (time.monotonic() - began))
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

    def _read_new(self, service: BlobServiceClient, chance: random.Random) -> None:
        if names := self.names:
            self._read(service, names[-zipf(len(names), chance)])

    def _read_old(self, service: BlobServiceClient, chance: random.Random) -> None:
        if names := self.names:
            self._read(service, names[zipf(len(names), chance) - 1])

    def _look(self, _service: BlobServiceClient, _chance: random.Random) -> None:
        found = os.statvfs(self.node.root)
        taken = found.f_blocks - found.f_bfree
        self.shift.fullest = max(self.shift.fullest, 100.0 * taken / (taken + found.f_bavail))

    def _read(self, service: BlobServiceClient, name: str) -> None:
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


@pytest.mark.timeout(1200 + 10 * DISK_MIB + OUTAGE_SECONDS)
def test_a_disk_half_as_large_as_the_data(node: Edge) -> None:
    with Plant(node) as plant:
        until(node, ONLINE_SECONDS_MAX, lambda: len(plant.names) >= BLOBS or plant.wrong)
        online = plant.next_shift()

        plant.slower = SLOWER
        node.lab.link.cut()
        ends = time.monotonic() + OUTAGE_SECONDS
        filled = until(node, FULL_SECONDS_MAX, lambda: plant.shift.refused_writes or plant.wrong)
        at_refusal = eviction(node), local_copies(node)
        until(node, FULL_SECONDS_MAX, lambda: len(plant.shift.refused_writes) > REFUSALS or plant.wrong)
        until(node, OUTAGE_SECONDS + 1.0, lambda: time.monotonic() >= ends or plant.wrong)
        offline = plant.next_shift()

        node.lab.heal()
        plant.slower = 1.0
        written = len(plant.names)
        relief = until(node, RELIEF_SECONDS_MAX, lambda: len(plant.names) > written or plant.wrong)
        until(node, CALM_SECONDS_MAX, lambda: not eviction(node)["low_space"] or plant.wrong)
        healing = plant.next_shift()
        until(node, ONLINE_SECONDS_MAX, lambda: len(plant.names) >= written + BLOBS // 8 or plant.wrong)
        after = plant.next_shift()
    shifts = {"online": online, "offline": offline, "healing": healing, "after": after}
    print("\n".join([f"seed {SEED}", *(shift.told(name) for name, shift in shifts.items())]))
    print(
        f"the first refusal {filled:.0f} s after the link was cut, with {at_refusal[1]} copies still here; "
        f"writes went on {relief:.1f} s after it was back"
    )

    assert plant.wrong == []
    assert online.refused_writes == [], "refused while something could be evicted"
    assert online.refused_reads == []
    assert {status for status, _ in offline.refused_writes} == {503}
    assert all(SAID in message for _, message in offline.refused_writes)
    assert at_refusal[0]["low_space"]
    assert at_refusal[1] == 0, f"refused although copies could still be evicted: {at_refusal[0]}"
    assert max(shift.fullest for shift in shifts.values()) < 100, "the disk was full"
    assert {status for status, _ in offline.refused_reads + healing.refused_reads + healing.refused_writes} <= {503}
    assert after.refused_reads == after.refused_writes == []
    assert every_blob_reads_back(node, plant.written) == []


def every_blob_reads_back(node: Edge, written: dict[str, bytes]) -> list[str]:
    """The names of blobs that are not what was written."""

    def wrong(names: list[str]) -> list[str]:
        with node.service() as service:
            return [name for name in names if md5(service, name) != written[name]]

    def md5(service: BlobServiceClient, name: str) -> bytes:
        return hashlib.md5(service.get_blob_client(CONTAINER, name).download_blob().readall()).digest()

    everything = list(written)
    with ThreadPoolExecutor(CHECKERS) as pool:
        found = pool.map(wrong, [everything[start::CHECKERS] for start in range(CHECKERS)])
        return [name for names in found for name in names]
