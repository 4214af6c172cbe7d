"""Which versions in the cloud may be all that there is of a blob: those of which a stub was made here.

A program on the mount moves a stub like any file (`mv`, a rotation of logs), and nobody is told. It still stands for
the version under its old name, until a look at everything finds it and has that copied to its new one. So that version
must not give way to the next one of the old name, nor to a delete, unless the stub is known to be nowhere any more.
`away` of a row says so:

    set      before the blob is evicted, so that no kill leaves a stub without it; where a stub was found, and of the
             blob that it was made of, if it was found under another name (a new database does not know that one)
    cleared  a worker replaced or deleted the stub, and saw that its file has no other name (FREED in its journal)
             its bytes came back, or the store saw that they are all here after it could not be evicted
             an upload had the former version kept before the next one took its place, or found nothing there; not one
             that described the bytes that are there, or that looked before the stub was made (upload.py)

A row that goes while it is `away` leaves its name in the table `astray`, and the next row of the name is `away` again:
a blob that was moved leaves no row, and one that is written under its name must not replace the copy.

Rejected: keeping the former version whenever it was ours (each change would leave a copy of the blob); looking for the
stub before each upload (a look at everything); sending only after a look (hours in which a change is unprotected).
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from agent.offload.rows import Freed, Row
from agent.offload.schema import BLOB

#: SQL for a new row: whether a former one of the name left it here.
IS_ASTRAY: Final = "EXISTS (SELECT 1 FROM astray a WHERE a.container_id = :container_id AND a.name = :name)"
#: SQL that notes the names of rows that are about to be deleted. A condition on `blobs` follows.
NOTE: Final = "INSERT OR IGNORE INTO astray SELECT container_id, name FROM blobs WHERE away = 1 AND "


def freed(connection: sqlite3.Connection, stubs: Iterable[Freed]) -> None:
    """These stubs went through the endpoint. What is another version by now stays as it is."""
    values = (stub._asdict() for stub in stubs)
    connection.executemany(f"UPDATE blobs SET away = 0 WHERE {BLOB} AND copied_etag = :version", values)


def wandered(connection: sqlite3.Connection, version: str, blob: dict[str, str | int]) -> None:
    """A stub of a blob's version was found under another name. The cloud may have a later version, as far as the row
    knows: then what the stub stands for was kept. `blob`: container_id and name."""
    there = "container_id = :container_id AND name = :name"
    values = {**blob, "version": version}
    connection.execute(f"UPDATE blobs SET away = 1 WHERE {there} AND copied_etag IN ('', :version)", values)
    connection.execute(
        "INSERT OR IGNORE INTO astray SELECT :container_id, :name "
        f"WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE {there})",
        values,
    )


def leaving(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Their bytes are about to go. By the version, not the revision: what does not change a blob does not keep it."""
    _mark(connection, rows, "away = 1", "true")


def stayed(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """They did not go: the store saw their bytes, whole."""
    _mark(connection, rows, "away = 0", "residency = 'copied'")


def _mark(connection: sqlite3.Connection, rows: Iterable[Row], what: str, condition: str) -> None:
    connection.executemany(
        f"UPDATE blobs SET {what} WHERE id = ? AND copied_etag = ? AND {condition}",
        [(row.id, row.copied_etag) for row in rows],
    )


def found_again(connection: sqlite3.Connection, row: Row) -> None:
    """The cloud has a version of the name that is not a stub's alone."""
    connection.execute(f"DELETE FROM astray WHERE {BLOB}", row._asdict())
