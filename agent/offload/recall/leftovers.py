"""Files of recalls that a killed sidecar left: gone at the next start, not after the day that the sweeper waits.

They may be as large as blobs, and there is little room where there are stubs. A recall's file in staging has the sticky
bit, and a lock for as long as its sidecar lives, on whatever node: so one that can be locked is nobody's.
"""

import fcntl
import logging
import os
import stat
from contextlib import suppress
from typing import Final

from agent.offload.look import Stores
from agent.offload.recall.reasons import MOUNT_ERRORS
from dataplane.store.mount import DIRECTORY, Mount
from dataplane.store.store import Store

log = logging.getLogger("blobedge.offload")

SECONDS_MAX: Final = 300.0  # for an account


async def clear_all(stores: Stores) -> None:
    """Remove the leftovers on all mounts; one that fails is left to the sweeper."""
    for account in stores.names():
        try:
            count = await stores.call(account, clear, SECONDS_MAX)
        except MOUNT_ERRORS as error:
            log.info("what recalls left in account %s is not cleared now: %s", account, error)
            continue
        if count:
            log.info("%d files of recalls that were cut off are removed from account %s", count, account)


def clear(store: Store) -> int:
    """Remove those of one store; how many. Raises OSError."""
    return sum(_clear_mount(mount) for _, mount in store.mounts() if not mount.read_only)


def _clear_mount(mount: Mount) -> int:
    count = 0
    for lane in os.listdir(mount.staging_fd):
        with suppress(FileNotFoundError, NotADirectoryError):
            lane_fd = os.open(lane, DIRECTORY | os.O_NOFOLLOW, dir_fd=mount.staging_fd)
            try:
                count += sum(_remove(lane_fd, name) for name in os.listdir(lane_fd))
            finally:
                os.close(lane_fd)
    return count


def _remove(lane_fd: int, name: str) -> bool:
    """Remove a file if it is a recall's that nobody works on any more."""
    status = os.stat(name, dir_fd=lane_fd, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_ISVTX or status.st_uid != os.geteuid():
        return False
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=lane_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=lane_fd)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
