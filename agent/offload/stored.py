"""Rows as they lie in the file, and what of them can be seen to be damaged.

SQLite finds a page that does not hang together, not a bit that is another one in a text. Three things are looked at
whenever a row is read: that each column has its type; that the states are some that a program wrote; and a check of
what is said of the copy in the cloud, since bytes may leave this node on the strength of that. It is written where a
copy is noted, so that taking in changes, of which there are many more, does without.

Rejected: a check of the whole row, computed by every statement that changes one (a fifth of what a change costs, for
columns that the next look at the blob puts right).
"""

import sqlite3
import zlib
from typing import Final

from agent.offload.rows import Copy, Row
from agent.offload.states import Hold, Residency

_STORED_AS: Final[dict[type, type]] = {Residency: str, Hold: str, bool: int}
_TYPES: Final = (*(_STORED_AS.get(kind, kind) for kind in Row.__annotations__.values()), int)

#: A query that selects these from `containers c` and `blobs b` is read by `row_of`.
COLUMNS: Final = ", ".join(
    [*(f"c.{field}" if field in ("account", "container") else f"b.{field}" for field in Row._fields), "b.copy_check"]
)
_BY_ID: Final = f"SELECT {COLUMNS} FROM blobs b JOIN containers c ON c.id = b.container_id WHERE b.id = ?"


class DamagedRow(Exception):
    """What no program ever wrote: the file is damaged, although SQLite can read it."""


def copy_check(name: str, etag: str, cloud_etag: str, cloud_container: str, cloud_name: str, copied_at: int) -> int:
    """CRC-32 of a blob's name and of what is said of its copy."""
    text = "\0".join((name, etag, cloud_etag, cloud_container, cloud_name, str(copied_at)))
    return zlib.crc32(text.encode())


def check_of(name: str, copy: Copy) -> int:
    """The same for a copy that is to be noted."""
    return copy_check(name, copy.etag, copy.cloud_etag, copy.cloud_container, copy.cloud_name, copy.copied_at)


def states_of(residency: str, hold: str) -> tuple[Residency, Hold]:
    """What is stored, as states. Raises DamagedRow."""
    try:
        return Residency(residency), Hold(hold)
    except ValueError as error:
        raise DamagedRow(str(error)) from None


def row_of(record: tuple[object, ...]) -> Row:
    """A Row of the columns of COLUMNS. Raises DamagedRow."""
    if tuple(map(type, record)) != _TYPES:
        raise DamagedRow(f"row {record[0]!r} has a value of another type")
    row = Row._make(record[:-1])
    copy = (row.copied_etag, row.cloud_etag, row.cloud_container, row.cloud_name, row.copied_at)
    if row.copied_etag and copy_check(row.name, *copy) != record[-1]:
        raise DamagedRow(f"row {row.id} does not have the check of its copy")
    residency, hold = states_of(row.residency, row.hold)
    return row._replace(residency=residency, hold=hold, pinned=bool(row.pinned), away=bool(row.away))


def row_by_id(connection: sqlite3.Connection, number: int) -> Row:
    """The row that an index has named. Raises DamagedRow, also when there is none, or none of its container."""
    found = connection.execute(_BY_ID, (number,)).fetchone()
    if found is None:
        raise DamagedRow(f"row {number} is in an index only")
    return row_of(found)
