"""A blob moves: every change of a row's residency, made of agent/offload/states.py's table and of nothing else.

Each report of work done is conditional on the revision that was worked on. A report that comes too late (the blob
changed meanwhile) moves nothing and answers False; but what it says of the cloud is true all the same, and is kept: an
upload that ended after a change leaves QUEUED, with the ETag that the next upload's guard must name.
"""

import re
import sqlite3
from typing import Final

from agent.offload import astray, fuse
from agent.offload.rows import ERROR_CHARACTERS_MAX, Copy, Failure, Row, Seen, Turn
from agent.offload.schema import BLOB, REVISION_KEY
from agent.offload.states import TABLE, Event, Hold
from agent.offload.stored import check_of

#: The first change that the cloud lacks stays the first until a copy covers it. `:at` is the time of this one.
SINCE: Final = "CASE residency WHEN 'queued' THEN changed_at ELSE :at END"
_NO_FAILURE: Final = "hold = '', attempts = 0, failure = '', error = ''"
_NOT_IN_CLOUD: Final = "copied_etag = '', cloud_etag = '', copied_at = 0"
_SEEN: Final = "etag = :etag, size = :size, modified_ns = :modified_ns"
#: An operator may hold a row while it is worked on; the work's end does not take that back, unless it succeeds.
_HOLD: Final = "hold = CASE hold WHEN 'operator' THEN hold ELSE :hold END"
_TURN: Final = "due_at = :due_at, priority = :priority, order_key = :order_key"
#: What was said of the version before only: nothing is deleted any more, and a stub's missing copy is not missed.
_OVER: Final = f"(failure = '{fuse.FAILURE}' OR residency = 'remote')"
#: What holds a row although its blob has changed: an operator's hold, but for those.
STAYS_HELD: Final = f"hold = 'operator' AND NOT {_OVER}"
_NOT_OVER: Final = (
    f"hold = CASE WHEN {STAYS_HELD} THEN hold ELSE :hold END, "
    f"error = CASE WHEN {_OVER} THEN '' ELSE error END, "
    f"failure = CASE WHEN {_OVER} THEN '' ELSE failure END"
)

_COPY: Final = (
    "copied_etag = :copied_etag, cloud_etag = :cloud_etag, cloud_container = :cloud_container, "
    "cloud_name = :cloud_name, copied_at = :copied_at, copy_check = :check"
)

#: What may follow these words is a secret: SAS signatures, account keys, tokens. A cloud's error may quote a request.
_SECRETS: Final = re.compile(
    r"(?i)(\bsig=|accountkey=|sharedkey\s+[^\s:]+:|bearer\s+|sharedaccesssignature=)[^\s&;\"'<>]+"
)


def next_revision(connection: sqlite3.Connection) -> int:
    """For all changes of a transaction: nobody can have seen the rows between two of them."""
    (revision,) = connection.execute(
        "UPDATE meta SET value = value + 1 WHERE key = ? RETURNING value", (REVISION_KEY,)
    ).fetchone()
    return int(revision)


def next_residency(event: Event) -> str:
    """SQL for where a row is after an event."""
    cases = " ".join(f"WHEN '{before}' THEN '{after}'" for (before, what), after in TABLE.items() if what is event)
    return f"CASE residency {cases} END"


def sources(event: Event) -> str:
    """SQL for: the event says something of the row."""
    return "residency IN ({})".format(", ".join(f"'{before}'" for before, what in TABLE if what is event))


def without_secrets(text: str) -> str:
    """The text of an error, at most ERROR_CHARACTERS_MAX of it, without what looks like a credential.

    What is not valid Unicode (a name of the mount that is not UTF-8, for one) is written with backslashes.
    """
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _SECRETS.sub(r"\1...", shown)[:ERROR_CHARACTERS_MAX]


def changed(connection: sqlite3.Connection, row: Row, seen: Seen, turn: Turn, now: int) -> bool:
    """The blob was looked at, and a rule sends this version: at once, or later."""
    values = {**seen._asdict(), **turn._asdict(), "at": seen.modified_ns, "hold": _hold(turn, now)}
    return _move(connection, row, Event.CHANGED, f", {_SEEN}, {_TURN}, {_NOT_OVER}, changed_at = {SINCE}", values)


def kept(connection: sqlite3.Connection, row: Row, seen: Seen) -> bool:
    """The blob was looked at, and no rule sends it."""
    return _move(connection, row, Event.KEPT, f", {_SEEN}, {_NO_FAILURE}", seen._asdict())


def deleted(connection: sqlite3.Connection, row: Row, turn: Turn, now: int) -> bool:
    """The blob is not here any more, and a rule deletes it in the cloud."""
    values = {**turn._asdict(), "at": now, "hold": _hold(turn, now)}
    return _move(connection, row, Event.DELETED, f", {_TURN}, {_HOLD}, changed_at = :at, attempts = 0", values)


def gone(connection: sqlite3.Connection, row: Row, *, astray_too: bool = False) -> bool:
    """Neither here nor, as far as we answer for it, in the cloud: forget it. Here again, it is not in the cloud.
    `astray_too`: what the cloud has of it stays there, and a stub that was moved may need it."""
    if astray_too:
        connection.execute(f"{astray.NOTE} id = ? AND revision = ?", (row.id, row.revision))
    done = connection.execute("DELETE FROM blobs WHERE id = ? AND revision = ?", (row.id, row.revision))
    if done.rowcount:
        return True
    connection.execute(f"UPDATE blobs SET {_NOT_IN_CLOUD} WHERE {BLOB}", _names(row))
    return False


def copied(connection: sqlite3.Connection, row: Row, copy: Copy, *, safe: bool) -> bool:
    """The cloud was verified to have this version. Later changes, if any, are since then the ones that it lacks.
    `safe`: no stub needs what the cloud had before, as that was kept or there was none."""
    if safe:
        astray.found_again(connection, row)
    also = f", etag = :copied_etag, {_NO_FAILURE}"
    return _in_cloud(connection, row, Event.COPIED, copy, also, {}, "away = 0" if safe else "away = away")


def stubbed(connection: sqlite3.Connection, row: Row, seen: Seen, copy: Copy) -> bool:
    """What is here is a stub of a version that the cloud has; `seen` is what the stub says of it."""
    return _in_cloud(connection, row, Event.STUBBED, copy, f", {_SEEN}, {_NO_FAILURE}", seen._asdict(), "away = 1")


def evicted(connection: sqlite3.Connection, row: Row) -> bool:
    """The blob's bytes here were replaced by a stub."""
    return _move(connection, row, Event.EVICTED, ", away = 1", {})


def arrived(connection: sqlite3.Connection, account: str, container: str, name: str, etag: str) -> bool:
    """The bytes of this version are here again, verified. By name, as a recall has no row; the ETag stands for it.

    The revision is a new one: whoever evicted it and has not reported that yet comes too late.
    """
    blob = {"account": account, "container": container, "name": name, "etag": etag}
    done = connection.execute(
        f"UPDATE blobs SET residency = {next_residency(Event.ARRIVED)}, {_NO_FAILURE}, away = 0, revision = :revision "
        f"WHERE {BLOB} AND etag = :etag AND {sources(Event.ARRIVED)}",
        {**blob, "revision": next_revision(connection)},
    )
    return done.rowcount == 1


def lost(connection: sqlite3.Connection, row: Row) -> bool:
    """The cloud does not have the copy any more: it is due again, at once."""
    return _move(connection, row, Event.LOST, f", {_NOT_IN_CLOUD}, {_NO_FAILURE}, changed_at = copied_at", {})


def _in_cloud(
    connection: sqlite3.Connection,
    row: Row,
    event: Event,
    copy: Copy,
    also: str,
    seen: dict[str, str | int],
    away: str,
) -> bool:
    """A version is in the cloud. That is kept of the blob even where the version is not the present one any more."""
    told = {**copy._asdict(), "copied_etag": copy.etag, "check": check_of(row.name, copy)}
    values = {**told, **seen, **_names(row)}
    connection.execute(f"UPDATE blobs SET {_COPY}, {away} WHERE {BLOB}", values)
    if _move(connection, row, event, also, values):
        return True
    connection.execute(
        "UPDATE blobs SET changed_at = max(changed_at, modified_ns) "
        f"WHERE {BLOB} AND residency = 'queued' AND revision > :revision",
        {**values, "revision": row.revision},
    )
    return False


def failed(connection: sqlite3.Connection, row: Row, failure: Failure) -> bool:
    """A try failed; where the blob is does not change. The fuse comes too late for a delete that was confirmed."""
    done = connection.execute(
        f"UPDATE blobs SET attempts = attempts + 1, failure = :failure, error = :error, {_HOLD}, "
        "due_at = CASE :hold WHEN 'waiting' THEN :next_try_at ELSE due_at END WHERE id = :id AND revision = :revision "
        f"AND NOT (:failure = '{fuse.FAILURE}' AND changed_at = {fuse.CONFIRMED})",
        {**failure._asdict(), "error": without_secrets(failure.error), "id": row.id, "revision": row.revision},
    )
    return done.rowcount == 1


def _names(row: Row) -> dict[str, str | int]:
    return {"account": row.account, "container": row.container, "name": row.name}


def _hold(turn: Turn, now: int) -> Hold:
    return Hold.WAITING if turn.due_at > now else Hold.NONE


def _move(connection: sqlite3.Connection, row: Row, event: Event, also: str, values: dict[str, str | int]) -> bool:
    """Apply the table to the row, if it is still the revision that was worked on and the event says something of it."""
    done = connection.execute(
        f"UPDATE blobs SET residency = {next_residency(event)}{also} "
        f"WHERE id = :id AND revision = :revision AND {sources(event)}",
        {**values, "id": row.id, "revision": row.revision},
    )
    return done.rowcount == 1
