"""Where records live: in an extended attribute of the file where there are any and it fits, else in a file of their
own.

Both keep the same promise. `write` for a seal that no visible file has yet changes nothing that a reader can see; the
caller makes the file have that seal (by renaming a staged file into place, or by utimensat) once what `write` asked to
be synced is synced. `read` returns the record of exactly that seal, or nothing.

A separate record file is named by its seal, so clearing an old one can never hit the record of a file that got the same
inode number since. ext4 has about 4,000 bytes for all attributes of a file and answers ENOSPC beyond them, which is
not a full disk; metadata alone may be 8 KiB; such records go to a file. Rejected: a database on the mount (one more
truth, and none that a second node could share), one record file per blob name (would not follow a rename).

Which of the two is asked first follows from the mode, never which is asked at all: what was written while the mode was
the other one is found, stubs too.
"""

import errno
import os
from collections import OrderedDict
from dataclasses import replace
from typing import Final, Literal

from dataplane.blobapi.model import BlobProperties
from dataplane.store import records
from dataplane.store.errors import translated
from dataplane.store.fileio import write_all
from dataplane.store.records import Record, Seal

XATTR: Final = "user.blobedge"
Backend = Literal["xattr", "sidecar"]
_TOO_BIG: Final = frozenset({errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EDQUOT, errno.ENOTSUP})
#: How mounts say that they have no attributes of users (xattr(7)); FUSE and old kernels have more words for it.
NO_ATTRIBUTES: Final = frozenset({errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL})
_NONE_THERE: Final = NO_ATTRIBUTES | {errno.ENODATA, errno.ERANGE}
REMEMBERED_COUNT: Final = 65_536  # records in memory, about 1.1 KiB each
_UNSEALED_VALUE_BYTES_MAX: Final = 64 * 1024


class RecordStore:
    """Records of one mount. Not thread-safe per file (the blob's lock is); the cache is, under the GIL.

    `records_fd` is the directory of record files, -1 for a tree that has none. `cacheable`: the mount keeps nanosecond
    mtimes, so a seal is never used twice and a record may be remembered by it.
    """

    def __init__(
        self, records_fd: int, backend: Backend, cacheable: bool, remembered_count: int = REMEMBERED_COUNT
    ) -> None:
        self._dir_fd = records_fd
        self.backend: Final = backend
        self._cacheable = cacheable
        self._remembered_count: Final = remembered_count
        self._cache: OrderedDict[Seal, BlobProperties] = OrderedDict()

    def read(self, fd: int, seal: Seal) -> BlobProperties | None:
        """The properties recorded for an open file with this seal, None when another writer made or changed it."""
        found = self._cache.get(seal)
        if found is not None:
            return found
        for record in self._lines(fd, seal):
            if record.seal == seal:
                self._remember(seal, record.properties)
                return record.properties
        return None

    def cached(self, seal: Seal) -> BlobProperties | None:
        """The properties if they are at hand without a system call."""
        return self._cache.get(seal)

    def last_before_change(self, fd: int, seal: Seal, name_hash: str) -> BlobProperties | None:
        """The newest record of a file that somebody changed since: its user metadata is carried on."""
        found = [r for r in self._xattr(fd) if r.name_hash == name_hash]
        if found and (self.backend == "xattr" or self._dir_fd < 0):
            return found[0].properties
        if self._dir_fd < 0:
            return None
        sub, _, file_name = _file_name(seal).partition("/")
        prefix = file_name.partition("-")[0] + "-"
        candidates = found + [
            record
            for entry in _entries(self._dir_fd, sub)
            if entry.startswith(prefix)
            for record in self._file(f"{sub}/{entry}")
            if record.name_hash == name_hash
        ]
        return max(candidates, key=lambda r: r.seal.mtime_ns).properties if candidates else None

    def write(self, fd: int, record: Record, keep: Seal | None = None) -> list[int]:
        """Add a record; `keep` is the seal whose record must stay valid beside it. Returns descriptors that the caller
        has to fsync (besides `fd`) and close. Raises StoreError."""
        line = records.encode(record)
        if self.backend == "xattr":
            value = line
            if keep is not None:
                value += b"".join(records.encode(r) for r in self._xattr(fd) if r.seal == keep)
            if self._set_xattr(fd, value):
                return []
        return self._write_file(record.seal, line)

    def remember(self, record: Record) -> None:
        """Put what was just written where the next read finds it."""
        self._remember(record.seal, record.properties)

    def clear(self, seal: Seal) -> None:
        """Forget the record of a seal that no file has any more. Best effort: a leftover harms nobody and is swept."""
        self._cache.pop(seal, None)
        try:
            os.unlink(_file_name(seal), dir_fd=self._dir_fd)
        except OSError:
            return

    def _remember(self, seal: Seal, properties: BlobProperties) -> None:
        if not self._cacheable:
            return
        self._cache[seal] = properties
        if len(self._cache) > self._remembered_count:
            self._cache.popitem(last=False)

    def _lines(self, fd: int, seal: Seal) -> list[Record]:
        if self.backend == "sidecar":
            return self._file(_file_name(seal)) or self._xattr(fd)
        found = self._xattr(fd)
        if any(r.seal == seal for r in found):
            return found
        return self._file(_file_name(seal))

    def _xattr(self, fd: int) -> list[Record]:
        try:
            return records.decode(os.getxattr(fd, XATTR))
        except OSError as error:
            if error.errno in _NONE_THERE:
                return []
            with translated("read record"):
                raise
        return []

    def _set_xattr(self, fd: int, value: bytes) -> bool:
        try:
            os.setxattr(fd, XATTR, value)
        except OSError as error:
            if error.errno in _TOO_BIG:
                return False
            with translated("write record"):
                raise
        return True

    def _file(self, path: str) -> list[Record]:
        if self._dir_fd < 0:
            return []
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._dir_fd)
        except FileNotFoundError:
            return []
        except OSError:
            with translated("read record"):
                raise
        try:
            return records.decode(os.read(fd, _UNSEALED_VALUE_BYTES_MAX))
        finally:
            os.close(fd)

    def _write_file(self, seal: Seal, line: bytes) -> list[int]:
        path = _file_name(seal)
        sub = path[:3]
        with translated("write record"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            opened: list[int] = []
            try:
                try:
                    fd = os.open(path, flags, 0o600, dir_fd=self._dir_fd)
                except FileNotFoundError:
                    _make_dir(self._dir_fd, sub)
                    opened.append(os.dup(self._dir_fd))
                    fd = os.open(path, flags, 0o600, dir_fd=self._dir_fd)
                opened.append(fd)
                write_all(fd, line)
                opened.append(os.open(sub, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._dir_fd))
            except BaseException:
                for each in opened:
                    os.close(each)
                raise
            return opened


def has_attribute(fd: int) -> bool:
    """Whether a file carries a record itself: that one cannot be of another file that had its inode number."""
    try:
        return bool(os.getxattr(fd, XATTR))
    except OSError:
        return False


def carried_metadata(foreign: BlobProperties, last: BlobProperties | None) -> BlobProperties:
    """What a file that another writer changed keeps of its last record: the user metadata and the tags."""
    return foreign if last is None else replace(foreign, metadata=last.metadata, tags=last.tags, created=last.created)


def _file_name(seal: Seal) -> str:
    return f"{seal.inode & 0xFFF:03x}/{seal.inode:x}-{seal.size:x}-{seal.mtime_ns:x}"


def _entries(dir_fd: int, sub: str) -> list[str]:
    try:
        fd = os.open(sub, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return []
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _make_dir(dir_fd: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        return
