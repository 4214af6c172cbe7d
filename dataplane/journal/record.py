"""The bytes of a journal segment: a header, then frames of entries; pure.

    segment   header, then any number of frames
    header    magic (8 bytes), version (4), crc of these (4)
    frame     bytes of the entries (4), crc of the entries (4), time in ns since 1970 (8), crc of these (4), the entries
    entry     kind (1), bytes of the account (1), of the container (1), of the name (2), then the three in UTF-8;
              of FREED the name goes on with a NUL, which no name has, and an ETag

All numbers are little-endian and unsigned, a crc is CRC-32 (zlib). One append is one frame, so its entries share a
time and a check. A frame's head has a check of its own: a length that a damaged disk made larger is not taken for a
frame that is still on its way. Zeros, which some file systems leave after a power cut, are damage, not frames. An entry
of a kind that the reader does not know, which a later version has noted, is passed over.

A name that is not UTF-8 goes as the bytes that it is on the disk (surrogateescape). Rejected: JSON lines (three times
the CPU of both ends), a check for each entry (as much again as the entry itself costs).
"""

import zlib
from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

VERSION: Final = 1
MAGIC: Final = b"bedgejnl"
FRAME_BYTES_MAX: Final = 1 << 20  # of its entries: what a reader has to hold at least
ACCOUNT_BYTES_MAX: Final = 255
CONTAINER_BYTES_MAX: Final = 255
NAME_BYTES_MAX: Final = 4096 + 1 + 64  # Azure's 1,024 characters, and what FREED adds

_HEADER: Final = Struct("<8sI")
_CRC: Final = Struct("<I")
_FRAME: Final = Struct("<IIQ")
_ENTRY: Final = Struct("<BBBH")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
FRAME_HEAD_BYTES: Final = _FRAME.size + _CRC.size
_Places = dict[tuple[int, bytes], tuple[str, str]]


class Kind(IntEnum):
    """What an entry says. The numbers are the format."""

    INTENT = 1  # before a change of a blob is published: it may or may not happen
    DONE = 2  # after it is durable
    READ = 3  # the blob was read; coarse
    CONTAINER = 4  # the container was, or is about to be, made, changed or deleted; there is no name
    FREED = 5  # a change took the stub of a version away, which is nowhere any more: freed_name


class Record(NamedTuple):
    """What a reader gets. `when_ns` is the node's wall clock, in ns since 1970 UTC."""

    kind: Kind
    account: str
    container: str
    name: str
    when_ns: int


Entry = tuple[Kind, str, str, str]  # what a writer notes: a Record without its time


def freed_name(name: str, version: str) -> str:
    """The name of a FREED entry: that of the blob, and our ETag of the version that its stub stood for."""
    return f"{name}\0{version}"


def freed_of(text: str) -> tuple[str, str]:
    """The two again."""
    name, _, version = text.rpartition("\0")
    return name, version


class DamagedSegment(Exception):
    """From `offset` on these are not the bytes that were written."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"damaged at byte {offset}")
        self.offset = offset


class ForeignSegment(Exception):
    """No journal, or one of a version that this program does not read."""


def header() -> bytes:
    """What a segment begins with."""
    head = _HEADER.pack(MAGIC, VERSION)
    return head + _CRC.pack(zlib.crc32(head))


def check_header(data: bytes) -> None:
    """Whether a segment is to be read. Raises ForeignSegment, also for one that is too short to tell."""
    if len(data) < HEADER_BYTES:
        raise ForeignSegment("shorter than a header")
    if data.startswith(header()):
        return
    magic, version = _HEADER.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if magic != MAGIC or crc != zlib.crc32(data[: _HEADER.size]):
        raise ForeignSegment("not a journal")
    raise ForeignSegment(f"a journal of version {version}; this program reads {VERSION}")


class Encoder:
    """Makes frames. Remembers the accounts and containers that it saw, a bounded number of them."""

    _PLACES_COUNT_MAX: Final = 4096

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], tuple[int, int, bytes]] = {}

    def frames(self, noted: Iterable[Entry], when_ns: int) -> bytes:
        """One frame, or as many as FRAME_BYTES_MAX demands. Raises ValueError for a name that is too long."""
        entries: list[bytes] = []
        frames: list[bytes] = []
        size = 0
        for kind, account, container, name in noted:
            account_bytes, container_bytes, place = self._places.get((account, container)) or self._place(
                account, container
            )
            raw = name.encode("utf-8", "surrogateescape")
            if len(raw) > NAME_BYTES_MAX:
                raise ValueError("a blob's name is too long for the journal")
            entry = _ENTRY.pack(kind, account_bytes, container_bytes, len(raw)) + place + raw
            size += len(entry)
            if size > FRAME_BYTES_MAX:
                frames.append(_frame(entries, when_ns))
                entries, size = [], len(entry)
            entries.append(entry)
        frames.append(_frame(entries, when_ns))
        return b"".join(frames)

    def _place(self, account: str, container: str) -> tuple[int, int, bytes]:
        first, second = account.encode("utf-8", "surrogateescape"), container.encode("utf-8", "surrogateescape")
        if len(first) > ACCOUNT_BYTES_MAX or len(second) > CONTAINER_BYTES_MAX:
            raise ValueError("a container's name is too long for the journal")
        if len(self._places) >= self._PLACES_COUNT_MAX:
            self._places.clear()
        found = self._places[account, container] = (len(first), len(second), first + second)
        return found


def _frame(entries: list[bytes], when_ns: int) -> bytes:
    body = b"".join(entries)
    head = _FRAME.pack(len(body), zlib.crc32(body), when_ns)
    return b"".join((head, _CRC.pack(zlib.crc32(head)), body))


def decode(data: bytes, offset: int) -> tuple[list[Record], int]:
    """The records of all whole frames in `data`, and the number of bytes that they take; what follows is not there
    yet. `offset` is where the data begins in its segment. Raises DamagedSegment when the first frame is damaged; a
    later one is left for the next call."""
    records: list[Record] = []
    places: _Places = {}
    at = 0
    while len(data) - at >= FRAME_HEAD_BYTES:
        size, crc, when_ns = _FRAME.unpack_from(data, at)
        (head_crc,) = _CRC.unpack_from(data, at + _FRAME.size)
        begin = at + FRAME_HEAD_BYTES
        end = begin + size
        sound = head_crc == zlib.crc32(data[at : at + _FRAME.size]) and size <= FRAME_BYTES_MAX
        if sound and end > len(data):
            break
        if not sound or crc != zlib.crc32(data[begin:end]) or not _entries(data, begin, end, when_ns, places, records):
            if at == 0:
                raise DamagedSegment(offset)
            break
        at = end
    return records, at


def _entries(
    data: bytes, at: int, end: int, when_ns: int, places: _Places, records: list[Record]
) -> bool:  # fmt: skip
    """Add a frame's entries; False, and none of them, when they are not what `Encoder` makes."""
    before = len(records)
    try:
        while at < end:
            kind, account_bytes, container_bytes, name_bytes = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            split = at + account_bytes
            name_at = split + container_bytes
            place = (account_bytes, data[at:name_at])
            account, container = places.get(place) or places.setdefault(
                place, (_text(data, at, split), _text(data, split, name_at))
            )
            at = name_at + name_bytes
            if known := _KINDS.get(kind):
                records.append(Record(known, account, container, _text(data, name_at, at), when_ns))
    except StructError:
        at = -1
    if at != end:
        del records[before:]
    return at == end


def _text(data: bytes, begin: int, end: int) -> str:
    return data[begin:end].decode("utf-8", "surrogateescape")


_KINDS: Final = {int(kind): kind for kind in Kind}
