"""The Linux calls that Python's os module lacks: openat2, renameat2, sync_file_range, FICLONE, leases,
open-file-description locks.

They release the interpreter lock while the kernel works and raise OSError as the os module would, unless a call says
otherwise.
"""

import ctypes
import errno
import fcntl
import os
import signal
import struct
from contextlib import suppress
from functools import cache
from typing import Any, Final

from dataplane.store import walk

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall_at_once = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_at_once.restype = ctypes.c_long
_faccessat = _libc.faccessat
_renameat2 = _libc.renameat2
_faccessat_at_once = ctypes.PyDLL(None, use_errno=True).faccessat

_SYS_OPENAT2: Final = 437
_AT_FDCWD: Final = -100
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
_RESOLVE: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IOC_SETFLAGS: Final = 0x40086602
_FS_TOPDIR_FL: Final = 0x00020000
_FICLONE: Final = 0x40049409
_SYNC_FILE_RANGE_WRITE: Final = 2
_RENAME_EXCHANGE: Final = 2
_F_OFD_SETLK: Final = 37
_F_OFD_SETLKW: Final = 38
_FLOCK: Final = struct.Struct("hhqqi4x")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


# The argument for each pair of flags and mode; the reference keeps its structure alive.
_HOWS: dict[tuple[int, int], Any] = {}
_ABSENT: list[bool] = []  # not empty: this process has no openat2, asking again costs more than remembering


def openat2(dir_fd: int, path: bytes, flags: int, mode: int = 0, *, quick: bool = False) -> int:
    """open(2) that cannot leave `dir_fd` nor follow any symbolic link (openat2(2), BENEATH | NO_SYMLINKS).

    Returns the descriptor or minus the errno: misses are frequent on the read path, and an exception costs more than
    the call. EAGAIN (a rename raced with `..` resolution) is retried. `quick` keeps the interpreter lock: on a local
    file system the call is shorter than getting the lock back from a busy thread. Where openat2 itself is missing
    (ENOSYS, or EPERM for any path) the same is done name by name (walk.py).
    """
    if _ABSENT:
        return walk.open_beneath(dir_fd, path, flags, mode, quick=quick)
    call = _syscall_at_once if quick else _syscall
    how = _HOWS.get((flags, mode))
    if how is None:
        how = _HOWS[flags, mode] = ctypes.byref(_OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE))
    while True:
        fd: int = call(_SYS_OPENAT2, dir_fd, path, how, 24)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code == errno.ENOSYS or (code == errno.EPERM and _is_forbidden()):
            _ABSENT.append(True)
            return walk.open_beneath(dir_fd, path, flags, mode, quick=quick)
        if code not in (errno.EAGAIN, errno.EINTR):
            return -code


@cache
def _is_forbidden() -> bool:
    """Whether openat2 itself is what is not permitted, as it would be permitted here."""
    fd: int = _syscall(_SYS_OPENAT2, _AT_FDCWD, b"/", ctypes.byref(_OpenHow(os.O_PATH | os.O_CLOEXEC, 0, 0)), 24)
    if fd >= 0:
        os.close(fd)
        return False
    return ctypes.get_errno() == errno.EPERM


def certainly_absent(dir_fd: int, path: str, *, quick: bool = False) -> bool:
    """Whether there is certainly nothing at a path (faccessat(2)): an error other than ENOENT and ENOTDIR is no answer,
    and False. What os.access would hide. `quick` as for openat2."""
    call = _faccessat_at_once if quick else _faccessat
    if call(dir_fd, path.encode("utf-8", "surrogateescape"), os.F_OK, 0) == 0:
        return False
    return ctypes.get_errno() in (errno.ENOENT, errno.ENOTDIR)


def exchange(first_fd: int, first: str, second_fd: int, second: str) -> bool:
    """Have two files change their names in one step (renameat2(2), RENAME_EXCHANGE). False where the file system or the
    kernel cannot."""
    names = (name.encode("utf-8", "surrogateescape") for name in (first, second))
    if _renameat2(first_fd, next(names), second_fd, next(names), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code))


def take_lease(fd: int) -> bool:
    """A read lease on a file that was opened for reading (fcntl(2), F_SETLEASE): nobody has it open for writing, and
    who opens it for writing waits until the lease is given back. False where there are no leases; BlockingIOError when
    somebody has it open for writing.

    The signal that tells of a waiting writer is made one that is ignored: the usual SIGIO would end the process."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def lease_unasked(fd: int) -> bool:
    """Whether nobody has asked to write since `take_lease`, not even without waiting (O_NONBLOCK). For a file that is
    not looked at again: a lease taken anew misses one who has found the file by its name and does not wait yet."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def lease_holds(fd: int) -> bool:
    """Whether nobody waits to write since `take_lease`. Who asked and did not wait (O_NONBLOCK) has gone; who waits
    goes on when this says so."""
    if lease_unasked(fd):
        return True
    release_lease(fd)
    try:
        return take_lease(fd)  # who waits counts as one that has it open
    except BlockingIOError:
        return False


def release_lease(fd: int) -> None:
    """Give back the lease of `take_lease`, if it is still held: who waits goes on."""
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def start_writeback(fd: int, offset: int = 0, length: int = 0) -> None:
    """Begin writing dirty pages of a range (0: to the end) without waiting (sync_file_range(2)). Errors show at the
    fsync that follows."""
    _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def set_top_directory(fd: int) -> None:
    """Have the directories below an ext4 directory spread over the disk (ioctl_iflags(2), FS_TOPDIR_FL)."""
    (flags,) = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("i", 0)))
    fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", flags | _FS_TOPDIR_FL))


def clone_file(target_fd: int, source_fd: int) -> bool:
    """Share all of a file's blocks (ioctl_ficlone(2)). False where the file system cannot."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError:
        return False
    return True


def lock_byte(fd: int, offset: int) -> None:
    """Wait for an exclusive lock on one byte (fcntl(2), open file description locks: they hold between processes,
    between threads with descriptors of their own, and between NFS clients where the mount has working locks)."""
    fcntl.fcntl(fd, _F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))


def unlock_byte(fd: int, offset: int) -> None:
    """Give up the lock of `lock_byte`."""
    fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, 1, 0))
