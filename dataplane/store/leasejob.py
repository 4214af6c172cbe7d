"""A lease of a blob. The commit point is the rename of the new lease document; the blob's file is not touched."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dataplane.blobapi.model import BlobState, Lease
from dataplane.store import leasefiles
from dataplane.store.blobjob import BlobJob
from dataplane.store.place import Place
from dataplane.store.trash import Trash


class LeaseJob(BlobJob[BlobState]):
    """A new lease document for a blob; None removes it."""

    def __init__(
        self, place: Place, trash: Trash, name: str, decide: Callable[[BlobState | None], Lease | None]
    ) -> None:
        super().__init__(place, trash, name)
        self._decide: Final = decide

    def publish(self) -> BlobState:
        with self.mount.lock(self.lock_key()):
            _, state = self.look()
            lease = self._decide(state)
            assert state is not None  # decide refuses a missing blob
            for path, fd in leasefiles.write(self.place, self.name, lease).items():
                self.sync_private(path, fd)
            return replace(state, lease=lease)
