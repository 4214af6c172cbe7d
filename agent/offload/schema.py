"""The tables of the queue, with their meaning, and the way from any older version of them to this one.

`user_version` of the file says which schema it has. Each step of STEPS runs in one transaction with the new number, so
a crash repeats a step and never leaves half of one. A step that has been released is never edited: a change is a new
step, and the test of upgrades gets one more row. sqlite-utils does what SQLite's ALTER TABLE cannot
(`Table.transform`); it is imported only when there is a step to run, as it costs a sidecar 15 MB of its 128.

Which indices, measured at 300,000 rows (records with names in random order, in a second of CPU time):
- `blobs_by_state` in the order of time rather than of names: 104,000 against 46,000, as new entries go to its end;
- totals kept by triggers: 83,000 against 104,000, to save a count (0.15 s at a million rows) that is asked for a few
  times a minute. So totals are counted, out of `blobs_by_state` alone, which is why it holds the sizes.

Rejected: account and container as text in each row (a third more bytes, twice: in the row and in its index); integers
for states (smaller, but a file that explains itself is worth more in an emergency).
"""

import sqlite3
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Final, cast

from agent.offload.stored import copy_check

if TYPE_CHECKING:
    from sqlite_utils import Database

#: What may be worked on. Word for word the condition of two indices, without which SQLite does not use them.
ACTIVE: Final = "residency IN ('queued', 'going')"

#: What may be evicted: word for word the condition of an index, as above.
EVICTABLE: Final = "residency = 'copied' AND hold = '' AND pinned = 0"

#: A blob by its names, whatever became of its row.
BLOB: Final = (
    "name = :name AND container_id = (SELECT id FROM containers WHERE account = :account AND container = :container)"
)

#: The row of `meta` that counts revisions.
REVISION_KEY: Final = "revision"

#: The setting that says how mounts and cloud were last compared.
RECONCILED_KEY: Final = "reconciled"
#: The one that says that all of them were, and rows mended: until then a new database does not know what was sent.
COMPARED_KEY: Final = "compared"


def _blobs(database: "Database") -> None:
    columns = {
        "id": int,
        "container_id": int,
        "name": str,
        "residency": str,  # agent/offload/states.py
        "hold": str,  # "" when nothing keeps it; "waiting" until due_at
        "revision": int,  # the number of the transaction that noted the last change
        "etag": str,  # of the version last looked at; "" before the first look
        "size": int,  # of that version
        "modified_ns": int,  # of that version; of the last noted change when that is later
        "changed_at": int,  # since when the cloud lacks something: the first change that it does not have; 0: fuse.py
        "due_at": int,
        "priority": int,
        "order_key": int,
        "attempts": int,  # that failed, of this version
        "failure": str,  # the class of the last of them; "" after none
        "error": str,  # what was said; never a secret
        "copied_etag": str,  # our ETag of the version that the cloud has; "" for none
        "cloud_etag": str,  # the cloud's ETag of it: what a guarded request names
        "cloud_container": str,
        "cloud_name": str,
        "copied_at": int,
        "read_at": int,  # heat: last read through the endpoint
        "pinned": int,  # 1: never evicted
    }
    always = {"id", "container_id", "name", "residency", "hold", "revision", "modified_ns", "changed_at", "due_at"}
    database.table("blobs").create(
        columns,
        pk="id",
        not_null=columns.keys() - {"id"},
        defaults={name: kind() for name, kind in columns.items() if name not in always},
        strict=True,
    )
    for index in (
        "UNIQUE INDEX blobs_by_name ON blobs (container_id, name)",
        # The order of work; and what becomes due when.
        f"INDEX blobs_ready ON blobs (container_id, priority, order_key) WHERE {ACTIVE} AND hold = ''",
        f"INDEX blobs_waiting ON blobs (due_at) WHERE {ACTIVE} AND hold = 'waiting'",
        # Listings by state, the longest unprotected first; and every total.
        "INDEX blobs_by_state ON blobs (residency, hold, container_id, changed_at, size)",
        "INDEX blobs_failed ON blobs (failure) WHERE failure <> ''",
    ):
        database.execute(f"CREATE {index}")


def _first(database: "Database") -> None:
    # Containers by number: a row names its account and container in two bytes.
    database.table("containers").create(
        {"id": int, "account": str, "container": str}, pk="id", not_null={"account", "container"}, strict=True
    )
    database.table("containers").create_index(["account", "container"], unique=True)
    _blobs(database)
    # How far each segment of a journal has been taken over; in one transaction with the rows that came of it.
    database.table("segments").create({"name": str, "offset": int}, pk="name", not_null={"offset"}, strict=True)
    # Bytes sent on each day (YYYY-MM-DD), for the daily data budget.
    database.table("budget").create({"day": str, "bytes": int}, pk="day", not_null={"bytes"}, strict=True)
    # What belongs to no row: paused, the revision.
    database.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT")
    database.execute("INSERT INTO meta VALUES (?, 0)", [REVISION_KEY])


def _second(database: "Database") -> None:
    # The read before the last: a blob that was read once, as by a backup, is colder than one that is read again.
    database.table("blobs").add_column("read_before_at", int, not_null_default=0)
    # Computed when it is asked for. As a column, since SQLite seeks no place in an index by an expression.
    database.execute("ALTER TABLE blobs ADD COLUMN used_at INTEGER AS (max(read_at, modified_ns)) VIRTUAL")
    # What can be evicted, the coldest of each container first; with its sizes, for the totals.
    database.execute(
        f"CREATE INDEX blobs_cold ON blobs (container_id, read_before_at, used_at, size) WHERE {EVICTABLE}"
    )
    # A check of what is said of the copy in the cloud; 0 where there is none.
    database.table("blobs").add_column("copy_check", int, not_null_default=0)
    database.conn.create_function("check_of", 6, copy_check, deterministic=True)
    database.execute(
        "UPDATE blobs SET copy_check = check_of(name, copied_etag, cloud_etag, cloud_container, cloud_name, copied_at) "
        "WHERE copied_etag <> ''"
    )
    # A stub whose bytes were on their way is a stub: states.py has no residency for it any more.
    database.execute("UPDATE blobs SET residency = 'remote' WHERE residency = 'recalling'")
    # Containers that were themselves made, changed or deleted, and that nobody has looked at since.
    database.table("looks").create(
        {"container_id": int, "revision": int}, pk="container_id", not_null={"revision"}, strict=True
    )


def _third(database: "Database") -> None:
    # 1: what the cloud has may be all that there is of a stub, wherever that is by now (astray.py). Of rows that are
    # queued or to be deleted, nobody knows any more whether they were stubs: better a copy too many.
    database.table("blobs").add_column("away", int, not_null_default=0)
    database.execute(
        "UPDATE blobs SET away = 1 "
        "WHERE residency = 'remote' OR (residency IN ('queued', 'going') AND copied_etag <> '')"
    )
    database.execute(
        f"INSERT INTO meta SELECT 'said:{COMPARED_KEY}', value FROM meta WHERE key = 'said:{RECONCILED_KEY}'"
    )
    # Names whose rows went while they were `away`.
    database.execute(
        "CREATE TABLE astray (container_id INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (container_id, name)) "
        "STRICT, WITHOUT ROWID"
    )


#: Step n leads from version n to version n + 1.
STEPS: Final[tuple[Callable[["Database"], None], ...]] = (_first, _second, _third)
VERSION: Final = len(STEPS)


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the schema that the file has; 0 for an empty file."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _tools(connection: sqlite3.Connection) -> "Database":
    """sqlite-utils for the connection, without what it imports besides when it is installed: 70 MB for data frames."""
    loaded = cast(dict[str, ModuleType | None], sys.modules)
    kept_away = [name for name in ("pandas", "numpy") if name not in loaded]
    loaded.update(dict.fromkeys(kept_away))  # None there makes an import fail (the import system, 5.3.1)
    try:
        from sqlite_utils import Database
    finally:
        for name in kept_away:
            del loaded[name]
    return Database(connection, execute_plugins=False)


def upgrade(connection: sqlite3.Connection, steps: tuple[Callable[["Database"], None], ...] = STEPS) -> int:
    """Bring the file to the version that `steps` leads to. Returns how many steps ran."""
    version = version_of(connection)
    if version >= len(steps):
        return 0
    database = _tools(connection)
    for number, step in enumerate(steps[version:], version + 1):
        with database.atomic():
            step(database)
            connection.execute(f"PRAGMA user_version = {number}")
    return len(steps) - version
