"""Where recalled bytes are put: the stores of the accounts, asked on threads with a deadline.

A stub says itself where its bytes are; what a worker says of a blob is only which one it means.
"""

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.offload.look import Stores
from agent.offload.recall import leftovers
from agent.offload.recall.reasons import not_coming
from dataplane.blobapi.model import Remote
from dataplane.store.errors import NotAStub
from dataplane.store.staging import StagedFile
from dataplane.store.store import BlobRef, Store

SWAP_SECONDS_MAX: Final = 600.0  # it syncs a whole file
STAGED_MODE: Final = 0o1600  # what leftovers.py knows the file by; no other file in staging is sticky


class Key(NamedTuple):
    """A version of a blob here."""

    account: str
    container: str
    name: str
    etag: str

    def ref(self) -> BlobRef:
        return BlobRef(self.container, self.name)


@dataclass(slots=True)
class Space:
    """A file for bytes of a blob, and how much room its mount has. `reading_fd` is read-only, for workers."""

    staged: StagedFile
    reading_fd: int
    free_bytes: int
    total_bytes: int  # of the mount
    device: int

    def discard(self) -> None:
        """Close it, and remove the file if it is not the blob's by now. Once."""
        os.close(self.reading_fd)
        self.staged.discard()


class Shelf:
    """The stores, as recalls need them."""

    def __init__(self, stores: Stores) -> None:
        self._stores: Final = stores

    async def find(self, account: str, container: str, name: str) -> tuple[Key, Remote]:
        """The stub that is there now. Raises NotComing, and what Stores.call does."""
        ref = BlobRef(container, name)
        state = await self._stores.call(account, lambda store: store.stat_blob(ref))
        remote = state.properties.remote if state is not None else None
        if state is None or remote is None:
            raise not_coming("changed", "the blob is no stub")
        if not remote.container:
            raise not_coming("missing", f"the stub {account}/{container}/{name!a} has lost its record")
        return Key(account, container, name, state.properties.etag), remote

    async def make(self, key: Key) -> Space:
        """An empty file on the blob's mount. Raises what Stores.call does. One that comes too late is dropped."""
        made: list[Space] = []
        given_up = False

        def drop() -> None:
            with suppress(IndexError):  # by either thread, once
                made.pop().discard()

        def make(store: Store) -> Space:
            space = _make(store, key.container)
            made.append(space)
            if given_up:
                drop()
            return space

        try:
            return await self._stores.call(key.account, make)
        except BaseException:
            given_up = True
            drop()
            raise

    async def clear(self) -> None:
        """Remove what killed sidecars left on all mounts."""
        await leftovers.clear_all(self._stores)

    async def swap(self, key: Key, remote: Remote, staged: StagedFile) -> str | None:
        """Put a whole, verified file in the place of its stub, whatever its properties are by now; the ETag that it
        has. None when there is no such stub any more. Raises what Stores.call does."""
        return await self._stores.call(key.account, lambda store: _swap(store, key, remote, staged), SWAP_SECONDS_MAX)


def _make(store: Store, container: str) -> Space:
    staged = store.stage(container)
    try:
        with suppress(OSError):  # some mounts have no locks; leftovers.py then leaves it to the sweeper
            fcntl.flock(staged.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for as long as anybody here has it open
        os.fchmod(staged.fd, STAGED_MODE)  # after the lock: from here on it may be taken for a leftover
        room = os.fstatvfs(staged.fd)
        device = os.fstat(staged.fd).st_dev
        reading_fd = os.open(f"/proc/self/fd/{staged.fd}", os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        staged.discard()
        raise
    return Space(staged, reading_fd, room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, device)


def _swap(store: Store, key: Key, remote: Remote, staged: StagedFile) -> str | None:
    staged.size = remote.size
    try:
        return store.run(store.recall(key.ref(), staged, key.etag, remote.md5)).properties.etag
    except NotAStub:
        return None
