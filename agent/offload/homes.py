"""Whether the directory that a container's blobs were in is here: one that is away looks as if all had been deleted.

A container whose directory is gone, or empty and another one than the queue knew, has lost its blobs to nobody's wish
as far as we can tell: a mount that is missing shows the directory below it, and a renamed one leaves none. However few
they are, a person is asked before their copies go, and before copies that stay are forgotten (their blobs would be sent
once more when the directory is back). The same directory, emptied, is a wish; so is what the endpoint did
to the container itself, which the journal tells (`meant`).

A directory is known by its inode's number: the one below a mount has another one than the mount's root. A file system
that gives a directory another number each time it is mounted only asks more often. Rejected: the device's number with
it (it changes with every boot for NFS and device mapper), a file of ours in each container (a mapped directory is
somebody else's).
"""

import os
from typing import Final

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.look import Stores
from dataplane.store.store import Store

AWAY: Final = (
    "the directory of this container is not here, or another one is here, and empty: if its blobs were deleted, run "
    "`blobedge queue resume --confirm-deletes`; else bring it back, and the copies stay"
)
_NONE: Final = "none"


class Homes:
    """The directories of all containers. Its methods raise QueueError, and what `Stores.call` does."""

    def __init__(self, queue: AsyncQueue, stores: Stores) -> None:
        self._queue: Final = queue
        self._stores: Final = stores
        self._found: set[tuple[str, str]] = set()  # since the start

    async def found(self, account: str, container: str) -> None:
        """There are blobs in it: it is the right one. Looked at once in a life of the process."""
        if (account, container) not in self._found:
            await self.meant(account, container)
            self._found.add((account, container))

    async def meant(self, account: str, container: str) -> None:
        """It is as it is, or is not there, because somebody wanted that: but for another directory that is empty, which
        may have come after what was wanted. That one is noted when it has blobs."""
        known = await self._queue(lambda queue: queue.recall(_key(account, container)))
        present, bare = await self._stores.call(
            account, lambda store: (directory(store, container), is_bare(store, container, known))
        )
        if bare and present != _NONE and known not in (None, _NONE):
            self._found.discard((account, container))
            return
        await self._queue(lambda queue: queue.remember(_key(account, container), present))

    async def is_away(self, account: str, container: str) -> bool:
        """Whether it is gone, or empty and another one, although nobody is known to have wanted that."""
        known = await self._queue(lambda queue: queue.recall(_key(account, container)))
        return await self._stores.call(account, lambda store: is_bare(store, container, known))


def directory(store: Store, container: str) -> str:
    """What tells a container's directory from another one in its place. Raises OSError."""
    mounts = dict(store.mounts())
    mount, path = (mounts[container], ".") if container in mounts else (mounts[""], container)
    try:
        return str(os.stat(path, dir_fd=mount.root_fd, follow_symlinks=False).st_ino)
    except FileNotFoundError:
        return _NONE


def is_bare(store: Store, container: str, known: str | None) -> bool:
    """Whether a container has no blob, and not the directory `known`. Raises StoreError, OSError."""
    present = directory(store, container)
    if present == known:
        return False
    if present == _NONE:
        return True
    return not store.list_blobs(container, prefix="", delimiter="", start="", limit=1).items


def _key(account: str, container: str) -> str:
    return f"directory/{account}/{container}"
