"""The codec: what was noted comes back, what was damaged is found, what is not ours is refused."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.journal.record import (
    FRAME_BYTES_MAX,
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    MAGIC,
    NAME_BYTES_MAX,
    VERSION,
    DamagedSegment,
    Encoder,
    Entry,
    ForeignSegment,
    Kind,
    Record,
    check_header,
    decode,
    freed_name,
    freed_of,
    header,
)

TIMES = st.integers(0, 2**64 - 1)
NAMES = st.text(max_size=40) | st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
# A name with other halves of surrogate pairs than those of surrogateescape is no name of a file, nor of a blob.
ENTRIES = st.lists(st.tuples(st.sampled_from(Kind), st.text("abc019", max_size=9), st.text("x-$", max_size=9), NAMES))
APPENDS = st.lists(st.tuples(ENTRIES, TIMES), min_size=1, max_size=5)


def written(appends: list[tuple[list[Entry], int]]) -> tuple[bytes, list[Record]]:
    """The frames of some appends, and what a reader should see."""
    encoder = Encoder()
    data = b"".join(encoder.frames(entries, when) for entries, when in appends)
    return data, [Record(*entry, when) for entries, when in appends for entry in entries]


def read_all(data: bytes) -> list[Record]:
    """All records, as a reader goes on until nothing new comes. Raises DamagedSegment."""
    found: list[Record] = []
    at = 0
    while True:
        records, used = decode(data[at:], at)
        if not used:
            return found
        found += records
        at += used


@given(APPENDS)
def test_what_was_noted_comes_back(appends: list[tuple[list[Entry], int]]) -> None:
    data, expected = written(appends)
    assert decode(data, 0) == (expected, len(data))


@given(APPENDS, st.data())
def test_what_is_cut_off_is_not_there_yet(appends: list[tuple[list[Entry], int]], chance: st.DataObject) -> None:
    data, expected = written(appends)
    cut = chance.draw(st.integers(0, len(data)))
    records, used = decode(data[:cut], 0)
    assert records == expected[: len(records)]
    assert used <= cut
    assert [*records, *decode(data[used:], used)[0]] == expected


def test_a_cut_at_every_byte() -> None:
    data, expected = written([([(Kind.INTENT, "acc", "con", f"blob {i}"), (Kind.CONTAINER, "acc", "con", "")], i)
                              for i in range(4)])  # fmt: skip
    counts = [len(decode(data[:cut], 0)[0]) for cut in range(len(data) + 1)]
    assert counts == sorted(counts)
    assert set(counts) == {0, 2, 4, 6, 8}
    assert all(decode(data[:cut], 0)[0] == expected[:count] for cut, count in enumerate(counts))


def test_every_flipped_bit_is_found() -> None:
    first, _ = written([([(Kind.DONE, "acc", "con", "first")], 1)])
    second, _ = written([([(Kind.DONE, "acc", "con", "second")], 2)])
    for at in range(len(first + second)):
        for bit in range(8):
            damaged = bytearray(first + second)
            damaged[at] ^= 1 << bit
            with pytest.raises(DamagedSegment) as found:
                read_all(bytes(damaged))
            assert found.value.offset == (0 if at < len(first) else len(first))


@given(st.binary(min_size=FRAME_HEAD_BYTES, max_size=200))
def test_other_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(DamagedSegment) as found:
        decode(data, 77)
    assert found.value.offset == 77


def test_zeros_are_damage() -> None:
    data, expected = written([([(Kind.DONE, "acc", "con", "blob")], 1)])
    records, used = decode(data + bytes(4096), 0)
    assert (records, used) == (expected, len(data))
    with pytest.raises(DamagedSegment):
        decode(bytes(4096), used)


def sealed(body: bytes, size: int | None = None) -> bytes:
    """A frame whose checks hold, whatever is in it."""
    head = struct.pack("<IIQ", len(body) if size is None else size, zlib.crc32(body), 1)
    return head + struct.pack("<I", zlib.crc32(head)) + body


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<BBBH", 200, 1, 1, 50) + b"ab",  # of no kind, and longer than its frame
        struct.pack("<BBBH", 1, 1, 1, 50) + b"ab",  # longer than its frame
        struct.pack("<BBBH", 1, 0, 0, 0)[:3],
    ],
)
@pytest.mark.parametrize("behind", [b"", bytes(100)])
def test_a_sealed_frame_with_nonsense_is_damage(body: bytes, behind: bytes) -> None:
    with pytest.raises(DamagedSegment):
        decode(sealed(body) + behind, 0)


def test_entries_of_later_kinds_are_passed_over() -> None:
    later = struct.pack("<BBBH", 200, 1, 1, 2) + b"acna"
    known = struct.pack("<BBBH", Kind.DONE, 1, 1, 2) + b"acnb"
    data = sealed(later + known + later) + sealed(later)
    assert decode(data, 0) == ([Record(Kind.DONE, "a", "c", "nb", 1)], len(data))


def test_a_frame_larger_than_any_of_ours_is_damage_and_not_waited_for() -> None:
    with pytest.raises(DamagedSegment):
        decode(sealed(b"", FRAME_BYTES_MAX + 1), 0)
    assert decode(sealed(b"", FRAME_BYTES_MAX), 0) == ([], 0)


def test_many_entries_are_several_frames() -> None:
    name = "n" * NAME_BYTES_MAX
    entries = [(Kind.INTENT, "acc", "con", name)] * (2 * FRAME_BYTES_MAX // NAME_BYTES_MAX)
    data, expected = written([(entries, 5)])
    assert read_all(data) == expected
    (size,) = struct.unpack_from("<I", data)
    assert size <= FRAME_BYTES_MAX


@pytest.mark.parametrize(
    "entry", [(Kind.INTENT, "a", "c", "n" * (NAME_BYTES_MAX + 1)), (Kind.INTENT, "a" * 256, "c", "n")]
)
def test_what_does_not_fit_is_refused(entry: Entry) -> None:
    with pytest.raises(ValueError, match="too long"):
        Encoder().frames([entry], 0)


def test_the_same_bytes_split_elsewhere_are_other_names() -> None:
    entries: list[Entry] = [(Kind.DONE, "ab", "c", "d"), (Kind.DONE, "a", "bc", "d"), (Kind.DONE, "a", "b", "cd")]
    data, expected = written([(entries, 1)])
    assert decode(data, 0)[0] == expected


def test_a_header_tells_its_version() -> None:
    check_header(header())
    assert header()[:12] == MAGIC + struct.pack("<I", VERSION)
    later = MAGIC + struct.pack("<I", VERSION + 1)
    with pytest.raises(ForeignSegment, match="version 2"):
        check_header(later + struct.pack("<I", zlib.crc32(later)))


@given(st.binary(max_size=40))
def test_what_is_no_journal_is_refused(data: bytes) -> None:
    with pytest.raises(ForeignSegment):
        check_header(data)


def test_a_header_with_a_flipped_bit_is_refused() -> None:
    for at in range(HEADER_BYTES * 8):
        damaged = bytearray(header())
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(ForeignSegment):
            check_header(bytes(damaged))


@given(NAMES.filter(lambda name: "\0" not in name))
def test_what_was_freed_is_a_name_and_a_version(name: str) -> None:
    assert freed_of(freed_name(name, "0x8DC")) == (name, "0x8DC")


def test_the_longest_name_is_freed() -> None:
    longest = (Kind.FREED, "a", "c", freed_name("\U0001f600" * 1024, "e" * 64))
    assert decode(Encoder().frames([longest], 1), 0)[0] == [Record(*longest, 1)]
