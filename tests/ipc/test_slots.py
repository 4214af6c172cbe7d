"""The shared slot: one writer's words are another process's view, and they outlive the writer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from dataplane.ipc.slots import SLOT_BYTES, Counter, Slot, SlotError, create


@pytest.fixture
def slot_fd() -> Iterator[int]:
    fd = create("test-slot")
    yield fd
    os.close(fd)


def test_a_new_slot_is_empty(slot_fd: int) -> None:
    slot = Slot(slot_fd)
    assert (slot.pid, slot.heartbeat_ns) == (0, 0)
    assert set(slot.counters().values()) == {0}
    slot.close()


def test_counters_outlive_their_writer_and_the_heartbeat_starts_anew(slot_fd: int) -> None:
    program = (
        "import os, sys, time\n"
        "from dataplane.ipc.slots import Counter, Slot\n"
        "slot = Slot(int(sys.argv[1])); slot.begin(os.getpid()); slot.beat(time.monotonic_ns())\n"
        "[slot.add(Counter.COMMITTED_WRITES) for _ in range(42)]; slot.add(Counter.CONNECTIONS_OPEN)\n"
    )
    before = time.monotonic_ns()
    subprocess.run([sys.executable, "-c", program, str(slot_fd)], pass_fds=[slot_fd], check=True)
    slot = Slot(slot_fd)
    assert slot.pid > 0
    assert before <= slot.heartbeat_ns <= time.monotonic_ns()
    assert slot.get(Counter.COMMITTED_WRITES) == 42
    slot.begin(0)
    assert (slot.pid, slot.heartbeat_ns, slot.get(Counter.CONNECTIONS_OPEN)) == (0, 0, 0)
    assert slot.get(Counter.COMMITTED_WRITES) == 42
    slot.close()


def test_a_gauge_goes_down_and_a_counter_wraps(slot_fd: int) -> None:
    slot = Slot(slot_fd)
    slot.add(Counter.CONNECTIONS_OPEN, 2)
    slot.add(Counter.CONNECTIONS_OPEN, -2)
    assert slot.get(Counter.CONNECTIONS_OPEN) == 0
    slot.add(Counter.COMMITS, 2**64 - 1)
    slot.add(Counter.COMMITS, 3)
    assert slot.get(Counter.COMMITS) == 2
    slot.close()


def test_a_descriptor_that_is_no_slot_is_refused(slot_fd: int) -> None:
    other = os.memfd_create("other")
    with pytest.raises(SlotError, match="size"):
        Slot(other)
    os.ftruncate(other, SLOT_BYTES)
    with pytest.raises(SlotError, match="version"):
        Slot(other)
    os.close(other)
