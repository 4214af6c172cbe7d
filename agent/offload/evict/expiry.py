"""Blobs whose time to live ended are deleted here: found on the mounts, as the queue has no rows of what no rule sends.

A blob that a rule sends goes like one that is deleted after its upload: the cloud is asked first, and a blob that it
does not have stays until it does. One that no rule sends just goes. Stubs go too, and their copies stay. A pass reads
pages, sleeps in proportion to what it worked, and begins again after `seconds`: a time to live is days, so nothing is
lost by an hour. Only containers that a rule with a time to live is for are read.
"""

import functools
import logging
import time
from collections.abc import Sequence
from typing import Final

import trio

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.delivery import MOUNT_ERRORS
from agent.offload.dryrun import subject_of
from agent.offload.evict.departure import BATCH_ROWS, Departures
from agent.offload.evict.space import Mode
from agent.offload.evict.verdict import expires_at
from agent.offload.look import Stores, storable
from agent.offload.rows import Row
from agent.offload.rules import Rules, decide
from agent.offload.states import Residency
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.model import BlobState
from dataplane.store.listing import ListPage
from dataplane.store.store import Store

log = logging.getLogger("blobedge.offload")

PAGE_BLOBS: Final = 1_000
PAGE_SECONDS_MAX: Final = 120.0
SLEEP_FACTOR: Final = 4.0  # of the time that a page took
CONTAINERS_MAX: Final = 1_000_000
_COPIES: Final = (Residency.COPIED, Residency.REMOTE)


class Expiry:
    """Deletes what has lived long enough. Not for two tasks at once."""

    def __init__(self, queue: AsyncQueue, stores: Stores, rules: Rules, departures: Departures, seconds: float) -> None:
        """`seconds`: from the end of a pass to the next one."""
        self._queue: Final = queue
        self._stores: Final = stores
        self._rules: Final = rules
        self._departures: Final = departures
        self._seconds: Final = seconds

    async def run(self) -> None:
        """Until cancelled. Raises QueueError."""
        while True:
            for account in self._stores.names():
                try:
                    await self._account(account)
                except MOUNT_ERRORS as error:
                    log.warning("account %s: what has expired is not found: %s", account, error)
            self._departures.tell_deleted()
            await trio.sleep(self._seconds)

    async def _account(self, account: str) -> None:
        """Raises QueueError, MOUNT_ERRORS."""
        names = await self._stores.call(account, _containers, PAGE_SECONDS_MAX)
        for container in names:
            if any(each.leaving.ttl_ns is not None for each in self._rules.candidates(account, container)):
                await self._container(account, container)

    async def _container(self, account: str, container: str) -> None:
        start = ""
        while True:
            began = time.monotonic()
            page = await self._stores.call(account, functools.partial(_page, container, start), PAGE_SECONDS_MAX)
            states = [item.state for item in page.items if item.state is not None]
            await self._delete(account, container, self._expired(account, container, states))
            if not (start := page.next_start):
                return
            await trio.sleep(SLEEP_FACTOR * (time.monotonic() - began))

    def _expired(self, account: str, container: str, states: Sequence[BlobState]) -> list[tuple[BlobState, bool]]:
        """Those whose time has come, and whether a rule sends them."""
        now = time.time_ns()
        found = []
        for state in states:
            subject = subject_of(account, container, state, now)
            decision = decide(self._rules, subject, now)
            at = expires_at(decision.leaving, subject.modified_ns, subject.noticed_ns, now)
            if at is not None and at <= now and not decision.leaving.pinned and storable(state):
                found.append((state, decision.upload))
        return found

    async def _delete(self, account: str, container: str, expired: Sequence[tuple[BlobState, bool]]) -> None:
        sent: list[Row] = []
        for state, uploads in expired:
            row = await self._queue(functools.partial(_find, account, container, state.name))
            if row is not None and row.pinned:
                continue
            if not uploads:
                await self._departures.delete(account, container, state, row)
            elif row is not None and row.residency in _COPIES and row.copied_etag == state.properties.etag:
                sent.append(row)
        for first in range(0, len(sent), BATCH_ROWS):
            await self._departures.batch(account, sent[first : first + BATCH_ROWS], Mode.NORMAL)


def _containers(store: Store) -> list[str]:
    return [each.name for each in store.list_containers("", "", CONTAINERS_MAX)[0] if not each.read_only]


def _page(container: str, start: str, store: Store) -> ListPage:
    """Empty when the container went meanwhile. Raises StoreError, OSError."""
    try:
        return store.list_blobs(container, prefix="", delimiter="", start=start, limit=PAGE_BLOBS)
    except BlobError:
        return ListPage([], "")


def _find(account: str, container: str, name: str, queue: Queue) -> Row | None:
    return queue.find(account, container, name)
