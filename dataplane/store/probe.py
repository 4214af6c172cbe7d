"""What a mount can do, found out by trying, once at start. Nothing is assumed of a file system from its name but speed.

A VAST NFS view must be assumed to have no user attributes, no reflinks and perhaps a restricted character set; ext4 has
attributes that hold about 4,000 bytes; XFS has all. The result is logged and shown, so that an operator knows why.

A mount that is full answers nothing: ENOSPC and EDQUOT say how much room there is, not what the mount can do. `probe`
then raises them; what to go by instead is in remembered.py.
"""

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataplane.store import names, syscalls
from dataplane.store.recordstore import NO_ATTRIBUTES, Backend

_XATTR_PROBE: Final = "user.blobedge.probe"
_XATTR_BYTES_WANTED: Final = 2048  # a usual record with room to stand beside its predecessor
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Attributes are there, but have no room for so much, now or ever: what does not fit goes to a file (recordstore.py).
_SHORT_OF_ROOM: Final = NO_ROOM | {errno.E2BIG, errno.ERANGE}
#: File systems whose metadata calls are short enough for the event loop once warm (proc(5), mountinfo).
_LOCAL_TYPES: Final = frozenset({"ext4", "ext3", "ext2", "xfs", "btrfs", "tmpfs", "f2fs", "zfs", "overlay", "bcachefs"})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The result of probing one mount."""

    file_system: str
    local: bool
    xattr: bool
    reflink: bool
    mtime_granularity_ns: int
    refused_characters: str

    @property
    def backend(self) -> Backend:
        return "xattr" if self.xattr else "sidecar"


def probe(directory_fd: int) -> Capabilities:
    """Try the mount below a directory that we may write to. Leaves nothing behind. Raises OSError if it is not
    writable, fails, or has no room to try (NO_ROOM)."""
    name = f".probe-{os.getpid()}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    try:
        os.write(fd, b"x" * 4096)
        kind = file_system(os.fstat(fd).st_dev)
        return Capabilities(
            file_system=kind,
            local=kind in _LOCAL_TYPES,
            xattr=_has_xattr(fd),
            reflink=_has_reflink(fd, directory_fd, name + "-clone"),
            mtime_granularity_ns=granularity(fd),
            refused_characters=_refused(directory_fd, name),
        )
    finally:
        os.close(fd)
        os.unlink(name, dir_fd=directory_fd)


def unprobed(directory_fd: int) -> Capabilities:
    """What to expect of a mount that must not be written to: attributes are read if there are any."""
    kind = file_system(os.fstat(directory_fd).st_dev)
    return Capabilities(kind, kind in _LOCAL_TYPES, True, False, 1, "")


def file_system(device: int) -> str:
    """The type of the mount of a device, from /proc/self/mountinfo (proc(5)); "" when it is not listed there."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return ""


def _has_xattr(fd: int) -> bool:
    """Only a plain no is one: sidecar records that were chosen since a disk was full would stay when it is not."""
    try:
        os.setxattr(fd, _XATTR_PROBE, b"x" * _XATTR_BYTES_WANTED)
        return len(os.getxattr(fd, _XATTR_PROBE)) == _XATTR_BYTES_WANTED
    except OSError as error:
        if error.errno in _SHORT_OF_ROOM:
            return True
        if error.errno in NO_ATTRIBUTES:
            return False
        raise


def _has_reflink(fd: int, directory_fd: int, clone: str) -> bool:
    target = os.open(clone, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    try:
        return syscalls.clone_file(target, fd)
    finally:
        os.close(target)
        os.unlink(clone, dir_fd=directory_fd)


def granularity(fd: int) -> int:
    """The finest step of mtime, in ns, that comes back as it was set (utimensat(2), stat(2) "Timestamp fields"). Needs
    no room; sets the mtime of what is open."""
    # Not long ago: another worker's sweep would take the probe for a file that was abandoned.
    wanted = time.time_ns() // 10_000_000_000 * 10_000_000_000 + 1_123_456_789
    os.utime(fd, ns=(wanted, wanted))
    kept = os.fstat(fd).st_mtime_ns
    for step in (1, 100, 1000, 1_000_000, 1_000_000_000, 2_000_000_000):
        if kept == wanted - wanted % step:
            return step
    return 2_000_000_000


def _refused(directory_fd: int, name: str) -> str:
    """Any error but a lack of room is a refusal: a Linux client of NFS makes EIO of NFS4ERR_BADCHAR (RFC 7530)."""
    refused = ""
    for char in names.REFUSED_BY_LCD:
        try:
            os.close(os.open(name + char, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory_fd))
            os.unlink(name + char, dir_fd=directory_fd)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise  # else the names of all blobs that have the character would be looked for elsewhere
            refused += char
    return refused
