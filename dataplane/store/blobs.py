"""Changes of one blob as Jobs: put, update, delete, snapshot, lease. Each has one commit point, a single atomic call.

    put       rename of the staged file onto the blob's path
    update    utimensat to the mtime whose record was written before
    delete    unlink
    snapshot  rename of the staged copy to the snapshot's path
    lease     rename of the new lease document

`decide` callbacks get the present state and return the new one, or raise BlobError. They are called for a first look
before the slow part, and again under the blob's lock only if the state has changed by then.
"""

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Final, TypeVar

from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import LOST, BlobProperties, BlobState, Block, Lease
from dataplane.store import blobstate, blocklists, files, leasefiles, smallfile, swap
from dataplane.store.blobstate import BlobRef
from dataplane.store.commit import Again, Job, Subject
from dataplane.store.errors import BytesAway, NotEvictable, StorageUnavailable
from dataplane.store.fileio import fsync, write_all
from dataplane.store.files import Found, Missing
from dataplane.store.mount import DIRECTORY, Mount
from dataplane.store.place import Place, blob_key
from dataplane.store.records import Record, Seal, name_hash
from dataplane.store.staging import StagedFile
from dataplane.store.swap import NotSwapped
from dataplane.store.trash import Trash

T = TypeVar("T")


class DeleteScope(Enum):
    """What a delete takes away (REST page "Delete Blob", x-ms-delete-snapshots)."""

    BLOB = "blob"
    BLOB_AND_SNAPSHOTS = "include"
    SNAPSHOTS_ONLY = "only"


DecideProperties = Callable[[BlobState | None], BlobProperties]

_RENAME_ATTEMPTS_MAX: Final = 8


def require_bytes(place: Place, state: BlobState | None) -> None:
    """For jobs that read a blob's file. Raises BytesAway when it is only a stub."""
    if state is not None and state.properties.remote is not None:
        raise BytesAway(BlobRef(place.container, state.name, state.snapshot), state.properties.etag)


class _BlobJob(Job[T]):
    """What all jobs on one blob share: its place, and looking at it."""

    def __init__(self, place: Place, trash: Trash, name: str) -> None:
        super().__init__()
        self.place: Final = place
        self.mount: Mount = place.mount
        self.trash: Final = trash
        self.name: Final = name
        self.path = ""
        self.durable = place.durable
        self._freed = ""

    def freed(self) -> str:
        return self._freed

    def went(self, old: Found, state: BlobState) -> None:
        """Called right after a file lost its name to this change. That of a stub may have another name all the same, as
        somebody moved it at that moment, or linked it: then its copy is not free."""
        remote = state.properties.remote
        if remote is not None and remote != LOST and not os.fstat(old.fd).st_nlink:
            self._freed = remote.version

    def look(self, snapshot: str = "") -> tuple[Found | None, BlobState | None]:
        """The blob as it is now, its descriptor owned by the job; also notes where it is, or would be."""
        found, state = blobstate.find_state(self.place, self.name, snapshot)
        self.path = found.path
        if isinstance(found, Missing):
            return None, None
        self.own(found.fd)
        return found, state

    def seal(self, staged: StagedFile, properties: BlobProperties, mtime_ns: int | None = None) -> Record:
        """Give a staged file its mtime (a fresh one, unless told) and its record; both are noted to be synced."""
        mtime = self.mount.new_mtime_ns() if mtime_ns is None else mtime_ns
        os.utime(staged.fd, ns=(mtime, mtime))
        status = os.fstat(staged.fd)
        record = self.record_for(Seal(status.st_ino, status.st_size, status.st_mtime_ns), properties)
        self.staged_fds += [self.own(fd) for fd in self.mount.records.write(staged.fd, record)]
        self.staged_fds.append(staged.fd)
        return record

    def sync_staged(self) -> None:
        """Sync what was noted now: publishing found that it has to stage something itself."""
        if self.durable:
            for fd in self.staged_fds:
                fsync(fd)

    def parent_of(self, found: Found) -> tuple[int, str]:
        """The descriptor of the directory that a file is in, to be synced after, and the file's name there."""
        parent, _, last = found.path.rpartition("/")
        fd = self.mount.open(parent or ".", DIRECTORY)
        if fd < 0:
            raise StorageUnavailable("open directory", OSError(-fd, os.strerror(-fd)))
        self.sync_after(parent, fd)
        return fd, last

    def record_for(self, seal: Seal, properties: BlobProperties) -> Record:
        return Record(seal, name_hash(self.place.container, self.name), properties)

    def sync_after(self, path: str, fd: int) -> None:
        """Own the descriptor of a directory (its path below the mount) and have it fsynced after publishing, once in a
        group however many jobs changed it. The newest counts: an older one may be of a directory that went."""
        self.directory_fds[f"{id(self.mount)}:blobs:{path}"] = self.own(fd)

    def sync_private(self, path: str, fd: int) -> None:
        """The same for a directory of ours, whose path is below the mount's `containers`."""
        self.directory_fds[f"{id(self.mount)}:private:{path}"] = self.own(fd)

    def lock_key(self) -> str:
        return self.place.lock_key(self.name)

    def decided(self, decide: DecideProperties, state: BlobState | None) -> BlobProperties:
        """What `decide` says. That a container is missing comes before what is wrong with a blob in it; publishing
        finds out by itself, so only a refusal has to look."""
        try:
            return decide(state)
        except BlobError:
            if state is None:
                self.require_container()
            raise

    def require_container(self) -> None:
        """Nothing may be made in a container that is not there."""
        if not blobstate.container_exists(self.place):
            raise BlobError(ErrorCode.CONTAINER_NOT_FOUND)

    def mark_tagged(self, properties: BlobProperties) -> None:
        """A marker that finding by tags starts from. It comes before the tags do; a stale one is harmless."""
        if not properties.tags:
            return
        directory = self.place.private("tagged")
        for fd in smallfile.make_directories(self.mount.containers_fd, directory).values():
            self.staged_fds.append(self.own(fd))
        path = f"{directory}/{blob_key(self.name)}"
        name = self.name.encode("utf-8", "surrogateescape")
        fd = self.own(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.mount.containers_fd))
        if os.fstat(fd).st_size != len(name):  # also what a failure left half done
            write_all(fd, name)
        # Synced also when it was there: whoever made it may not have come to that yet.
        self.staged_fds.append(fd)
        self.staged_fds.append(self.own(os.open(directory, DIRECTORY, dir_fd=self.mount.containers_fd)))

    def open_parent(self) -> tuple[int, str]:
        """The directory that the blob goes into, made if need be, and its name there; synced after publishing."""
        changed: dict[str, int] = {}
        try:
            parent_fd, last = files.open_parent(self.place, self.path, changed)
        finally:
            for path, fd in changed.items():
                self.sync_after(path.rpartition("/")[0], fd)
        self.sync_after(self.path.rpartition("/")[0], parent_fd)
        return parent_fd, last

    def drop_stale_lease(self) -> None:
        """A lease ends with its blob: one that is left of a blob that is gone is not the new one's."""
        if leasefiles.read(self.place, self.name) is None:
            return
        for fd in leasefiles.write(self.place, self.name, None).values():
            self.own(fd)
            if self.durable:
                fsync(fd)

    def drop_blocks(self) -> bool:
        """Uncommitted blocks do not outlive a Put Blob, a commit or a delete (REST page "Put Block"). Called under the
        blob's lock right after the change, so that no block is dropped that was acknowledged later. False: none were
        there."""
        directory, containers_fd = self.place.private("blocks"), self.mount.containers_fd
        if not os.access(directory, os.F_OK, dir_fd=containers_fd) or not self.trash.take(
            containers_fd, f"{directory}/{blob_key(self.name)}"
        ):
            return False
        self.sync_private(directory, os.open(directory, DIRECTORY, dir_fd=containers_fd))
        return True

    def forget(self, old: Found | None, old_state: BlobState | None) -> None:
        """After a version of a blob, or a snapshot of it, went: its record, and its block list unless it is shared."""
        if old is None or old_state is None:
            return
        self.mount.records.clear(old.seal)
        packed = old_state.properties.block_list
        if packed.startswith("@") and packed not in _block_lists(self.place, self.name):
            blocklists.remove(self.place, packed)


def _block_lists(place: Place, name: str) -> set[str]:
    """The block lists that a blob and its snapshots have."""
    lists = set()
    for snapshot in ("", *map(iso_ticks, blobstate.snapshot_ticks(place, name))):
        version = blobstate.open_blob(place, name, snapshot)
        if version is not None:
            os.close(version[0].fd)
            lists.add(version[1].properties.block_list)
    return lists


class PutJob(_BlobJob[BlobState]):
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


class UpdateJob(_BlobJob[BlobState]):
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


class DeleteJob(_BlobJob[BlobState]):
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
            swap.take_out(self.mount, found, parent_fd, last)
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


class SnapshotJob(_BlobJob[BlobState]):
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


class LeaseJob(_BlobJob[BlobState]):
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
