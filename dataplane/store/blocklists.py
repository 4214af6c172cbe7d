"""The committed block list of a blob: what Get Block List shows and what a later commit may take blocks from.

A short list stands in the record itself (`id:size,id:size`); a long one is a file of its own in the container's private
`blocklists/`, checksummed and written before the blob is published, and the record holds `@` and the file's name.
"""

import os
import re
import secrets
import zlib
from collections.abc import Sequence
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.blocklist import valid_block_id
from dataplane.blobapi.model import Block
from dataplane.store import smallfile
from dataplane.store.errors import translated
from dataplane.store.fileio import write_all
from dataplane.store.mount import DIRECTORY
from dataplane.store.place import Place

_INLINE_CHARS_MAX: Final = 800
_MAGIC: Final = b"blobedge-blocklist1 "
_FILE_NAME: Final = re.compile(r"@[0-9a-f]{24}\Z")
_SIZE: Final = re.compile(r"[0-9]{1,19}\Z")


def pack(place: Place, blocks: Sequence[Block], to_sync: list[int]) -> str:
    """What the record holds for a list. `to_sync` gets the descriptors to fsync and close. Raises StoreError."""
    text = ",".join(f"{block.block_id}:{block.size}" for block in blocks)
    if len(text) <= _INLINE_CHARS_MAX:
        return text
    directory_fd, directory = place.mount.containers_fd, place.private("blocklists")
    name = secrets.token_hex(12)
    to_sync += smallfile.make_directories(directory_fd, directory).values()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with translated("write block list"):
        fd = os.open(f"{directory}/{name}", flags, 0o600, dir_fd=directory_fd)
        to_sync.append(fd)
        data = text.encode()
        write_all(fd, b"%s%08x %s" % (_MAGIC, zlib.crc32(data), data))
        to_sync.append(os.open(directory, DIRECTORY, dir_fd=directory_fd))
    return f"@{name}"


def unpack(place: Place, packed: str, size: int) -> tuple[Block, ...]:
    """The blocks of a record's list; none for a blob that was not made of blocks or whose list is lost.

    The text comes from the mount, where others may write: a list that is not one of ours, or does not add up to the
    blob's `size` in bytes, counts as lost, and what names its file can name no other.
    """
    if packed.startswith("@"):
        data = smallfile.read(place.mount.containers_fd, _path(place, packed)) if _FILE_NAME.match(packed) else None
        packed = _checked(data) if data is not None else ""
    if not packed or packed.count(",") >= limits.blocks_committed_max:
        return ()
    pairs = [(block_id, count) for block_id, _, count in (entry.rpartition(":") for entry in packed.split(","))]
    if not all(_SIZE.match(count) and valid_block_id(block_id) for block_id, count in pairs):
        return ()
    blocks = tuple(Block(block_id, int(count)) for block_id, count in pairs)
    return blocks if sum(block.size for block in blocks) == size else ()


def _checked(data: bytes) -> str:
    """The list that a file holds, "" when it is damaged: a wrong size would put wrong bytes into the next version."""
    crc, _, text = data.removeprefix(_MAGIC).partition(b" ")
    if not data.startswith(_MAGIC) or crc != b"%08x" % zlib.crc32(text):
        return ""
    return text.decode("ascii", "replace")


def remove(place: Place, packed: str) -> None:
    """Remove the file of a list that no blob and no snapshot has any more."""
    if _FILE_NAME.match(packed):
        try:
            os.unlink(_path(place, packed), dir_fd=place.mount.containers_fd)
        except OSError:
            return


def _path(place: Place, packed: str) -> str:
    return place.private("blocklists", packed[1:])
