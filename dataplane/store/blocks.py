"""Uncommitted blocks, and the commit that makes one plain file of them.

    containers/NAME/blocks/KEY/meta       the blob's name, the length of its block ids, how its slots are chosen
    containers/NAME/blocks/KEY/b<id>      a block in a file of its own
    containers/NAME/blocks/KEY/data ...   blocks at their final place (slots.py)

A block is durable when its Put Block is answered, survives restarts, and is seen by every worker. Staging an id again
replaces it. A commit prepares the new blob's file before it takes the lock; blocks are never changed by it, so a commit
that fails, or a crash, leaves them as they were.
"""

import errno
import json
import os
import secrets
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState, Block
from dataplane.store import blobstate, blocklists, slots, smallfile, trust
from dataplane.store.blobjob import BlobJob, DecideProperties, require_bytes
from dataplane.store.commit import Again
from dataplane.store.errors import translated
from dataplane.store.fileio import fsync, write_all
from dataplane.store.files import Found
from dataplane.store.mount import DIRECTORY, Mount
from dataplane.store.place import Place, blob_key
from dataplane.store.putjob import PutJob
from dataplane.store.records import Seal
from dataplane.store.slots import StagedSlot
from dataplane.store.staging import StagedFile
from dataplane.store.trash import Trash, list_names

_META: Final = "meta"
_TO_FILE: Final = str.maketrans("/+", "_-")
_TO_ID: Final = str.maketrans("_-", "/+")
_NO_PROPERTIES: Final = BlobProperties(etag="", last_modified=0, created=0)


@dataclass(frozen=True, slots=True)
class _Meta:
    """What the first block of an upload fixed."""

    name: str
    id_chars: int
    slot_bytes: int  # 0: no slots
    by_id: bool


def directory_of(place: Place, name: str) -> str:
    """Where a blob's uncommitted blocks are, relative to the mount's `containers`."""
    return place.private("blocks", blob_key(name))


def uncommitted(place: Place, name: str) -> dict[str, int]:
    """The uncommitted blocks of a blob: id to size in bytes, in the order of their ids."""
    sizes = None
    while sizes is None:
        fd = _open_directory(place, name)
        if fd < 0:
            return {}
        try:
            sizes = _sizes(fd)
        finally:
            os.close(fd)
    return dict(sorted((file_id.translate(_TO_ID), size) for file_id, size in sizes.items()))


def _sizes(fd: int) -> dict[str, int] | None:
    """None when a block went while we looked: a commit took the directory, or the block got a slot."""
    found = slots.parse(os.listdir(fd))
    sizes = {file_id: length for file_id, (_, length) in found.slots.items()}
    try:
        return sizes | {file_id: os.stat(f"b{file_id}", dir_fd=fd).st_size for file_id in found.own}
    except FileNotFoundError:
        return None


def uncommitted_names(place: Place) -> list[str]:
    """The names of all blobs of a container that have uncommitted blocks, sorted."""
    if place.mount.read_only:
        return []
    keys = list_names(place.mount.containers_fd, place.private("blocks"))
    metas = (_read_meta(place, place.private("blocks", key)) for key in keys)
    return sorted(meta.name for meta in metas if meta is not None and uncommitted(place, meta.name))


def _open_directory(place: Place, name: str) -> int:
    """A blob's block directory, -1 when there is none."""
    if place.mount.read_only:
        return -1
    try:
        with translated("open blocks"):
            return os.open(directory_of(place, name), DIRECTORY, dir_fd=place.mount.containers_fd)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _read_meta(place: Place, directory: str) -> _Meta | None:
    data = smallfile.read(place.mount.containers_fd, f"{directory}/{_META}")
    if data is None:
        return None
    try:
        document = json.loads(data.decode("utf-8", "surrogateescape"))
        slot_bytes, by_id = document.get("slot_bytes", 0), document.get("by_id", False)
        meta = _Meta(document["name"], document["id_chars"], slot_bytes, by_id)
        sound = type(meta.name) is str and type(meta.id_chars) is int and type(meta.slot_bytes) is int
    except trust.MALFORMED:
        return None
    return meta if sound else None


def stage_block(place: Place, name: str, block_id: str, length: int | None) -> StagedFile:
    """Where to write a block of `length` bytes (None: not known): its slot, or a file of its own. Raises StoreError.

    Makes the block directory of a new upload, whose slots get the size of this block.
    """
    place.mount.require_writable()
    if length is None or not place.mount.capabilities.local:
        return StagedFile.create(place.mount)
    directory = directory_of(place, name)
    meta = _read_meta(place, directory)
    if meta is None and length >= slots.SLOT_BYTES_MIN and blobstate.container_exists(place):
        new = _Meta(name, len(block_id), length, slots.counts_up(block_id))
        changed = _create_directory(place, directory, new)
        try:
            for fd in changed.values() if place.durable else ():
                fsync(fd)
        finally:
            smallfile.close_all(changed)
        meta = _read_meta(place, directory)
    if meta is None or meta.slot_bytes == 0 or meta.id_chars != len(block_id):
        return StagedFile.create(place.mount)
    fd = _open_directory(place, name)
    if fd < 0:
        return StagedFile.create(place.mount)
    try:
        file_id = block_id.translate(_TO_FILE)
        slot = slots.claim(place.mount, fd, block_id, file_id, length, meta.slot_bytes, meta.by_id)
    finally:
        os.close(fd)
    return slot if slot is not None else StagedFile.create(place.mount)


def _create_directory(place: Place, directory: str, meta: _Meta) -> dict[str, int]:
    """Make a block directory with its meta file, whole by one rename. Returns descriptors of directories to sync, by
    their paths. Raises StoreError."""
    containers_fd, staging_fd = place.mount.containers_fd, place.mount.staging_fd
    parent = directory.rpartition("/")[0]
    changed = smallfile.make_directories(containers_fd, parent)
    temporary = secrets.token_hex(12)
    try:
        with translated("write blocks"):
            try:
                os.mkdir(temporary, 0o700, dir_fd=staging_fd)
                _write_meta(place, f"{temporary}/{_META}", meta)
                os.rename(temporary, directory, src_dir_fd=staging_fd, dst_dir_fd=containers_fd)
            except OSError as error:
                with suppress(OSError):
                    os.unlink(f"{temporary}/{_META}", dir_fd=staging_fd)
                with suppress(OSError):
                    os.rmdir(temporary, dir_fd=staging_fd)
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else another request made it first
                    raise
            changed[parent] = os.open(parent, DIRECTORY, dir_fd=containers_fd)
    except BaseException:
        smallfile.close_all(changed)
        raise
    return changed


def _write_meta(place: Place, path: str, meta: _Meta) -> None:
    document = {"name": meta.name, "id_chars": meta.id_chars, "slot_bytes": meta.slot_bytes, "by_id": meta.by_id}
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=place.mount.staging_fd)
    try:
        write_all(fd, json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape"))
        if place.durable:
            os.fsync(fd)
    finally:
        os.close(fd)


class PutBlockJob(BlobJob[BlobState]):
    """One block: its staged file gets its name among the blob's blocks."""

    def __init__(
        self, place: Place, trash: Trash, name: str, block_id: str, content: bytes | StagedFile,
        decide: Callable[[BlobState | None], None],
    ) -> None:  # fmt: skip
        super().__init__(place, trash, name)
        self._block_id: Final = block_id
        self._content: Final = content
        self._staged: StagedFile | None = None if isinstance(content, bytes) else content
        self._decide: Final = decide
        self._slot_is_lost = False
        self.needs_prepare = self._staged is not None and self.durable

    def prepare(self) -> None:
        if self._staged is not None:
            if self._slot_is_lost:
                self._move_out(self._staged)
            self._staged.sync()

    def _move_out(self, slot: StagedFile) -> None:
        """The directory that the slot is in went away: keep the block in a file of its own."""
        own = StagedFile.create(self.mount)
        try:
            own.copy_from(slot.fd, slot.base, slot.size)
        except BaseException:
            own.discard()
            raise
        self._slot_is_lost = False
        self._staged = own
        slot.discard()

    def stage(self) -> None:
        _, state = self.look()
        if state is None:
            self.require_container()
        self._decide(state)
        self._require_directory()
        self._require_room()
        if self._staged is None:
            assert isinstance(self._content, bytes)
            self._staged = StagedFile.create(self.mount)
            self._staged.write(self._content)
            self.staged_fds.append(self._staged.fd)

    def _require_directory(self) -> None:
        """The blob's block directory, made if need be. Ids must have one length."""
        directory = directory_of(self.place, self.name)
        meta = _read_meta(self.place, directory)
        if meta is None:
            new = _Meta(self.name, len(self._block_id), 0, False)
            for path, fd in _create_directory(self.place, directory, new).items():
                self.sync_private(path, fd)
            meta = _read_meta(self.place, directory)
        if meta is not None and meta.id_chars != len(self._block_id):
            if uncommitted(self.place, self.name):
                raise BlobError(ErrorCode.INVALID_BLOB_OR_BLOCK)
            self.drop_blocks()  # a crash kept a commit from clearing up
            self._require_directory()

    def _require_room(self) -> None:
        directory = directory_of(self.place, self.name)
        try:
            inode = os.stat(directory, dir_fd=self.mount.containers_fd).st_ino
        except FileNotFoundError:  # a commit took it: there is room
            return
        self.mount.block_counts.admit(
            inode, self._block_id.translate(_TO_FILE), lambda: _present(self.mount.containers_fd, directory)
        )

    def publish(self) -> BlobState:
        staged = self._staged
        assert staged is not None
        directory = directory_of(self.place, self.name)
        with self.mount.lock(self.lock_key()):
            if isinstance(staged, StagedSlot):
                self._name_slot(staged)
            else:
                self._name_file(staged, f"{directory}/b{self._block_id.translate(_TO_FILE)}")
            self.sync_private(directory, os.open(directory, DIRECTORY, dir_fd=self.mount.containers_fd))
        return BlobState(self.name, 0, _NO_PROPERTIES)

    def _name_file(self, staged: StagedFile, target: str) -> None:
        try:
            staged.rename_to(self.mount.containers_fd, target)
        except FileNotFoundError:  # a commit took the directory since
            self._require_directory()
            staged.rename_to(self.mount.containers_fd, target)

    def _name_slot(self, slot: StagedSlot) -> None:
        """The slot counts from here on, and an older file of the same id no longer. Raises Again when the file that it
        is in is no longer the upload's."""
        fd = _open_directory(self.place, self.name)
        if fd >= 0:
            self.own(fd)
        if fd < 0 or not _is_same_file(slot.fd, fd):
            self._slot_is_lost = self.needs_prepare = True
            raise Again
        file_id = self._block_id.translate(_TO_FILE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        with translated("write block"):
            os.close(os.open(f"s{file_id}.{slot.base:x}.{slot.size:x}", flags, 0o600, dir_fd=fd))
        try:
            os.unlink(f"b{file_id}", dir_fd=fd)
        except FileNotFoundError:
            return

    def discard(self) -> None:
        if self._staged is not None:
            self._staged.discard()

    def close(self) -> None:
        super().close()
        if self._staged is not None and not self._slot_is_lost:
            self._staged.discard()


def _present(containers_fd: int, directory: str) -> Set[str]:
    found = slots.parse(list_names(containers_fd, directory))
    return found.own | found.slots.keys()


def _is_same_file(fd: int, directory_fd: int) -> bool:
    try:
        return os.stat(slots.DATA, dir_fd=directory_fd, follow_symlinks=False).st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class _Piece:
    """A block of the new list: a range of an open file, `slot_id` when it is a slot of the upload's shared file; or a
    file of its own, `file_name` in the upload's directory, opened only while it is copied (a list has up to 50,000)."""

    block: Block
    fd: int
    offset: int
    slot_id: str = ""
    file_name: str = ""

    def append_to(self, staged: StagedFile) -> bool:
        """Copy it to the end of a file; False when it is no longer as long as it was. Raises FileNotFoundError when it
        was replaced by another."""
        if not self.file_name:
            return staged.copy_from(self.fd, self.offset, self.block.size) == self.block.size
        fd = os.open(self.file_name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return staged.copy_from(fd, 0, self.block.size) == self.block.size
        finally:
            os.close(fd)


class CommitJob(PutJob):
    """Put Block List: have the new blob's file ready, then publish like any put."""

    def __init__(
        self, place: Place, trash: Trash, name: str, entries: Sequence[tuple[str, str]], decide: DecideProperties
    ) -> None:
        super().__init__(place, trash, name, b"", decide)
        self.needs_prepare = True
        self._entries: Final = entries
        self._committed_seal: Seal | None = None
        self._waiting: _Waiting | None = None
        self._sealed: int | None = None  # the inode of a block directory whose `data` this job closed, and so may take

    def prepare(self) -> None:
        if self._staged is not None:
            self._staged.discard()
            self._staged = None
        found, state = self.look()
        if state is None:
            self.require_container()
        self._decide(state)
        pieces = self._resolve(found, state)
        self._blocks = [piece.block for piece in pieces]
        self._staged = self._in_place(pieces) or self._assembled(pieces)
        if self.durable:
            self._staged.sync()

    def _assembled(self, pieces: list[_Piece]) -> StagedFile:
        staged = StagedFile.create(self.mount)
        try:
            for piece in pieces:
                if not piece.append_to(staged):
                    raise Again  # the file that it comes from was cut meanwhile
        except FileNotFoundError:
            staged.discard()
            raise Again from None
        except BaseException:
            staged.discard()
            raise
        return staged

    def _in_place(self, pieces: list[_Piece]) -> StagedFile | None:
        """The upload's shared file, when it is the blob or lacks little (slots.py)."""
        if not any(piece.slot_id for piece in pieces):
            return None
        waiting = self._waiting
        meta = _read_meta(self.place, directory_of(self.place, self.name))
        if waiting is None or not waiting.has_data or meta is None or meta.slot_bytes == 0:
            return None
        fd = waiting.directory_fd
        wanted, offset = [], 0
        for piece in pieces:
            slot_offset = piece.offset if piece.slot_id else None
            wanted.append(slots.Wanted(piece.slot_id, piece.block.size, slot_offset, offset))
            offset += piece.block.size
        missing = slots.gaps(waiting.contents, wanted, meta.slot_bytes)
        if missing is None:
            return None
        by_offset = {each.offset: piece for each, piece in zip(wanted, pieces, strict=True)}
        with translated("open"):
            data_fd = os.open(slots.DATA, os.O_RDWR | os.O_CLOEXEC, dir_fd=fd)
        data = StagedFile(self.mount, data_fd, directory_fd=fd, name=slots.DATA)
        try:
            filled = all(by_offset[m.offset].append_to(StagedFile(self.mount, data_fd, base=m.offset)) for m in missing)
            whole = filled and os.fstat(data_fd).st_size == offset
        except FileNotFoundError:
            data.discard()
            raise Again from None
        except BaseException:
            data.discard()
            raise
        if not whole:
            data.discard()
            return None
        return data

    def _resolve(self, found: Found | None, state: BlobState | None) -> list[_Piece]:
        """Where each block of the list comes from. Raises BlobError InvalidBlockList."""
        waiting = self._waiting = _Waiting(self)
        committed: dict[str, _Piece] = {}
        self._committed_seal = None
        if found is not None and state is not None:
            offset = 0
            for block in blocklists.unpack(self.place, state.properties.block_list, state.size):
                committed[block.block_id] = _Piece(block, found.fd, offset)
                offset += block.size
        pieces: list[_Piece] = []
        for kind, block_id in self._entries:
            if kind != "Committed" and block_id in waiting:
                pieces.append(waiting[block_id])
            elif kind != "Uncommitted" and block_id in committed:
                require_bytes(self.place, state)
                pieces.append(committed[block_id])
                self._committed_seal = found.seal if found is not None else None
            else:
                _invalid()
        return pieces

    def stage(self) -> None:
        super().stage()
        if self._committed_seal is not None and (self._old is None or self._old.seal != self._committed_seal):
            raise Again

    def _decide_again(self, staged: StagedFile, state: BlobState | None) -> None:
        """Blocks were taken from the version that somebody has just replaced: the bytes would be of that version, the
        decision about another."""
        if self._committed_seal is not None:
            raise Again
        super()._decide_again(staged, state)

    def close_data(self, directory_fd: int) -> bool:
        """Close an upload's shared file to new blocks. True when it was this job that did: one commit may put it into
        place, any other copies from it, or the later one would write to what the earlier has published."""
        inode = os.fstat(directory_fd).st_ino
        if slots.seal(directory_fd):
            self._sealed = inode
        return self._sealed == inode

    def check_locked(self) -> None:
        """No block may have come since: it would be dropped, acknowledged and in no blob."""
        waiting = self._waiting
        fd = _open_directory(self.place, self.name)
        stamp = None
        if fd >= 0:
            stamp = _stamp(self.own(fd))
        if waiting is None or waiting.stamp != stamp:
            raise Again


class _Waiting(dict[str, _Piece]):
    """The uncommitted blocks of a blob as they are at one moment; which it was, `stamp` tells."""

    def __init__(self, job: CommitJob) -> None:
        super().__init__()
        self._job = job
        self.directory_fd: Final = _open_directory(job.place, job.name)
        self.contents = slots.Contents()
        self.has_data = False  # whether the job may take the shared file itself
        self.stamp: tuple[int, int] | None = None
        if self.directory_fd >= 0:
            job.own(self.directory_fd)
            if os.access(slots.DATA, os.F_OK, dir_fd=self.directory_fd):
                self.has_data = job.close_data(self.directory_fd)
            self.stamp = _stamp(self.directory_fd)
            self.contents = slots.parse(os.listdir(self.directory_fd))
        self._data_fd = -1

    def __contains__(self, block_id: object) -> bool:
        file_id = str(block_id).translate(_TO_FILE)
        return file_id in self.contents.own or file_id in self.contents.slots

    def __missing__(self, block_id: str) -> _Piece:
        file_id = block_id.translate(_TO_FILE)
        if file_id in self.contents.own:
            size = self._size(f"b{file_id}")
            piece = _Piece(Block(block_id, size), self.directory_fd, 0, file_name=f"b{file_id}")
        else:
            if self._data_fd < 0:
                self._data_fd = self._open(slots.DATA)
            offset, length = self.contents.slots[file_id]
            piece = _Piece(Block(block_id, length), self._data_fd, offset, file_id)
        self[block_id] = piece
        return piece

    def _size(self, name: str) -> int:
        try:
            return os.stat(name, dir_fd=self.directory_fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            raise Again from None

    def _open(self, name: str) -> int:
        try:
            return self._job.own(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory_fd))
        except FileNotFoundError:
            raise Again from None


def _stamp(directory_fd: int) -> tuple[int, int]:
    """Differs when an entry came or went meanwhile, as far as the time stamps of directories tell."""
    status = os.fstat(directory_fd)
    return status.st_ino, status.st_mtime_ns


def _invalid() -> NoReturn:
    raise BlobError(ErrorCode.INVALID_BLOCK_LIST)


def block_list(place: Place, name: str, snapshot: str = "") -> tuple[tuple[Block, ...], tuple[Block, ...]] | None:
    """(committed, uncommitted) blocks of a blob; None when there is neither the blob nor a block of it."""
    waiting = tuple(Block(i, size) for i, size in ({} if snapshot else uncommitted(place, name)).items())
    opened = blobstate.open_blob(place, name, snapshot)
    if opened is None:
        return ((), waiting) if waiting else None
    os.close(opened[0].fd)
    state = opened[1]
    return blocklists.unpack(place, state.properties.block_list, state.size), waiting


def sweep(mount: Mount, trash: Trash, now: float) -> None:
    """Take away the blocks of uploads that nobody added to for a week (REST page "Put Block"). `now` in seconds."""
    for container in list_names(mount.containers_fd, "."):
        place = Place(container, mount, "", True, False)
        for key in list_names(mount.containers_fd, place.private("blocks")):
            directory = place.private("blocks", key)
            meta = _read_meta(place, directory)
            with suppress(OSError), mount.lock(place.lock_key(meta.name if meta is not None else "")):
                if now - _last_change(mount, directory) > limits.uncommitted_seconds_max:
                    trash.take(mount.containers_fd, directory)


def _last_change(mount: Mount, directory: str) -> float:
    """When the last block of an upload came, in seconds: an entry that comes is a change of its directory."""
    return os.stat(directory, dir_fd=mount.containers_fd, follow_symlinks=False).st_mtime
