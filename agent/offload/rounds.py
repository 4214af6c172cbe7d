"""When everything is looked at (scan.py), and what is said of it.

    why                                               how
    the database is new, or was set aside as damaged  the cloud and the mounts are compared (reconcile), which makes the
                                                      rows again; without the cloud, a scan at full speed
    the journals say that something is missing        paced; then mounts and cloud are compared: tags and tier
                                                      move no ETag, which is all that a scan looks at
    the rules are other ones than at the last scan    paced; what was kept or waits is asked about again
    `scan_seconds` have passed                        paced
    the operator asks (`blobedge queue scan`)         paced; kept in the queue until it has begun
    a scan was not finished                           goes on where it was; from the beginning under other rules
    a container was itself changed                    that container

Each account has a place of its own. One whose mount fails is gone on with from there after RETRY_SECONDS; the others
are finished meanwhile, and looked at again when it is time, however long that mount is away. Uploads go on.
"""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from agent.config_offload import Offload
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.delivery import MOUNT_ERRORS
from agent.offload.opening import QueueError
from agent.offload.rows import Look
from agent.offload.scan import Place, Places, Scanner
from dataplane.journal import unclean

log = logging.getLogger("blobedge.offload")

TURN_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 30.0
RULES: Final = "rules"  # in the queue's settings: a digest of the rules of the last scan
SCANNED: Final = "scanned-at"  # likewise: when the last one began, ns since 1970
COMPARE: Final = "compare-asked"  # likewise: "1" from a look for what the journals lack until it was asked for
ASKED: Final = "scan-asked"  # likewise: "1" from an operator's wish until that look begins
_SECOND_NS: Final = 1_000_000_000


async def _no_cloud() -> bool:
    return False


class Rounds:
    """Scans when there is a reason. `journals` is their directory. `rebuild` makes the rows of a new database; False
    when it cannot. `compare` has the mounts compared with the cloud soon, which finds what a look does not: a change of
    tags or tier, which moves no ETag; False when it could not be asked for."""

    def __init__(
        self,
        scanner: Scanner,
        queue: AsyncQueue,
        offload: Offload,
        journals: Path,
        rebuild: Callable[[], Awaitable[bool]] = _no_cloud,
        compare: Callable[[], Awaitable[bool]] = _no_cloud,
    ) -> None:
        self.scanner: Final = scanner
        self._queue: Final = queue
        self._offload: Final = offload
        self._journals: Final = journals
        self._rebuild: Final = rebuild
        self._compare: Final = compare
        self._wanted_after = 0.0  # on the monotonic clock; the process before this one may have left some
        self._rests: dict[str, float] = {}  # accounts whose mount failed: until when, on the monotonic clock
        self._problems: dict[str, str] = {}  # by account, or "" for the journals
        self.scanned_at = 0  # ns since 1970

    @property
    def problem(self) -> str:
        """Why a scan that is due does not go on, "" if all do."""
        return "; ".join(f"{name}: {text}" if name else text for name, text in sorted(self._problems.items()))

    def want(self, containers: set[tuple[str, str]]) -> None:
        """These were themselves made, changed or deleted, and the queue has noted it."""
        if containers:
            self._wanted_after = 0.0

    async def ask(self) -> None:
        """Look at everything from the beginning, within TURN_SECONDS, or after the look that is under way: it may have
        passed what is asked about. Outlives a restart. Raises QueueError."""
        await self._queue(lambda queue: queue.remember(ASKED, "1"))

    async def run(self) -> None:
        """Until cancelled. Raises QueueError."""
        self.scanned_at = int(await self._queue(lambda queue: queue.recall(SCANNED)) or 0)
        new = not self.scanned_at
        while True:
            try:
                if new:
                    new = False
                    await self._first()
                places = await self._due()
                if places:
                    await self._scan(places)
                await self._some_containers()
                self._problems.pop("", None)
            except QueueError:
                raise
            except OSError as error:
                self._problems[""] = f"{type(error).__name__}: {error}"
                log.warning("the look at everything stops for %g s: %s", RETRY_SECONDS, self.problem)
                await trio.sleep(RETRY_SECONDS)
            await trio.sleep(TURN_SECONDS)

    async def _first(self) -> None:
        """Have the rows of a new database made, which counts as a look at everything."""
        began = time.time_ns()
        await trio.to_thread.run_sync(unclean.begin, self._journals)
        if await self._rebuild():
            await self.scanner.begin({}, {RULES: self._digest(), SCANNED: str(began)})
            self.scanned_at = began
            await trio.to_thread.run_sync(unclean.end, self._journals)

    async def _due(self) -> Places:
        """Where scans are to begin or go on. Raises OSError when the journals cannot be asked."""
        rules, now = self._digest(), time.monotonic()
        unfinished = await self.scanner.unfinished()
        current = {account: place for account, place in unfinished.items() if place.rules == rules}
        if stopped := {account: place for account, place in current.items() if account not in self._rests}:
            return stopped
        digest, asked = await self._queue(lambda queue: (queue.recall(RULES), queue.recall(ASKED)))
        again = len(current) < len(unfinished) or digest not in (None, rules)
        if not self.scanned_at:
            return self.scanner.beginning(Place(again=again, fast=True, rules=rules)) if not current else {}
        missing = await trio.to_thread.run_sync(unclean.is_due, self._journals)
        age = time.time_ns() - self.scanned_at
        if again or missing or asked or not 0 <= age < self._offload.scan_seconds * _SECOND_NS:
            return self.scanner.beginning(Place(again=again, rules=rules))
        return {account: place for account, place in current.items() if self._rests[account] <= now}

    async def _scan(self, places: Places) -> None:
        """Look at these accounts. The place of one that fails is kept like that of one under a kill, so this look is
        over for the journals and for the others."""
        began = time.time_ns()
        begins = all(not (place.container or place.start) for place in places.values())
        if begins:
            notes = {RULES: next(iter(places.values())).rules, SCANNED: str(began), ASKED: ""}
            if self.scanned_at and await trio.to_thread.run_sync(unclean.is_due, self._journals):
                notes[COMPARE] = "1"
            await trio.to_thread.run_sync(unclean.begin, self._journals)
            await self.scanner.begin(places, notes)  # a kill forgets no wish
        done = await self.scanner.scan(places)
        for account in places:
            self._rests.pop(account, None)
            self._problems.pop(account, None)
        for account, error in done.failed.items():
            self._rests[account] = time.monotonic() + RETRY_SECONDS
            self._problems[account] = f"{type(error).__name__}: {error}"
            log.warning("the look at everything of %s stops for %g s: %s", account, RETRY_SECONDS, error)
        self.scanned_at = began if begins else int(await self._queue(lambda queue: queue.recall(SCANNED)) or began)
        await trio.to_thread.run_sync(unclean.end, self._journals)
        if await self._queue(lambda queue: queue.recall(COMPARE)) and await self._compare():
            await self._queue(lambda queue: queue.remember(COMPARE, ""))
        seconds = (time.time_ns() - began) / _SECOND_NS
        log.info("looked at %d blobs in %.1f s, %d of them are news", done.blobs, seconds, done.found)

    async def _some_containers(self) -> None:
        if time.monotonic() < self._wanted_after:
            return
        self._wanted_after = float("inf")
        for look in await self._queue(lambda queue: queue.looks()):
            try:
                await self.scanner.scan_container(look.account, look.container)
                await self._queue(partial(_looked, look))
            except MOUNT_ERRORS as error:
                log.warning("%s/%s is looked at in %g s: %s", look.account, look.container, RETRY_SECONDS, error)
                self._wanted_after = min(self._wanted_after, time.monotonic() + RETRY_SECONDS)

    def _digest(self) -> str:
        text = "\n".join(rule.model_dump_json() for rule in self._offload.rules)
        return hashlib.sha256(text.encode()).hexdigest()


def _looked(look: Look, queue: Queue) -> None:
    queue.looked(look)
