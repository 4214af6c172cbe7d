"""One file takes another's place, and only if that one is still what it was and nobody is writing to it.

An overwrite replaces whatever is there: the last writer wins. A file that only changes its shape (a blob becomes a
stub, a stub a blob) must not win against anybody. So the two change names in one step; then what came out is looked
at: it has to be the file that was opened, with the seal that it had, and unopened for writing since. If it is not, they
change back and no byte is lost. Once the change is on the disk it is looked at again, and only then does the old file
go: many swaps share the syncs of their group (commit.py).

Who may write is told by a lease where the file system has them (local ones do; NFS has not): a program that opens the
file for writing waits in open(2) until the swap has ended, and ends it if it came before. It gets the file that it
found, so one that found it before the swap and asks for it only after the end writes to a file without a name. Without
leases, a program that has the file open and writes after the end does so too; what it writes until then is noticed.

While they change names, the one that has none is in `.blobedge/swaps`, not with the staged files: an old one there
would be swept. Its name begins with the seal of the file that was to go, so what a crash leaves is either that file
as it was, or the one that never came to its place, and both may go; or a file that somebody wrote to after the crash,
and that is kept for ever. So is what was written to a file that was in the place only until the two changed back. Where
nothing takes the place, only the very file that was to go does go, and as it was; another one that was taken out in its
stead is put back, or kept for ever where that cannot be.
Rejected: link and rename alone (a file that another program renames into place meanwhile would be lost; it is what is
done where files cannot change names), looking before only.
"""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
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
_OUT: Final = ".out"  # ends the name of what was taken out
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})  # link(2): not on this mount


class NotSwapped(Exception):
    """The file there is not what it was, or is being written to: everything is as before. Says why in a clause."""


def name_for(seal: Seal) -> str:
    """A new name in the directory of swaps, for what is to take the place of a file with this seal."""
    return f"{seal.inode:x}-{seal.size:x}-{seal.mtime_ns:x}.{secrets.token_hex(8)}"


class Swap:
    """A file with `seal`, which is in the directory of swaps, for an open one, which goes."""

    def __init__(
        self, mount: Mount, coming: StagedFile, seal: Seal, going: Found, parent_fd: int, last: str, *, durable: bool
    ) -> None:
        self._mount = mount
        self._coming = coming
        self._seal = seal
        self._going = going
        self._parent_fd = parent_fd
        self._last = last
        self._durable = durable
        self._leased = False

    def begin(self) -> None:
        """They change names. Called under the blob's lock. Raises NotSwapped, StoreError."""
        with translated("swap"):
            try:
                self._leased = syscalls.take_lease(self._going.fd)
            except BlockingIOError:
                raise NotSwapped("another program has it open for writing") from None
            try:
                self._exchange()
                if self._inode() != self._going.seal.inode:
                    self._exchange_back()
                    raise NotSwapped("another program has put a file in its place")
                self._require_unwritten()
            except BaseException:
                self._release()
                raise

    def finish(self) -> None:
        """The old file goes. Called under the blob's lock, once the change is on the disk. Raises NotSwapped when
        somebody has come to write meanwhile: they have changed back."""
        try:
            with translated("swap"):
                self._require_unwritten()
                os.unlink(self._coming.name, dir_fd=self._mount.swaps_fd)
        finally:
            self._release()

    def undo(self) -> None:
        """They change back: the change could not be made durable. Called under the blob's lock."""
        try:
            with translated("swap"):
                self._exchange_back()
        finally:
            self._release()

    def _require_unwritten(self) -> None:
        """Raises NotSwapped, and changes back, when somebody wrote to the file that goes, or waits to."""
        if seal_of(os.fstat(self._going.fd)) != self._going.seal or (
            self._leased and not syscalls.lease_holds(self._going.fd)
        ):
            self._exchange_back()
            raise NotSwapped("another program is writing to it")

    def _release(self) -> None:
        if self._leased:
            syscalls.release_lease(self._going.fd)
            self._leased = False

    def _exchange(self) -> None:
        """The staged file comes to its place, and what was there gets its name in the directory of swaps."""
        swaps_fd, name = self._mount.swaps_fd, self._coming.name
        try:
            if not syscalls.exchange(swaps_fd, name, self._parent_fd, self._last):
                _exchange_by_link(swaps_fd, name, self._parent_fd, self._last)
        except FileNotFoundError:
            raise NotSwapped("it went meanwhile") from None
        self._coming.linked = False

    def _exchange_back(self) -> None:
        """Undo it, unless another program has put its own file there since, or removed what it found: that stays. What
        was written to the one that was there for a moment, while somebody wrote to the other, is kept."""
        try:
            self._exchange()
            if self._inode() != self._seal.inode:
                self._exchange()
                return
        except NotSwapped:
            return
        if self._durable:  # the change itself may be on the disk by now
            fsync(self._parent_fd)
        if seal_of(os.fstat(self._coming.fd)) == self._seal:
            self._coming.linked = True
        else:
            swaps_fd = self._mount.swaps_fd
            os.rename(self._coming.name, name_for(self._seal), src_dir_fd=swaps_fd, dst_dir_fd=swaps_fd)

    def _inode(self) -> int:
        """What has the name in the directory of swaps."""
        return os.stat(self._coming.name, dir_fd=self._mount.swaps_fd, follow_symlinks=False).st_ino


def take_out(
    mount: Mount, going: Found, parent_fd: int, last: str, parent_again: Callable[[], tuple[int, str]]
) -> None:
    """The file goes, and nothing takes its place: under the same conditions. What a crash leaves of it is in the
    directory of swaps. `parent_again` opens its directory, made if need be, and tells its name there: somebody may
    remove the one that it leaves empty. Called under the blob's lock. Raises NotSwapped, StoreError, and what
    `parent_again` raises."""
    with translated("take out"):
        try:
            leased = syscalls.take_lease(going.fd)
        except BlockingIOError:
            raise NotSwapped("another program has it open for writing") from None
        try:
            name = name_for(going.seal) + _OUT
            try:
                os.rename(last, name, src_dir_fd=parent_fd, dst_dir_fd=mount.swaps_fd)
            except FileNotFoundError:
                raise NotSwapped("it went meanwhile") from None
            status = os.stat(name, dir_fd=mount.swaps_fd, follow_symlinks=False)
            if seal_of(status) != going.seal or (leased and not syscalls.lease_unasked(going.fd)):
                try:
                    _put_back(mount.swaps_fd, name, parent_fd, last)
                except FileNotFoundError:
                    _put_back(mount.swaps_fd, name, *parent_again())
                raise NotSwapped("another program is writing to it")
            os.unlink(name, dir_fd=mount.swaps_fd)
        finally:
            if leased:
                syscalls.release_lease(going.fd)


def _put_back(swaps_fd: int, name: str, fd: int, last: str) -> None:
    """Into its place, unless another program has put a file of its own there since: then it is kept, and so it is when
    this fails. Raises OSError."""
    try:
        os.link(name, last, src_dir_fd=swaps_fd, dst_dir_fd=fd, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(name, last, src_dir_fd=swaps_fd, dst_dir_fd=fd)
        return
    os.unlink(name, dir_fd=swaps_fd)


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


def sweep(mount: Mount, now: float) -> None:
    """Remove what a crash left. `now` in seconds."""
    for name in list_names(mount.swaps_fd, "."):
        with suppress(OSError):
            status = os.stat(name, dir_fd=mount.swaps_fd, follow_symlinks=False)
            if now - status.st_ctime > SWAP_SECONDS_MAX and not _was_written(name, seal_of(status)):
                os.unlink(name, dir_fd=mount.swaps_fd)


def _was_written(name: str, seal: Seal) -> bool:
    """Whether it is the file that was to go, and not as it was then; or another file, taken out in its stead."""
    inode, _, rest = name.partition(".")[0].partition("-")
    if name.endswith(_OUT) and inode != f"{seal.inode:x}":
        return True
    return inode == f"{seal.inode:x}" and rest != f"{seal.size:x}-{seal.mtime_ns:x}"
