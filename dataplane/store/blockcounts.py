"""How many uncommitted blocks a blob may have (limits.blocks_uncommitted_max), without counting at each block.

A directory does not know how many entries it has, and listing one of 100,000 takes tens of milliseconds. So a process
counts an upload when it meets it first, and again after adding a quarter of what there was room for: some fifty
listings in an upload that goes to the limit. Processes that add to one upload at the same time may take it over the
limit, but by less than what the last count left room for, and a bound is all that is wanted.
"""

from collections import OrderedDict
from collections.abc import Callable, Set
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode

_SHARE_OF_ROOM: Final = 4
_UPLOADS_MAX: Final = 4096  # remembered; one that is forgotten is counted again


class BlockCounts:
    """What one process knows of the uploads of one mount."""

    def __init__(self) -> None:
        self._left: OrderedDict[int, int] = OrderedDict()

    def admit(self, inode: int, block_id: str, present: Callable[[], Set[str]]) -> None:
        """Let one more block into an upload, or one again that it has. `inode` is of the upload's directory, `present`
        lists its blocks. Raises BlobError BlockCountExceedsLimit."""
        left = self._left.pop(inode, 0)
        if left == 0:
            blocks = present()
            room = limits.blocks_uncommitted_max - len(blocks)
            if room <= 0 and block_id not in blocks:
                raise BlobError(ErrorCode.BLOCK_COUNT_EXCEEDS_LIMIT)
            left = max(1, room // _SHARE_OF_ROOM)
        self._left[inode] = left - 1
        if len(self._left) > _UPLOADS_MAX:
            self._left.popitem(last=False)
