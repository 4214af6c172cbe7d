"""Opening the queue's file: one process at a time, on a disk of this node, whole, of a schema that we know.

- The lock is of a file beside it (flock(2)), held for as long as the queue is open and freed by the kernel however the
  process ends: in a rolling replacement the new sidecar waits for the old one.
- WAL with synchronous=FULL: a commit that returned survives a power cut (NORMAL does not promise it). SQLite itself
  locks the file exclusively: the one connection needs no shared memory, and no second one can meet it.
- A file that is damaged or of a newer version is an exception of its own. Nothing is repaired or thrown away here: the
  caller sets a damaged one aside, with a name that says so, and rebuilds from the mount and the cloud.

Rejected: waiting inside flock(2), which nothing can cancel; a network file system, where WAL is not safe
(https://sqlite.org/wal.html) and a hung mount would stop the queue.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.offload import schema
from agent.offload.stored import DamagedRow
from agent.problems import OperatorError
from dataplane.journal.localdisk import why_network_kind
from dataplane.store.probe import file_system

#: A quarter of an index of a million names. Twice as much makes nothing faster, as the kernel caches the file too, and
#: the sidecar has 128 MiB for everything.
_PAGE_CACHE_KIB: Final = 16 * 1024
_CHECKPOINT_PAGES: Final = 4096  # 16 MiB of log: a page changed by several batches is written to the file once
_LOG_BYTES_KEPT: Final = 64 << 20  # the log is cut to this when a burst is over
_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_NOT_TEXT: Final = "Could not decode to UTF-8"  # Python's words for a text that is none; it has no error name
_UNWRITABLE: Final = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")


class QueueError(Exception):
    """The queue cannot be used as it is; the text says why."""


class QueueBusy(QueueError):
    """Another process has it open. It will be free when that one ends."""


class DamagedDatabase(QueueError):
    """The file is not a whole database. Set it aside and rebuild."""


class NewerDatabase(QueueError):
    """A newer version of the program made the file; this one must not touch it."""


class QueueUnwritable(QueueError):
    """The disk refuses: full, read-only, or failing. What was not acknowledged did not happen; try again later."""


def why_not_local(kind: str) -> str | None:
    """Why a file system of this type (mountinfo's name) cannot hold the queue; None when it can."""
    if kind == "fuse" or kind.startswith("fuse."):
        return f"{kind} is a file system of a program, which need not keep what was synced"
    return why_network_kind(kind)


def lock(path: Path) -> int:
    """Take the lock of the queue at `path`. Returns its descriptor; closing it frees the lock.

    Raises QueueBusy when another process has it.
    """
    fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise QueueBusy(f"{path} is in use by another process") from None
    return fd


def refuse_network_disk(directory: Path) -> None:
    """Raise OperatorError when the directory is not on a disk of this node."""
    reason = why_not_local(file_system(directory.stat().st_dev))
    if reason:
        raise OperatorError(
            f"the queue cannot be in {directory}: {reason}; set [offload] directory to one on a disk of this node"
        )


def connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Open the database at `path`, made when there is none, brought to this program's schema.

    Returns the connection, and whether the database was made now: it knows nothing, so the caller rebuilds. The caller
    holds the lock. Raises DamagedDatabase, NewerDatabase or QueueUnwritable.
    """
    with translated(path):
        # Python opens no transactions of its own; calls come from different threads, one at a time.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        with translated(path):
            return connection, _prepare(connection, path)
    except BaseException:
        connection.close()
        raise


def _prepare(connection: sqlite3.Connection, path: Path) -> bool:
    for pragma in (
        "locking_mode = EXCLUSIVE",
        "journal_mode = WAL",
        "synchronous = FULL",
        f"cache_size = -{_PAGE_CACHE_KIB}",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        f"journal_size_limit = {_LOG_BYTES_KEPT}",
        "temp_store = MEMORY",
        "cell_size_check = ON",  # a damaged page is refused when it is read, not followed
        "trusted_schema = OFF",  # nothing that a file brings along is run
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    version = schema.version_of(connection)
    if version > schema.VERSION:
        raise NewerDatabase(
            f"{path} has version {version}, this program knows {schema.VERSION}: run the newer program again, or "
            "move the file away to have it rebuilt"
        )
    _check(connection, path)
    if schema.upgrade(connection):
        _sync_directory(path.parent)
    return version == 0


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Every page and every row, but not each row's place in each index (`verify` does that). Measured at a million rows
    in random order: 0.5 s against 3.7 s, and a sidecar that was killed is to work again within five."""
    _report(connection.execute("PRAGMA quick_check(3)"), path)


def verify(connection: sqlite3.Connection, path: Path) -> None:
    """Every row's place in every index too: a flipped bit in a name or a key shows as a row that its index lacks.

    Raises DamagedDatabase. For a reconciliation, which has the time.
    """
    _report(connection.execute("PRAGMA integrity_check(3)"), path)


def _report(findings: Iterable[tuple[str]], path: Path) -> None:
    texts = [text for (text,) in findings]
    if texts != ["ok"]:
        raise DamagedDatabase(f"{path} is damaged: {'; '.join(texts)}")


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(path: Path, stamp: int) -> Path | None:
    """Rename a database that did not open because it is damaged, to a name that says so. Returns the new name, or None
    when it is whole: another process has rebuilt it meanwhile. Raises QueueBusy while one has it open."""
    fd = lock(path)
    try:
        connect(path)[0].close()
        return None
    except DamagedDatabase:
        return rename_aside(path, stamp)
    finally:
        os.close(fd)


def rename_aside(path: Path, stamp: int) -> Path:
    """Rename a damaged database with its log. The caller holds the lock, and has closed it."""
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    # The database first: SQLite deletes a log without one, but would take a database without its log for a whole one.
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    _sync_directory(path.parent)
    return aside


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file or the disk into our exceptions; what is left is a bug."""
    try:
        yield
    except (DamagedRow, UnicodeDecodeError) as error:  # the second is of Python's, of what SQLite says of a bad name
        raise DamagedDatabase(f"{path} is damaged: {error}") from error
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_DAMAGED) or str(error).startswith(_NOT_TEXT):
            raise DamagedDatabase(f"{path} is damaged: {error}") from error
        if name.startswith(_UNWRITABLE):
            raise QueueUnwritable(f"{path}: {error} ({name})") from error
        raise
