"""Whether a mount has room for what a request is going to write, asked before any byte of its body is staged.

Guarantees: statvfs(2) runs on a thread, at most once in SECONDS for each mount, and every request in that time is
decided by its result; a request waits for it only when the last result is older. A mount whose use cannot be told is
not refused: its own error says more. Deletes and reads always go on, as they are the way out.

A mount that has just become too full is given PATIENCE_SECONDS, in which the sidecar may be making room: requests wait
so long, with nothing of them staged, and go on when there is room. After that they are refused at once, until a look
finds room. So a burst that is faster than eviction is slowed down, and a refusal says that nothing more can go.

Use is what df(1) shows: of the blocks that unprivileged users can have, those that are taken; or of the inodes, if that
is more. Rejected: waiting for ENOSPC (other users of the mount would meet it too, and half an upload would be there);
asking the sidecar whether anything can go (it may be the one that hangs, and what can go is known once it went).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.operations import Operation

if TYPE_CHECKING:
    from dataplane.server.diskpool import DiskPools
    from dataplane.server.node import Account

SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 10.0  # a link that broke is known to be down by then; clients give up after 20 and more
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


class _Seen(NamedTuple):
    """What a look saw, in seconds of the clock. `full_since`: the first of the looks without a break that found it too
    full; None when there is room."""

    at: float
    full_since: float | None = None

    @property
    def hopeless(self) -> bool:
        """Whether it was too full all the while that requests wait for room."""
        return self.full_since is not None and self.at - self.full_since >= PATIENCE_SECONDS


class LowSpace:
    """Refuses writes on mounts whose use is `reserve_percent` or more. For one event loop; `clock` is monotonic
    seconds, `look` is os.fstatvfs, `sleep` is asyncio.sleep."""

    def __init__(
        self,
        reserve_percent: float,
        clock: Callable[[], float],
        look: Callable[[int], os.statvfs_result] = os.fstatvfs,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reserve_percent = reserve_percent
        self._clock = clock
        self._look = look
        self._sleep = sleep
        self._seen: dict[DiskPools, _Seen] = {}
        self._looking: dict[DiskPools, asyncio.Task[_Seen]] = {}

    async def check(self, account: "Account", container: str) -> None:
        """Returns when there is room. Raises BlobError ServerBusy when the container's mount is too full and stays so,
        OperationTimedOut when it hangs."""
        pools = account.pools(container)
        while True:
            seen = self._seen.get(pools)
            if seen is None or self._clock() - seen.at >= SECONDS:
                seen = await self._look_again(pools, account, container)
            if seen.full_since is None:
                return
            if seen.hopeless:
                headers = (("Retry-After", str(RETRY_AFTER_SECONDS)),)
                raise BlobError(ErrorCode.SERVER_BUSY, message=MESSAGE, headers=headers)
            await self._sleep(SECONDS)

    async def _look_again(self, pools: "DiskPools", account: "Account", container: str) -> _Seen:
        """One look for all who wait; it goes on when they do not."""
        task = self._looking.get(pools)
        if task is None:
            mounts = dict(account.store.mounts())
            mount = mounts.get(container) or mounts.get("")
            if mount is None:
                return _Seen(self._clock())  # its storage is not open yet, and says so itself
            task = self._looking[pools] = asyncio.ensure_future(self._looked(pools, mount.root_fd))
            task.add_done_callback(lambda done: self._forget(pools, done))
        return await asyncio.shield(task)

    async def _looked(self, pools: "DiskPools", directory_fd: int) -> _Seen:
        before = self._seen.get(pools)
        full = await self._full(pools, directory_fd)
        now = self._clock()
        since = before.full_since if before is not None and before.full_since is not None else now
        seen = self._seen[pools] = _Seen(now, since if full else None)
        return seen

    def _forget(self, pools: "DiskPools", done: "asyncio.Task[_Seen]") -> None:
        del self._looking[pools]
        if not done.cancelled():
            done.exception()  # those who wait have it, if any still do

    async def _full(self, pools: "DiskPools", directory_fd: int) -> bool:
        try:
            found = await pools.metadata_in_time(self._look, directory_fd)
        except OSError:
            return False
        return use_percent(found) >= self._reserve_percent
