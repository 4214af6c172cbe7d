"""Which rows to work on next: the lowest priority first; in it the containers by turns; in each the lowest order_key.

Every step is a seek in an index, so the answer takes as long with a million rows as with ten. What is held has left the
index of ready rows: a hundred thousand poisoned or waiting rows cost nothing. What waits is in an index by time, and is
moved over when it is due, PROMOTED_MAX rows a call.

Rejected: one index by due_at alone (a day offline makes all rows due, and each call would sort them); a share of each
call for every container (a call for one row would always be for the same container).
"""

import heapq
import json
import sqlite3
from collections.abc import Collection
from typing import Final, NamedTuple

from agent.offload.rows import Row
from agent.offload.schema import ACTIVE
from agent.offload.stored import row_by_id

PROMOTED_MAX: Final = 10_000  # about 50 ms
_LOWEST: Final = (-(2**63), -(2**63), 0)  # before every (priority, order_key, id)

_READY: Final = f"blobs INDEXED BY blobs_ready WHERE {ACTIVE} AND hold = ''"
_WAITING: Final = f"blobs INDEXED BY blobs_waiting WHERE {ACTIVE} AND hold = 'waiting'"
_NEXT_CONTAINER: Final = f"SELECT container_id FROM {_READY} AND container_id > ? ORDER BY container_id LIMIT 1"
_CANDIDATES: Final = f"""
SELECT priority, order_key, id FROM {_READY} AND container_id = ? AND (priority, order_key, id) > (?, ?, ?)
ORDER BY priority, order_key, id"""
_PROMOTE: Final = f"""
UPDATE blobs SET hold = ''
WHERE id IN (SELECT id FROM {_WAITING} AND due_at <= ? ORDER BY due_at LIMIT {PROMOTED_MAX})"""
_RUNNING: Final = "SELECT container_id, count(*) FROM blobs WHERE id IN (SELECT value FROM json_each(?)) GROUP BY 1"


class _Head(NamedTuple):
    """The best row of a container that is not taken, compared with those of other containers."""

    priority: int
    running: int  # of its container, those just taken among them
    served: int  # when its container was last given a turn
    order_key: int
    id: int
    container: int


def next_due(connection: sqlite3.Connection) -> int | None:
    """When the first waiting row is due; None when none waits."""
    found = connection.execute(f"SELECT due_at FROM {_WAITING} ORDER BY due_at LIMIT 1").fetchone()
    return found and int(found[0])


class Taker:
    """Takes rows, and remembers which container had a turn when."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection
        self._served: dict[int, int] = {}
        self._turns = 0

    def take(self, now: int, limit: int, running: Collection[int]) -> list[Row]:
        """At most `limit` rows that are due at `now` and not `running`, in the order to start them."""
        self._promote(now)
        taken: list[int] = []
        busy = frozenset(running)
        heads = self._heads(busy)
        while heads and len(taken) < limit:
            head = heapq.heappop(heads)
            taken.append(head.id)
            self._turns += 1
            self._served[head.container] = self._turns
            after = (head.priority, head.order_key, head.id)
            if following := self._head(head.container, after, head.running + 1, busy):
                heapq.heappush(heads, following)
        return [row_by_id(self._connection, row_id) for row_id in taken]

    def _promote(self, now: int) -> None:
        due_at = next_due(self._connection)
        if due_at is not None and due_at <= now:
            self._connection.execute(_PROMOTE, (now,))

    def _heads(self, running: frozenset[int]) -> list[_Head]:
        busy = dict(self._connection.execute(_RUNNING, (json.dumps(list(running)),)))
        heads: list[_Head] = []
        container = -1
        while found := self._connection.execute(_NEXT_CONTAINER, (container,)).fetchone():
            container = found[0]
            if head := self._head(container, _LOWEST, busy.get(container, 0), running):
                heads.append(head)
        heapq.heapify(heads)
        return heads

    def _head(self, container: int, after: tuple[int, int, int], busy: int, running: frozenset[int]) -> _Head | None:
        """The first row of the container after `after` that is not running."""
        for priority, order_key, row_id in self._connection.execute(_CANDIDATES, (container, *after)):
            if row_id not in running:
                return _Head(priority, busy, self._served.get(container, 0), order_key, row_id, container)
        return None
