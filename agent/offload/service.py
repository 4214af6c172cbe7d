"""The offload as a service inside the sidecar: opens the queue, runs its parts, and says how it is.

    the queue is another sidecar's    wait: in a rolling replacement the old one stops when the new one is ready
    the queue is damaged              set it aside under a name that says so, and look at everything
    the disk refuses, or anything     say so and begin again after RETRY_SECONDS; serving never depends on it
      else of the queue's
    the credential does not read      say what is wrong, and try again: the file may come

Every part may be cancelled anywhere: what is not in the queue yet is in the journals, or on the mount.
"""

import contextlib
import functools
import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from agent.config import Cloud as CloudTable
from agent.config import Config
from agent.config_offload import Offload
from agent.offload import api, bringing, opening, report
from agent.offload.acts import Act, Done
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.cloud import Cloud, host_and_port
from agent.offload.credentials import CloudSettings, CredentialKind
from agent.offload.database import Queue
from agent.offload.delivery import Delivery
from agent.offload.engine import Engine
from agent.offload.evict.departure import Departures
from agent.offload.evict.evictor import Evictor
from agent.offload.failures import Kind
from agent.offload.gate import Gate
from agent.offload.identity import FILE as INSTANCE
from agent.offload.identity import identity
from agent.offload.jobs import Jobs, Work
from agent.offload.link import Link
from agent.offload.linkwatch import LinkWatch
from agent.offload.look import Stores
from agent.offload.opening import DamagedDatabase, QueueError
from agent.offload.pace import Pacer, SharedPace
from agent.offload.queries import Filter
from agent.offload.recall.news import QueueNews
from agent.offload.recall.recalls import Recalls
from agent.offload.recall.server import RecallService
from agent.offload.recall.shelf import Shelf
from agent.offload.reconcile import pages as reconcile_pages
from agent.offload.reconcile.reconciler import Reconciler
from agent.offload.residency import Residency
from agent.offload.rounds import Rounds
from agent.offload.rules import Rules
from agent.offload.scan import Scanner
from agent.offload.schedule import zone
from agent.offload.states import Hold
from agent.offload.tail import Tail
from agent.problems import OperatorError
from agent.supervision.plan import journal_directory
from dataplane.ipc.recalls import socket_path as recall_socket

log = logging.getLogger("blobedge.offload")

QUEUE_FILE: Final = "queue.db"
_MADE_ANEW: Final = (
    "%s was not there, although this node had one: it is made again from the mounts and the cloud; holds, and which "
    "blobs were read last, are lost (docs/runbooks/offload-lost-node.md)"
)
RETRY_SECONDS: Final = 2.0
REPORT_SECONDS: Final = 1.0
COUNT_SHARE: Final = 0.02  # of the time may go into counting for the report
CREDENTIAL_SECONDS: Final = 1.0  # between two looks whether the credential's file was changed
GIB: Final = 1 << 30
MADE: Final = "made-at"  # in the queue's settings

Say = Callable[[dict[str, Any]], None]


async def run(config: Config, say: Say) -> None:
    """Run until cancelled. `say` gets the document of what is to be told, often; it never blocks."""
    if not journal_directory(config):
        say({"configured": False})
        return
    logging.getLogger("azure").setLevel(logging.WARNING)  # it tells every request with its headers
    last = ""
    while True:
        try:
            await _once(config, say)
        except* Exception as group:
            error = _first(group)
            if str(error) != last:  # said once, not every two seconds
                expected = isinstance(error, QueueError | OperatorError | OSError)
                log.error("offload does not run, and is tried again: %s", error, exc_info=None if expected else group)
            last = str(error)
            say({"configured": True, "state": f"does not run: {error}", "socket": ""})
        await trio.sleep(RETRY_SECONDS)


async def _once(config: Config, say: Say) -> None:
    """Until something fails. Raises QueueError, OperatorError, OSError, alone or in groups."""
    assert config.offload is not None
    assert config.cloud is not None
    say({"configured": True, "state": "waits for the queue", "socket": ""})
    journals = Path(journal_directory(config))
    directory = journals.parent
    queue = await _open(directory / QUEUE_FILE)
    try:
        with contextlib.closing(await trio.to_thread.run_sync(Cloud, cloud_settings(config.cloud))) as cloud:
            parts = await _Parts.make(config, config.offload, queue, cloud, journals)
            await parts.run(say)
    except* DamagedDatabase as group:
        aside = await queue.set_aside(int(time.time()))
        log.error("%s; it is now %s", _first(group), aside)
        raise
    finally:
        await queue.aclose()


async def _open(path: Path) -> AsyncQueue:
    was_here = (path.parent / INSTANCE).exists()  # this node: a new one has no queue, and misses none
    try:
        opened = await AsyncQueue.open(path)
    except DamagedDatabase as error:
        aside = await trio.to_thread.run_sync(opening.set_aside, path, int(time.time()))
        log.error("%s; it is now %s, and the queue is made again from what is on the mounts", error, aside)
        return await AsyncQueue.open(path)
    if opened.queue.fresh and was_here:
        log.warning(_MADE_ANEW, path)
    return opened


class _Parts:
    """Everything that runs while the queue is open."""

    def __init__(
        self,
        queue: AsyncQueue,
        cloud: Cloud,
        engine: Engine,
        evictor: Evictor,
        tail: Tail,
        rounds: Rounds,
        recalling: RecallService,
        pages: Callable[[Jobs], Residency],
        reconciler: Reconciler,
        socket_path: Path,
    ) -> None:
        self._queue = queue
        self._cloud = cloud
        self._engine = engine
        self._evictor = evictor
        self._tail = tail
        self._rounds = rounds
        self._recalling = recalling
        self._pages = pages
        self._reconciler = reconciler
        self._socket_path = socket_path
        self._speed = report.Speed()

    @classmethod
    async def make(cls, config: Config, offload: Offload, queue: AsyncQueue, cloud: Cloud, journals: Path) -> "_Parts":
        """Build them. Raises QueueError, OSError."""
        accounts = [each.name for each in config.accounts]
        rules, stores, gate = Rules(offload, accounts), Stores(config.accounts), Gate(queue)
        pace = await _pace(offload, queue)
        known_since = await queue(_known_since)
        node = await trio.to_thread.run_sync(identity, journals.parent, offload.node_name())
        delivery = Delivery(queue, stores, rules, cloud, gate, pace, node, known_since)
        host, port = host_and_port(cloud.settings.endpoint)
        watch = LinkWatch(host, port, _tls(cloud.settings))
        engine = Engine(queue, delivery, gate, pace, watch, offload.uploads_count_max)
        departures = Departures(queue, stores, rules, cloud, watch)
        evictor = Evictor(queue, stores, rules, departures, offload)
        await trio.to_thread.run_sync(lambda: journals.mkdir(mode=0o700, parents=True, exist_ok=True))

        def online() -> bool:
            return watch.state.link is not Link.OFFLINE

        reconciler = Reconciler(queue, stores, rules, cloud, offload, journals.parent, online)
        scanner = Scanner(stores, queue, rules)
        rounds = Rounds(scanner, queue, offload, journals, reconciler.rebuild, reconciler.compare)

        def changed(containers: set[tuple[str, str]]) -> None:
            rounds.want(containers)
            engine.wake()

        tail, socket_path = Tail(journals, queue, rules, changed), api.socket_path(journals.parent)

        recalls = Recalls(cloud, Shelf(stores), watch, QueueNews(queue), keep=evictor.keep)
        recalling = RecallService(recall_socket(str(journals)), recalls)

        def bring(wanted: Filter) -> Work:
            return bringing.plan(queue, bringing.through(recalls), wanted)

        def pages(jobs: Jobs) -> Residency:
            return Residency(stores, rules, queue, jobs, {"evict": evictor.plan, "recall": bring})

        return cls(queue, cloud, engine, evictor, tail, rounds, recalling, pages, reconciler, socket_path)

    async def run(self, say: Say) -> None:
        """Until cancelled or something fails."""
        sock = await trio.to_thread.run_sync(api.bind, self._socket_path)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tail.run)
                nursery.start_soon(self._engine.run)
                nursery.start_soon(self._rounds.run)
                nursery.start_soon(self._evictor.run)
                nursery.start_soon(self._recalling.run)
                nursery.start_soon(self._follow_credential)
                nursery.start_soon(self._reconciler.run)
                residency, reconciling = self._pages(Jobs(nursery)).routes(), reconcile_pages.routes(self._reconciler)
                others = ({**residency[0], **reconciling[0]}, {**residency[1], **reconciling[1]})
                nursery.start_soon(api.serve, sock, self._queue, self, others)
                await self._report_for_ever(say)
        finally:
            sock.close()

    # What the socket asks for (api.Engine).

    async def status(self) -> dict[str, Any]:
        totals, failed = await self._queue(lambda queue: (queue.counts(), queue.failures()))
        return self._document(totals, failed)

    async def pause(self) -> None:
        await self._engine.pause()

    async def resume(self, *, confirm_deletes: bool) -> None:
        await self._engine.resume(confirm_deletes=confirm_deletes)

    async def scan(self) -> None:
        await self._rounds.ask()

    def wake(self) -> None:
        self._engine.retry()

    def _document(self, totals: Any, failed: dict[str, int]) -> dict[str, Any]:
        found = report.document(self._engine, self._rounds, totals, failed, self._speed, time.time_ns())
        known = {"configured": True, "socket": str(self._socket_path), "recalls": self._recalling.recalls.document()}
        known["eviction"] = self._evictor.document()
        known["reconcile"] = report.reconciled(self._reconciler.last)
        return {**known, **found}

    async def _report_for_ever(self, say: Say) -> None:
        while True:
            began = time.monotonic()
            self._speed.see(self._engine.sent_bytes, began)
            say(await self.status())
            await trio.sleep(max(REPORT_SECONDS, (time.monotonic() - began) / COUNT_SHARE))

    async def _follow_credential(self) -> None:
        """What waits for an operator because of the credential goes on when its file was changed."""
        serial = self._cloud.credentials.current().serial
        while True:
            await trio.sleep(CREDENTIAL_SECONDS)
            try:
                current = await trio.to_thread.run_sync(self._cloud.credentials.current, abandon_on_cancel=True)
            except OperatorError:
                continue  # the uploads say so
            if current.serial == serial:
                continue
            serial = current.serial
            log.info("the credential of the cloud was changed: what it held up is tried again")
            await self._retry_held()
            self._engine.retry()

    async def _retry_held(self) -> None:
        wanted_rows = Filter(holds=frozenset({Hold.OPERATOR}), failure=Kind.OPERATOR)
        after: str | None = None
        while True:
            done = await self._queue(functools.partial(_retry, wanted_rows, after))
            if (after := done.after) is None:
                return


def _known_since(queue: Queue) -> int:
    """When the database was made, ns since 1970."""
    found = queue.recall(MADE)
    if found is None:
        queue.remember(MADE, found := str(time.time_ns()))
    return int(found)


def _retry(wanted_rows: Filter, after: str | None, queue: Queue) -> Done:
    return queue.act(Act.RETRY, wanted_rows, after)


async def _pace(offload: Offload, queue: AsyncQueue) -> SharedPace:
    """The bandwidth and the budget, with what was spent of today's."""
    most = None if offload.daily_gib_max is None else int(offload.daily_gib_max * GIB)
    pacer = Pacer(offload.weekly(), most, zone(offload.time_zone))
    pacer.ask(0, time.monotonic(), time.time_ns())  # so that it knows the day
    day = pacer.day
    pacer.spent = await queue(lambda q: q.spend(day, 0))
    return SharedPace(pacer)


def cloud_settings(cloud: CloudTable) -> CloudSettings:
    """The [cloud] table as the uploader takes it."""
    kind: CredentialKind
    if cloud.credential is not None:
        kind = _IDENTITIES[cloud.credential]
        file = cloud.client_secret_file
    else:
        kind = next(each for each in _FILES if getattr(cloud, each) is not None)
        file = getattr(cloud, kind)
    return CloudSettings(
        cloud.endpoint,
        kind,
        Path(file) if file else None,
        client_id=cloud.client_id or "",
        tenant_id=cloud.tenant_id or "",
        ca_file=Path(cloud.ca_file) if cloud.ca_file else None,
    )


_FILES: Final[tuple[CredentialKind, ...]] = ("sas_file", "connection_string_file", "key_file")
_IDENTITIES: Final[dict[str, CredentialKind]] = {
    "managed-identity": "managed_identity",
    "workload-identity": "workload_identity",
    "client-secret": "client_secret",
}


def _tls(settings: CloudSettings) -> ssl.SSLContext | None:
    if not settings.endpoint.startswith("https:"):
        return None
    return ssl.create_default_context(cafile=os.fspath(settings.ca_file) if settings.ca_file else None)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
