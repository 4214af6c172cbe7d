"""Uncommitted blocks, and the commit that makes one plain file of them.

    containers/NAME/blocks/KEY/meta       the blob's name and the length of its block ids
    containers/NAME/blocks/KEY/b<id>      one file for each block

A block is durable when its Put Block is answered, survives restarts, and is seen by every worker. Staging an id again
replaces the file. A commit assembles the new blob's file before it takes the lock; blocks are never changed by it, so a
commit that fails, or a crash, leaves them as they were.
"""

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState, Block
from dataplane.store import blobs, blocklists, smallfile
from dataplane.store.blobs import DecideProperties, PutJob
from dataplane.store.commit import Again
from dataplane.store.errors import translated
from dataplane.store.files import Found
from dataplane.store.mount import DIRECTORY
from dataplane.store.place import Place, blob_key
from dataplane.store.records import Seal
from dataplane.store.staging import StagedFile
from dataplane.store.trash import Trash, list_names

_META: Final = "meta"
_TO_FILE: Final = str.maketrans("/+", "_-")
_TO_ID: Final = str.maketrans("_-", "/+")


def directory_of(place: Place, name: str) -> str:
    """Where a blob's uncommitted blocks are, relative to the mount's `containers`."""
    return place.private("blocks", blob_key(name))


def uncommitted(place: Place, name: str) -> dict[str, int]:
    """The uncommitted blocks of a blob: id to size in bytes, in the order of their ids."""
    if place.mount.read_only:
        return {}
    try:
        fd = os.open(directory_of(place, name), DIRECTORY, dir_fd=place.mount.containers_fd)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        with os.scandir(fd) as entries:
            found = {e.name[1:].translate(_TO_ID): e.stat().st_size for e in entries if e.name[0] == "b"}
    finally:
        os.close(fd)
    return dict(sorted(found.items()))


def uncommitted_names(place: Place) -> list[str]:
    """The names of all blobs of a container that have uncommitted blocks, sorted."""
    if place.mount.read_only:
        return []
    names = []
    for key in list_names(place.mount.containers_fd, place.private("blocks")):
        meta = _read_meta(place, place.private("blocks", key))
        if meta is not None:
            names.append(meta[0])
    return sorted(names)


def _read_meta(place: Place, directory: str) -> tuple[str, int] | None:
    data = smallfile.read(place.mount.containers_fd, f"{directory}/{_META}")
    if data is None:
        return None
    document = json.loads(data.decode("utf-8", "surrogateescape"))
    return document["name"], document["id_chars"]


class PutBlockJob(blobs._BlobJob):
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
        self.needs_prepare = self._staged is not None and self.durable

    def prepare(self) -> None:
        if self._staged is not None:
            self._staged.sync()

    def stage(self) -> None:
        _, state = self.look()
        self._decide(state)
        if state is None:
            self.require_container()
        self._make_directory()
        if self._staged is None:
            assert isinstance(self._content, bytes)
            self._staged = StagedFile(self.mount)
            self._staged.write(self._content)
            self.staged_fds.append(self._staged.fd)

    def _make_directory(self) -> None:
        """The blob's block directory with its meta file, made whole by one rename. Ids must have one length."""
        directory = directory_of(self.place, self.name)
        meta = _read_meta(self.place, directory)
        if meta is None:
            self._create_directory(directory)
            meta = _read_meta(self.place, directory)
        if meta is not None and meta[1] != len(self._block_id):
            raise BlobError(ErrorCode.INVALID_BLOB_OR_BLOCK)

    def _create_directory(self, directory: str) -> None:
        containers_fd, staging_fd = self.mount.containers_fd, self.mount.staging_fd
        parent = directory.rpartition("/")[0]
        for i, fd in enumerate(smallfile.make_directories(containers_fd, parent)):
            self.sync_after(f"{parent}:{i}", fd)
        temporary = secrets.token_hex(12)
        meta = json.dumps({"name": self.name, "id_chars": len(self._block_id)}, ensure_ascii=False)
        with translated("write blocks"):
            os.mkdir(temporary, 0o700, dir_fd=staging_fd)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            fd = self.own(os.open(f"{temporary}/{_META}", flags, 0o600, dir_fd=staging_fd))
            os.write(fd, meta.encode("utf-8", "surrogateescape"))
            if self.durable:
                os.fsync(fd)
            try:
                os.rename(temporary, directory, src_dir_fd=staging_fd, dst_dir_fd=containers_fd)
            except OSError:  # another request made it first: ENOTEMPTY or EEXIST
                os.unlink(f"{temporary}/{_META}", dir_fd=staging_fd)
                os.rmdir(temporary, dir_fd=staging_fd)
            self.sync_after(parent, os.open(parent, DIRECTORY, dir_fd=containers_fd))

    def publish(self) -> BlobState:
        staged = self._staged
        assert staged is not None
        directory = directory_of(self.place, self.name)
        target = f"{directory}/b{self._block_id.translate(_TO_FILE)}"
        containers_fd = self.mount.containers_fd
        with self.mount.lock(self.lock_key()):
            try:
                staged.rename_to(containers_fd, target)
            except FileNotFoundError:  # a commit took the directory since
                self._make_directory()
                staged.rename_to(containers_fd, target)
            self.sync_after(directory, os.open(directory, DIRECTORY, dir_fd=containers_fd))
        return BlobState(self.name, 0, _NO_PROPERTIES)

    def close(self) -> None:
        super().close()
        if self._staged is not None:
            self._staged.discard()


_NO_PROPERTIES: Final = BlobProperties(etag="", last_modified=0, created=0)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A block of the new list: a range of a file."""

    block: Block
    fd: int
    offset: int


class CommitJob(PutJob):
    """Put Block List: assemble, then publish like any put."""

    needs_prepare = True

    def __init__(
        self, place: Place, trash: Trash, name: str, entries: Sequence[tuple[str, str]], decide: DecideProperties
    ) -> None:
        super().__init__(place, trash, name, b"", decide)
        self.needs_prepare = True
        self._entries: Final = entries
        self._committed_seal: Seal | None = None
        self._list: list[Block] = []

    def prepare(self) -> None:
        if self._staged is not None:
            self._staged.discard()
            self._staged = None
        found, state = self.look()
        self._decide(state)
        if state is None:
            self.require_container()
        pieces = self._resolve(found, state)
        self._list = [piece.block for piece in pieces]
        self._staged = StagedFile(self.mount)
        for piece in pieces:
            if self._staged.copy_from(piece.fd, piece.offset, piece.block.size) != piece.block.size:
                raise Again  # the file that it comes from was cut meanwhile
        if self.durable:
            self._staged.sync()

    def _resolve(self, found: Found | None, state: BlobState | None) -> list[_Piece]:
        """Where each block of the list comes from. Raises BlobError InvalidBlockList."""
        waiting = uncommitted(self.place, self.name)
        committed: dict[str, _Piece] = {}
        self._committed_seal = None
        if found is not None and state is not None:
            offset = 0
            for block in blocklists.unpack(self.place, state.properties.block_list):
                committed[block.block_id] = _Piece(block, found.fd, offset)
                offset += block.size
        pieces: list[_Piece] = []
        opened: dict[str, int] = {}
        for kind, block_id in self._entries:
            if kind != "Committed" and block_id in waiting:
                if block_id not in opened:
                    opened[block_id] = self._open_block(block_id)
                pieces.append(_Piece(Block(block_id, waiting[block_id]), opened[block_id], 0))
            elif kind != "Uncommitted" and block_id in committed:
                pieces.append(committed[block_id])
                self._committed_seal = found.seal if found is not None else None
            else:
                _invalid()
        return pieces

    def _open_block(self, block_id: str) -> int:
        path = f"{directory_of(self.place, self.name)}/b{block_id.translate(_TO_FILE)}"
        try:
            return self.own(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.mount.containers_fd))
        except FileNotFoundError:
            _invalid()

    def stage(self) -> None:
        self._blocks = self._list  # type: ignore[misc]
        super().stage()
        if self._committed_seal is not None and (self._old is None or self._old.seal != self._committed_seal):
            raise Again


def _invalid() -> NoReturn:
    raise BlobError(ErrorCode.INVALID_BLOCK_LIST)


def block_list(place: Place, name: str, snapshot: str = "") -> tuple[tuple[Block, ...], tuple[Block, ...]] | None:
    """(committed, uncommitted) blocks of a blob; None when there is neither the blob nor a block of it."""
    opened = blobs.open_blob(place, name, snapshot)
    waiting = tuple(Block(i, size) for i, size in ({} if snapshot else uncommitted(place, name)).items())
    if opened is None:
        return ((), waiting) if waiting else None
    found, state = opened
    os.close(found.fd)
    return blocklists.unpack(place, state.properties.block_list), waiting

