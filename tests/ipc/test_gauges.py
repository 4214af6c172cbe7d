"""Group sizes and the threads of file systems in a slot: written, read, summed, cleared."""

import os
from collections.abc import Iterator

import pytest

from dataplane.ipc.gauges import (
    GROUP_BOUNDS,
    ROWS_COUNT_MAX,
    SEVERAL,
    FileSystemGauges,
    GroupSizes,
    PoolGauges,
    file_systems,
    group_sizes,
    show,
)
from dataplane.ipc.series import Reading, read
from dataplane.ipc.slots import Counter, Slot, create


@pytest.fixture
def slot() -> Iterator[Slot]:
    fd = create("test-gauges")
    opened = Slot(fd)
    yield opened
    opened.close()
    os.close(fd)


@pytest.mark.parametrize(
    ("writes", "bucket"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (32, 5), (33, 6), (64, 6), (65, 7), (4096, 7)]
)
def test_a_group_counts_up_to_its_bound(slot: Slot, writes: int, bucket: int) -> None:
    GroupSizes(slot).observe(writes)
    assert group_sizes(slot) == [int(each == bucket) for each in range(len(GROUP_BOUNDS) + 1)]
    assert (slot.get(Counter.COMMITS), slot.get(Counter.COMMITTED_WRITES)) == (1, writes)


def test_gauges_go_with_their_process_and_totals_stay(slot: Slot) -> None:
    GroupSizes(slot).observe(3)
    shown = [
        FileSystemGauges(2049, PoolGauges(1, 0, 1, 5), PoolGauges(16, 30, 16, 7_000_000_000), 12),
        FileSystemGauges(45, commits_in_flight=1),
    ]
    show(slot, shown)
    assert file_systems(slot) == shown
    slot.begin(1)
    assert file_systems(slot) == []
    assert sum(group_sizes(slot)) == 1


def test_what_does_not_fit_is_summed(slot: Slot) -> None:
    show(slot, [FileSystemGauges(device, data=PoolGauges(queued=1)) for device in range(1, 101)])
    found = file_systems(slot)
    assert len(found) == ROWS_COUNT_MAX
    assert found[-1].device == SEVERAL
    assert sum(each.data.queued for each in found) == 100
    assert read(slot).requests == {}


def test_workers_add_up(slot: Slot) -> None:
    GroupSizes(slot).observe(2)
    show(slot, [FileSystemGauges(2049, PoolGauges(1, 2, 3, 4), PoolGauges(5, 6, 7, 8), 9)])
    total = Reading()
    total.add(read(slot))
    total.add(read(slot))
    assert total.group_sizes == [0, 2, 0, 0, 0, 0, 0, 0]
    assert total.file_systems == {2049: FileSystemGauges(2049, PoolGauges(2, 4, 6, 4), PoolGauges(10, 12, 14, 8), 18)}
