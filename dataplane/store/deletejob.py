"""A blob, a snapshot, or all snapshots of a blob go. The commit point is the unlink of the file.

Snapshots go before their blob and a lease after it: a crash leaves no snapshot without a blob and no blob without its
lease. Directories that the blob alone was in go too.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Final

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.store import blobstate, files, leasefiles, swap
from dataplane.store.blobjob import BlobJob
from dataplane.store.blobstate import BlobRef
from dataplane.store.commit import Subject
from dataplane.store.errors import NotEvictable
from dataplane.store.files import Found
from dataplane.store.mount import DIRECTORY
from dataplane.store.place import Place, blob_key
from dataplane.store.swap import NotSwapped
from dataplane.store.trash import Trash


class DeleteScope(Enum):
    """What a delete takes away (REST page "Delete Blob", x-ms-delete-snapshots)."""

    BLOB = "blob"
    BLOB_AND_SNAPSHOTS = "include"
    SNAPSHOTS_ONLY = "only"


class DeleteJob(BlobJob[BlobState]):
    """Take a blob, a snapshot, or all snapshots of a blob away.

    A blob of uncommitted blocks alone can be deleted, although nothing else finds it (azure-storage-node issue 350);
    clients that cancel an upload do so. `yields`: no client asked for it, so whoever is writing to the file, or has put
    blocks for the next version, wins: NotEvictable.
    """

    def __init__(
        self,
        place: Place,
        trash: Trash,
        ref: BlobRef,
        decide: Callable[[BlobState | None], DeleteScope],
        *,
        yields: bool = False,
    ) -> None:
        super().__init__(place, trash, ref.name)
        self._snapshot: Final = ref.snapshot
        self._decide: Final = decide
        self._yields: Final = yields
        self._gone: tuple[Found, BlobState] | None = None

    def subject(self) -> Subject | None:
        return None if self._snapshot else Subject(self.place.container, self.name)

    def publish(self) -> BlobState:
        with self.mount.lock(self.lock_key()):
            found, state = self.look(self._snapshot)
            if state is None and not self._snapshot and not self._yields:
                return self._delete_blocks()
            if state is not None and not self._snapshot:
                state = replace(state, has_snapshots=bool(blobstate.snapshot_ticks(self.place, self.name)))
            scope = self._decide(state)
            assert found is not None
            assert state is not None  # decide refuses a missing blob
            if scope is not DeleteScope.BLOB:
                self._remove_snapshots()
            if scope is not DeleteScope.SNAPSHOTS_ONLY:
                self._remove(found)
                if not self._snapshot:
                    self.went(found, state)
                    self.drop_blocks()
                self._gone = (found, state)
            return state

    def _delete_blocks(self) -> BlobState:
        try:
            self._decide(None)
        except BlobError as refusal:
            if refusal.code is not ErrorCode.BLOB_NOT_FOUND or not self.drop_blocks():
                raise
        return BlobState(self.name, 0, BlobProperties(etag="", last_modified=0, created=0))

    def _remove_snapshots(self) -> None:
        directory = self.place.private(blobstate.SNAPSHOT_DIRECTORY)
        containers_fd = self.mount.containers_fd
        if self.trash.take(containers_fd, f"{directory}/{blob_key(self.name)}"):
            self.sync_private(directory, os.open(directory, DIRECTORY, dir_fd=containers_fd))

    def _remove(self, found: Found) -> None:
        if not self._snapshot:
            self._remove_twin(found)
        parent_fd, last = self.parent_of(found)
        if self._yields:
            self._take_out(found, parent_fd, last)
        else:
            with suppress(FileNotFoundError):  # gone already by another writer's hand
                os.unlink(last, dir_fd=parent_fd)
        if self._snapshot:
            return
        if leasefiles.read(self.place, self.name) is not None:  # only now: a crash leaves no blob without its lease
            for path, fd in leasefiles.write(self.place, self.name, None).items():
                self.sync_private(path, fd)
        if found.path.count("/") > self.place.prefix.count("/"):
            fd = files.prune(self.place, found.path)
            if fd >= 0:
                self.sync_after("pruned:" + found.path, fd)

    def _take_out(self, found: Found, parent_fd: int, last: str) -> None:
        blocks = f"{self.place.private('blocks')}/{blob_key(self.name)}"
        if os.access(blocks, os.F_OK, dir_fd=self.mount.containers_fd):
            raise NotEvictable("a client has put blocks of its next version")
        try:
            swap.take_out(self.mount, found, parent_fd, last, self.open_parent)
        except NotSwapped as refusal:
            raise NotEvictable(str(refusal)) from None

    def _remove_twin(self, found: Found) -> None:
        """A crash while the blob was moved beside a directory leaves it in both places; what is beside is hidden while
        the other is there, and would come back when that goes."""
        beside = self.place.prefix + self.mount.encode_beside(self.name)
        parent, _, last = beside.rpartition("/")
        fd = -1 if beside == found.path else self.mount.open(parent or ".", DIRECTORY)
        if fd < 0:
            return
        self.own(fd)
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(last, dir_fd=fd)
            self.sync_after(parent, fd)

    def cleanup(self) -> None:
        if self._gone is None:
            return
        self.forget(*self._gone)
