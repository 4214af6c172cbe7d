"""Small private documents (leases, container records, service properties): one checksummed line of JSON each, replaced
whole by a rename."""

import errno
import json
import os
import secrets
import stat
import zlib
from contextlib import suppress
from typing import Any, Final

from dataplane.store import syscalls
from dataplane.store.errors import translated
from dataplane.store.fileio import write_all
from dataplane.store.mount import DIRECTORY

_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_BYTES_MAX: Final = 16 * 1024 * 1024  # the longest is a block list, of 5 MiB


def encode(magic: str, document: dict[str, Any]) -> bytes:
    """`MAGIC CRC JSON` and a newline; `magic` carries the version of the format."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
    return b"%s %08x %s\n" % (magic.encode(), zlib.crc32(body), body)


def decode(magic: str, data: bytes) -> dict[str, Any] | None:
    """The document, or None when it is damaged or of another format."""
    head, _, rest = data.rstrip(b"\n").partition(b" ")
    crc, _, body = rest.partition(b" ")
    try:
        if head != magic.encode() or int(crc, 16) != zlib.crc32(body):
            return None
        document = json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def read(dir_fd: int, path: str) -> bytes | None:
    """All of a small file, None when there is none: a link, a directory or anything else that somebody put there is
    none either, and never waited for."""
    fd = syscalls.openat2(dir_fd, path.encode("utf-8", "surrogateescape"), os.O_RDONLY | os.O_NONBLOCK)
    if fd < 0:
        if -fd in _ABSENT:
            return None
        with translated("read"):
            raise OSError(-fd, os.strerror(-fd))
    try:
        with translated("read"):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            return os.read(fd, min(status.st_size, _BYTES_MAX))
    finally:
        os.close(fd)


def replace(staging_fd: int, dir_fd: int, path: str, data: bytes, durable: bool) -> None:
    """Write a document and put it in the place of the old one. The caller has the directory of `path` fsynced.

    Raises StoreError, FileNotFoundError when that directory went away."""
    temporary = secrets.token_hex(12)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with translated("write document"):
        fd = os.open(temporary, flags, 0o600, dir_fd=staging_fd)
        try:
            try:
                write_all(fd, data)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path, src_dir_fd=staging_fd, dst_dir_fd=dir_fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=staging_fd)
            raise


def make_directories(dir_fd: int, path: str) -> dict[str, int]:
    """Make every missing directory of `path`. Returns descriptors (the caller's) of those whose entries changed, by
    their paths. Raises StoreError."""
    changed: dict[str, int] = {}
    try:
        with translated("mkdir"):
            parts = path.split("/")
            for i in range(1, len(parts) + 1):
                try:
                    os.mkdir("/".join(parts[:i]), 0o700, dir_fd=dir_fd)
                except FileExistsError:
                    continue
                parent = "/".join(parts[: i - 1]) or "."
                changed[parent] = os.open(parent, DIRECTORY, dir_fd=dir_fd)
    except BaseException:
        close_all(changed)
        raise
    return changed


def close_all(fds: dict[str, int]) -> None:
    """Close what `make_directories` returned."""
    for fd in fds.values():
        os.close(fd)
