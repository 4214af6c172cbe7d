"""The queue: one row for each blob, in one SQLite file, through one connection.

Every method is a transaction that is durable when it returns; `transaction()` puts several into one. It is an index of
what the mount and the cloud hold, not the truth: a lost one costs a scan. Not thread-safe, and it blocks on the disk:
the sidecar uses it through AsyncQueue. agent/offload/states.py says what a row goes through; the modules opening,
schema, ingest, adopting, taking, moves, astray, cold, queries, acts and pins do what their names say.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.offload import acts, adopting, astray, cold, ingest, moves, opening, pins, queries
from agent.offload.pins import Pins, Prefix
from agent.offload.rows import Adopted, Change, Copy, Failure, Freed, Look, Measured, Read, Row, Seen, Turn, Wandered
from agent.offload.taking import Taker, next_due


class Queue:
    """The queue at `path`, whose directory is made if there is none.

    `fresh` says that the database was made now, so everything has to be found again. Raises QueueBusy,
    DamagedDatabase, NewerDatabase or QueueUnwritable, and OperatorError for a disk of another machine. Every method may
    raise DamagedDatabase or QueueUnwritable; nothing of its transaction has happened then.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opening.refuse_network_disk(path.parent)
        self.path: Final = path
        self._lock = opening.lock(path)
        try:
            self._pins: Final = Pins(path.with_name(pins.FILE))
            self._connection, self.fresh = opening.connect(path)
        except BaseException:
            os.close(self._lock)
            raise
        self._taker: Final = Taker(self._connection)
        self._pins.apply_to(self._connection)

    def close(self) -> None:
        """Close the file, then free the lock. Idempotent."""
        if self._lock >= 0:
            self._connection.close()
            os.close(self._lock)
            self._lock = -1

    def set_aside(self, stamp: int) -> Path:
        """Close a queue that was found damaged while it was open, and rename its file. Returns the new name."""
        self._connection.close()
        aside = opening.rename_aside(self.path, stamp)
        self.close()
        return aside

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verify(self) -> None:
        """Check every row against every index; seconds for a million rows. Raises DamagedDatabase."""
        with self.transaction():
            opening.verify(self._connection, self.path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside; inside another one, a part of it that can fail alone."""
        inner = self._connection.in_transaction
        begin, commit = ("SAVEPOINT part", "RELEASE part") if inner else ("BEGIN", "COMMIT")
        undo = ("ROLLBACK TO part", "RELEASE part") if inner else ("ROLLBACK",)
        with opening.translated(self.path):
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute(commit)
            except BaseException:
                if self._connection.in_transaction:  # SQLite has undone it itself after some errors of the disk
                    for statement in undo:
                        self._connection.execute(statement)
                raise

    # From the journals.

    def ingest(
        self,
        segment: str,
        next_offset: int,
        changes: Iterable[Change],
        reads: Iterable[Read] = (),
        looks: Collection[tuple[str, str]] = (),
        freed: Iterable[Freed] = (),
    ) -> None:
        """Note what a segment of a journal says up to `next_offset` bytes; after a crash, read on from `offsets()`.
        `looks` are containers (account, container) that are to be looked at as a whole."""
        with self.transaction():
            ingest.note(self._connection, changes, reads, looks, freed)
            self._connection.execute(
                'INSERT INTO segments (name, "offset") VALUES (?, ?) '
                'ON CONFLICT (name) DO UPDATE SET "offset" = excluded."offset"',
                (segment, next_offset),
            )

    def note(self, changes: Iterable[Change], reads: Iterable[Read] = ()) -> None:
        """Note what no journal told of: changes that a reconciliation found, blobs that were brought back."""
        with self.transaction():
            ingest.note(self._connection, changes, reads)

    def wandered(self, stubs: Iterable[Wandered]) -> None:
        """Stubs were found under other names than those of the blobs that they were made of."""
        with self.transaction():
            ingest.wandered(self._connection, stubs)

    def adopt(self, rows: Iterable[Adopted]) -> int:
        """Take over what the mount and the cloud were found to hold, where nothing was noted since. Returns how many
        rows were made or changed. Raises ValueError for a residency that says something else."""
        with self.transaction():
            return adopting.adopt(self._connection, rows)

    def looks(self) -> list[Look]:
        """The containers that are to be looked at as a whole."""
        with self.transaction():
            return ingest.looks(self._connection)

    def looked(self, look: Look) -> None:
        """It was, and what was found is noted. One that was noted again meanwhile stays."""
        with self.transaction():
            ingest.looked(self._connection, look)

    def offsets(self) -> dict[str, int]:
        """Bytes taken over of each segment."""
        with self.transaction():
            return dict(self._connection.execute('SELECT name, "offset" FROM segments'))

    def forget_segment(self, name: str) -> None:
        """The segment was taken over to its end and deleted."""
        with self.transaction():
            self._connection.execute("DELETE FROM segments WHERE name = ?", (name,))

    # Work.

    def take(self, now: int, limit: int, running: Collection[int]) -> list[Row]:
        """At most `limit` rows to work on at `now`, in order, without those whose ids are `running`."""
        with self.transaction():
            return self._taker.take(now, limit, running)

    def next_due(self) -> int | None:
        """When the next row that waits is due, if any: until then, or a change, an empty `take` stays empty."""
        with self.transaction():
            return next_due(self._connection)

    # What became of a row. False: it is another version by now, or gone, and the report came too late.

    def changed(self, row: Row, seen: Seen, turn: Turn, now: int) -> bool:
        """The blob was looked at, and a rule sends this version when its turn comes."""
        with self.transaction():
            return moves.changed(self._connection, row, seen, turn, now)

    def kept(self, row: Row, seen: Seen) -> bool:
        """The blob was looked at, and no rule sends it."""
        with self.transaction():
            return moves.kept(self._connection, row, seen)

    def deleted(self, row: Row, turn: Turn, now: int) -> bool:
        """The blob is not here any more, and a rule deletes it in the cloud."""
        with self.transaction():
            return moves.deleted(self._connection, row, turn, now)

    def gone(self, row: Row, *, astray_too: bool = False) -> bool:
        """The blob is neither here nor, as far as we answer for it, in the cloud: the row goes. `astray_too`: what the
        cloud has stays, and a new blob of the name does not replace it if a stub may need it."""
        with self.transaction():
            return moves.gone(self._connection, row, astray_too=astray_too)

    def copied(self, row: Row, copy: Copy, *, safe: bool = False) -> bool:
        """The cloud was verified to have this version. `safe`: what it had before is needed by no stub."""
        with self.transaction():
            return moves.copied(self._connection, row, copy, safe=safe)

    def stubbed(self, row: Row, seen: Seen, copy: Copy) -> bool:
        """The blob was looked at: it is a stub of a version that the cloud has. `seen.size` is of the blob's bytes."""
        with self.transaction():
            return moves.stubbed(self._connection, row, seen, copy)

    def measured(self, blobs: Iterable[Measured]) -> None:
        """These wait to be sent, and are so large."""
        with self.transaction():
            ingest.measured(self._connection, blobs)

    def leaving(self, rows: Iterable[Row]) -> None:
        """These are about to be evicted: from here on, what the cloud has of them is not replaced unseen."""
        with self.transaction():
            astray.leaving(self._connection, rows)

    def stayed(self, rows: Iterable[Row]) -> None:
        """These were not evicted after all."""
        with self.transaction():
            astray.stayed(self._connection, rows)

    def evicted(self, row: Row) -> bool:
        """A stub stands here now for this version."""
        with self.transaction():
            return moves.evicted(self._connection, row)

    def arrived(self, account: str, container: str, name: str, etag: str) -> bool:
        """The bytes of a stub with this ETag of ours are here again, verified. False: another version. Also when their
        eviction is not reported yet: that report then comes too late."""
        with self.transaction():
            return moves.arrived(self._connection, account, container, name, etag)

    def lost(self, row: Row) -> bool:
        """The cloud does not have the copy that it was verified to have: this version is sent again, if its bytes are
        here (COPIED). False for others: a stub without a copy is for a person to see."""
        with self.transaction():
            return moves.lost(self._connection, row)

    def failed(self, row: Row, failure: Failure) -> bool:
        """A try failed. Its text is kept without what looks like a credential."""
        with self.transaction():
            return moves.failed(self._connection, row, failure)

    # Looking at it, and what an operator does.

    def find(self, account: str, container: str, name: str) -> Row | None:
        """The row of one blob."""
        with self.transaction():
            return queries.find(self._connection, account, container, name)

    def known(self, account: str, container: str, start: str, end: str | None, limit: int) -> list[queries.Known]:
        """Versions of a container's blobs in order, from `start` on and before `end`; None: to its end."""
        with self.transaction():
            return queries.known(self._connection, account, container, start, end, limit)

    def rows(self, wanted: queries.Filter, after: str | None = None, limit: int = 1_000) -> queries.Page:
        """A page of a listing. It may be short, even empty, and go on. Raises queries.BadCursor."""
        with self.transaction():
            return queries.page(self._connection, wanted, after, limit)

    def counts(self) -> list[queries.Total]:
        """Totals per container, residency and hold."""
        with self.transaction():
            return queries.counts(self._connection)

    def candidates(
        self,
        limit: int,
        *,
        account: str | None = None,
        containers: Collection[str] | None = None,
        unused_since: int | None = None,
        after: cold.Place | None = None,
    ) -> list[Row]:
        """At most `limit` rows that may be evicted, the coldest first: COPIED, not held, not pinned; of an account, of
        some of its containers, and with neither a read nor a change at or after `unused_since`. The next ones are those
        `after` cold.place_of(the last one). Empty at the end."""
        with self.transaction():
            return cold.candidates(self._connection, limit, account, containers, unused_since, after)

    def evictable(self) -> list[cold.Evictable]:
        """What `candidates` would go through, in each container: blobs and bytes; about 0.4 s for a million rows."""
        with self.transaction():
            return cold.evictable(self._connection)

    def unconfirmed(self) -> dict[tuple[str, str], int]:
        """Deletes that wait and that no person has confirmed, by account and container."""
        with self.transaction():
            return queries.unconfirmed(self._connection)

    def failures(self) -> dict[str, int]:
        """Rows whose last try failed, by class."""
        with self.transaction():
            return queries.failures(self._connection)

    def act(self, act: acts.Act, wanted: queries.Filter, after: str | None = None) -> acts.Done:
        """Do what an operator asks to the next slice of rows; again with `after` until it is None."""
        with self.transaction():
            if act in (acts.Act.PIN, acts.Act.UNPIN) and after is None and wanted.is_place:
                self._note_pin(Prefix(wanted.account or "", wanted.container or "", wanted.prefix), act)
            return acts.apply(self._connection, act, wanted, after)

    def _note_pin(self, prefix: Prefix, act: acts.Act) -> None:
        try:
            self._pins.note(prefix, pinned=act is acts.Act.PIN)
        except OSError as error:
            raise opening.QueueUnwritable(f"{self.path.with_name(pins.FILE)}: {error}") from error

    # What belongs to no row.

    def spend(self, day: str, sent_bytes: int) -> int:
        """Add to the bytes sent on a day (YYYY-MM-DD). Returns the day's sum."""
        with self.transaction():
            (total,) = self._connection.execute(
                "INSERT INTO budget (day, bytes) VALUES (?, ?) "
                "ON CONFLICT (day) DO UPDATE SET bytes = bytes + excluded.bytes RETURNING bytes",
                (day, sent_bytes),
            ).fetchone()
            return int(total)

    def remember(self, key: str, value: str) -> None:
        """Keep a setting that the operator made while running (paused)."""
        with self.transaction():
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"said:{key}", value))

    def recall(self, key: str) -> str | None:
        """The setting as last remembered."""
        with self.transaction():
            found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (f"said:{key}",)).fetchone()
            return found and str(found[0])
