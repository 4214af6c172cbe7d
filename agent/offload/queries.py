"""Reading the queue: pages of rows by filter, and totals.

A listing goes along strips, each a range of one index in order: the containers by name, or, when states are asked for,
each (residency, hold, container) with what has been unprotected longest first. A page examines EXAMINED_MAX entries at
most, however little the rest of the filter lets through, so it answers in well under a second at any size; it may
then be short, or empty, and the next one goes on from there. Pages see what is there when they are asked for.

Rejected: OFFSET (costs more with every page); counting what matches first; an index for each filter (ingest pays).
"""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.offload import fuse
from agent.offload.rows import Row
from agent.offload.states import Hold, Residency
from agent.offload.stored import COLUMNS, row_of, states_of

EXAMINED_MAX: Final = 50_000  # entries for a page, about 100 ms when none of them matches
_LAST_CODE_POINT: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows; None is any."""

    account: str | None = None
    container: str | None = None
    prefix: str = ""
    residencies: frozenset[Residency] | None = None
    holds: frozenset[Hold] | None = None
    failure: str | None = None

    @property
    def is_place(self) -> bool:
        """Whether it asks for names alone, whatever is known of the blobs."""
        return self.residencies is None and self.holds is None and self.failure is None


class Page(NamedTuple):
    """Rows in order, and where to go on: None at the end, else text for the next call, opaque."""

    rows: list[Row]
    after: str | None


class Total(NamedTuple):
    """All rows of a container that are alike. `oldest` is the least changed_at: of what is QUEUED, since when the cloud
    lacks something. Sizes of blobs that were not looked at yet are those of their former versions, or 0."""

    account: str
    container: str
    residency: Residency
    hold: Hold
    blobs: int
    bytes: int
    oldest: int


class Known(NamedTuple):
    """What the queue knows of a blob's version: for a comparison with what is there."""

    name: str
    etag: str
    residency: Residency
    modified_ns: int
    revision: int
    copied_etag: str
    cloud_etag: str
    hold: Hold
    size: int = 0  # as it was last looked at


class BadCursor(ValueError):
    """The text to go on from is not one that a page gave for this filter."""


Key = tuple[str | int, ...]


class _Strip(NamedTuple):
    """A range of an index: where it stands among the strips, what makes it, where it begins, what orders it."""

    identity: tuple[str, ...]
    along: str
    where: str
    values: Key
    begin: str
    begin_values: Key
    order: tuple[str, ...]

    def sql(self, start: Key | None) -> tuple[str, Key]:
        """FROM and WHERE of the part after `start`, or of all of it."""
        if start is None:
            return (
                f"blobs b INDEXED BY {self.along} WHERE {self.where} AND {self.begin}",
                self.values + self.begin_values,
            )
        marks = ", ".join("?" * len(self.order))
        beyond = f"({', '.join(self.order)}) > ({marks})"
        return f"blobs b INDEXED BY {self.along} WHERE {self.where} AND {beyond}", self.values + start


def page(connection: sqlite3.Connection, wanted: Filter, after: str | None, limit: int) -> Page:
    """One page, at most `limit` rows of what the filter lets through. Raises BadCursor."""
    identity, key = _read_cursor(after)
    by_state = wanted.residencies is not None or wanted.holds is not None
    strips = _state_strips(connection, wanted) if by_state else _name_strips(connection, wanted)
    rows: list[Row] = []
    budget = EXAMINED_MAX
    for strip in strips:
        if strip.identity < identity:
            continue
        if budget <= 0:
            return Page(rows, _cursor(strip, None))
        start = key if strip.identity == identity else None
        if start is not None and len(start) != len(strip.order):
            raise BadCursor("it belongs to another filter")
        found, last, examined = _read(connection, strip, wanted, start, limit - len(rows), budget)
        rows += found
        budget -= examined
        if last is not None:
            return Page(rows, _cursor(strip, last))
    return Page(rows, None)


def counts(connection: sqlite3.Connection) -> list[Total]:
    """Totals per container, residency and hold; about 0.15 s for a million rows, out of one index. Bytes by `total`, as
    `sum` fails where sparse files of a mount add up to more than an integer holds."""
    found = connection.execute(
        "SELECT c.account, c.container, t.residency, t.hold, t.blobs, t.bytes, t.oldest FROM ("
        "SELECT residency, hold, container_id, count(*) AS blobs, CAST(total(size) AS INTEGER) AS bytes, "
        "min(changed_at) AS oldest "
        "FROM blobs INDEXED BY blobs_by_state GROUP BY residency, hold, container_id"
        ") t JOIN containers c ON c.id = t.container_id ORDER BY 1, 2, 3, 4"
    )
    return [Total._make((*record[:2], *states_of(*record[2:4]), *record[4:])) for record in found]


def unconfirmed(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """By container: deletes that wait, and that no person has confirmed."""
    found = connection.execute(
        "SELECT c.account, c.container, count(*) FROM blobs b INDEXED BY blobs_by_state "
        f"JOIN containers c ON c.id = b.container_id WHERE b.residency = 'going' AND b.changed_at <> {fuse.CONFIRMED} "
        "GROUP BY b.container_id"
    )
    return {(account, container): blobs for account, container, blobs in found}


def failures(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows have failed last with each class."""
    return dict(
        connection.execute(
            "SELECT failure, count(*) FROM blobs INDEXED BY blobs_failed WHERE failure <> '' GROUP BY failure"
        )
    )


def find(connection: sqlite3.Connection, account: str, container: str, name: str) -> Row | None:
    """The row of one blob."""
    found = connection.execute(
        f"SELECT {COLUMNS} FROM containers c JOIN blobs b ON b.container_id = c.id "
        "WHERE c.account = ? AND c.container = ? AND b.name = ?",
        (account, container, name),
    ).fetchone()
    return found and row_of(found)


def known(
    connection: sqlite3.Connection, account: str, container: str, start: str, end: str | None, limit: int
) -> list[Known]:
    """The first rows of a container in the order of their names, from `start` on and before `end`; None: to its end."""
    found = connection.execute(
        "SELECT b.name, b.etag, b.residency, b.modified_ns, b.revision, b.copied_etag, b.cloud_etag, b.hold, "
        "b.size "
        "FROM containers c JOIN blobs b ON b.container_id = c.id "
        f"WHERE c.account = ? AND c.container = ? AND b.name >= ?{'' if end is None else ' AND b.name < ?'} "
        "ORDER BY b.name LIMIT ?",
        (account, container, start, *(() if end is None else (end,)), limit),
    )
    return [_known(Known._make(record)) for record in found]


def _known(stored: Known) -> Known:
    residency, hold = states_of(stored.residency, stored.hold)
    return stored._replace(residency=residency, hold=hold)


def prefix_end(prefix: str) -> str | None:
    """The least text that is after everything that starts with `prefix`; None when nothing is."""
    while prefix:
        following = ord(prefix[-1]) + 1
        if following <= _LAST_CODE_POINT:
            return prefix[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
        prefix = prefix[:-1]
    return None


def _name_strips(connection: sqlite3.Connection, wanted: Filter) -> Iterator[_Strip]:
    end = prefix_end(wanted.prefix)
    where = "b.container_id = ?" + ("" if end is None else " AND b.name < ?")
    for container, number in _containers(connection, wanted).items():
        values = (number,) if end is None else (number, end)
        yield _Strip(container, "blobs_by_name", where, values, "b.name >= ?", (wanted.prefix,), ("b.name",))


def _state_strips(connection: sqlite3.Connection, wanted: Filter) -> Iterator[_Strip]:
    containers = _containers(connection, wanted)
    order = ("b.changed_at", "b.size", "b.id")
    where = "b.residency = ? AND b.hold = ? AND b.container_id = ?"
    for residency in sorted(Residency if wanted.residencies is None else wanted.residencies):
        for hold in sorted(Hold if wanted.holds is None else wanted.holds):
            there = _containers_with(connection, residency, hold)
            for container, number in containers.items():
                if number in there:
                    values = (residency, hold, number)
                    yield _Strip((residency, hold, *container), "blobs_by_state", where, values, "true", (), order)


def _containers(connection: sqlite3.Connection, wanted: Filter) -> dict[tuple[str, str], int]:
    """The numbers of the containers that the filter lets through, in order."""
    found = connection.execute(
        "SELECT account, container, id FROM containers WHERE account = ifnull(?, account) "
        "AND container = ifnull(?, container) ORDER BY account, container",
        (wanted.account, wanted.container),
    )
    return {(account, container): number for account, container, number in found}


def _containers_with(connection: sqlite3.Connection, residency: Residency, hold: Hold) -> set[int]:
    """The containers with such rows: one seek each."""
    there: set[int] = set()
    number = -1
    while found := connection.execute(
        "SELECT container_id FROM blobs INDEXED BY blobs_by_state WHERE residency = ? AND hold = ? "
        "AND container_id > ? ORDER BY container_id LIMIT 1",
        (residency, hold, number),
    ).fetchone():
        number = found[0]
        there.add(number)
    return there


def _read(
    connection: sqlite3.Connection, strip: _Strip, wanted: Filter, start: Key | None, limit: int, budget: int
) -> tuple[list[Row], Key | None, int]:
    """Rows of a strip, the key to go on after (None when the strip is done), and how many entries were examined."""
    source, values = strip.sql(start)
    order = ", ".join(strip.order)
    (examined,) = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT {budget})", values).fetchone()
    bound = None
    if examined == budget:
        bound = connection.execute(
            f"SELECT {order} FROM {source} ORDER BY {order} LIMIT 1 OFFSET {budget - 1}", values
        ).fetchone()
        source += f" AND ({order}) <= ({', '.join('?' * len(bound))})"
    match, match_values = _match(wanted)
    found = connection.execute(
        f"SELECT {COLUMNS} FROM (SELECT * FROM {source}{match} ORDER BY {order} LIMIT {limit}) b "
        f"JOIN containers c ON c.id = b.container_id ORDER BY {order}",
        (*values, *(bound or ()), *match_values),
    )
    rows = [row_of(record) for record in found]
    if len(rows) < limit:
        return rows, bound, examined
    fields = rows[-1]._asdict()
    return rows, tuple(fields[column.removeprefix("b.")] for column in strip.order), examined


def _match(wanted: Filter) -> tuple[str, Key]:
    """SQL for what the strips leave to be tested of each row. A plus sign keeps a column from choosing the index."""
    terms: list[str] = []
    values: list[str] = []
    if wanted.prefix:
        terms.append("+b.name >= ?")
        values.append(wanted.prefix)
        if (end := prefix_end(wanted.prefix)) is not None:
            terms.append("+b.name < ?")
            values.append(end)
    if wanted.failure is not None:
        terms.append("+b.failure = ?")
        values.append(wanted.failure)
    return "".join(f" AND {term}" for term in terms), tuple(values)


def _cursor(strip: _Strip, key: Key | None) -> str:
    return json.dumps([strip.identity, key])


def _read_cursor(text: str | None) -> tuple[tuple[str, ...], Key | None]:
    """The strip to go on in and the key to go on after. No text is the beginning, which is before every strip."""
    if text is None:
        return (), None
    try:
        identity, key = json.loads(text)
        parts = [*identity, *(key or ())]
    except (ValueError, TypeError):
        raise BadCursor("it is not one of ours") from None
    if not all(isinstance(part, str | int) for part in parts) or not all(isinstance(part, str) for part in identity):
        raise BadCursor("it is not one of ours")
    return tuple(identity), None if key is None else tuple(key)
