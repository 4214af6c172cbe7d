"""Health: what was observed, kept fresh by one task, and the three answers that are made of it without waiting.

    /health/startup   200 once the service was ready, 503 before: a slow start is no failure
    /health/live      200 while this loop and its observer turn; 503 means that only a restart helps
    /health/ready     200 when a worker serves and a root answers; 503 takes the node out of a load balancer

A degraded node answers 200 with "degraded": taking a node away that still serves would make matters worse. The mounts
are asked every interval_seconds, and sooner when somebody asks for health: a caller who asks each second hears of a
hung mount within mount_seconds_max and a little, and a thousand callers cause no more than one round in AGAIN_SECONDS.
"""

import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from agent.observability import checks
from agent.observability.checks import Certificate, Check, Descriptors, Status
from agent.observability.http import Response, Routes, json_response
from agent.observability.mounts import Mounts, Reading, places
from agent.supervision.snapshot import Service, ServiceSnapshot

AGAIN_SECONDS: Final = 0.4
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
        self._reading = False
        self._was_ready = False
        self._turned_at = trio.current_time()
        self._wake = trio.Event()

    async def observe(self) -> None:
        """Keep the observations fresh, until cancelled."""
        while True:
            limits = self._service.config.health
            began = trio.current_time()
            await self._mounts.look(places(self._service.config), limits.mount_seconds_max)
            await self._look_at_the_rest(limits.mount_seconds_max)
            self._turned_at = trio.current_time()
            self._wake = trio.Event()
            await trio.sleep_until(began + AGAIN_SECONDS)
            with trio.move_on_at(began + limits.interval_seconds):
                await self._wake.wait()

    async def _look_at_the_rest(self, seconds_max: float) -> None:
        """In threads and with a deadline, since a certificate may be on a mount that hangs."""
        tls = self._service.config.tls
        pids = {"supervisor": os.getpid()}
        pids |= {f"{each.role}:{each.number}": each.pid for each in self._service.snapshot().processes if each.pid}
        self._descriptors = await trio.to_thread.run_sync(count_descriptors, pids)  # /proc does not hang
        if tls is None:
            self._certificate = None
        elif not self._reading:
            self._certificate = Certificate(None, "its file does not answer")
            self._reading = True
            alone = trio.CapacityLimiter(1)
            with trio.move_on_after(seconds_max):
                await trio.to_thread.run_sync(self._read, tls.cert, abandon_on_cancel=True, limiter=alone)

    def _read(self, path: str) -> None:
        """In the certificate's thread, of which there is one however long its file hangs."""
        try:
            self._certificate = read_certificate(path)
        finally:
            self._reading = False

    def verdict(self) -> Verdict:
        """Decide from what is known now; asks for fresh observations, and does not wait for them."""
        self._wake.set()
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
