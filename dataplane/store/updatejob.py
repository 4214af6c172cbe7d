"""New properties for the same content. The commit point is utimensat to the mtime whose record was written before.

So a record is the blob's from the moment on at which the file has the seal that the record names: until then, and after
a crash before it, the old record counts.
"""

import os
from dataclasses import replace
from typing import Final

from dataplane.blobapi.model import LOST, BlobProperties, BlobState
from dataplane.store.blobjob import BlobJob, DecideProperties, require_bytes
from dataplane.store.blobstate import BlobRef
from dataplane.store.commit import Again, Subject
from dataplane.store.fileio import fsync
from dataplane.store.files import Found
from dataplane.store.place import Place
from dataplane.store.records import Seal
from dataplane.store.staging import StagedFile
from dataplane.store.trash import Trash


class UpdateJob(BlobJob[BlobState]):
    """New properties for the same content. A file that belongs to another user cannot get an mtime or an attribute
    from us: it is then copied first, and the copy published like a put."""

    def __init__(self, place: Place, trash: Trash, ref: BlobRef, decide: DecideProperties) -> None:
        super().__init__(place, trash, ref.name)
        self._snapshot: Final = ref.snapshot
        self._decide: Final = decide
        self._copy: StagedFile | None = None
        self._copied: Seal | None = None
        self._old_seal: Seal | None = None

    def subject(self) -> Subject | None:
        return None if self._snapshot else Subject(self.place.container, self.name)

    def prepare(self) -> None:
        if not self.needs_prepare:
            return
        found, state = self.look(self._snapshot)
        self._drop_copy()
        if found is not None:
            require_bytes(self.place, state)
            self._copy = StagedFile.create(self.mount)
            self._copied = found.seal
            self._copy.copy_from(found.fd, 0, found.seal.size)
            if self.durable:
                self._copy.sync()

    def publish(self) -> BlobState:
        with self.mount.lock(self.lock_key()):
            found, state = self.look(self._snapshot)
            properties = self._decide(state)
            assert found is not None
            assert state is not None  # decide refuses a missing blob
            if properties == state.properties:
                return state
            if state.properties.remote == LOST:
                require_bytes(self.place, state)
            if properties.remote is None:  # whatever a decision is about, it is not where the bytes are
                properties = replace(properties, remote=state.properties.remote)
            self.mark_tagged(properties)
            self.sync_staged()
            if self._copy is not None:
                self._publish_copy(self._copy, found, properties)
            else:
                properties = self._publish_in_place(found, state.properties, properties)
            return replace(state, properties=properties)

    def _publish_in_place(self, found: Found, old: BlobProperties, properties: BlobProperties) -> BlobProperties:
        mtime = self.mount.new_mtime_ns()
        if mtime == found.seal.mtime_ns:
            mtime += self.mount.capabilities.mtime_granularity_ns
        if properties.remote is not None and replace(old, remote=properties.remote) != properties:
            # The file that comes back has a new record, so it must not have the seal of the one that went.
            properties = replace(properties, remote=replace(properties.remote, mtime_ns=mtime))
        record = self.record_for(Seal(found.seal.inode, found.seal.size, mtime), properties)
        try:
            fds = [self.own(fd) for fd in self.mount.records.write(found.fd, record, keep=found.seal)]
            if self.durable:
                for fd in (*fds, found.fd):
                    fsync(fd)
            os.utime(found.fd, ns=(mtime, mtime))
        except PermissionError:
            self.needs_prepare = True
            raise Again from None
        self.directory_fds[f"{id(self.mount)}:inode:{found.seal.inode}"] = found.fd
        self._old_seal = found.seal
        self.mount.records.remember(record)
        return properties

    def _publish_copy(self, copy: StagedFile, found: Found, properties: BlobProperties) -> None:
        if self._copied != found.seal:
            raise Again
        record = self.seal(copy, properties)
        self.sync_staged()
        parent_fd, last = self.parent_of(found)
        copy.rename_to(parent_fd, last)
        self._old_seal = found.seal
        self.mount.records.remember(record)

    def cleanup(self) -> None:
        if self._old_seal is not None:
            self.mount.records.clear(self._old_seal)

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy.discard()
            self._copy = None

    def close(self) -> None:
        super().close()
        self._drop_copy()
