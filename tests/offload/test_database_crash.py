"""The process is killed, or the power goes, while records are ingested: what was acknowledged is there, and the
offsets say exactly what the rows hold, so that reading on from them loses nothing and repeats nothing."""

import contextlib
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
BATCHES_MAX = 40  # before a crash
SMALL_DISK_BYTES = 2 << 20


@contextlib.contextmanager
def ingesting(path: Path, seed: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process that ingests; it has ended when this returns."""
    command = [sys.executable, "-m", "tests.offload.database_ingester", str(path), seed]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledgements(process: subprocess.Popen[bytes], count: int) -> int:
    """Read so many of them. Returns the last."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    return int(lines[-1])


def rest(process: subprocess.Popen[bytes], acknowledged: int) -> int:
    """The last acknowledgement that was written before the end. A line that the end cut is none."""
    assert process.stdout is not None
    whole = process.stdout.read().split(b"\n")[:-1]
    return int(whole[-1]) if whole else acknowledged


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


def test_a_power_cut_leaves_what_was_acknowledged(power: Disk) -> None:
    path = power.mount / "state" / "queue.db"
    chance = random.Random(1)
    for cycle in range(CUTS):
        with ingesting(path, str(cycle)) as process:
            acknowledged = acknowledgements(process, chance.randrange(1, BATCHES_MAX))
            power.cut_power()
            acknowledged = rest(process, acknowledged)
            assert process.wait() == EXIT_DISK_GONE
        power.detach()
        power.attach()
        check(path, acknowledged)


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
