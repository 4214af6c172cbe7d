"""Stubs: a blob whose bytes are in the cloud is here an empty file with the blob's record, which says where they are.

    evict     the blob's file goes, a stub takes its place
    recall    the blob's bytes come back, in the place of the stub
    plant     a stub for a blob that only the cloud has
    retarget  another place in the cloud, or another version there

A stub has mode 0o1400: the sticky bit marks it also without its record (files.is_marked), and who is not root cannot
write into it by mistake. Its mtime is that of the blob's file to the second, so that `ls` and programs that compare
times see what they saw; its owner is the file's. None of the four changes what a client sees of the blob. Its ETag,
Last-Modified, lease, snapshots, block list and tags stay, and whoever reads the old file goes on reading it. Each gives
way to anybody who changes the blob at the same time: they are not changes of a client, and never win against one.

The seal of every file made here is new, though the mtime comes from elsewhere: inode numbers come back soon, other
workers remember records by seals, and one must not be given to another's file. So the digits below the second are the
clock's. An mtime is restored to the last digit only to a blob whose record is the same as before it was evicted.
Rejected: a stub that is a sparse file of the blob's size (a program that reads it gets zeros and no hint), a list of
stubs beside the tree (one more truth, and none that follows a rename).
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import LOST, BlobProperties, BlobState, Remote
from dataplane.store import trust
from dataplane.store.blobjob import BlobJob
from dataplane.store.blobstate import BlobRef
from dataplane.store.commit import Subject
from dataplane.store.errors import NotAStub, NotEvictable, StorageUnavailable, translated
from dataplane.store.files import Found
from dataplane.store.place import Place
from dataplane.store.records import Record, Seal
from dataplane.store.staging import StagedFile
from dataplane.store.swap import NotSwapped, Swap, name_for
from dataplane.store.trash import Trash
from dataplane.store.updatejob import UpdateJob

T = TypeVar("T")

STUB_MODE: Final = stat.S_ISVTX | stat.S_IRUSR
_PERMISSIONS: Final = 0o777
_NS: Final = 1_000_000_000
_PLACE_ATTEMPTS_MAX: Final = 8
_NOTHING: Final = Seal(0, 0, 0)  # what a planted stub takes the place of


class _SwapJob(BlobJob[T]):
    """What those have in common that put a file of their own into the blob's place. Durable whatever the container is:
    `relaxed` is about what clients wrote lately, and these replace what was safe long ago."""

    def __init__(self, place: Place, trash: Trash, name: str) -> None:
        super().__init__(place, trash, name)
        self.durable = True
        self._coming: StagedFile | None = None
        self._record: Record | None = None
        self._swap: Swap | None = None
        self._gone: tuple[Found, BlobState] | None = None

    def create_stub(self, going: Seal, properties: BlobProperties, owner: os.stat_result | None) -> None:
        """Make a stub, not visible yet. Raises NotEvictable where the mount does not keep what marks one."""
        trust.check_blob(properties)  # else its record would be none
        remote = properties.remote
        assert remote is not None
        self.mount.allow_stubs()
        name = name_for(going)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with translated("create stub"):
            fd = os.open(name, flags, 0o600, dir_fd=self.mount.swaps_fd)
            self._coming = StagedFile(self.mount, fd, directory_fd=self.mount.swaps_fd, name=name, linked=True)
            self._record = self.seal(self._coming, properties, self.near(remote.mtime_ns))
            _give(fd, owner, STUB_MODE)
            if stat.S_IMODE(os.fstat(fd).st_mode) != STUB_MODE:
                raise NotEvictable("this mount does not keep the mode that marks a stub")

    def near(self, mtime_ns: int) -> int:
        """A new mtime in the same second, as far as the mount keeps fractions of one."""
        near = mtime_ns - mtime_ns % _NS + self.mount.new_mtime_ns() % _NS
        return near - near % self.mount.capabilities.mtime_granularity_ns

    def swap_with(self, going: Found, state: BlobState) -> None:
        """Into its place. Raises NotSwapped."""
        assert self._coming is not None
        assert self._record is not None
        parent_fd, last = self.parent_of(going)
        swap = Swap(self.mount, self._coming, self._record.seal, going, parent_fd, last, durable=self.durable)
        swap.begin()
        self._swap, self._gone = swap, (going, state)
        self.mount.records.remember(self._record)

    def cleanup(self) -> None:
        """The old file goes, unless somebody has come to write to it by now: then it is there again, as if it had been
        written to right after the change."""
        if self._swap is not None and self._gone is not None and self._record is not None:
            with self.mount.lock(self.lock_key()):
                try:
                    self._swap.finish()
                except NotSwapped:
                    self.mount.records.clear(self._record.seal)
                    return
            found, state = self._gone
            if state.properties.block_list == self._record.properties.block_list:
                self.mount.records.clear(found.seal)
            else:
                self.forget(found, state)

    def discard(self) -> None:
        if self._swap is not None:
            with self.mount.lock(self.lock_key()):
                self._swap.undo()
        if self._coming is not None and self._coming.withdraw() and self._record is not None:
            self.mount.records.clear(self._record.seal)

    def close(self) -> None:
        super().close()
        if self._coming is not None:
            self._coming.discard()


class EvictJob(_SwapJob[int]):
    """A stub takes the place of a blob of which the cloud has the same bytes. The result is the blob's size in bytes.

    `properties` are for a stub of somebody else's version, which is to take the place of ours: the blob is then
    another, as after an overwrite. Raises NotEvictable. A program that comes to write to the file at the very end has
    it back in its place, and the result says all the same that it went: it wrote right after that.
    """

    def __init__(
        self, place: Place, trash: Trash, name: str, etag: str, remote: Remote, properties: BlobProperties | None = None
    ) -> None:
        super().__init__(place, trash, name)
        self._etag: Final = etag
        self._remote: Final = remote
        self._properties: Final = properties
        self._seen: tuple[Seal, BlobProperties] | None = None

    def subject(self) -> Subject | None:
        return None if self._properties is None else Subject(self.place.container, self.name)

    def stage(self) -> None:
        found, state = self.look()
        if found is None or state is None:
            raise NotEvictable("it is gone")
        status = os.fstat(found.fd)
        self._require(found, state, status)
        self._seen = found.seal, state.properties
        mode, mtime_ns = status.st_mode & _PERMISSIONS, found.seal.mtime_ns
        if self._properties is None:
            remote = replace(self._remote, mtime_ns=mtime_ns, mode=mode)
            properties = replace(state.properties, foreign=False, remote=remote)
        else:
            mtime_ns = self.near(self._properties.last_modified * _NS)
            properties = replace(self._properties, remote=replace(self._remote, mtime_ns=mtime_ns, mode=mode))
            self.mark_tagged(properties)
        self.create_stub(found.seal, properties, status)

    def _require(self, found: Found, state: BlobState, status: os.stat_result) -> None:
        if state.properties.remote is not None:
            raise NotEvictable("its bytes are not here")
        if state.properties.etag != self._etag:
            raise NotEvictable("it has changed")
        if self._properties is None and found.seal.size != self._remote.size:
            raise NotEvictable("the copy has another size")
        if self._properties is None and found.seal.size == 0:
            raise NotEvictable("it is empty")
        if status.st_nlink != 1:
            raise NotEvictable("its file has other names (hard links)")
        if stat.S_IMODE(status.st_mode) & ~(_PERMISSIONS | stat.S_ISVTX):  # the mark: of a stub that was written over
            raise NotEvictable("its file has special permission bits")

    def publish(self) -> int:
        with self.mount.lock(self.lock_key()):
            found, state = self.look()
            if found is None or state is None or (found.seal, state.properties) != self._seen:
                raise NotEvictable("it has changed")
            try:
                self.swap_with(found, state)
            except NotSwapped as refusal:
                raise NotEvictable(str(refusal)) from None
            return found.seal.size


class RecallJob(_SwapJob[BlobState]):
    """A whole file, whose bytes were verified, takes the place of a stub. `md5`, when it is known, tells which stub it
    is instead of the ETag: properties that were changed since are those of the same bytes."""

    needs_prepare = True

    def __init__(
        self, place: Place, trash: Trash, name: str, staged: StagedFile, etag: str, md5: bytes | None = None
    ) -> None:
        super().__init__(place, trash, name)
        self._staged: Final = staged
        self._etag: Final = etag
        self._md5: Final = md5

    def prepare(self) -> None:
        self._staged.sync()

    def publish(self) -> BlobState:
        with self.mount.lock(self.lock_key()):
            found, state = self.look()
            if found is None or state is None:
                raise NotAStub
            properties = self._filled(found, state)
            self.sync_staged()
            try:
                self.swap_with(found, state)
            except NotSwapped:
                raise NotAStub from None
            return replace(state, properties=properties)

    def _filled(self, found: Found, state: BlobState) -> BlobProperties:
        """Make the staged file the one that the stub stands for; the blob's properties from here on."""
        remote = state.properties.remote
        if remote is None or remote == LOST or remote.size != self._staged.size:
            raise NotAStub
        if remote.md5 != self._md5 if self._md5 is not None else state.properties.etag != self._etag:
            raise NotAStub
        if os.fstat(self._staged.fd).st_size != self._staged.size:
            raise ValueError("a recalled file of another size than it was said to have")
        self._coming = self._staged.moved_to(self.mount.swaps_fd, name_for(found.seal))
        properties = replace(state.properties, remote=None)
        _give(self._coming.fd, os.fstat(found.fd), remote.mode & _PERMISSIONS)
        self._record = self.seal(self._coming, properties, remote.mtime_ns)
        return properties

    def close(self) -> None:
        super().close()
        self._staged.discard()


class PlantJob(_SwapJob[BlobState]):
    """A stub where nothing is, or a stub that has lost its record. Raises BlobError BlobAlreadyExists, and
    ContainerNotFound."""

    def __init__(self, place: Place, trash: Trash, name: str, properties: BlobProperties) -> None:
        super().__init__(place, trash, name)
        remote = properties.remote
        if remote is None:
            raise ValueError("a stub is of something in the cloud")
        mtime_ns = self.near(remote.mtime_ns or properties.last_modified * _NS)
        self._properties: Final = replace(
            properties, foreign=False, remote=replace(remote, mtime_ns=mtime_ns, mode=remote.mode & _PERMISSIONS)
        )

    def stage(self) -> None:
        self.mark_tagged(self._properties)
        self.create_stub(_NOTHING, self._properties, None)

    def publish(self) -> BlobState:
        with self.mount.lock(self.lock_key()):
            for _ in range(_PLACE_ATTEMPTS_MAX):
                found, state = self.look()
                if state is not None and state.properties.remote != LOST:
                    raise BlobError(ErrorCode.BLOB_ALREADY_EXISTS)
                with suppress(FileExistsError, FileNotFoundError, NotSwapped):  # somebody else was here: look again
                    self._put(found, state)
                    return self._state(state)
        raise StorageUnavailable("plant")

    def _put(self, found: Found | None, state: BlobState | None) -> None:
        if found is not None and state is not None:
            self.swap_with(found, state)
            return
        assert self._coming is not None
        assert self._record is not None
        self.drop_stale_lease()
        parent_fd, last = self.open_parent()
        with translated("link"):
            os.link(self._coming.name, last, src_dir_fd=self.mount.swaps_fd, dst_dir_fd=parent_fd)
        self._coming.linked = False  # from here on its record is in use
        with suppress(OSError):
            os.unlink(self._coming.name, dir_fd=self.mount.swaps_fd)
        self.mount.records.remember(self._record)

    def _state(self, before: BlobState | None) -> BlobState:
        remote = self._properties.remote
        assert remote is not None
        return BlobState(self.name, remote.size, self._properties, before.lease if before is not None else None)


class RetargetJob(UpdateJob):
    """Another `remote` for the same stub; its properties and its ETag stay. Raises NotAStub."""

    def __init__(self, place: Place, trash: Trash, name: str, etag: str, remote: Remote) -> None:
        super().__init__(place, trash, BlobRef(place.container, name), _retargeted(etag, remote))

    def subject(self) -> Subject | None:
        return None


def _retargeted(etag: str, remote: Remote) -> Callable[[BlobState | None], BlobProperties]:
    def decide(state: BlobState | None) -> BlobProperties:
        now = None if state is None else state.properties.remote
        if state is None or now is None or now == LOST or state.properties.etag != etag:
            raise NotAStub
        properties = replace(state.properties, remote=replace(remote, mtime_ns=now.mtime_ns, mode=now.mode))
        trust.check_blob(properties)
        return properties

    return decide


def _give(fd: int, owner: os.stat_result | None, mode: int) -> None:
    """The owner of another file, and a mode. Raises NotEvictable where only that other user could."""
    own = os.fstat(fd)
    if owner is not None and (own.st_uid, own.st_gid) != (owner.st_uid, owner.st_gid):
        try:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        except PermissionError:
            raise NotEvictable("its file belongs to another user") from None
    os.fchmod(fd, mode)
