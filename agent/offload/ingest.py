"""What the journals say becomes rows: a batch of records and the place in the segment up to which it goes, in one
transaction. So after any end of the process, what is acknowledged is there, and what is not is read again.

A batch takes a few milliseconds a thousand records: records of one blob are made one first (its intent and its
end, or a hundred overwrites), and the rest goes in the order of the names, as neighbours share pages of the index.

What a change does to a Hold: WAITING and POISON end, as they are of a version that is no more; OPERATOR stays, as no
new version mends a credential; but for the delete fuse's, as a blob that is back is not to be deleted.

Rejected: asking the store here what a blob is now, which would make a batch as slow as the mount.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from agent.offload import moves
from agent.offload.rows import Change, Read
from agent.offload.schema import REVISION_KEY
from agent.offload.states import TABLE, Event, Residency

_CONTAINER: Final = "SELECT id FROM containers WHERE account = ? AND container = ?"
# A row that was not there is treated as one that no rule had sent.
_NOTE: Final = f"""
INSERT INTO blobs (container_id, name, revision, changed_at, modified_ns, due_at, priority, order_key, hold, residency)
VALUES (:container_id, :name, :revision, :at, :last, :due_at, :priority, :order_key, :hold,
        '{TABLE[Residency.LOCAL, Event.CHANGED]}')
ON CONFLICT (container_id, name) DO UPDATE SET
    residency = {moves.next_residency(Event.CHANGED)},
    changed_at = {moves.SINCE},
    revision = excluded.revision,
    modified_ns = excluded.modified_ns,
    due_at = excluded.due_at,
    priority = excluded.priority,
    order_key = excluded.order_key,
    attempts = CASE WHEN {moves.STAYS_HELD} THEN attempts ELSE 0 END,
    failure = CASE WHEN {moves.STAYS_HELD} THEN failure ELSE '' END,
    error = CASE WHEN {moves.STAYS_HELD} THEN error ELSE '' END,
    hold = CASE WHEN {moves.STAYS_HELD} THEN hold ELSE excluded.hold END
"""
_HEAT: Final = "UPDATE blobs SET read_at = max(read_at, ?) WHERE container_id = ? AND name = ?"


def note(connection: sqlite3.Connection, changes: Iterable[Change], reads: Iterable[Read]) -> None:
    """Note changes and reads, in a transaction of the caller. A read of a blob that has no row says nothing."""
    containers = _Containers(connection)
    merged = _merged(changes)
    if merged:
        connection.executemany(_NOTE, _values(merged, containers, _next_revision(connection)))
    latest = {(read.account, read.container, read.name): read.when_ns for read in reads}
    connection.executemany(
        _HEAT, ((when, containers[account, container], name) for (account, container, name), when in latest.items())
    )


def _merged(changes: Iterable[Change]) -> list[tuple[Change, int]]:
    """For each blob its last change and the time of its first one, in the order of the names."""
    last: dict[tuple[str, str, str], Change] = {}
    first: dict[tuple[str, str, str], int] = {}
    for change in changes:
        blob = change[:3]
        last[blob] = change
        first.setdefault(blob, change.when_ns)
    return [(last[blob], first[blob]) for blob in sorted(last)]


def _values(
    merged: list[tuple[Change, int]], containers: "_Containers", revision: int
) -> Iterator[dict[str, str | int]]:
    for change, since in merged:
        yield {
            "container_id": containers[change.account, change.container],
            "name": change.name,
            "revision": revision,
            "at": since,
            "last": change.when_ns,
            "due_at": change.due_at,
            "priority": change.priority,
            "order_key": change.order_key,
            "hold": "waiting" if change.due_at > change.when_ns else "",
        }


def _next_revision(connection: sqlite3.Connection) -> int:
    """One number for all changes of a transaction: nobody can have seen the rows between two of them."""
    (revision,) = connection.execute(
        "UPDATE meta SET value = value + 1 WHERE key = ? RETURNING value", (REVISION_KEY,)
    ).fetchone()
    return int(revision)


class _Containers(dict[tuple[str, str], int]):
    """The numbers of containers. For one batch only: a transaction that fails takes back the numbers that it gave."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, container: tuple[str, str]) -> int:
        found = self._connection.execute(_CONTAINER, container).fetchone()
        if found is None:
            self._connection.execute("INSERT INTO containers (account, container) VALUES (?, ?)", container)
            found = self._connection.execute(_CONTAINER, container).fetchone()
        self[container] = int(found[0])
        return self[container]
