"""New content for a blob. The commit point is the rename of the staged file, with its record, onto the blob's path.

Until then nobody sees it, and after it whoever opened the old file still reads that one whole. Blocks of an upload that
was under way, the old record and the old block list go afterwards; a lease stays, unless its blob was gone.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from dataplane.blobapi.model import BlobProperties, BlobState, Block
from dataplane.store import blocklists, leasefiles
from dataplane.store.blobjob import BlobJob, DecideProperties
from dataplane.store.commit import Subject
from dataplane.store.errors import StorageUnavailable
from dataplane.store.files import Found
from dataplane.store.place import Place
from dataplane.store.records import Seal
from dataplane.store.staging import StagedFile
from dataplane.store.trash import Trash

_RENAME_ATTEMPTS_MAX: Final = 8


class PutJob(BlobJob[BlobState]):
    """New content: the staged file gets its record, then its name."""

    def __init__(
        self, place: Place, trash: Trash, name: str, content: bytes | StagedFile, decide: DecideProperties,
        blocks: Sequence[Block] = (),
    ) -> None:  # fmt: skip
        super().__init__(place, trash, name)
        self._content: Final = content
        self._staged: StagedFile | None = None if isinstance(content, bytes) else content
        self._decide: Final = decide
        self._blocks = blocks
        self._block_list = ""
        self.needs_prepare = self._staged is not None and self.durable
        self._old: Found | None = None
        self._old_state: BlobState | None = None
        self._result: BlobState | None = None

    def prepare(self) -> None:
        if self._staged is not None and self.durable:
            self._staged.sync()

    def subject(self) -> Subject:
        return Subject(self.place.container, self.name)

    def stage(self) -> None:
        self._old, self._old_state = self.look()
        properties = self.decided(self._decide, self._old_state)
        if self._blocks:
            lists: list[int] = []
            try:
                self._block_list = blocklists.pack(self.place, self._blocks, lists)
            finally:
                self.staged_fds += [self.own(fd) for fd in lists]
            properties = replace(properties, block_list=self._block_list)
        if self._staged is None:
            self._staged = StagedFile.create(self.mount)
            assert isinstance(self._content, bytes)
            self._staged.write(self._content)
        self._seal_with(self._staged, properties)

    def _seal_with(self, staged: StagedFile, properties: BlobProperties) -> None:
        properties = replace(properties, remote=None)  # of the version that it replaces, or is a copy of
        self.mark_tagged(properties)
        self._record = self.seal(staged, properties)
        lease = self._old_state.lease if self._old_state is not None else None
        self._result = BlobState(self.name, self._record.seal.size, properties, lease)

    def publish(self) -> BlobState:
        staged = self._staged
        assert staged is not None
        with self.mount.lock(self.lock_key()):
            parent = self.open_parent()
            if not self._is_unchanged(*parent):
                self._old, state = self.look()
                if state != self._old_state:
                    self._decide_again(staged, state)
                parent = self.open_parent()
            self.check_locked()
            if self._old_state is None:
                self.drop_stale_lease()
            self._rename(staged, *parent)
            if self._old is not None and self._old_state is not None:
                self.went(self._old, self._old_state)
            self.drop_blocks()
        self.mount.records.remember(self._record)
        assert self._result is not None
        return self._result

    def check_locked(self) -> None:
        """A last look under the lock. Raises Again when what `prepare` used has changed."""
        return

    def _is_unchanged(self, parent_fd: int, last: str) -> bool:
        """Whether the blob is certainly as `stage` saw it. Cheaper than looking again; False only costs that look."""
        try:
            status = os.stat(last, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            if self._old is not None:
                return False
            return self._is_nowhere_else(parent_fd, last)
        if self._old is None or self._old_state is None:
            return False
        if Seal(status.st_ino, status.st_size, status.st_mtime_ns) != self._old.seal:
            return False
        lease = leasefiles.read_with(self.place, self.name, self._old_state.properties.etag)
        return lease == self._old_state.lease

    def _is_nowhere_else(self, parent_fd: int, last: str) -> bool:
        """Whether the other of the blob's two paths (see files.py) leads to no blob either; `last` is the one that is
        free. A directory may have come to the ordinary path, or gone from it, since `stage` looked. False also where
        the two paths are in different directories: then only looking tells."""
        ordinary, beside = self.mount.encode(self.name), self.mount.encode_beside(self.name)
        parent, _, name = ordinary.rpartition("/")
        beside_parent, _, beside_name = beside.rpartition("/")
        if parent != beside_parent:
            return False
        try:
            other = os.stat(beside_name if last == name else name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return last == beside_name and stat.S_ISDIR(other.st_mode)

    def _decide_again(self, staged: StagedFile, state: BlobState | None) -> None:
        """Somebody changed the blob between the first look and the lock."""
        self._old_state = state
        properties = self._decide(state)
        if self._blocks:
            properties = replace(properties, block_list=self._block_list)
        del self.staged_fds[:]
        self.mount.records.clear(self._record.seal)
        self._seal_with(staged, properties)
        self.sync_staged()

    def _rename(self, staged: StagedFile, parent_fd: int, last: str) -> None:
        """Into place; parents that a concurrent delete pruned meanwhile are made again."""
        for _ in range(_RENAME_ATTEMPTS_MAX):
            try:
                staged.rename_to(parent_fd, last)
                return
            except FileNotFoundError:
                pass
            except IsADirectoryError:
                self.path = self.place.prefix + self.mount.encode_beside(self.name)
            parent_fd, last = self.open_parent()
        raise StorageUnavailable("rename")

    def cleanup(self) -> None:
        self.forget(self._old, self._old_state)

    def discard(self) -> None:
        """Its record goes only if its name in staging was still there: then, and only then, it was never published."""
        if self._staged is None or not self._staged.withdraw():
            return
        if self._result is not None:
            self.mount.records.clear(self._record.seal)
        blocklists.remove(self.place, self._block_list)

    def close(self) -> None:
        super().close()
        if self._staged is not None:
            self._staged.discard()
