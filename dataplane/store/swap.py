"""One file takes another's place, and only if that one is still what it was and nobody is writing to it.

An overwrite replaces whatever is there: the last writer wins. A file that only changes its shape (a blob becomes a
stub, a stub a blob) must not win against anybody. So the two change names in one step; then what came out is looked
at: it has to be the file that was opened, with the seal that it had, and unopened for writing since. If it is not, they
change back and no byte is lost. Only then does the old file go.

Who may write is told by a lease where the file system has them (local ones do; NFS has not): a program that opens the
file for writing waits in open(2) until the swap has ended, and ends it if it came before. It gets the file that it
found, so one that found it before the swap and asks for it only after the end writes to a file without a name. Without
leases, a program that has the file open and writes after the end does so too; what it writes until then is noticed.

While they change names, the one that has none is in `.blobedge/swaps`, not with the staged files: an old one there
would be swept. Its name begins with the seal of the file that was to go, so what a crash leaves is either that file
as it was, or the one that never came to its place, and both may go; or a file that somebody wrote to after the crash,
and that is kept for ever. So is what was written to a file that was in the place only until the two changed back.
Rejected: link and rename alone (a file that another program renames into place meanwhile would be lost; it is what is
done where files cannot change names), looking before only.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from dataplane.store import syscalls
from dataplane.store.errors import translated
from dataplane.store.fileio import fsync
from dataplane.store.files import Found
from dataplane.store.mount import Mount
from dataplane.store.records import Seal, seal_of
from dataplane.store.staging import StagedFile
from dataplane.store.trash import list_names

SWAP_SECONDS_MAX: Final = 3600  # no swap takes longer: what is older was left by a crash


class NotSwapped(Exception):
    """The file there is not what it was, or is being written to: everything is as before. Says why in a clause."""


def name_for(seal: Seal) -> str:
    """A new name in the directory of swaps, for what is to take the place of a file with this seal."""
    return f"{seal.inode:x}-{seal.size:x}-{seal.mtime_ns:x}.{secrets.token_hex(8)}"


def swap(
    mount: Mount, coming: StagedFile, seal: Seal, going: Found, parent_fd: int, last: str, *, durable: bool
) -> None:
    """Put a file with this seal, which is in the directory of swaps, in the place of an open one, which goes. Called
    under the blob's lock; durable when it returns. Raises NotSwapped, StoreError."""
    with _unwritten(going.fd) as leased, translated("swap"):
        _exchange(mount, coming, parent_fd, last)
        try:
            if _inode(mount.swaps_fd, coming.name) != going.seal.inode:
                raise NotSwapped("another program has put a file in its place")
            if durable:
                fsync(parent_fd)
            if seal_of(os.fstat(going.fd)) != going.seal or (leased and not syscalls.lease_holds(going.fd)):
                raise NotSwapped("another program is writing to it")
        except BaseException:
            _exchange_back(mount, coming, seal, parent_fd, last)
            if durable:
                fsync(parent_fd)
            raise
        os.unlink(coming.name, dir_fd=mount.swaps_fd)


@contextmanager
def _unwritten(fd: int) -> Iterator[bool]:
    """Nobody has it open for writing, or can without it being noticed; yields whether the file system can tell."""
    try:
        leased = syscalls.take_lease(fd)
    except BlockingIOError:
        raise NotSwapped("another program has it open for writing") from None
    try:
        yield leased
    finally:
        if leased:
            syscalls.release_lease(fd)


def _exchange(mount: Mount, coming: StagedFile, fd: int, last: str) -> None:
    """The staged file comes to its place, and what was there gets its name in the directory of swaps."""
    try:
        if not syscalls.exchange(mount.swaps_fd, coming.name, fd, last):
            _exchange_by_link(mount.swaps_fd, coming.name, fd, last)
    except FileNotFoundError:
        raise NotSwapped("it went meanwhile") from None
    coming.linked = False


def _exchange_by_link(swaps_fd: int, name: str, fd: int, last: str) -> None:
    """The same in three steps, after each of which the place is taken by the one or the other."""
    kept = f"{name}.kept"
    os.link(last, kept, src_dir_fd=fd, dst_dir_fd=swaps_fd, follow_symlinks=False)
    try:
        os.rename(name, last, src_dir_fd=swaps_fd, dst_dir_fd=fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(kept, dir_fd=swaps_fd)
        raise
    os.rename(kept, name, src_dir_fd=swaps_fd, dst_dir_fd=swaps_fd)


def _exchange_back(mount: Mount, coming: StagedFile, seal: Seal, fd: int, last: str) -> None:
    """Undo it, unless another program has put its own file there since, or removed what it found: that stays. What was
    written to the one that was there for a moment, while somebody wrote to the other, is kept in the directory."""
    try:
        _exchange(mount, coming, fd, last)
        if _inode(mount.swaps_fd, coming.name) != seal.inode:
            _exchange(mount, coming, fd, last)
            return
    except NotSwapped:
        return
    if seal_of(os.fstat(coming.fd)) == seal:
        coming.linked = True
    else:
        os.rename(coming.name, name_for(seal), src_dir_fd=mount.swaps_fd, dst_dir_fd=mount.swaps_fd)


def _inode(directory_fd: int, name: str) -> int:
    return os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_ino


def sweep(mount: Mount, now: float) -> None:
    """Remove what a crash left. `now` in seconds."""
    for name in list_names(mount.swaps_fd, "."):
        with suppress(OSError):
            status = os.stat(name, dir_fd=mount.swaps_fd, follow_symlinks=False)
            if now - status.st_ctime > SWAP_SECONDS_MAX and not _was_written(name, seal_of(status)):
                os.unlink(name, dir_fd=mount.swaps_fd)


def _was_written(name: str, seal: Seal) -> bool:
    """Whether it is the file that was to go, and not as it was then."""
    inode, _, rest = name.partition(".")[0].partition("-")
    return inode == f"{seal.inode:x}" and rest != f"{seal.size:x}-{seal.mtime_ns:x}"
