"""When the mount has to be looked at as a whole, and when not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.journal import promise, unclean
from dataplane.journal.promise import Promise
from dataplane.journal.record import Kind
from dataplane.journal.writer import Journal
from tests.journal.support import appender

THIS, OTHER = "this-boot", "another-boot"


@pytest.fixture
def promised(tmp_path: Path) -> Iterator[Promise]:
    made = Promise(tmp_path, 0, 1)
    yield made
    promise.forget(made.name)


def left(promised: Promise) -> list[Path]:
    return list(promise.MEMORY.glob(f"{promised.name}*"))


def files(directory: Path) -> set[str]:
    return {path.suffix or path.name for path in directory.iterdir()}


def test_a_worker_that_closes_leaves_no_marker(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    assert files(tmp_path) == {".running", ".journal"}
    journal.close()
    assert files(tmp_path) == {".journal"}
    unclean.judge(tmp_path)
    assert not unclean.is_due(tmp_path)


def test_a_worker_that_was_killed_loses_nothing(tmp_path: Path) -> None:
    process = appender(tmp_path, 0, 5)
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    unclean.judge(tmp_path)
    assert ".running" in files(tmp_path)  # it lives
    process.kill()
    process.communicate()
    unclean.judge(tmp_path)
    assert files(tmp_path) == {".journal"}


def test_a_power_cut_is_told_by_a_marker_of_another_boot(tmp_path: Path, promised: Promise) -> None:
    marker = unclean.Marker(tmp_path, 0, 1, promised.name, OTHER)
    unclean.judge(tmp_path, THIS)
    assert not unclean.is_due(tmp_path)  # whoever wrote it lives
    marker.close()
    unclean.judge(tmp_path, THIS)
    assert files(tmp_path) == {"unclean"}


@pytest.mark.parametrize("lost", [False, True])
def test_what_was_lost_is_told_after_the_worker_is_gone(tmp_path: Path, promised: Promise, lost: bool) -> None:
    marker = unclean.Marker(tmp_path, 0, 1, promised.name, THIS)
    if lost:
        promised.take_back()
    marker.close()
    promised.close(told=False)
    unclean.judge(tmp_path, THIS)
    assert unclean.is_due(tmp_path) == lost
    assert left(promised) == []


def test_what_was_lost_before_there_was_a_marker_is_told(tmp_path: Path, promised: Promise) -> None:
    promised.take_back()
    promised.take_back()
    unclean.judge(tmp_path, THIS)
    assert not unclean.is_due(tmp_path)  # its worker lives, and tells it itself when it can
    promised.close(told=False)
    unclean.judge(tmp_path, THIS)
    assert unclean.is_due(tmp_path)
    assert left(promised) == []


def test_a_promise_is_of_one_journal(tmp_path: Path, promised: Promise) -> None:
    (tmp_path / "other").mkdir()
    promised.take_back()
    promised.close(told=False)
    unclean.judge(tmp_path / "other", THIS)
    assert not unclean.is_due(tmp_path / "other")
    assert len(left(promised)) == 1


@pytest.mark.parametrize("name", [promise.NONE, "", "../etc/hostname", "blobedge-0-gone", "x y"])
def test_where_no_promise_stands_the_worst_is_taken(tmp_path: Path, name: str) -> None:
    """After an upgrade, in another container, or where there is no such memory."""
    unclean.Marker(tmp_path, 0, 1, name, THIS).close()
    unclean.judge(tmp_path, THIS)
    assert files(tmp_path) == {"unclean"}


def test_a_promise_that_somebody_else_could_have_made_is_none(tmp_path: Path, promised: Promise) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    marker = unclean.Marker(tmp_path, 0, 1, promised.name, THIS)
    os.chown(promise.MEMORY / promised.name, 12345, -1)
    marker.close()
    unclean.judge(tmp_path, THIS)
    assert unclean.is_due(tmp_path)


@pytest.mark.parametrize("content", [b"this-boot", b"whole this-boot\n", b"\0" * 40])
def test_a_marker_that_does_not_read_is_taken_for_the_worst(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w0-0000000000000001.running").write_bytes(content)
    unclean.judge(tmp_path, THIS)
    assert files(tmp_path) == {"unclean"}


def test_a_marker_that_was_being_made_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "w0-0000000000000001.running").touch()
    unclean.judge(tmp_path, THIS)
    assert files(tmp_path) == set()


def test_two_workers_of_one_number_have_a_marker_each(tmp_path: Path) -> None:
    """While a reload replaces a worker, both run."""
    markers = [unclean.Marker(tmp_path, 0, 1, promise.NONE, THIS) for _ in range(3)]
    assert [marker.start_ns for marker in markers] == [1, 2, 3]
    markers[1].unlink()
    for marker in markers:
        marker.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_look_counts_for_what_was_lost_before_it(tmp_path: Path) -> None:
    unclean.mark(tmp_path)
    assert unclean.is_due(tmp_path)
    unclean.begin(tmp_path)
    assert unclean.is_due(tmp_path)  # whoever dies now has not finished it
    unclean.end(tmp_path)
    assert not unclean.is_due(tmp_path)


def test_what_is_lost_during_a_look_needs_another(tmp_path: Path) -> None:
    unclean.mark(tmp_path)
    unclean.begin(tmp_path)
    journal = Journal(tmp_path, 0)
    journal.append([(Kind.DONE, "account", "container", "n" * 5000)])
    unclean.end(tmp_path)
    assert unclean.is_due(tmp_path)
    journal.close()
