"""What the journals say becomes rows: a batch of records and the place in the segment up to which it goes, in one
transaction. So after any end of the process, what is acknowledged is there, and what is not is read again.

A batch takes a few milliseconds a thousand records: records of one blob are made one first (its intent and its
end, or a hundred overwrites), and the rest goes in the order of the names, as neighbours share pages of the index.

What a read does: it is the last one; and the one before it, when that was HEAT_GAP_NS ago or more, is remembered too.
So a blob that one pass over everything read (a backup, a scan for viruses) is not taken for one that is in use.

What a change does to a Hold: WAITING and POISON end, as they are of a version that is no more; OPERATOR stays, as no
new version mends a credential; but for the delete fuse's, as a blob that is back is not to be deleted, and for a
stub's, as what is written over it has bytes of its own.

Rejected: asking the store here what a blob is now, which would make a batch as slow as the mount.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from agent.offload import astray, moves
from agent.offload.rows import Change, Freed, Look, Measured, Read, Wandered
from agent.offload.schema import BLOB
from agent.offload.states import TABLE, Event, Residency
from dataplane.journal.heat import INTERVAL_NS

#: Two reads that are closer are one use. A little less than the interval at which a worker notes reads of a blob
#: (dataplane/journal/heat.py), as what it noted is written some seconds later.
HEAT_GAP_NS: Final = INTERVAL_NS * 9 // 10

_CONTAINER: Final = "SELECT id FROM containers WHERE account = ? AND container = ?"
# A row that was not there is treated as one that no rule had sent.
_NOTE: Final = f"""
INSERT INTO blobs (container_id, name, revision, changed_at, modified_ns, due_at, priority, order_key, hold, residency,
                   away)
VALUES (:container_id, :name, :revision, :at, :last, :due_at, :priority, :order_key, :hold,
        '{TABLE[Residency.LOCAL, Event.CHANGED]}', {astray.IS_ASTRAY})
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
_HEAT: Final = f"""
UPDATE blobs SET read_at = :when,
    read_before_at = CASE WHEN :when - read_at >= {HEAT_GAP_NS} THEN read_at ELSE read_before_at END
WHERE container_id = :container_id AND name = :name AND read_at < :when
"""
_LOOK: Final = "INSERT OR REPLACE INTO looks (container_id, revision) VALUES (?, ?)"


def note(
    connection: sqlite3.Connection,
    changes: Iterable[Change],
    reads: Iterable[Read] = (),
    looks: Collection[tuple[str, str]] = (),
    freed: Iterable[Freed] = (),
) -> None:
    """Note changes, reads, containers that are to be looked at as a whole, and stubs that went, in a transaction of the
    caller. A read of a blob that has no row says nothing."""
    containers = Containers(connection)
    merged = _merged(changes)
    revision = moves.next_revision(connection) if merged or looks else 0
    connection.executemany(_NOTE, _values(merged, containers, revision))
    connection.executemany(
        _HEAT,
        (
            {"container_id": containers[read.account, read.container], "name": read.name, "when": read.when_ns}
            for read in sorted(reads)
        ),
    )
    connection.executemany(_LOOK, ((containers[container], revision) for container in looks))
    astray.freed(connection, freed)


def wandered(connection: sqlite3.Connection, stubs: Iterable[Wandered]) -> None:
    """Stubs were found under other names, in a transaction of the caller."""
    containers = Containers(connection)
    for account, container, name, version in stubs:
        astray.wandered(connection, version, {"container_id": containers[account, container], "name": name})


def measured(connection: sqlite3.Connection, blobs: Iterable[Measured]) -> None:
    """How large what waits is, so that somebody without a link knows what the cloud lacks. Of a row that was looked at
    meanwhile the size is known better."""
    connection.executemany(
        f"UPDATE blobs SET size = :size WHERE {BLOB} "
        f"AND residency = '{Residency.QUEUED}' AND (revision = :revision OR etag = '')",
        (each._asdict() for each in blobs),
    )


def looks(connection: sqlite3.Connection) -> list[Look]:
    """All of them, by name."""
    found = connection.execute(
        "SELECT c.account, c.container, l.revision FROM looks l JOIN containers c ON c.id = l.container_id "
        "ORDER BY 1, 2"
    )
    return [Look._make(record) for record in found]


def looked(connection: sqlite3.Connection, look: Look) -> None:
    """It was looked at, unless it was noted again meanwhile."""
    connection.execute(
        "DELETE FROM looks WHERE revision = ? AND container_id = (SELECT id FROM containers WHERE account = ? "
        "AND container = ?)",
        (look.revision, look.account, look.container),
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
    merged: list[tuple[Change, int]], containers: "Containers", revision: int
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


class Containers(dict[tuple[str, str], int]):
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
