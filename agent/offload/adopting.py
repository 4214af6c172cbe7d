"""Rows of what is known already: the mount and the cloud were read side by side, and say of each blob where it is.

So a node whose database is gone does not ask the cloud for each blob again, nor sends one twice: 100,000 rows take
about a second in all. A look is older than what was noted after it. So a row is made only where there is none, and
changed only while it has the revision that it had before the mount was looked at; a journal's record that came in
between wins. Heat and pins of a row stay.

Rejected: comparing times (a file's mtime may be of the future, and a clock may have been set back).
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from agent.offload.astray import IS_ASTRAY
from agent.offload.ingest import Containers
from agent.offload.moves import next_revision
from agent.offload.rows import Adopted, Copy
from agent.offload.states import Residency
from agent.offload.stored import check_of

_WITH_COPY: Final = frozenset({Residency.COPIED, Residency.REMOTE})
_NO_COPY: Final = Copy("", "", "", "", 0)
_FACTS: Final = (
    "residency", "etag", "size", "modified_ns", "changed_at", "copied_etag", "cloud_etag", "cloud_container",
    "cloud_name", "copied_at", "copy_check", "revision",
)  # fmt: skip
_ADOPT: Final = f"""
INSERT INTO blobs (container_id, name, due_at, hold, away, {", ".join(_FACTS)})
VALUES (:container_id, :name, 0, '', :residency = '{Residency.REMOTE}' OR {IS_ASTRAY},
        {", ".join(f":{fact}" for fact in _FACTS)})
ON CONFLICT (container_id, name) DO UPDATE SET
    {", ".join(f"{fact} = excluded.{fact}" for fact in _FACTS)},
    away = max(away, excluded.away),
    hold = '', attempts = 0, failure = '', error = ''
WHERE blobs.revision = :known
"""


def adopt(connection: sqlite3.Connection, rows: Iterable[Adopted]) -> int:
    """Make or change the rows, in a transaction of the caller. Returns how many. Raises ValueError for one that is
    neither COPIED or REMOTE with its copy, nor LOCAL."""
    values = _values(connection, sorted(rows, key=lambda row: row[:3]))  # neighbours share pages of the index
    return connection.executemany(_ADOPT, values).rowcount


def _values(connection: sqlite3.Connection, rows: list[Adopted]) -> Iterator[dict[str, str | int]]:
    containers = Containers(connection)
    revision = next_revision(connection) if rows else 0
    for row in rows:
        if (row.copy is not None) != (row.residency in _WITH_COPY) or (
            row.copy is None and row.residency is not Residency.LOCAL
        ):
            raise ValueError(f"a blob that is {row.residency}, {'with' if row.copy else 'without'} a copy")
        copy = row.copy or _NO_COPY
        yield {
            "container_id": containers[row.account, row.container],
            "name": row.name,
            "residency": row.residency,
            "etag": row.seen.etag,
            "size": row.seen.size,
            "modified_ns": row.seen.modified_ns,
            "changed_at": row.seen.modified_ns,
            "copied_etag": copy.etag,
            "cloud_etag": copy.cloud_etag,
            "cloud_container": copy.cloud_container,
            "cloud_name": copy.cloud_name,
            "copied_at": copy.copied_at,
            "copy_check": check_of(row.name, copy),
            "revision": revision,
            "known": row.revision,
        }
