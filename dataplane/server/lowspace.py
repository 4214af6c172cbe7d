"""Whether a mount has room for what a request is going to write, asked before any byte of its body is staged.

Guarantees: statvfs(2) runs on a thread, at most once in SECONDS for each mount, and every request in that time is
decided by its result; a request waits for it only when the last result is older. A mount whose use cannot be told is
not refused: its own error says more. Deletes and reads always go on, as they are the way out.

Use is what df(1) shows: of the blocks that unprivileged users can have, those that are taken; or of the inodes, if that
is more. Rejected: waiting for ENOSPC (other users of the mount would meet it too, and half an upload would be there).
"""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.operations import Operation

if TYPE_CHECKING:
    from dataplane.server.diskpool import DiskPools
    from dataplane.server.node import Account

SECONDS: Final = 1.0
RETRY_AFTER_SECONDS: Final = 30  # the sidecar needs a while to make room
MESSAGE: Final = "The node's disk is almost full, and nothing more can be moved to the cloud now."

#: What takes more room than the record of a blob.
NEEDS_SPACE: Final = frozenset(
    {
        Operation.PUT_BLOB, Operation.PUT_BLOB_FROM_URL, Operation.PUT_BLOCK, Operation.PUT_BLOCK_FROM_URL,
        Operation.COPY_BLOB, Operation.COPY_BLOB_FROM_URL, Operation.SNAPSHOT_BLOB,
    }
)  # fmt: skip


def use_percent(found: os.statvfs_result) -> float:
    """The use of a file system, 0 to 100."""
    taken = found.f_blocks - found.f_bfree
    blocks = 100.0 * taken / max(1, taken + found.f_bavail)
    inodes = 100.0 * (found.f_files - found.f_ffree) / found.f_files if found.f_files else 0.0
    return max(blocks, inodes)


class LowSpace:
    """Refuses writes on mounts whose use is `reserve_percent` or more. For one event loop; `clock` is monotonic
    seconds, `look` is os.fstatvfs."""

    def __init__(
        self,
        reserve_percent: float,
        clock: Callable[[], float],
        look: Callable[[int], os.statvfs_result] = os.fstatvfs,
    ) -> None:
        self._reserve_percent = reserve_percent
        self._clock = clock
        self._look = look
        self._seen: dict[DiskPools, tuple[float, bool]] = {}  # when, and whether it was too full
        self._looking: dict[DiskPools, asyncio.Task[bool]] = {}

    async def check(self, account: "Account", container: str) -> None:
        """Raises BlobError ServerBusy when the container's mount is too full, OperationTimedOut when it hangs."""
        pools = account.pools(container)
        seen = self._seen.get(pools)
        if seen is None or self._clock() - seen[0] >= SECONDS:
            full = await self._look_again(pools, account, container)
        else:
            full = seen[1]
        if full:
            raise BlobError(
                ErrorCode.SERVER_BUSY, message=MESSAGE, headers=(("Retry-After", str(RETRY_AFTER_SECONDS)),)
            )

    async def _look_again(self, pools: "DiskPools", account: "Account", container: str) -> bool:
        """One look for all who wait; it goes on when they do not."""
        task = self._looking.get(pools)
        if task is None:
            mounts = dict(account.store.mounts())
            mount = mounts.get(container) or mounts.get("")
            if mount is None:
                return False  # its storage is not open yet, and says so itself
            task = self._looking[pools] = asyncio.ensure_future(self._full(pools, mount.root_fd))
            task.add_done_callback(lambda done: self._looked(pools, done))
        return await asyncio.shield(task)

    async def _full(self, pools: "DiskPools", directory_fd: int) -> bool:
        try:
            found = await pools.metadata_in_time(self._look, directory_fd)
        except OSError:
            return False
        return use_percent(found) >= self._reserve_percent

    def _looked(self, pools: "DiskPools", task: "asyncio.Task[bool]") -> None:
        del self._looking[pools]
        if not task.cancelled() and task.exception() is None:
            self._seen[pools] = self._clock(), task.result()
