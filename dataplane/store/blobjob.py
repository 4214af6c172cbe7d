"""What all Jobs on one blob share: where the blob is, a look at it, and what goes or is synced with a change of it.

Each job (putjob, updatejob, deletejob, snapshotjob, leasejob, stubs) has one commit point, a single atomic call under
the blob's lock. What must be durable before it is in `staged_fds`, what after it in `directory_fds`. What belongs to
the version that went is taken away only after it: a crash leaves too much, never too little.

`decide` callbacks get the present state and return the new one, or raise BlobError. They are called for a first look
before the slow part, and again under the blob's lock only if the state has changed by then.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import LOST, BlobProperties, BlobState
from dataplane.store import blobstate, blocklists, files, leasefiles, smallfile
from dataplane.store.blobstate import BlobRef
from dataplane.store.commit import Job
from dataplane.store.errors import BytesAway, StorageUnavailable
from dataplane.store.fileio import fsync, write_all
from dataplane.store.files import Found, Missing
from dataplane.store.mount import DIRECTORY, Mount
from dataplane.store.place import Place, blob_key
from dataplane.store.records import Record, Seal, name_hash
from dataplane.store.staging import StagedFile
from dataplane.store.trash import Trash

T = TypeVar("T")

DecideProperties = Callable[[BlobState | None], BlobProperties]


def require_bytes(place: Place, state: BlobState | None) -> None:
    """For jobs that read a blob's file. Raises BytesAway when it is only a stub."""
    if state is not None and state.properties.remote is not None:
        raise BytesAway(BlobRef(place.container, state.name, state.snapshot), state.properties.etag)


class BlobJob(Job[T]):
    """A change of one blob."""

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
        somebody moved it at that moment, or linked it: then its copy is not free. Nor is it when the change may not be
        on the disk as it is answered: a power cut would bring the stub back. Raises nothing, the change has happened.
        """
        remote = state.properties.remote
        if not self.durable or remote is None or remote == LOST:
            return
        with suppress(OSError):
            if not os.fstat(old.fd).st_nlink:
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
