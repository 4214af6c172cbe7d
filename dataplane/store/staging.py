"""Files that are not visible yet. A crash leaves them in `.blobedge/staging`, where the sweeper finds them."""

import itertools
import os
import secrets
from typing import Final

from dataplane.store import syscalls
from dataplane.store.errors import translated
from dataplane.store.mount import Mount

#: Names of staged files: chance once for the process, then counting, as chance costs a system call.
_PREFIX: Final = secrets.token_hex(10) + "-"
_counter = itertools.count()
_COPY_BYTES: Final = 64 * 1024 * 1024
_WRITEBACK_BYTES: Final = 8 * 1024 * 1024


class StagedFile:
    """A file being written, or a part of one from `base` on. One writer at a time; writes go to the end.

    Writeback starts while data still arrives, so that the sync at the end has little left to wait for. `directory_fd`
    and `name` are where it can be renamed from; `linked` tells that discarding it removes that name.
    """

    def __init__(
        self, mount: Mount, fd: int, *, directory_fd: int = -1, name: str = "", base: int = 0, linked: bool = False
    ) -> None:
        self._mount: Final = mount
        self._directory_fd: Final = directory_fd
        self.linked = linked
        self._unwritten = 0
        self.name: Final = name
        self.base: Final = base
        self.fd = fd
        self.size = 0

    @classmethod
    def create(cls, mount: Mount) -> "StagedFile":
        """A new empty file. Raises StoreError."""
        mount.require_writable()
        name, directory_fd = f"{_PREFIX}{next(_counter):x}", mount.staging_lane()
        with translated("create"):
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory_fd)
        return cls(mount, fd, directory_fd=directory_fd, name=name, linked=True)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of `data`. Raises StoreError."""
        view = memoryview(data)
        with translated("write"):
            while view:
                count = os.pwrite(self.fd, view, self.base + self.size)
                self.size += count
                self._unwritten += count
                view = view[count:]
        if self._unwritten >= _WRITEBACK_BYTES:
            syscalls.start_writeback(self.fd, self.base, self.size)
            self._unwritten = 0

    def copy_from(self, source_fd: int, offset: int, length: int) -> int:
        """Append a range of another file without moving it through this process: shared blocks where the file system
        can (copy_file_range(2)). Returns how many bytes there were. Raises StoreError."""
        whole = offset == self.base == self.size == 0 and length == os.fstat(source_fd).st_size
        if whole and self._mount.capabilities.reflink and syscalls.clone_file(self.fd, source_fd):
            self.size = length
            return length
        done = 0
        with translated("copy"):
            while done < length:
                some, end = min(length - done, _COPY_BYTES), self.base + self.size
                count = _copy_some(source_fd, self.fd, some, offset + done, end)
                if count == 0:
                    break
                done += count
                self.size += count
        return done

    def sync(self) -> None:
        """fsync(2). Raises StoreError."""
        with translated("fsync"):
            os.fsync(self.fd)

    def rename_to(self, directory_fd: int, name: str) -> None:
        """Publish it: the one atomic step, replacing what had that name. Raises StoreError, FileNotFoundError when the
        directory was removed, IsADirectoryError."""
        with translated("rename"):
            os.rename(self.name, name, src_dir_fd=self._directory_fd, dst_dir_fd=directory_fd)
        self.linked = False

    def moved_to(self, directory_fd: int, name: str) -> "StagedFile":
        """The same file, still staged, in another directory; this object has nothing left. Raises StoreError."""
        with translated("rename"):
            os.rename(self.name, name, src_dir_fd=self._directory_fd, dst_dir_fd=directory_fd)
        moved = StagedFile(self._mount, self.fd, directory_fd=directory_fd, name=name, linked=True)
        moved.size, self.fd, self.linked = self.size, -1, False
        return moved

    def discard(self) -> None:
        """Close it and remove it if it was never published. May be called again."""
        self.withdraw()

    def withdraw(self) -> bool:
        """The same; True when its name was there to remove: then it was certainly never published."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if not self.linked:
            return False
        self.linked = False
        try:
            os.unlink(self.name, dir_fd=self._directory_fd)
        except OSError:
            return False
        return True


def _copy_some(source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
    """One step of a copy; by read and write where copy_file_range is refused (EXDEV, EINVAL, ENOSYS on some mounts)."""
    try:
        return os.copy_file_range(source, target, count, source_offset, target_offset)
    except OSError as error:
        if error.errno not in (18, 22, 38, 95):  # EXDEV, EINVAL, ENOSYS, EOPNOTSUPP
            raise
    data = os.pread(source, min(count, 1024 * 1024), source_offset)
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], target_offset + written)
    return len(data)
