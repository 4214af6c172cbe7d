"""Whether a mount has room for what a request is going to write, asked before any byte of its body is staged.

Guarantees: statvfs(2) runs on a thread, once in SECONDS for each mount, and every request in that time is decided by
its result; a request waits for it only when the last result is older, or when the bodies that were let through since
then could take a good part of the room up to the reserve: a small disk is full in less than SECONDS. A mount whose use
cannot be told is not refused: its own error says more. Deletes and reads always go on, as they are the way out.

A mount that has just become too full is given PATIENCE_SECONDS, in which the sidecar may be making room: requests wait
so long, with nothing of them staged, and go on when there is room. After that they are refused at once, until a look
finds room; so are those that would be too many to hold, and all when the worker stops. So a burst that is faster than
eviction is slowed down, and a refusal says that nothing more can go. A long body that meets a full disk on its way is
given as long (`patiently`): what arrived stays staged, and the client's socket is not read meanwhile.

Use is what df(1) shows: of the blocks that unprivileged users can have, those that are taken; or of the inodes, if that
is more. Rejected: waiting for ENOSPC alone (other users of the mount would meet it too, and half an upload would be
there); asking the sidecar whether anything can go (it may be the one that hangs, and what can go is known once it
went).
"""

import asyncio
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.operations import Operation
from dataplane.store.errors import NoSpace

if TYPE_CHECKING:
    from dataplane.server.diskpool import DiskPools
    from dataplane.server.node import Account

SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 10.0  # a link that broke is known to be down by then; clients give up after 20 and more
UNSEEN_SHARE: Final = 8  # of the room: so many workers can each let through that much before one of them looks
RETRY_AFTER_SECONDS: Final = 30  # the sidecar needs a while to make room
LOOK_SECONDS_MAX: Final = PATIENCE_SECONDS  # an older look does not say that it has been full since then
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


def room_bytes(found: os.statvfs_result, reserve_percent: float) -> float:
    """What can be written until that use is reached; 0 when it is, in blocks or in inodes."""
    if use_percent(found) >= reserve_percent:
        return 0
    taken = found.f_blocks - found.f_bfree
    return found.f_frsize * max(1.0, (taken + found.f_bavail) * reserve_percent / 100 - taken)


class _Seen(NamedTuple):
    """What a look saw, in seconds of the clock. `full_since`: the first of the looks without a break that found it too
    full; None when there is room. `unseen_bytes_max`: of bodies let through until there has to be another look."""

    at: float
    full_since: float | None = None
    unseen_bytes_max: float = math.inf

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
        self._unseen_bytes: Counter[DiskPools] = Counter()  # of the bodies that were let through since the last look
        self._looking: dict[DiskPools, asyncio.Task[_Seen]] = {}
        self._waiting_count = 0
        self._stops = False

    def stop_waiting(self) -> None:
        """The worker stops: who waits is refused at the next look, and so is who would."""
        self._stops = True

    async def check(self, account: "Account", container: str, body_bytes: int = 0) -> None:
        """Returns when there is room; `body_bytes` is what the request may write. Raises BlobError ServerBusy when the
        container's mount is too full and stays so, OperationTimedOut when it hangs."""
        pools = account.pools(container)
        while True:
            seen = self._seen.get(pools)
            unseen_bytes = self._unseen_bytes[pools] + body_bytes
            if seen is None or self._clock() - seen.at >= SECONDS or unseen_bytes > seen.unseen_bytes_max:
                seen = await self._look_again(pools, account, container)
            if seen.full_since is None:
                self._unseen_bytes[pools] += body_bytes
                return
            if seen.hopeless or self._stops or self._waiting_count >= limits.waiting_for_room_count_max:
                headers = (("Retry-After", str(RETRY_AFTER_SECONDS)),)
                raise BlobError(ErrorCode.SERVER_BUSY, message=MESSAGE, headers=headers)
            self._waiting_count += 1
            try:
                await self._sleep(SECONDS)
            finally:
                self._waiting_count -= 1

    async def patiently(self, write: Callable[[], Awaitable[None]]) -> None:
        """Repeat a write that met a full disk until it succeeds. `write` goes on where it stopped. Raises NoSpace when
        it does not for PATIENCE_SECONDS, and what else `write` raises."""
        until = self._clock() + PATIENCE_SECONDS
        while True:
            await self._sleep(SECONDS)
            try:
                return await write()
            except NoSpace:
                if self._stops or self._clock() >= until:
                    raise

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
        self._unseen_bytes[pools] = 0  # what is let through while it looks may not be on the disk yet
        room = await self._room_bytes(pools, directory_fd)
        now = self._clock()
        since = now
        if before is not None and before.full_since is not None and now - before.at <= LOOK_SECONDS_MAX:
            since = before.full_since
        seen = self._seen[pools] = _Seen(now, None, room / UNSEEN_SHARE) if room else _Seen(now, since)
        return seen

    def _forget(self, pools: "DiskPools", done: "asyncio.Task[_Seen]") -> None:
        del self._looking[pools]
        if not done.cancelled():
            done.exception()  # those who wait have it, if any still do

    async def _room_bytes(self, pools: "DiskPools", directory_fd: int) -> float:
        try:
            found = await pools.metadata_in_time(self._look, directory_fd)
        except OSError:
            return math.inf
        return room_bytes(found, self._reserve_percent)
