"""A journal's disk that is full, that does not answer, or whose power goes: no change waits, and nothing is lost
unnoticed. Real file systems that the tests make: a small tmpfs, FUSE, loop mounts. Needs root."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataplane.journal import localdisk, promise, unclean
from dataplane.journal.reader import segments
from dataplane.journal.record import DamagedSegment, Entry, Kind
from dataplane.journal.writer import RETRY_SECONDS, Journal
from tests.durability import disk as disks
from tests.journal.support import SEGMENT_BYTES, read_all

WAIT_SECONDS = 30.0
ENTRY: Entry = (Kind.DONE, "account", "container", "a blob")
HANGING = Path(__file__).parents[1] / "server" / "hanging_file_system.py"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    path = tmp_path / "small"
    path.mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=16", "tmpfs", str(path))
    try:
        yield path
    finally:
        disks.run("umount", "--lazy", str(path))


def fill(path: Path) -> None:
    """Take all the room there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1000))


@pytest.mark.parametrize("inodes_too", [False, True])
def test_a_full_disk_costs_no_change_and_is_told(small: Path, inodes_too: bool) -> None:
    now = 0.0
    journal = Journal(small, 0, monotonic=lambda: now)
    journal.append([ENTRY])
    fill(small / "filler")
    if inodes_too:
        with contextlib.suppress(OSError):
            for number in range(16):
                (small / f"file-{number}").touch()
    written = 1
    while not journal.lost:
        journal.append([ENTRY] * 10)
        written += 10
    written -= journal.lost
    assert unclean.is_due(small) != inodes_too  # without an inode there is no flag
    assert len(read_all(small)) == written  # a write that stopped in the middle is no damage
    for path in (small / "filler", *small.glob("file-*")):
        path.unlink()
    now += RETRY_SECONDS
    journal.append([ENTRY])
    assert len(read_all(small)) == written + 1
    assert journal.lost == 10
    assert unclean.is_due(small)  # now at the latest
    journal.close()


def test_a_worker_that_dies_with_a_full_disk_has_told(small: Path) -> None:
    program = f"""
import sys
from dataplane.journal.writer import Journal
journal = Journal(__import__("pathlib").Path({str(small)!r}), 0)
print(flush=True)
sys.stdin.readline()
while not journal.lost:
    journal.append([(2, "account", "container", "a blob")] * 10)
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, cwd=HANGING.parents[2]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        fill(small / "filler")
        with contextlib.suppress(OSError):
            for number in range(16):
                (small / f"file-{number}").touch()
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        process.kill()
    assert not unclean.is_due(small)
    for path in (small / "filler", *small.glob("file-*")):
        path.unlink()
    unclean.judge(small)
    assert unclean.is_due(small)


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A file system, and the file that makes its calls hang."""
    if os.geteuid() != 0:
        pytest.skip("mounting a FUSE file system needs root")
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"FUSE is missing: {error}")
    behind, path, hang_file = tmp_path / "behind", tmp_path / "mount", tmp_path / "hangs"
    behind.mkdir()
    path.mkdir()
    with subprocess.Popen([sys.executable, str(HANGING), str(behind), str(path), str(hang_file)]) as process:
        try:
            until(path.is_mount)
            yield path, hang_file
        finally:
            hang_file.unlink(missing_ok=True)
            subprocess.run(["umount", "--lazy", str(path)], check=False)
            process.kill()


def test_a_disk_that_does_not_answer_holds_one_change_and_no_other(hanging: tuple[Path, Path]) -> None:
    path, hang_file = hanging
    journal = Journal(path, 0)
    hang_file.touch()
    held = threading.Thread(target=journal.append, args=([ENTRY],), daemon=True)
    held.start()
    journal.append([ENTRY, ENTRY])
    for _ in range(1000):
        journal.append([ENTRY])  # with a wait for each it would take a quarter of an hour
    assert held.is_alive()
    assert journal.lost == 1002
    hang_file.unlink()
    held.join(WAIT_SECONDS)
    assert not held.is_alive()
    assert unclean.is_due(path)  # told by the one that came back
    journal.append([ENTRY])
    assert (len(read_all(path)), journal.lost) == (2, 1002)
    journal.close()


LOSER = """
import sys, threading
from pathlib import Path
from dataplane.journal import writer
writer.LOCK_SECONDS_MAX = 0.2
journal = writer.Journal(Path(sys.argv[1]), 0)
print(flush=True)
sys.stdin.readline()
threading.Thread(target=journal.append, args=([(2, "account", "container", "held")],), daemon=True).start()
while not journal.lost:
    journal.append([(2, "account", "container", "a blob")])
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("hangs_at_the_start", [False, True])
def test_a_worker_that_is_killed_while_the_disk_hangs_has_told(
    hanging: tuple[Path, Path], hangs_at_the_start: bool
) -> None:
    """Neither flag nor marker could say it; its change went on, and nothing else tells of it."""
    path, hang_file = hanging
    directory = path / "journal"
    directory.mkdir()
    if hangs_at_the_start:
        hang_file.touch()
    command = [sys.executable, "-c", LOSER, str(directory)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, cwd=HANGING.parents[2]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it starts all the same
        hang_file.touch()
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        process.kill()
        hang_file.unlink()  # its threads die when their calls end
    assert not unclean.is_due(directory)
    unclean.judge(directory)
    assert unclean.is_due(directory)


def test_a_journal_is_not_kept_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(localdisk, "file_system", lambda device: "nfs4")
    journal = Journal(tmp_path, 0)
    journal.append([ENTRY])
    assert journal.lost == 1
    assert not segments(tmp_path)
    assert "nfs4 is a network file system" in caplog.text
    journal.close()


@pytest.mark.parametrize("kind", disks.FILE_SYSTEMS)
def test_a_power_cut_is_noticed_and_what_it_left_is_read(kind: str, tmp_path: Path) -> None:
    """Whatever the page cache had not written is gone, and the marker of another boot says that it may be."""
    why_not = disks.unavailable()
    if why_not:
        pytest.skip(why_not)
    with disks.disk(kind, tmp_path) as disk:
        directory = disk.mount / "journal"
        journal = Journal(directory, 0, segment_bytes_max=SEGMENT_BYTES)
        for number in range(200):
            journal.append([(Kind.DONE, "account", "container", f"{number:08d}")])
        disk.cut_power()
        journal.append([ENTRY])
        assert journal.lost == 1
        del journal
        journal_files_closed(directory)
        disk.detach()
        disk.attach()
        unclean.judge(directory, boot="the boot after the cut")
        assert unclean.is_due(directory)
        for segment in segments(directory):
            with contextlib.suppress(DamagedSegment):
                segment.read()
            assert segment.discard()


def journal_files_closed(directory: Path) -> None:
    """Close what this process has open for it: it plays a process that the power cut ended."""
    its = (str(directory), str(promise.MEMORY / promise._prefix(directory)))
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(its):
                os.close(int(name))
