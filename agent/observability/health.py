"""Health: what was observed, kept fresh by one task, and the three answers that are made of it without waiting.

    /health/startup   200 once the service was ready, 503 before: a slow start is no failure
    /health/live      200 while this loop and its observer turn; 503 means that only a restart helps
    /health/ready     200 when a worker serves and a root answers; 503 takes the node out of a load balancer

A degraded node answers 200 with "degraded": taking a node away that still serves would make matters worse.

Every fault is in the answer within two seconds, whoever asks and however seldom: mounts are asked every
interval_seconds and hang when they owe an answer for mount_seconds_max, worker and sidecar beat twice a second, and the
sidecar looks at its cloud as often. Rejected: asking when somebody asks, which either makes him wait for a mount or
tells him what was true when the last one asked.
"""

import math
import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from agent.config import Config
from agent.observability import checks
from agent.observability.checks import Certificate, Check, Descriptors, Status
from agent.observability.http import Response, Routes, json_response
from agent.observability.mounts import Mounts, Reading, places
from agent.supervision.snapshot import Service, ServiceSnapshot

REST_SECONDS: Final = 5.0  # between two looks at descriptors and the certificate's file: they change slowly
LATE_SECONDS_MAX: Final = 30.0  # an observer that is later than this has stopped


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything that health is made of, besides the snapshot."""

    readings: Sequence[Reading] = ()
    descriptors: Sequence[Descriptors] = ()
    certificate: Certificate | None = None  # None: nothing listens with TLS


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of the node with its reasons, the worst first."""

    status: Status
    ready: bool
    checks: tuple[Check, ...]

    def document(self) -> dict[str, Any]:
        """Return the verdict as JSON has it."""
        return {"status": self.status, "ready": self.ready, "checks": [check.document() for check in self.checks]}


def judge(service: Service, snapshot: ServiceSnapshot, seen: Observations, monotonic: float, unix: float) -> Verdict:
    """Decide how the node is. Pure; the two clocks are those of the readings and of the reports."""
    limits = service.config.health
    found = [_service(snapshot), checks.workers(snapshot.processes), checks.crash_loops(snapshot.processes)]
    mounts = [(reading, checks.of_mount(reading, monotonic, limits)) for reading in seen.readings]
    for _, of_mount in mounts:
        found += of_mount
    found.append(checks.descriptors(seen.descriptors))
    if seen.certificate is not None:
        found.append(checks.certificate(seen.certificate, unix, limits.certificate_days_min))
    found += [checks.report(report, unix) for report in snapshot.reports]
    optional = (checks.sidecar(snapshot.processes), checks.clock(snapshot.reports, limits.clock_seconds_max))
    found += [check for check in optional if check is not None]
    found.sort(key=lambda check: -checks.SEVERITY[check.status])
    root_answers = any(not reading.place.container and each[0].status == "ok" for reading, each in mounts)
    serves = any(map(checks.serves, snapshot.processes)) and snapshot.state in ("ready", "reloading")
    ready = root_answers and serves
    return Verdict(_overall(found, ready), ready, tuple(found))


def _overall(found: Sequence[Check], ready: bool) -> Status:
    """One account's mount that fails is a degraded node as long as another is served."""
    if not ready:
        return "failing"
    return "degraded" if checks.worst(found) != "ok" else "ok"


def _service(snapshot: ServiceSnapshot) -> Check:
    details = {"state": snapshot.state}
    if snapshot.state in ("starting", "stopping"):
        return Check("service", "failing", f"the service is {snapshot.state}", details)
    last = snapshot.last_reload
    if last is not None and last.state in ("refused", "failed"):
        reason = f"reload {last.number} was {last.state}: {'; '.join(last.problems)}"
        return Check("service", "degraded", reason, details)
    return Check("service", "ok", "", details)


class Health:
    """The observer, and the answers."""

    def __init__(self, service: Service, mounts: Mounts | None = None) -> None:
        self._service = service
        self._mounts = mounts or Mounts()
        self._descriptors: Sequence[Descriptors] = ()
        self._certificate: Certificate | None = None
        self._served = _Served()
        self._reading = False
        self._was_ready = False
        self._turned_at = trio.current_time()

    async def observe(self) -> None:
        """Keep the observations fresh, until cancelled."""
        config, looked_at = None, -math.inf
        async with trio.open_nursery() as nursery:
            while True:
                self._turned_at = trio.current_time()
                self._mounts.ask(places(self._service.config), nursery)
                if config is not self._service.config or self._turned_at >= looked_at + REST_SECONDS:
                    config, looked_at = self._service.config, self._turned_at
                    await self._look_at_the_rest(config, nursery)
                await trio.sleep(config.health.interval_seconds)

    async def _look_at_the_rest(self, config: Config, nursery: trio.Nursery) -> None:
        pids = {"supervisor": os.getpid()}
        pids |= {f"{each.role}:{each.number}": each.pid for each in self._service.snapshot().processes if each.pid}
        self._descriptors = await trio.to_thread.run_sync(count_descriptors, pids)  # /proc does not hang
        if config.tls is None:
            self._certificate = None
        elif not self._reading:
            self._reading = True
            nursery.start_soon(self._read, config)

    async def _read(self, config: Config) -> None:
        """In the certificate's thread, of which there is one however long its file hangs."""
        assert config.tls is not None
        if self._certificate is None:
            self._certificate = Certificate(None, "its file does not answer")
        try:
            found = await trio.to_thread.run_sync(
                read_certificate, config.tls.cert, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
            )
        finally:
            self._reading = False
        if config is self._service.config:
            self._certificate = self._served.take(config, found)

    def verdict(self) -> Verdict:
        """Decide from what is known now, without waiting."""
        snapshot = self._service.snapshot()
        self._was_ready = self._was_ready or snapshot.state == "ready"
        seen = Observations(self._mounts.readings(), self._descriptors, self._certificate)
        return judge(self._service, snapshot, seen, trio.current_time(), time.time())

    def readings(self) -> Sequence[Reading]:
        """Return what is known of the mounts; never waits."""
        return self._mounts.readings()

    def routes(self) -> Routes:
        """Return the pages of health."""
        return {"/health/startup": self._startup, "/health/live": self._live, "/health/ready": self._ready}

    async def _startup(self, _query: Mapping[str, str]) -> Response:
        verdict = self.verdict()
        return json_response(verdict.document(), 200 if self._was_ready else 503)

    async def _live(self, _query: Mapping[str, str]) -> Response:
        late = trio.current_time() - self._turned_at - self._service.config.health.interval_seconds
        reason = f"the observer is {late:.0f} s late" if late > LATE_SECONDS_MAX else ""
        check = Check("loop", "failing" if reason else "ok", reason)
        return json_response({"status": check.status, "checks": [check.document()]}, 503 if reason else 200)

    async def _ready(self, _query: Mapping[str, str]) -> Response:
        verdict = self.verdict()
        return json_response(verdict.document(), 200 if verdict.ready else 503)


class _Served:
    """Which certificate the workers have: the one that lay in the file when their configuration was first seen here.

    A file that was renewed later serves nobody until a reload.
    """

    def __init__(self) -> None:
        self._config: Config | None = None
        self._expires_at = 0.0

    def take(self, config: Config, found: Certificate) -> Certificate:
        """Return what there is to judge, given what the file holds now."""
        if found.expires_at is None:
            return found
        if config is not self._config:
            self._config, self._expires_at = config, found.expires_at
        return Certificate(self._expires_at, renewed=found.expires_at > self._expires_at)


def read_certificate(path: str) -> Certificate:
    """Read when the first certificate of a PEM file ends."""
    from cryptography import x509  # here: it takes 30 ms, and most nodes have no TLS of their own

    try:
        chain = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        return Certificate(None, str(error))
    return Certificate(chain[0].not_valid_after_utc.timestamp())


def count_descriptors(pids: Mapping[str, int]) -> Sequence[Descriptors]:
    """Count the open descriptors of processes by their names; one that ended, or that is not ours, is left out."""
    found = []
    for who, pid in pids.items():
        try:
            count = len(os.listdir(f"/proc/{pid}/fd"))
            limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        except OSError:
            continue
        found.append(Descriptors(who, count, limit))
    return found
