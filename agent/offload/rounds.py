"""When everything is looked at (scan.py), and what is said of it.

    why                                               how
    the database is new, or was set aside as damaged  fast; the rows are made again
    the journals say that something is missing        paced
    the rules are other ones than at the last scan    paced; what was kept or waits is asked about again
    `scan_seconds` have passed                        paced
    the operator asks (`blobedge queue scan`)         paced; kept in the queue until it has begun
    a scan was not finished                           goes on where it was; from the beginning under other rules
    a container was itself changed                    that container

A mount that fails ends the scan; it goes on from its place after RETRY_SECONDS. Uploads go on meanwhile.
"""

import hashlib
import logging
import time
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
from agent.offload.scan import Place, Scanner
from dataplane.journal import unclean

log = logging.getLogger("blobedge.offload")

TURN_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 30.0
RULES: Final = "rules"  # in the queue's settings: a digest of the rules of the last scan
SCANNED: Final = "scanned-at"  # likewise: when the last one began, ns since 1970
ASKED: Final = "scan-asked"  # likewise: "1" from an operator's wish until that look begins
_SECOND_NS: Final = 1_000_000_000


class Rounds:
    """Scans when there is a reason. `journals` is their directory."""

    def __init__(self, scanner: Scanner, queue: AsyncQueue, offload: Offload, journals: Path) -> None:
        self.scanner: Final = scanner
        self._queue: Final = queue
        self._offload: Final = offload
        self._journals: Final = journals
        self._wanted = True  # the process before this one may have left some
        self.problem = ""  # why the scan that is due does not go on
        self.scanned_at = 0  # ns since 1970

    def want(self, containers: set[tuple[str, str]]) -> None:
        """These were themselves made, changed or deleted, and the queue has noted it."""
        self._wanted |= bool(containers)

    async def ask(self) -> None:
        """Look at everything from the beginning, within TURN_SECONDS, or after the look that is under way: it may have
        passed what is asked about. Outlives a restart. Raises QueueError."""
        await self._queue(lambda queue: queue.remember(ASKED, "1"))

    async def run(self) -> None:
        """Until cancelled. Raises QueueError."""
        self.scanned_at = int(await self._queue(lambda queue: queue.recall(SCANNED)) or 0)
        while True:
            try:
                place = await self._due()
                if place is not None:
                    await self._scan(place)
                await self._some_containers()
                self.problem = ""
            except QueueError:
                raise
            except MOUNT_ERRORS as error:
                self.problem = f"{type(error).__name__}: {error}"
                log.warning("the look at everything stops for %g s: %s", RETRY_SECONDS, self.problem)
                await trio.sleep(RETRY_SECONDS)
            await trio.sleep(TURN_SECONDS)

    async def _due(self) -> Place | None:
        """Where a scan is to begin, if one is due. Raises OSError when the journals cannot be asked."""
        rules = self._digest()
        unfinished = await self.scanner.unfinished()
        if unfinished is not None and unfinished.rules == rules:
            return unfinished
        digest, asked = await self._queue(lambda queue: (queue.recall(RULES), queue.recall(ASKED)))
        again = unfinished is not None or digest not in (None, rules)
        if not self.scanned_at:
            return Place(again=again, fast=True, rules=rules)
        missing = await trio.to_thread.run_sync(unclean.is_due, self._journals)
        age = time.time_ns() - self.scanned_at
        if again or missing or asked or not 0 <= age < self._offload.scan_seconds * _SECOND_NS:
            return Place(again=again, rules=rules)
        return None

    async def _scan(self, place: Place) -> None:
        began = time.time_ns()
        if place == Place(again=place.again, fast=place.fast, rules=place.rules):  # from the beginning
            await trio.to_thread.run_sync(unclean.begin, self._journals)
            await self.scanner.begin(place)
            await self._queue(lambda queue: queue.remember(ASKED, ""))  # after the place: a kill forgets no wish
        done = await self.scanner.scan(place)

        def note(queue: Queue) -> None:
            queue.remember(RULES, place.rules)
            queue.remember(SCANNED, str(began))

        await self._queue(note)
        self.scanned_at = began
        await trio.to_thread.run_sync(unclean.end, self._journals)
        seconds = (time.time_ns() - began) / _SECOND_NS
        log.info("looked at %d blobs in %.1f s, %d of them are news", done.blobs, seconds, done.found)

    async def _some_containers(self) -> None:
        if not self._wanted:
            return
        self._wanted = False
        failed: Exception | None = None
        for look in await self._queue(lambda queue: queue.looks()):
            try:
                await self.scanner.scan_container(look.account, look.container)
                await self._queue(partial(_looked, look))
            except MOUNT_ERRORS as error:
                failed = error
        if failed is not None:
            self._wanted = True  # its mount is asked again
            raise failed

    def _digest(self) -> str:
        text = "\n".join(rule.model_dump_json() for rule in self._offload.rules)
        return hashlib.sha256(text.encode()).hexdigest()


def _looked(look: Look, queue: Queue) -> None:
    queue.looked(look)
