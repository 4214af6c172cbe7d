"""Requests by operation, answer and caller, in the worker's slot: one call of RequestSeries per request, no lock, no
system call.

Guarantees: what was observed is in the slot when the call returns, so a SIGKILL loses nothing of it. A kill inside the
call may leave a request with its times but not counted; `count` is stored last, so a count is never ahead of its sums.
Readers scan while the writer writes and see each word as it was before or after a store.

Part of a slot (slots.py), in words from SERIES_WORD:

    HISTOGRAMS_WORD   HISTOGRAMS_COUNT_MAX latency histograms of HISTOGRAM_WORDS, by operation id: a count for each
                      of BOUNDS_NS, not cumulative, then one for what took longer
    ROWS_WORD         rows of ROW_WORDS = one cache line: key, count, bytes in, bytes out, then nanoseconds in total,
                      in queues, on the disk and waiting for the client. Rows are taken in order; a key of 0 ends the
                      table.

The last row is for whatever no longer fits (label "Overflow"): operation, status, code and caller come from us and
not from the client, so it takes a bug to reach it, and then totals are still right.

Ids are positions: of the operation in Operation, of the error code among the codes of ErrorCode, of the caller in
AUTHS. Writer and reader run the same version of the code (the supervisor starts its own, agent/supervision/child.py),
and a slot lives in memory only and dies with its supervisor, so ids need not be stable over versions.

Rejected: struct.pack_into for all words of a row at once (it fills its target with zeros first, which a reader or a
kill would catch), prometheus-client's own multiprocess mode (a file per process and kind, a dict and two packs per
update: several times the price), doubles (lose single nanoseconds and bytes beyond 2**53).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from dataplane.blobapi.authorization import CallerKind
from dataplane.blobapi.errors import ErrorCode
from dataplane.blobapi.operations import Operation
from dataplane.ipc.gauges import GROUP_BOUNDS, FileSystemGauges, file_systems, group_sizes
from dataplane.ipc.slots import SERIES_WORD, SLOT_BYTES, WORD_BYTES, Counter, Slot

#: Upper bounds of the latency histograms in seconds, inclusive. Local metadata answers in under a millisecond, a large
#: block over a slow link takes half a minute.
BOUNDS_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
BOUNDS_NS: Final = tuple(round(seconds * 1e9) for seconds in BOUNDS_SECONDS)

HISTOGRAMS_WORD: Final = SERIES_WORD
HISTOGRAMS_COUNT_MAX: Final = 64
HISTOGRAM_WORDS: Final = 24  # the bounds, the rest, and room to add bounds
ROWS_WORD: Final = HISTOGRAMS_WORD + HISTOGRAMS_COUNT_MAX * HISTOGRAM_WORDS
ROW_WORDS: Final = 8
ROWS_COUNT_MAX: Final = (SLOT_BYTES // WORD_BYTES - ROWS_WORD) // ROW_WORDS  # the last one is for the overflow
_OVERFLOW: Final = ROWS_WORD + (ROWS_COUNT_MAX - 1) * ROW_WORDS

# A key has less than 30 bits, so that CPython holds it in one digit.
_USED: Final = 1 << 29  # no key is 0
_OPERATION_SHIFT: Final = 20
_STATUS_SHIFT: Final = 10
_ERROR_SHIFT: Final = 3

OPERATIONS: Final = ("", *(operation.name for operation in Operation))  # "": refused before it was routed
OTHER_ERROR: Final = "Other"  # a code that is not in the table
ERROR_CODES: Final = ("", *dict.fromkeys(error.code for error in ErrorCode), OTHER_ERROR)
AUTHS: Final = ("", *(kind.value for kind in CallerKind))  # "": refused before the caller was known
OVERFLOW: Final = "Overflow"

_ERROR_IDS: Final = {code: number for number, code in enumerate(ERROR_CODES)}
_AUTH_IDS: Final = {kind: number for number, kind in enumerate(AUTHS)}

assert [operation.value for operation in Operation] == list(range(1, len(OPERATIONS)))  # the value is the id
assert len(OPERATIONS) <= HISTOGRAMS_COUNT_MAX
assert len(ERROR_CODES) <= 1 << (_STATUS_SHIFT - _ERROR_SHIFT)
assert len(AUTHS) <= 1 << _ERROR_SHIFT
assert len(BOUNDS_NS) < HISTOGRAM_WORDS


def series_key(operation: Operation | None, status: int, error_code: str = "", auth: str = "") -> int:
    """Return the key of a request's row.

    `operation` is None for what was refused before routing; `error_code` is the code on the wire; `auth` is a value of
    CallerKind, "" if the caller did not get that far. The key of a connection's last request may be kept and reused.
    """
    return (
        _USED
        | (operation._value_ if operation is not None else 0) << _OPERATION_SHIFT  # .value is a call in Python
        | (status & 0x3FF) << _STATUS_SHIFT
        | (_ERROR_IDS.get(error_code, len(ERROR_CODES) - 1) << _ERROR_SHIFT if error_code else 0)
        | _AUTH_IDS[auth]
    )


#: (key, total_ns, bytes_in, bytes_out, queue_ns, disk_ns, send_ns)
Observe = Callable[[int, int, int, int, int, int, int], None]


class RequestSeries:
    """The writer's end, for the one thread that owns the slot. It goes on where the slot's last writer stopped.

    `observe(key, total_ns, bytes_in, bytes_out, queue_ns, disk_ns, send_ns)` counts one request, all positional:
    times in nanoseconds, none negative. total: from the end of the head until the answer is made; queue: waiting for a
    thread or a group commit; disk: in file system calls; send: waiting for the client's body. The three are disjoint
    parts of the total; how long the client takes to receive the answer is in none of them. A call takes 0.5 to 0.8 us
    (CPython 3.11): everything is a local of one closure, and what is 0 is not added.
    """

    __slots__ = ("observe",)

    def __init__(self, slot: Slot) -> None:
        self.observe = _observer(slot.words)


def _observer(words: memoryview) -> Observe:
    rows = {words[at]: at for at in _used_rows(words)}
    bounds, bisect = BOUNDS_NS, bisect_left
    histograms = HISTOGRAMS_WORD
    operation_mask = HISTOGRAMS_COUNT_MAX - 1

    def observe(
        key: int, total_ns: int, bytes_in: int, bytes_out: int, queue_ns: int, disk_ns: int, send_ns: int
    ) -> None:
        try:
            row = rows[key]
        except KeyError:
            row = _claim(words, rows, key)
        words[histograms + (key >> 20 & operation_mask) * 24 + bisect(bounds, total_ns)] += 1
        if bytes_in:
            words[row + 2] += bytes_in
        if bytes_out:
            words[row + 3] += bytes_out
        words[row + 4] += total_ns
        if queue_ns:
            words[row + 5] += queue_ns
        if disk_ns:
            words[row + 6] += disk_ns
        if send_ns:
            words[row + 7] += send_ns
        words[row + 1] += 1

    assert (_OPERATION_SHIFT, HISTOGRAM_WORDS) == (20, 24)  # literal above: constants are folded, globals looked up
    return observe


def _claim(words: memoryview, rows: dict[int, int], key: int) -> int:
    """Return the first word of a new row for the key, or of the overflow row, which no key is remembered for."""
    row = ROWS_WORD + len(rows) * ROW_WORDS
    if row >= _OVERFLOW:
        return _OVERFLOW
    words[row] = key
    rows[key] = row
    return row


def _used_rows(words: memoryview) -> Iterator[int]:
    """The first word of each row that a key has, without the overflow."""
    for at in range(ROWS_WORD, _OVERFLOW, ROW_WORDS):
        if words[at] == 0:
            return
        yield at


@dataclass(frozen=True, slots=True)
class Labels:
    """What the requests of one row have in common; see series_key. `operation` is its name, or OVERFLOW."""

    operation: str
    status: int
    error_code: str
    auth: str


@dataclass(slots=True)
class Sums:
    """What a row holds."""

    count: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    total_ns: int = 0
    queue_ns: int = 0
    disk_ns: int = 0
    send_ns: int = 0

    def add(self, other: "Sums") -> None:
        self.count += other.count
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.total_ns += other.total_ns
        self.queue_ns += other.queue_ns
        self.disk_ns += other.disk_ns
        self.send_ns += other.send_ns


@dataclass(slots=True)
class Reading:
    """One slot, or several added up. `histograms`: by operation, a count for each of BOUNDS_NS and one for the rest;
    `group_sizes` in the same way for GROUP_BOUNDS; `file_systems` by device number, several workers' gauges summed."""

    counters: dict[Counter, int] = field(default_factory=lambda: dict.fromkeys(Counter, 0))
    requests: dict[Labels, Sums] = field(default_factory=dict)
    histograms: dict[str, list[int]] = field(default_factory=dict)
    group_sizes: list[int] = field(default_factory=lambda: [0] * (len(GROUP_BOUNDS) + 1))
    file_systems: dict[int, FileSystemGauges] = field(default_factory=dict)

    def add(self, other: "Reading") -> None:
        """Add all of another reading to this one."""
        for counter, value in other.counters.items():
            self.counters[counter] += value
        for labels, sums in other.requests.items():
            self.requests.setdefault(labels, Sums()).add(sums)
        for operation, counts in other.histograms.items():
            mine = self.histograms.setdefault(operation, [0] * len(counts))
            mine[:] = map(int.__add__, mine, counts)
        self.group_sizes[:] = map(int.__add__, self.group_sizes, other.group_sizes)
        for device, gauges in other.file_systems.items():
            known = self.file_systems.get(device)
            self.file_systems[device] = gauges if known is None else known.plus(gauges)


def read(slot: Slot) -> Reading:
    """Return what a slot holds now; the writer may go on meanwhile."""
    words = slot.words
    reading = Reading(slot.counters())
    for at in _used_rows(words):
        reading.requests[_labels(words[at])] = _sums(words, at)
    overflow = _sums(words, _OVERFLOW)
    if overflow.count:
        reading.requests[Labels(OVERFLOW, 0, "", "")] = overflow
    for number, operation in enumerate(OPERATIONS):
        at = HISTOGRAMS_WORD + number * HISTOGRAM_WORDS
        counts = words[at : at + len(BOUNDS_NS) + 1].tolist()
        if any(counts):
            reading.histograms[operation] = counts
    reading.group_sizes = group_sizes(slot)
    reading.file_systems = {each.device: each for each in file_systems(slot)}
    return reading


def _labels(key: int) -> Labels:
    return Labels(
        OPERATIONS[key >> _OPERATION_SHIFT & (HISTOGRAMS_COUNT_MAX - 1)],
        key >> _STATUS_SHIFT & 0x3FF,
        ERROR_CODES[key >> _ERROR_SHIFT & (1 << (_STATUS_SHIFT - _ERROR_SHIFT)) - 1],
        AUTHS[key & (1 << _ERROR_SHIFT) - 1],
    )


def _sums(words: memoryview, row: int) -> Sums:
    # The count first: the writer stores it last, so what is counted here has its sums below.
    count = words[row + 1]
    return Sums(count, *words[row + 2 : row + ROW_WORDS].tolist())


def read_fds(slot_fds: Iterable[int]) -> Reading:
    """Add up the slots behind these descriptors, which stay the caller's. Raises SlotError, OSError."""
    total = Reading()
    for fd in slot_fds:
        slot = Slot(fd)
        try:
            total.add(read(slot))
        finally:
            slot.close()
    return total
