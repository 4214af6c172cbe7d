"""Blocks at their final place: where it works out, a commit renames the file that the blocks were written to.

A copy of the whole blob at commit costs as much as the upload. So the blocks of an upload share one sparse file,
`data`, cut into slots of the size of the first block. A block's slot is the number at the end of its id, where the ids
of an upload count up (AzCopy, object_store, the JavaScript SDK, rclone's newer versions), else the order of arrival
(the Python SDK's ids are random). If at commit every block lies where the list wants it, `data` becomes the blob; a
few blocks that lie elsewhere are put into their gaps; in every other case the commit copies. A wrong guess costs that
copy, never data:

- A slot is claimed by one request, once, by creating `i<id>` and `c<slot>` exclusively. Whoever comes second writes a
  file of its own, so no block that was acknowledged is ever overwritten, and a failed request's slot stays unusable.
- `sealed` closes `data`: a commit makes it before it looks at the claims; a claimant looks for it after it has claimed.
  So either the claimant stays away, or the commit sees a claim that is not completed and copies. Of two commits at once
  only the one that made `sealed` may fill gaps in `data` and publish it; the other copies.
- `s<id>.<offset>.<length>` says that a block is complete and durable; `b<id>`, a file of its own, is newer than that.

This needs a directory that all writers see alike, so it is used on local file systems only; NFS gets the copy.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dataplane.store.errors import translated
from dataplane.store.mount import Mount
from dataplane.store.staging import StagedFile

DATA: Final = "data"
SEALED: Final = "sealed"
_DIGITS: Final = 5
_FIRST_INDEX_MAX: Final = 256
_FILE_BYTES_MAX: Final = 8 << 40  # ext4 ends at 16 TiB
_ENTRY: Final = re.compile(
    r"data|b(?P<own>[\w=-]{1,88})|c(?P<claim>[0-9a-f]{1,14})"
    r"|s(?P<slot>[\w=-]{1,88})\.(?P<offset>[0-9a-f]{1,14})\.(?P<length>[0-9a-f]{1,14})",
    re.ASCII,
)
SLOT_BYTES_MIN: Final = 256 * 1024  # copying less costs no more than the bookkeeping


def index_in_id(block_id: str) -> int | None:
    """The number at the end of a block id, if it ends in one: what clients count their blocks with."""
    try:
        tail = base64.b64decode(block_id, validate=True)[-_DIGITS:]
    except (binascii.Error, ValueError):
        return None
    return int(tail) if tail.isdigit() else None


def counts_up(first_block_id: str) -> bool:
    """Whether the ids of an upload seem to be numbers, judged by the first that arrives."""
    index = index_in_id(first_block_id)
    return index is not None and index < _FIRST_INDEX_MAX


class StagedSlot(StagedFile):
    """A slot being written. It is published by naming it, not by a rename."""

    def sync(self) -> None:
        with translated("fsync"):
            os.fdatasync(self.fd)


def claim(
    mount: Mount, directory_fd: int, block_id: str, file_id: str, length: int, slot_bytes: int, by_id: bool
) -> StagedSlot | None:
    """A slot for a block, None when it has to be a file of its own. `directory_fd`: the blob's block directory;
    `file_id`: the id in its form as a file name."""
    if not 0 < length <= slot_bytes:
        return None
    if not _create(directory_fd, f"i{file_id}"):
        return None
    index = index_in_id(block_id) if by_id else _next_free(directory_fd)
    if index is None or (index + 1) * slot_bytes > _FILE_BYTES_MAX or not _create(directory_fd, f"c{index:x}"):
        return None
    if os.access(SEALED, os.F_OK, dir_fd=directory_fd):
        return None
    with translated("open"):
        fd = os.open(DATA, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644, dir_fd=directory_fd)
    return StagedSlot(mount, fd, base=index * slot_bytes)


def _next_free(directory_fd: int) -> int:
    """The first number without a claim. They are taken in order, so doubling and halving finds it."""

    def taken(index: int) -> bool:
        return os.access(f"c{index:x}", os.F_OK, dir_fd=directory_fd)

    high = 1
    while taken(high - 1):
        high *= 2
    low = high // 2
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(middle - 1) else (low, middle)
    return low


def _create(directory_fd: int, name: str) -> bool:
    try:
        with translated("claim"):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory_fd))
    except FileExistsError:
        return False
    return True


@dataclass(slots=True)
class Contents:
    """The entries of a block directory. Ids are in their form as file names."""

    own: set[str] = field(default_factory=set)  # blocks in files of their own
    slots: dict[str, tuple[int, int]] = field(default_factory=dict)  # id: (offset, length), also superseded ones
    claims: set[int] = field(default_factory=set)
    has_data: bool = False


def parse(entries: Iterable[str]) -> Contents:
    """What the names of a block directory say; what is not one of our names says nothing."""
    found = Contents()
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            continue
        if match["own"]:
            found.own.add(match["own"])
        elif match["claim"]:
            found.claims.add(int(match["claim"], 16))
        elif match["slot"]:
            found.slots[match["slot"]] = int(match["offset"], 16), int(match["length"], 16)
        else:
            found.has_data = True
    if not found.has_data:  # a commit took it: what was in it is committed
        found.slots.clear()
    return found


def seal(directory_fd: int) -> bool:
    """Close `data` to new claims. True for the one who did it first, and so may have it."""
    return _create(directory_fd, SEALED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A block of the new list: where it lies now (in a slot, or None) and where the list puts it."""

    file_id: str
    length: int
    slot_offset: int | None
    offset: int


def gaps(contents: Contents, wanted: list[Wanted], slot_bytes: int) -> list[Wanted] | None:
    """The blocks that have to be put into `data` so that it is the blob; None when a copy is the only way.

    Every claim must be complete, every block in a slot at its place, once, and no gap may lie over a slot that is in
    use.
    """
    completed = {offset // slot_bytes for offset, _ in contents.slots.values()}
    if contents.claims != completed:
        return None
    used = {w.slot_offset for w in wanted if w.slot_offset is not None}
    live = {offset for file_id, (offset, _) in contents.slots.items() if file_id not in contents.own}
    missing = []
    for each in wanted:
        if each.slot_offset is None:
            missing.append(each)
        elif each.slot_offset != each.offset:
            return None
    if len(used) + len(missing) != len(wanted) or len({w.offset for w in wanted}) != len(wanted):
        return None
    end = wanted[-1].offset + wanted[-1].length if wanted else 0
    if any(offset + length > end for offset, length in contents.slots.values()):
        return None
    for each in missing:
        first, last = each.offset // slot_bytes, (each.offset + max(each.length, 1) - 1) // slot_bytes
        if any(i * slot_bytes in live for i in range(first, last + 1)):
            return None
    return missing
