"""The table of requests in a slot: what is observed is read, exactly, whoever dies."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dataplane.blobapi.errors import ErrorCode
from dataplane.blobapi.operations import Operation
from dataplane.ipc import series
from dataplane.ipc.series import (
    BOUNDS_NS,
    OVERFLOW,
    ROWS_COUNT_MAX,
    Labels,
    RequestSeries,
    Sums,
    read,
    read_fds,
    series_key,
)
from dataplane.ipc.slots import Counter, Slot, create

GET = series_key(Operation.GET_BLOB, 200, "", "SAS")
MILLISECOND = 1_000_000


@pytest.fixture
def slot_fd() -> Iterator[int]:
    fd = create("test-series")
    yield fd
    os.close(fd)


@pytest.fixture
def slot(slot_fd: int) -> Iterator[Slot]:
    slot = Slot(slot_fd)
    yield slot
    slot.close()


def test_a_new_slot_has_no_requests(slot: Slot) -> None:
    reading = read(slot)
    assert (reading.requests, reading.histograms) == ({}, {})


def test_requests_with_the_same_labels_are_one_row(slot: Slot) -> None:
    requests = RequestSeries(slot)
    requests.observe(GET, 3, 0, 100, 1, 2, 4)
    requests.observe(GET, 5, 7, 11, 0, 0, 0)
    requests.observe(series_key(Operation.GET_BLOB, 404, "BlobNotFound", "SAS"), 1, 0, 0, 0, 0, 0)
    assert read(slot).requests == {
        Labels("GET_BLOB", 200, "", "SAS"): Sums(2, 7, 111, 8, 1, 2, 4),
        Labels("GET_BLOB", 404, "BlobNotFound", "SAS"): Sums(1, 0, 0, 1, 0, 0, 0),
    }


def test_every_label_comes_back_as_it_went_in(slot: Slot) -> None:
    requests, expected = RequestSeries(slot), set()
    errors = [("", 200), *((error.code, error.status) for error in ErrorCode)]
    for number, (code, status) in enumerate(errors):
        operation = [None, *Operation][number % (len(Operation) + 1)]
        auth = series.AUTHS[number % len(series.AUTHS)]
        requests.observe(series_key(operation, status, code, auth), 1, 0, 0, 0, 0, 0)
        expected.add(Labels(operation.name if operation else "", status, code, auth))
    assert set(read(slot).requests) == expected


def test_an_unknown_error_code_is_counted_as_other(slot: Slot) -> None:
    RequestSeries(slot).observe(series_key(None, 418, "Teapot"), 1, 0, 0, 0, 0, 0)
    assert list(read(slot).requests) == [Labels("", 418, series.OTHER_ERROR, "")]


@pytest.mark.parametrize(("nanoseconds", "bucket"), [(0, 0), (BOUNDS_NS[0], 0), (BOUNDS_NS[0] + 1, 1), (2**40, 16)])
def test_bounds_are_inclusive(slot: Slot, nanoseconds: int, bucket: int) -> None:
    RequestSeries(slot).observe(GET, nanoseconds, 0, 0, 0, 0, 0)
    counts = read(slot).histograms["GET_BLOB"]
    assert [number for number, count in enumerate(counts) if count] == [bucket]


def test_the_last_operation_has_a_histogram_of_its_own(slot: Slot) -> None:
    last = list(Operation)[-1]
    RequestSeries(slot).observe(series_key(last, 200), 2**40, 0, 0, 0, 0, 0)
    reading = read(slot)
    assert list(reading.histograms) == [last.name]
    assert sum(sums.count for sums in reading.requests.values()) == 1


def test_a_full_table_overflows_into_one_row(slot: Slot) -> None:
    requests = RequestSeries(slot)
    keys = [
        series_key(operation, status)
        for operation in Operation
        for status in range(100, 100 + ROWS_COUNT_MAX // len(Operation) + 2)
    ]
    assert len(keys) > ROWS_COUNT_MAX
    for key in keys * 2:
        requests.observe(key, 1, 1, 1, 1, 1, 1)
    reading = read(slot)
    over = 2 * (len(keys) - (ROWS_COUNT_MAX - 1))
    assert reading.requests[Labels(OVERFLOW, 0, "", "")] == Sums(*[over] * 7)
    assert sum(sums.count for sums in reading.requests.values()) == 2 * len(keys)
    assert sum(map(sum, reading.histograms.values())) == 2 * len(keys)
    assert set(slot.counters().values()) == {0}  # nothing spilled into the neighbours


def test_a_new_writer_goes_on_in_the_same_rows(slot: Slot, slot_fd: int) -> None:
    RequestSeries(slot).observe(GET, 1, 0, 0, 0, 0, 0)
    successor = Slot(slot_fd)
    RequestSeries(successor).observe(GET, 1, 0, 0, 0, 0, 0)
    successor.close()
    assert [sums.count for sums in read(slot).requests.values()] == [2]


_WRITER = """
import os, sys
from dataplane.ipc.series import RequestSeries
from dataplane.ipc.slots import Slot
observe = RequestSeries(Slot(int(sys.argv[1]))).observe
keys = [int(key) for key in sys.argv[2:]]
os.write(1, b"r")
while True:  # a byte per request observed
    for key in keys:
        observe(key, 700_000, 2, 3, 1, 1, 1)
        os.write(1, b".")
"""


def test_totals_are_exact_across_kills(slot_fd: int, slot: Slot) -> None:
    """Each writer says after each request that it is counted; a kill may fall between counting and saying so."""
    keys = [GET, series_key(Operation.PUT_BLOB, 201, "", "AccountKey"), series_key(None, 400, "InvalidUri")]
    said, kills = 0, 4
    chance = random.Random(7)
    for _ in range(kills):
        arguments = [sys.executable, "-c", _WRITER, str(slot_fd), *map(str, keys)]
        with subprocess.Popen(arguments, pass_fds=[slot_fd], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.read(1) == b"r"
            said += len(writer.stdout.read(chance.randrange(1000, 5000)))
            writer.send_signal(signal.SIGKILL)
            said += len(writer.stdout.read())
    reading = read(slot)
    counted = sum(sums.count for sums in reading.requests.values())
    assert said <= counted <= said + kills
    for sums in reading.requests.values():  # a kill inside a call leaves sums without a count, never the other way
        assert 0 <= sums.bytes_in // 2 - sums.count <= kills
        assert 0 <= sums.total_ns // 700_000 - sums.count <= kills


def test_readings_of_several_slots_are_added_up(slot_fd: int, slot: Slot) -> None:
    RequestSeries(slot).observe(GET, 2 * MILLISECOND, 0, 9, 0, 0, 0)
    slot.add(Counter.CONNECTIONS_ACCEPTED, 3)
    reading = read_fds([slot_fd, slot_fd])
    assert reading.requests == {Labels("GET_BLOB", 200, "", "SAS"): Sums(2, 0, 18, 4 * MILLISECOND)}
    assert sum(reading.histograms["GET_BLOB"]) == 2
    assert reading.counters[Counter.CONNECTIONS_ACCEPTED] == 6
