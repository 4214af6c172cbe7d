"""What may be evicted, the coldest first: LRU-2 over all containers together.

A blob's place is when it was read before its last read, then when it was last used (read or changed). So what was read
once or never goes before what is read again and again, and one pass over everything, which reads each blob once, does
not push out what is in use (O'Neil, O'Neil and Weikum, "The LRU-K Page Replacement Algorithm", SIGMOD 1993).

Each container is a range of the index `blobs_cold`, and the ranges are merged: a page costs one seek for each container
and one for each row, with ten rows as with a million. With `unused_since`, entries in use between the cold ones are
passed over in the index, about 0.4 s for a million of them.

Rejected: one index over all containers (a page of one container would read the entries of all others); a counter of
reads (it never forgets what was hot once).
"""

import heapq
import sqlite3
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final, NamedTuple

from agent.offload.rows import Row
from agent.offload.schema import EVICTABLE
from agent.offload.stored import DamagedRow, row_by_id

_COLD: Final = f"blobs INDEXED BY blobs_cold WHERE {EVICTABLE}"
_PLACE: Final = "read_before_at, used_at, size, id"  # the index, in its order
_ENTRIES: Final = f"SELECT {_PLACE} FROM {_COLD} AND container_id = ? AND ({_PLACE}) > (?, ?, ?, ?)"
_UNUSED: Final = " AND read_before_at < ? AND used_at < ?"
_TOTALS: Final = f"""
SELECT c.account, c.container, t.blobs, t.bytes FROM (
SELECT container_id, count(*) AS blobs, CAST(total(size) AS INTEGER) AS bytes FROM {_COLD} GROUP BY container_id
) t JOIN containers c ON c.id = t.container_id ORDER BY 1, 2"""


class Place(NamedTuple):
    """Where a row stands in the order of coldness."""

    read_before_at: int
    used_at: int
    size: int
    id: int


class Evictable(NamedTuple):
    """What of a container may be evicted."""

    account: str
    container: str
    blobs: int
    bytes: int


_FIRST: Final = Place(-(2**63), 0, 0, 0)


def place_of(row: Row) -> Place:
    """The row's place."""
    return Place(row.read_before_at, max(row.read_at, row.modified_ns), row.size, row.id)


def candidates(
    connection: sqlite3.Connection,
    limit: int,
    account: str | None,
    containers: Collection[str] | None,
    unused_since: int | None,
    after: Place | None,
) -> list[Row]:
    """At most `limit` rows after a place, the coldest first."""
    numbers = _numbers(connection, account, containers)
    merged = heapq.merge(*(_entries(connection, number, unused_since, after or _FIRST) for number in numbers))
    return [row_by_id(connection, place.id) for place in islice(merged, limit)]


def evictable(connection: sqlite3.Connection) -> list[Evictable]:
    """Blobs and bytes of each container, out of the index alone."""
    return [Evictable._make(record) for record in connection.execute(_TOTALS)]


def _numbers(connection: sqlite3.Connection, account: str | None, containers: Collection[str] | None) -> list[int]:
    found = connection.execute("SELECT container, id FROM containers WHERE account = ifnull(?, account)", (account,))
    return [number for container, number in found if containers is None or container in containers]


def _entries(connection: sqlite3.Connection, container: int, unused_since: int | None, after: Place) -> Iterator[Place]:
    """The entries of a container after a place, in order."""
    unused = () if unused_since is None else (unused_since, unused_since)
    sql = f"{_ENTRIES}{_UNUSED if unused else ''} ORDER BY {_PLACE}"
    return map(_place, connection.execute(sql, (container, *after, *unused)))


def _place(entry: tuple[int, ...]) -> Place:
    if any(type(value) is not int for value in entry):
        raise DamagedRow("an index has a value of another type")
    return Place._make(entry)
