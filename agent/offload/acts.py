"""What an operator does to many rows at once, a slice at a time, so that others get their turn in between.

    act      rows of the filter that it changes        to
    RETRY    whatever holds them                       due, as if never tried
    HOLD     QUEUED or GOING                           held for the operator, until RELEASE or RETRY
    RELEASE  held for the operator                     due
    CONFIRM  GOING                                     deleted in the cloud without a question to the fuse
    DROP     LOCAL, QUEUED, GOING                      forgotten, until the blob changes or a reconciliation finds it
    PIN      all                                       never evicted
    UNPIN    all                                       evicted as the rules say

No row is dropped that says where bytes are (COPIED, REMOTE). RETRY and RELEASE leave the alarm of a stub without its
copy (COPY_LOST): there is nothing to try, and who looks for lost bytes has to find them. Work under way goes on.
"""

import json
import sqlite3
from enum import StrEnum
from typing import Final, NamedTuple

from agent.offload import astray, fuse, queries
from agent.offload.schema import ACTIVE
from agent.offload.states import COPY_LOST

SLICE_ROWS: Final = 5_000  # about 50 ms
HELD: Final = "held"  # the failure of a row that an operator holds


class Act(StrEnum):
    """What to do; the table is above."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    CONFIRM = "confirm"
    DROP = "drop"
    PIN = "pin"
    UNPIN = "unpin"


class Done(NamedTuple):
    """How many rows were changed, and where to go on; None when all were visited."""

    rows: int
    after: str | None


_DUE: Final = "UPDATE blobs SET hold = '', attempts = 0, failure = '', error = ''"
_NO_ALARM: Final = f"NOT (residency = 'remote' AND failure = '{COPY_LOST}')"
_FUSE: Final = f"failure = '{fuse.FAILURE}'"
_STATEMENTS: Final = {
    Act.RETRY: (_DUE, f"hold <> '' AND {_NO_ALARM}"),
    Act.HOLD: (
        f"UPDATE blobs SET hold = 'operator', failure = '{HELD}', error = ''",
        f"{ACTIVE} AND hold <> 'operator'",
    ),
    Act.RELEASE: (_DUE, f"hold = 'operator' AND {_NO_ALARM}"),
    Act.CONFIRM: (
        f"UPDATE blobs SET changed_at = {fuse.CONFIRMED}, hold = iif({_FUSE}, '', hold), "
        f"error = iif({_FUSE}, '', error), failure = iif({_FUSE}, '', failure)",
        f"residency = 'going' AND changed_at <> {fuse.CONFIRMED}",
    ),
    Act.DROP: ("DELETE FROM blobs", "residency IN ('local', 'queued', 'going')"),
    Act.PIN: ("UPDATE blobs SET pinned = 1", "pinned = 0"),
    Act.UNPIN: ("UPDATE blobs SET pinned = 0", "pinned = 1"),
}


def apply(connection: sqlite3.Connection, act: Act, wanted: queries.Filter, after: str | None) -> Done:
    """Do it to the next slice of the rows that the filter lets through. Raises queries.BadCursor."""
    page = queries.page(connection, wanted, after, SLICE_ROWS)
    statement, condition = _STATEMENTS[act]
    ids = json.dumps([row.id for row in page.rows])
    those = f"id IN (SELECT value FROM json_each(?)) AND {condition}"
    if act is Act.DROP:
        connection.execute(f"{astray.NOTE} {those}", (ids,))
    changed = connection.execute(f"{statement} WHERE {those}", (ids,))
    return Done(changed.rowcount, page.after)
