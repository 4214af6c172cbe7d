"""Finding a blob's file, reading its state, and making the place where it goes.

A blob called `a/b` is the file `a/b`, or, while a directory has that path, the file beside it (names.py). It is in one
place at a time: who writes it writes it where it is. When a blob's parent has to be a directory and a blob has that
very name, that blob moves beside the coming directory first, under its own lock; a reader finds it in one place or the
other at every moment, since the second link is made before the first goes.
"""

import errno
import mimetypes
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.etag import foreign_etag
from dataplane.blobapi.model import LOST, BlobProperties
from dataplane.store import names, records, trust
from dataplane.store.errors import NameNotStorable, StorageUnavailable, translated
from dataplane.store.fileio import fsync
from dataplane.store.mount import DIRECTORY, Mount
from dataplane.store.place import Place
from dataplane.store.records import Seal
from dataplane.store.recordstore import carried_metadata, has_attribute

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG, errno.EILSEQ,
                            errno.EISDIR, errno.ENXIO, errno.EINVAL})  # fmt: skip
_DIRECTORY_MODE: Final = 0o755
_PARENTS_ATTEMPTS_MAX: Final = 16


@dataclass(slots=True)
class Found:
    """An open regular file that is a blob. Whoever has it closes `fd`."""

    fd: int
    path: str
    seal: Seal


@dataclass(slots=True)
class Missing:
    """There is no such blob; `path` is where it would be written."""

    path: str


def find(place: Place, name: str) -> Found | Missing:
    """Open a blob's file for reading. Raises StoreError, or OSError EACCES as the mount says."""
    mount = place.mount
    path = place.prefix + mount.encode(name)
    opened = open_regular(mount, path)
    if not isinstance(opened, int):
        return Found(opened[0], path, opened[1])
    beside = place.prefix + mount.encode_beside(name)
    second = open_regular(mount, beside)
    if not isinstance(second, int):
        return Found(second[0], beside, second[1])
    return Missing(beside if opened == errno.EISDIR else path)


def open_regular(mount: Mount, path: str) -> tuple[int, Seal] | int:
    """(descriptor, seal) of a regular file, else the errno why it is none: EISDIR for a directory, ENOENT and others.

    O_NONBLOCK keeps a FIFO from hanging us; devices and sockets are refused by their type (a blob is a regular file).
    """
    fd = mount.open(path)
    if fd < 0:
        if -fd in _ABSENT:
            return -fd
        with translated("open"):
            raise OSError(-fd, os.strerror(-fd))
    try:
        status = os.fstat(fd)
    except OSError:
        os.close(fd)
        with translated("stat"):
            raise
    if stat.S_ISREG(status.st_mode):
        return fd, Seal(status.st_ino, status.st_size, status.st_mtime_ns)
    os.close(fd)
    return errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENOENT


def open_directory(mount: Mount, path: str) -> int | None:
    """A directory, None when there is none of that path. Raises StoreError: a mount that fails is no absence."""
    fd = mount.open(path, DIRECTORY)
    if fd >= 0:
        return fd
    if -fd in _ABSENT:
        return None
    with translated("open directory"):
        raise OSError(-fd, os.strerror(-fd))


def properties(place: Place, name: str, found: Found) -> BlobProperties:
    """The properties of an open blob: of its record, or derived for a file that another writer made or changed. A stub
    that somebody touched is still what its last record says, also where `chmod 644` took its mark: the attribute is of
    this very file. One without any is LOST, never an empty blob."""
    store = place.mount.records
    recorded = store.read(found.fd, found.seal)
    if recorded is not None:
        return recorded
    last = store.last_before_change(found.fd, found.seal, records.name_hash(place.container, name))
    foreign = foreign_properties(name, found.seal)
    if found.seal.size == 0:
        marked = is_marked(os.fstat(found.fd))
        if last is not None and last.remote is not None and (marked or has_attribute(found.fd)):
            return last
        if marked:
            return replace(foreign, remote=LOST)
    return carried_metadata(foreign, last)


def is_marked(status: os.stat_result) -> bool:
    """Whether a file looks like a stub, whatever is recorded of it: empty, and with the sticky bit that nobody else
    gives a file. Not its whole mode: `chmod -R u+w` leaves that bit."""
    return status.st_size == 0 and bool(status.st_mode & stat.S_ISVTX)


def is_written_stub(status: os.stat_result) -> bool:
    """Whether somebody wrote into a stub: its mark is there, and bytes are. Whatever is recorded of it since."""
    return status.st_size > 0 and bool(status.st_mode & stat.S_ISVTX)


def logical_size(seal: Seal, described: BlobProperties) -> int:
    """The bytes that a blob has, wherever they are."""
    return seal.size or (described.remote.size if described.remote is not None else 0)


def is_in_place(mount: Mount, found: Found) -> bool:
    """Whether the file is still what its path leads to, unchanged."""
    try:
        status = os.stat(found.path, dir_fd=mount.root_fd, follow_symlinks=False)
    except OSError:
        return False
    return Seal(status.st_ino, status.st_size, status.st_mtime_ns) == found.seal


def foreign_properties(name: str, seal: Seal) -> BlobProperties:
    """What can be said of a file without a record: an ETag from its stat, a type from its name, no MD5."""
    seconds = min(max(seal.mtime_ns // 1_000_000_000, 0), trust.SECONDS_MAX)  # others have no date
    return BlobProperties(
        etag=foreign_etag(seal.inode, seal.size, seal.mtime_ns),
        last_modified=seconds,
        created=seconds,
        content_type=guessed_type(name.rpartition("/")[2].rpartition(".")[2].lower()),
        foreign=True,
    )


@lru_cache(maxsize=4096)
def guessed_type(suffix: str) -> str:
    """The content type for a file name's suffix."""
    return mimetypes.guess_type(f"x.{suffix}")[0] or DEFAULT_CONTENT_TYPE


def open_parent(place: Place, path: str, changed: dict[str, int]) -> tuple[int, str]:
    """(descriptor, last component) of the directory that `path` is in, made if need be; the descriptor is the caller's.

    `changed` gets descriptors of directories that got a new entry. Never makes the container itself: without it raises
    BlobError ContainerNotFound.
    """
    parent, _, last = path.rpartition("/")
    if not parent:
        return os.dup(place.mount.root_fd), last
    fd = place.mount.open(parent, DIRECTORY)
    if fd >= 0:
        return fd, last
    if -fd not in (errno.ENOENT, errno.ENOTDIR):
        raise _unusable(-fd)
    return _make_parents(place, parent, changed), last


def _make_parents(place: Place, parent: str, changed: dict[str, int]) -> int:
    """The directory `parent`, made. Deletes prune directories and puts need paths at the same time, so what was made
    may be gone, or be a blob, before it can be opened: begin again then."""
    code = errno.ENOENT
    for _ in range(_PARENTS_ATTEMPTS_MAX):
        fd = _descend(place, parent, changed)
        if fd >= 0:
            return fd
        code = -fd
    raise _unusable(code)


def _descend(place: Place, parent: str, changed: dict[str, int]) -> int:
    """One walk down to `parent`: a descriptor, or the negative errno when something else changed on the way."""
    at = open_directory(place.mount, place.directory)
    if at is None:
        raise BlobError(ErrorCode.CONTAINER_NOT_FOUND)
    path = place.prefix.rstrip("/")
    try:
        for component in parent[len(place.prefix) :].split("/"):
            path = f"{path}/{component}" if path else component
            deeper = _enter(place, path, at, component, changed)
            if deeper < 0:
                return deeper
            os.close(at)
            at = deeper
        found, at = at, -1
        return found
    finally:
        if at >= 0:
            os.close(at)


def _enter(place: Place, path: str, at: int, component: str, changed: dict[str, int]) -> int:
    """Open the directory `path`, which is `component` in `at`, and make it if need be."""
    deeper = place.mount.open(path, DIRECTORY)
    if deeper >= 0:
        return deeper
    if -deeper not in (errno.ENOENT, errno.ENOTDIR):
        raise _unusable(-deeper)
    with translated("mkdir"):
        try:
            if -deeper == errno.ENOTDIR:
                _move_beside(place, path, at, component)
            os.mkdir(component, _DIRECTORY_MODE, dir_fd=at)
        except FileExistsError:
            pass  # by another request, which may not have synced it yet
        except FileNotFoundError:
            return -errno.ENOENT  # `at` was pruned
    if (earlier := changed.pop(path, -1)) >= 0:
        os.close(earlier)
    changed[path] = os.dup(at)
    return place.mount.open(path, DIRECTORY)


def _move_beside(place: Place, path: str, at: int, component: str) -> None:
    """A blob is where a directory has to be: give it its other path. `at` is the directory that holds it."""
    name = names.decode(path[len(place.prefix) :], place.mount.capabilities.refused_characters)
    if name is None:
        raise _unusable(errno.ENOTDIR)
    with place.mount.lock(place.lock_key(name)):
        opened = open_regular(place.mount, path)
        if isinstance(opened, int):
            return  # somebody else moved or deleted it
        os.close(opened[0])
        made: dict[str, int] = {}
        try:
            parent_fd, last = open_parent(place, place.prefix + place.mount.encode_beside(name), made)
            made[""] = parent_fd
            _link_at(place.mount.staging_fd, at, component, parent_fd, last)
            if place.durable:
                for fd in made.values():
                    fsync(fd)
            os.unlink(component, dir_fd=at)
        finally:
            for fd in made.values():
                os.close(fd)


def _link_at(staging_fd: int, at: int, component: str, parent_fd: int, last: str) -> None:
    """A second link, in the place of whatever is there: link(2) does not replace, rename(2) does."""
    temporary = secrets.token_hex(12)
    os.link(component, temporary, src_dir_fd=at, dst_dir_fd=staging_fd, follow_symlinks=False)
    try:
        os.rename(temporary, last, src_dir_fd=staging_fd, dst_dir_fd=parent_fd)
    finally:
        with suppress(OSError):  # rename(2) leaves both where they are one file already
            os.unlink(temporary, dir_fd=staging_fd)


def _unusable(code: int) -> Exception:
    """A symbolic link or a special file stands in the way, or the mount does not take the name."""
    if code in (errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP, errno.EXDEV, errno.ENOTDIR, errno.EINVAL):
        return NameNotStorable("open directory")
    return StorageUnavailable("open directory", OSError(code, os.strerror(code)))


def prune(place: Place, path: str) -> int:
    """After a file went: remove the directories that it leaves empty, up to the container. Returns a descriptor of the
    directory that lost an entry last (the caller's), to fsync. A name in a flat namespace leaves nothing behind."""
    mount = place.mount
    parent = path.rpartition("/")[0]
    floor = place.prefix.rstrip("/")
    while parent and parent != floor:
        upper, _, component = parent.rpartition("/")
        fd = mount.open(upper or ".", DIRECTORY)
        if fd < 0:
            break
        try:
            os.rmdir(component, dir_fd=fd)
        except OSError:
            os.close(fd)
            break
        os.close(fd)
        parent = upper
    return mount.open(parent or ".", DIRECTORY)
