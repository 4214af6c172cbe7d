"""Which rows may go, the coldest first, by what the queue knows of them: nothing is opened and nobody is asked.

A blob that could not go rests for REST_SECONDS, so that a pass costs nothing for it meanwhile; why it could not is
remembered for whoever counts. Containers without a rule by which anything leaves are not read at all.
"""

import functools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Final

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.cold import Evictable, Place, place_of
from agent.offload.database import Queue
from agent.offload.evict.departure import BATCH_ROWS, row_verdict
from agent.offload.evict.space import Mode
from agent.offload.evict.spaces import Part, Spaces
from agent.offload.evict.verdict import Way
from agent.offload.rows import Row
from agent.offload.rules import Rules, Subject, decide

PAGE_ROWS: Final = 500
REST_SECONDS: Final = 30.0  # of a blob that could not go
RESTS_COUNT_MAX: Final = 100_000
TOTALS_SECONDS: Final = 5.0  # for which the list of containers with copies is good


@dataclass(slots=True)
class Pass:
    """What a pass over rows has come to: blobs that stayed, by reason, and how long it took to choose."""

    stays: Counter[str] = field(default_factory=Counter)
    reading_seconds: float = 0.0


class Choice:
    """Chooses rows for passes. For one thread; several tasks may."""

    def __init__(self, queue: AsyncQueue, rules: Rules, spaces: Spaces) -> None:
        self._queue: Final = queue
        self._rules: Final = rules
        self._spaces: Final = spaces
        self._rests: dict[tuple[int, int], tuple[float, str]] = {}
        self._totals: list[Evictable] = []
        self._totals_at = float("-inf")

    async def batches(
        self, part: Part, mode: Callable[[], Mode], done: Pass, unused_since: int | None = None
    ) -> AsyncGenerator[list[Row], None]:
        """Batches of a part's rows that may go, in the mode that its disk has then. Raises QueueError."""
        containers = await self._containers(part)
        after: Place | None = None
        batch: list[Row] = []
        while containers:
            began = time.monotonic()
            page = await self._queue(functools.partial(_page, part.account, containers, unused_since, after))
            reasons = [self._stays(row, mode()) for row in page]
            done.stays.update(filter(None, reasons))
            batch += [row for row, why in zip(page, reasons, strict=True) if not why]
            done.reading_seconds += time.monotonic() - began
            while len(batch) >= BATCH_ROWS:
                yield batch[:BATCH_ROWS]
                batch = batch[BATCH_ROWS:]
            if len(page) < PAGE_ROWS:
                break
            after = place_of(page[-1])
        if batch:
            yield batch

    def rest(self, row: Row, why: str) -> None:
        """It could not go."""
        if len(self._rests) >= RESTS_COUNT_MAX:
            self._rests.clear()
        self._rests[row.id, row.revision] = time.monotonic() + REST_SECONDS, why

    async def copies(self) -> list[Evictable]:
        """What of each container the cloud has and nothing holds here, not older than TOTALS_SECONDS."""
        if time.monotonic() - self._totals_at > TOTALS_SECONDS:
            self._totals = await self._queue(lambda queue: queue.evictable())
            self._totals_at = time.monotonic()
        return self._totals

    async def _containers(self, part: Part) -> list[str]:
        return [
            each.container
            for each in await self.copies()
            if self._spaces.part(each.account, each.container) == part
            and any(rule.leaving.leaves for rule in self._rules.candidates(each.account, each.container))
        ]

    def _stays(self, row: Row, mode: Mode) -> str:
        """Why a row is passed over, "" if it is not."""
        until, why = self._rests.get((row.id, row.revision), (0.0, ""))
        if why and until > time.monotonic():
            return why
        now = time.time_ns()
        subject = Subject(row.account, row.container, row.name, row.size, row.modified_ns, row.modified_ns)
        said = row_verdict(row, decide(self._rules, subject, now), now, mode)
        return "it is empty" if said.way is Way.EVICT and not row.size else said.why


def _page(
    account: str, containers: list[str], unused_since: int | None, after: Place | None, queue: Queue
) -> list[Row]:
    return queue.candidates(PAGE_ROWS, account=account, containers=containers, unused_since=unused_since, after=after)
