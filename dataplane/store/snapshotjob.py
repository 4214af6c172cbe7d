"""A snapshot of a blob. The commit point is the rename of a staged copy to the snapshot's path.

The copy is of the very version that is there at that moment: if the blob changed while it was copied, it is copied
again.
"""

import os
from collections.abc import Callable
from typing import Final

from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.store import blobstate, smallfile
from dataplane.store.blobjob import BlobJob, require_bytes
from dataplane.store.commit import Again
from dataplane.store.mount import DIRECTORY
from dataplane.store.place import Place, blob_key
from dataplane.store.records import Seal
from dataplane.store.staging import StagedFile
from dataplane.store.trash import Trash


class SnapshotJob(BlobJob[BlobState]):
    """A copy that stays as it is. Rejected: a hard link, because another writer may change the file in place."""

    needs_prepare = True

    def __init__(
        self, place: Place, trash: Trash, name: str, decide: Callable[[BlobState | None], BlobProperties], snapshot: str
    ) -> None:
        super().__init__(place, trash, name)
        self._decide: Final = decide
        self._id: Final = snapshot
        self._staged: StagedFile | None = None
        self._copied: Seal | None = None
        self._state: BlobState | None = None
        self._seal: Seal | None = None

    def prepare(self) -> None:
        self._drop()
        found, state = self.look()
        self._decide(state)
        assert found is not None
        require_bytes(self.place, state)
        self._staged = StagedFile.create(self.mount)
        self._copied, self._state = found.seal, state
        self._staged.copy_from(found.fd, 0, found.seal.size)
        if self.durable:
            self._staged.sync()

    def stage(self) -> None:
        staged = self._staged
        assert staged is not None
        properties = self._decide(self._state)
        self._seal = self.seal(staged, properties).seal
        self._result = BlobState(self.name, self._seal.size, properties, None, self._id)

    def publish(self) -> BlobState:
        staged = self._staged
        path = blobstate.snapshot_path(self.place, self.name, self._id)
        assert staged is not None
        assert path is not None
        with self.mount.lock(self.lock_key()):
            found, state = self.look()
            if found is None or found.seal != self._copied or state != self._state:
                raise Again
            directory = self.place.private(blobstate.SNAPSHOT_DIRECTORY, blob_key(self.name))
            containers_fd = self.mount.containers_fd
            for parent, fd in smallfile.make_directories(containers_fd, directory).items():
                self.sync_private(parent, fd)
            staged.rename_to(containers_fd, f"{directory}/{path.rpartition('/')[2]}")
            self.sync_private(directory, os.open(directory, DIRECTORY, dir_fd=containers_fd))
        return self._result

    def discard(self) -> None:
        if self._staged is not None and self._staged.withdraw() and self._seal is not None:
            self.mount.records.clear(self._seal)

    def _drop(self) -> None:
        if self._staged is not None:
            self._staged.discard()
            self._staged = None

    def close(self) -> None:
        super().close()
        self._drop()
