"""The cloud's listing on the node's own disk while it is compared: a scratch file, about 0.6 KB for each blob.

Names in the cloud are made by templates (a date in front, an account, a node), so they come in another order than the
names here, and two sorted streams cannot be merged. A table with the cloud's name as its key needs no order, no memory
however many blobs there are, and is still there after a kill. Lost, or damaged, it is made again: it holds nothing that
the cloud does not say again.

Rejected: a merge join (wrong order under most templates); a dictionary (400 MB for a million blobs); tables of the
queue's own file (which would grow by them for good, and is what is not trusted here).
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from agent.offload.reconcile.listed import Entry

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS listed (
    container TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL, met INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (container, name)
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS lost (
    account TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (account, container, name)
) WITHOUT ROWID, STRICT;
"""

Name = tuple[str, str]  # of a blob in the cloud: container, name
LocalName = tuple[str, str, str]


class LedgerError(Exception):
    """The scratch file cannot be used; it is made again, and the listing with it."""


class Ledger:
    """The file at `path`. Used by one thread at a time; blocks on the disk. Every method raises LedgerError."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._connection: sqlite3.Connection | None = None

    def open(self, *, empty: bool) -> None:
        """Open it, or make it: `empty` throws away what is there."""
        self.close()
        if empty:
            self.remove()
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise LedgerError(str(error)) from None
        self._connection = connection

    def close(self) -> None:
        """Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def remove(self) -> None:
        """Close it and delete it."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def add(self, entries: Iterable[Entry]) -> None:
        """A page of the cloud's listing; the same page again changes nothing."""
        rows = [(each.container, each.name, each.to_json()) for each in entries]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO listed (container, name, document) VALUES (?, ?, ?)", rows)

    def meet(self, names: Sequence[Name]) -> dict[Name, Entry]:
        """What the cloud has of these, which are the places of blobs that are here: marked as met."""
        found: dict[Name, Entry] = {}
        with self._transaction() as connection:
            for container, name in names:
                row = connection.execute(
                    "UPDATE listed SET met = 1 WHERE container = ? AND name = ? RETURNING document", (container, name)
                ).fetchone()
                if row is not None:
                    found[container, name] = Entry.from_json(container, name, row[0])
        return found

    def unmet(self, after: Name, limit: int) -> list[Entry]:
        """The first blobs of the cloud beyond `after` that no blob here led to."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT container, name, document FROM listed WHERE (container, name) > (?, ?) AND NOT met "
                "ORDER BY container, name LIMIT ?",
                (*after, limit),
            ).fetchall()
        return [Entry.from_json(*row) for row in rows]

    def note_lost(self, names: Iterable[LocalName]) -> None:
        """Stubs here that do not say what they stand for."""
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO lost VALUES (?, ?, ?)", names)

    def found(self, names: Iterable[LocalName]) -> None:
        """They say it again."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM lost WHERE account = ? AND container = ? AND name = ?", names)

    def lost(self) -> list[LocalName]:
        """Those that were noted, and not found."""
        with self._transaction() as connection:
            return list(connection.execute("SELECT account, container, name FROM lost ORDER BY 1, 2, 3"))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            raise LedgerError("it is not open")
        try:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise LedgerError(str(error)) from None
