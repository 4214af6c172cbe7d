"""The process is killed, or the power goes, while records are ingested: what was acknowledged is there, and the
offsets say exactly what the rows hold, so that reading on from them loses nothing and repeats nothing."""

import contextlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.offload.database import Queue
from agent.offload.opening import QueueUnwritable
from tests.durability.disk import FILE_SYSTEMS, Disk, disk, run, unavailable

from .database_ingester import EXIT_DISK_GONE, SEGMENT, check, record

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("BLOBEDGE_QUEUE_KILLS", "5"))
# 3 keep the suite short; a release is worth some hundreds.
CUTS = int(os.environ.get("BLOBEDGE_POWER_CUTS", "3"))
CUTS_UNTIL_CAUGHT_MAX = 10
BATCHES_MAX = 40  # before a crash
SMALL_DISK_BYTES = 2 << 20


@contextlib.contextmanager
def ingesting(path: Path, seed: str, synchronous: str = "FULL") -> Iterator[subprocess.Popen[bytes]]:
    """The process that ingests; it has ended when this returns."""
    command = [sys.executable, "-m", "tests.offload.database_ingester", str(path), seed, synchronous]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledgements(process: subprocess.Popen[bytes], count: int) -> int:
    """Read so many of them. Returns how many records the last one acknowledges."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    return int(lines[-1].split()[0])


def rest(process: subprocess.Popen[bytes], acknowledged: int, until: float = math.inf) -> int:
    """How many were acknowledged before `until`, by what is left to read. A line that the end cut is none."""
    assert process.stdout is not None
    lines = (line.split() for line in process.stdout.read().split(b"\n")[:-1])
    return max([acknowledged, *(int(count) for count, when in lines if float(when) < until)])


def test_a_killed_process_leaves_what_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    chance = random.Random(0)
    for cycle in range(KILLS):
        with ingesting(path, str(cycle)) as process:
            acknowledged = acknowledgements(process, chance.randrange(1, BATCHES_MAX))
            process.kill()
            acknowledged = rest(process, acknowledged)
        check(path, acknowledged)


@pytest.fixture(params=FILE_SYSTEMS)
def power(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if reason := unavailable():
        pytest.skip(f"power cuts: {reason}")
    with disk(request.param, tmp_path) as made:
        yield made


def cuts(power: Disk, count: int, synchronous: str) -> None:
    """Cut the power `count` times. Raises AssertionError when something is not there."""
    for seed in range(count):
        cut(power, seed, synchronous)


def cut(power: Disk, seed: int, synchronous: str) -> None:
    """Cut the power while records are ingested, and compare what is left."""
    path = power.mount / "state" / "queue.db"
    chance = random.Random(seed)
    with ingesting(path, str(seed), synchronous) as process:
        acknowledged = acknowledgements(process, chance.randrange(1, BATCHES_MAX))
        # While the ioctl runs, a sync can succeed and its bytes be lost: no program runs on in a real power cut.
        acknowledged = rest(process, acknowledged, until=power.cut_power().began_at)
        assert process.wait() == EXIT_DISK_GONE
    power.detach()
    power.attach()
    check(path, acknowledged)


def test_a_power_cut_leaves_what_was_acknowledged(power: Disk) -> None:
    cuts(power, CUTS, "FULL")


def test_a_weaker_setting_is_caught(power: Disk) -> None:
    """The negative control: WAL with synchronous=NORMAL, SQLite's usual advice, loses what it has acknowledged."""
    with pytest.raises(AssertionError, match="acknowledged"):
        cuts(power, CUTS_UNTIL_CAUGHT_MAX, "NORMAL")


def test_a_full_disk_takes_nothing_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: a full disk is a tmpfs of its own")
    mount = tmp_path / "small"
    mount.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(mount))
    try:
        filler = mount / "filler"
        with Queue(mount / "queue.db") as queue:
            queue.ingest(SEGMENT, 50, map(record, range(50)))
            fill_up(filler)
            with pytest.raises(QueueUnwritable):
                ingest_until_refused(queue)
            noted = queue.offsets()[SEGMENT]
            filler.unlink()
            queue.ingest(SEGMENT, noted + 50, map(record, range(noted, noted + 50)))
        assert check(mount / "queue.db", noted + 50) == noted + 50
    finally:
        run("umount", str(mount))


def fill_up(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def ingest_until_refused(queue: Queue) -> None:
    while True:
        noted = queue.offsets()[SEGMENT]
        queue.ingest(SEGMENT, noted + 50, map(record, range(noted, noted + 50)))
