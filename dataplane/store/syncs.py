"""fsync(2) of many files at once.

A journalling file system writes its journal and flushes the device once for all the fsyncs that are under way together;
one after the other, each sends a flush of its own, even when the first has made everything durable already. Measured
for 16 new files of 4 KiB: 33 ms in turn and 2 to 7 ms together on ext4, 97 ms and 4 to 10 ms on XFS.

Asynchronous I/O of Linux (io_submit(2), IOCB_CMD_FSYNC) starts them with one system call; the kernel's own threads wait
for the disk. Where it is missing (a seccomp filter, an old kernel) the files are synced in turn.
Rejected: a pool of Python threads (their hand-over costs more than the rest of a small write), syncfs (a big upload
elsewhere on the mount delays every small write), io_uring (often forbidden to containers).
"""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from dataplane.store.errors import translated

_SYS_IO_SETUP: Final = 206
_SYS_IO_DESTROY: Final = 207
_SYS_IO_GETEVENTS: Final = 208
_SYS_IO_SUBMIT: Final = 209
_IOCB_CMD_FSYNC: Final = 2
_EVENTS_MAX: Final = 256

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _Iocb(ctypes.Structure):
    """struct iocb of linux/aio_abi.h, little-endian."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("request_priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("bytes_count", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("result_fd", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """struct io_event of linux/aio_abi.h."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("object", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class _Context:
    """An AIO context of one thread."""

    def __init__(self) -> None:
        self._id = ctypes.c_ulong(0)
        self._usable = _syscall(_SYS_IO_SETUP, _EVENTS_MAX, ctypes.byref(self._id)) == 0
        self._blocks = (_Iocb * _EVENTS_MAX)()
        self._pointers = (ctypes.c_void_p * _EVENTS_MAX)()
        self._events = (_Event * _EVENTS_MAX)()
        start = ctypes.addressof(self._blocks)
        for i in range(_EVENTS_MAX):
            self._blocks[i].data = i
            self._blocks[i].opcode = _IOCB_CMD_FSYNC
            self._pointers[i] = start + i * ctypes.sizeof(_Iocb)

    def __del__(self, syscall: Callable[..., int] = _syscall) -> None:  # bound early: at exit, globals are gone
        if self._usable:
            syscall(_SYS_IO_DESTROY, self._id)

    def sync(self, fds: Sequence[int]) -> list[int]:
        """fsync all; the errno of each, 0 for success. What the kernel does not take is synced in turn."""
        results = [-1] * len(fds)
        for i, fd in enumerate(fds):
            self._blocks[i].fd = fd
        submitted = self._submit(len(fds)) if self._usable else 0
        waiting = submitted
        while waiting:
            count = _syscall(_SYS_IO_GETEVENTS, self._id, 1, waiting, self._events, None)
            if count < 0:
                continue  # EINTR; no other error can come of a context that took the requests
            for event in self._events[:count]:
                results[event.data] = -event.result
            waiting -= count
        return [_fsync(fd) if result < 0 else result for fd, result in zip(fds, results, strict=True)]

    def _submit(self, count: int) -> int:
        submitted: int = _syscall(_SYS_IO_SUBMIT, self._id, count, self._pointers)
        return max(0, submitted)


_local = threading.local()


def sync_together(fds: Sequence[int]) -> list[Exception | None]:
    """fsync every descriptor; returns for each, in order, None where it is durable now, or a StoreError.

    A failed one is never repeated: the kernel forgets the pages (fsync(2), NOTES).
    """
    return [_as_error(code) for code in _sync(fds)]


def _sync(fds: Sequence[int]) -> list[int]:
    if len(fds) == 1:
        return [_fsync(fds[0])]
    context: _Context | None = getattr(_local, "context", None)
    if context is None:
        context = _local.context = _Context()
    results: list[int] = []
    for start in range(0, len(fds), _EVENTS_MAX):
        results += context.sync(fds[start : start + _EVENTS_MAX])
    return results


def _fsync(fd: int) -> int:
    try:
        os.fsync(fd)
    except OSError as error:
        return error.errno or 5
    return 0


def _as_error(code: int) -> Exception | None:
    if code == 0:
        return None
    try:
        with translated("fsync"):
            raise OSError(code, os.strerror(code))
    except Exception as error:
        return error
