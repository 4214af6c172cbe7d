"""Writer and reader on a real directory: order, rotation, resuming, removal, bounds, damage, reading while written."""

import itertools
import os
from pathlib import Path

import pytest

from dataplane.journal import unclean
from dataplane.journal.layout import SegmentName, create_segment, parse_segment
from dataplane.journal.reader import Segment, segments
from dataplane.journal.record import HEADER_BYTES, DamagedSegment, Entry, ForeignSegment, Kind, Record
from dataplane.journal.segmentfile import bytes_unread
from dataplane.journal.writer import RETRY_SECONDS, Journal
from tests.journal.support import SEGMENT_BYTES, appender, expected, flipped, numbers, read_all

ENTRY: Entry = (Kind.INTENT, "account", "container", "a blob")


class Clocks:
    """A wall clock that ticks with every look, and a monotonic one that is moved."""

    def __init__(self) -> None:
        self._wall = itertools.count(1000)
        self.monotonic = 0.0

    def wall(self) -> int:
        return next(self._wall)

    def steady(self) -> float:
        return self.monotonic


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal"


def test_what_is_appended_is_read_at_once(directory: Path) -> None:
    journal = Journal(directory, 0, Clocks().wall)
    (segment,) = segments(directory)
    assert segment.read() == ([], HEADER_BYTES)
    journal.append([ENTRY, (Kind.CONTAINER, "account", "container", "")])
    first, offset = segment.read(HEADER_BYTES)
    assert [record.kind for record in first] == [Kind.INTENT, Kind.CONTAINER]
    assert first[0] == Record(*ENTRY, first[1].when_ns)
    assert segment.read(offset) == ([], offset)
    journal.append([ENTRY])
    assert len(segment.read(offset)[0]) == 1
    assert len(segment.read()[0]) == 3
    assert not segment.finished()
    journal.close()
    assert segment.finished()


def test_an_empty_append_writes_nothing(directory: Path) -> None:
    journal = Journal(directory, 0)
    journal.append([])
    assert segments(directory)[0].size() == HEADER_BYTES
    journal.close()


def test_segments_rotate_and_go_when_they_were_read(directory: Path) -> None:
    journal = Journal(directory, 3, segment_bytes_max=SEGMENT_BYTES)
    for number in range(300):
        journal.append([(Kind.DONE, "account", "worker-3", f"{number:08d}-{part}") for part in "ab"])
    found = segments(directory)
    assert len(found) > 3
    assert all(segment.size() <= SEGMENT_BYTES for segment in found)
    assert [segment.finished() for segment in found] == [True] * (len(found) - 1) + [False]
    assert numbers(read_all(directory), 3) == expected(300)
    for segment in found:
        records, offset = segment.read()
        assert records
        assert not segment.remove(0)  # there is more than the caller has
        assert segment.remove(offset) == (segment is not found[-1])
    journal.close()
    assert found[-1].remove(offset)
    assert os.listdir(directory) == []
    assert found[-1].remove(offset)  # it is gone already


def test_an_append_larger_than_a_segment_has_one_of_its_own(directory: Path) -> None:
    journal = Journal(directory, 0, segment_bytes_max=200)
    journal.append([ENTRY])
    journal.append([ENTRY] * 20)
    journal.append([ENTRY])
    assert [len(segment.read()[0]) for segment in segments(directory)] == [1, 20, 1]
    journal.close()


def test_a_reader_sees_everything_once_while_two_workers_write(directory: Path) -> None:
    processes = [appender(directory, worker, 2000) for worker in (0, 1)]
    found: list[Record] = []
    offsets: dict[str, int] = {}
    try:
        running = True
        while running or segments(directory):
            running = any(len(numbers(found, worker)) < 4000 for worker in (0, 1))
            for process in processes:
                if not running and process.stdin is not None and not process.stdin.closed:
                    process.communicate()
            for segment in segments(directory):
                records, offset = segment.read(offsets.get(segment.name, 0))
                found += records
                offsets[segment.name] = offset
                if segment.remove(offset):
                    del offsets[segment.name]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0]
    assert [numbers(found, worker) for worker in (0, 1)] == [expected(2000)] * 2
    assert not unclean.is_due(directory)


def test_unread_segments_are_bounded(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    journal = Journal(
        directory, 0, clocks.wall, monotonic=clocks.steady, bytes_max=4 * SEGMENT_BYTES, segment_bytes_max=SEGMENT_BYTES
    )
    while not journal.lost:
        journal.append([ENTRY])
    assert bytes_unread(directory) <= 4 * SEGMENT_BYTES
    assert unclean.is_due(directory)
    assert "nobody reads it" in caplog.text
    lost = journal.lost
    for segment in segments(directory):
        assert segment.discard()
    journal.append([ENTRY])  # too early: a disk that failed is not asked for every change
    assert journal.lost == lost + 1
    clocks.monotonic += RETRY_SECONDS
    journal.append([ENTRY])
    assert journal.lost == lost + 1
    assert len(read_all(directory)) == 1
    assert len(caplog.records) == 1
    journal.close()


def test_a_directory_that_cannot_be_had_costs_no_change_and_is_tried_again(tmp_path: Path) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("a file")
    clocks = Clocks()
    journal = Journal(in_the_way / "journal", 0, clocks.wall, monotonic=clocks.steady)
    journal.append([ENTRY, ENTRY])
    assert journal.lost == 2
    in_the_way.unlink()
    clocks.monotonic += RETRY_SECONDS
    journal.append([ENTRY])
    assert journal.lost == 2
    assert len(read_all(in_the_way / "journal")) == 1
    assert unclean.is_due(in_the_way / "journal")  # told as soon as it could be
    journal.close()


def test_an_entry_that_does_not_fit_is_counted_and_stops_nothing(directory: Path) -> None:
    journal = Journal(directory, 0)
    journal.append([(Kind.DONE, "account", "container", "n" * 5000)])
    assert journal.lost == 1
    assert unclean.is_due(directory)
    journal.append([ENTRY])
    assert journal.lost == 1
    assert len(read_all(directory)) == 1
    journal.close()


def test_a_torn_tail_is_waited_for_and_ends_with_its_writer(directory: Path) -> None:
    directory.mkdir(parents=True)
    journal = Journal(directory, 0)
    journal.append([ENTRY])
    (segment,) = segments(directory)
    whole = segment.size()
    journal.append([ENTRY])
    journal.close()
    os.truncate(directory / segment.name, segment.size() - 1)
    assert segment.read() == (segment.read()[0], whole)
    assert len(segment.read()[0]) == 1
    assert segment.finished()
    assert segment.remove(whole)


def test_damage_is_reported_where_it_is_and_its_segment_goes_on_demand_only(directory: Path) -> None:
    journal = Journal(directory, 0)
    journal.append([ENTRY])
    (segment,) = segments(directory)
    whole = segment.size()
    journal.append([ENTRY])
    flipped(directory / segment.name, whole + 3)
    records, offset = segment.read()
    assert (len(records), offset) == (1, whole)
    with pytest.raises(DamagedSegment) as damage:
        segment.read(offset)
    assert damage.value.offset == whole
    assert not segment.discard()  # its worker lives
    assert not segment.remove(offset)
    journal.close()
    with pytest.raises(DamagedSegment):
        segment.remove(offset)
    assert segment.discard()


def test_foreign_files_are_refused_or_not_looked_at(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "queue.db").write_bytes(b"x")
    (directory / "w0-1-1.journal").write_bytes(b"x")
    name = str(SegmentName(1, 0, 0))
    (directory / name).write_bytes(b"something else altogether")
    (found,) = segments(directory)
    assert found.name == name
    with pytest.raises(ForeignSegment):
        found.read()
    assert found.discard()


def test_an_offset_behind_the_end_reads_nothing(directory: Path) -> None:
    """After a power cut a file may be shorter than what was read of it."""
    journal = Journal(directory, 0)
    journal.close()
    (segment,) = segments(directory)
    assert segment.read(1_000_000) == ([], 1_000_000)
    assert segment.remove(1_000_000)


def test_no_journal_yet_is_an_empty_one(directory: Path) -> None:
    assert segments(directory) == []
    assert not unclean.is_due(directory)
    assert Segment(directory, "gone").discard()


def test_a_segment_that_is_taken_away_while_it_is_made_is_made_again(directory: Path) -> None:
    directory.mkdir(parents=True)
    fd, name = create_segment(directory, SegmentName(7, 0, 0))
    other, next_name = create_segment(directory, SegmentName(7, 0, 0))
    assert (name.sequence, next_name.sequence) == (0, 1)
    assert not Segment(directory, str(name)).discard()  # locked from its first byte on
    os.close(fd)
    os.close(other)
    assert Segment(directory, str(name)).remove(0)  # made, but not begun, when its worker ended


def test_names_order_as_they_were_written() -> None:
    names = [SegmentName(start, worker, sequence) for start in (9, 16) for worker in (2, 11) for sequence in (1, 300)]
    assert [parse_segment(str(name)) for name in names] == names == sorted(names)
    assert parse_segment("w1-0000000000000009-00000001.journal.gz") is None


def test_reads_are_noted_coarsely_and_written_on_demand(directory: Path) -> None:
    journal = Journal(directory, 0)
    for _ in range(3):
        journal.read("account", "container", "hot")
    assert read_all(directory) == []
    journal.read("account", "container", "other")
    journal.flush()
    journal.flush()
    assert [(record.kind, record.name) for record in read_all(directory)] == [(Kind.READ, "hot"), (Kind.READ, "other")]
    journal.close()
