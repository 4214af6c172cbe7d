"""How a large blob is cut into blocks, and what their ids are. Pure.

Azure takes 50,000 blocks a blob, each up to 4,000 MiB ("Scalability and performance targets for Blob storage"), and all
ids of a blob must be equally long ("Put Block"). An id is a hash of our ETag, the block size, the index and the MD5 of
the block's bytes. So a block that an interrupted upload left staged is known by its id alone: the service checked that
MD5 when it took the block. A blob that has changed, or is cut otherwise, has other ids, and nothing of it is reused.
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

MIB: Final = 1 << 20
BLOCKS_COUNT_MAX: Final = 50_000
BLOCK_BYTES_MAX: Final = 4_000 * MIB
#: Of blobs up to 195 GiB. An interruption costs the blocks in flight, so small; a request a block, so not smaller.
BLOCK_BYTES_MIN: Final = 4 * MIB
SMALL_BYTES_MAX: Final = 8 * MIB  # one Put Blob up to here
BLOB_BYTES_MAX: Final = BLOCKS_COUNT_MAX * BLOCK_BYTES_MAX
_ID_BYTES: Final = 24  # of the hash: 192 bits; 48 characters, of the 64 that an id may have


class Piece(NamedTuple):
    """A block's place in the blob."""

    number: int  # from 0
    offset: int
    size: int


def block_bytes(size: int) -> int:
    """The block size for a blob of `size` bytes: the least multiple of a MiB that Azure's limits allow.

    Raises ValueError for a blob larger than Azure takes.
    """
    if size > BLOB_BYTES_MAX:
        raise ValueError(f"{size} bytes are more than the {BLOB_BYTES_MAX} that a block blob can have")
    least = -(-size // BLOCKS_COUNT_MAX)
    return max(-(-least // MIB) * MIB, BLOCK_BYTES_MIN)


def cut(size: int) -> Iterator[Piece]:
    """The blocks of a blob in order; none for an empty one."""
    step = block_bytes(size)
    return (Piece(index, at, min(step, size - at)) for index, at in enumerate(range(0, size, step)))


def block_id(etag: str, step: int, index: int, md5: bytes) -> str:
    """The id of a block before base64, always equally long. `etag`: the version here; `md5`: of its bytes."""
    return hashlib.shake_256(f"{etag}\n{step}\n{index}\n".encode() + md5).hexdigest(_ID_BYTES)
