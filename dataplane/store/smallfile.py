"""Small private documents (leases, container records, service properties): one checksummed line of JSON each, replaced
whole. Writing is two steps, so that a Job can share its syncs: `stage` the new text, then `replace` the old by
rename."""

import errno
import json
import os
import stat
import zlib
from typing import Any, Final

from dataplane.store.errors import translated
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
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        with translated("read"):
            raise
    try:
        with translated("read"):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            return os.read(fd, min(status.st_size, _BYTES_MAX))
    finally:
        os.close(fd)


def make_directories(dir_fd: int, path: str) -> list[int]:
    """Make every missing directory of `path`. Returns descriptors (the caller's) of those whose entries changed."""
    changed: list[int] = []
    with translated("mkdir"):
        parts = path.split("/")
        for i in range(1, len(parts) + 1):
            try:
                os.mkdir("/".join(parts[:i]), 0o700, dir_fd=dir_fd)
            except FileExistsError:
                continue
            parent = "/".join(parts[: i - 1]) or "."
            changed.append(os.open(parent, DIRECTORY, dir_fd=dir_fd))
    return changed
