"""How the node works its queue off: what engine.py, delivery.py and upload.py do, step by step on the simulated clock.

One blob at a time. A blob that is due is looked at, decided on, guarded, sent in pieces that the pace grants,
committed, verified and reported; every failure goes through the real table, setbacks and link machine.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent.offload import link as links
from agent.offload.database import Queue
from agent.offload.failures import CloudFailed, Kind, found
from agent.offload.fuse import CONFIRMED, SETTLE_SECONDS, Fuse
from agent.offload.fuse import FAILURE as FUSE
from agent.offload.gate import COUNTS_SECONDS
from agent.offload.keep import conflict_name
from agent.offload.link import Link, LinkState, Result
from agent.offload.pace import Pacer
from agent.offload.queries import Total
from agent.offload.rows import Copy, Failure, Row, Seen, Turn
from agent.offload.rules import Decision, Rules, Subject, decide
from agent.offload.setbacks import REST_SECONDS, TROUBLE_MIN, answered, setback
from agent.offload.states import Hold, Residency
from tests.simulation import cloud as clouds
from tests.simulation.cloud import NODE, Cloud
from tests.simulation.world import SECOND, Away, Clock, Disk, File, Name

ACCOUNT: Final = "edge"
PIECE_BYTES: Final = 4 << 20
LINK_BYTES_A_SECOND: Final = 5_000_000.0
REQUEST_SECONDS: Final = 0.05
NO_WAY_SECONDS: Final = 10.0  # until a request without a way is given up
CLOSED_SECONDS_MAX: Final = 30.0 * 60  # a closed pace is asked again; the real engine asks more often, to no avail


class Killed(Exception):
    """The sidecar ends here, and whatever it had not reported is not reported."""


@dataclass(slots=True)
class Told:
    """What the checks want to know of the sender."""

    sent_by_day: Counter[str] = field(default_factory=Counter)
    forgotten: Counter[str] = field(default_factory=Counter)  # by day: bytes that a killed sidecar had not noted
    delivered: int = 0
    resumed_bytes: int = 0
    conflicts: dict[str, int] = field(default_factory=dict)
    kept_beside: dict[Name, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Sender:
    """The work of one sidecar's life."""

    clock: Clock
    disk: Disk
    cloud: Cloud
    queue: Queue
    rules: Rules
    pacer: Pacer
    random: random.Random
    told: Told
    taken: Callable[[Row], None]  # the checks look at what was taken
    took_over: Callable[[Name, int | None], None]  # cloud-wins: theirs is here now, or what they deleted has gone
    kill_share: float = 0.0  # of the deliveries, after the cloud has it and before that is reported
    link: LinkState = field(default_factory=LinkState)
    closed_until: float = 0.0
    trouble: int = 0
    unspent: int = 0  # bytes that were sent and not noted yet
    fuses: dict[str, Fuse] = field(default_factory=dict)
    totals: list[Total] = field(default_factory=list)
    waiting: dict[tuple[str, str], int] = field(default_factory=dict)  # deletes that nobody has confirmed
    totals_at: float = -COUNTS_SECONDS * 2

    def work(self, until: float) -> None:
        """Go on until a time, or until there is nothing to do. Raises Killed."""
        while self.clock.seconds < until:
            if self.link.link is Link.OFFLINE:
                if not self._probe(until):
                    return
                continue
            if self.clock.seconds < self.closed_until:
                if self.closed_until >= until:
                    return
                self.clock.on(self.closed_until)
            turn = self.pacer.ask(0, self.clock.seconds, self.clock.ns)
            if turn.closed:
                self.closed_until = self.clock.seconds + min(turn.wait_seconds, CLOSED_SECONDS_MAX)
                continue
            rows = self.queue.take(self.clock.ns, 1, ())
            if not rows:
                due = self.queue.next_due()
                if due is None or due >= self.clock.ns + int((until - self.clock.seconds) * SECOND):
                    return
                self.clock.on(max(self.clock.seconds + 1e-3, (due - self.clock.ns) / SECOND + self.clock.seconds))
                continue
            self.taken(rows[0])
            self._one(rows[0])

    def _probe(self, until: float) -> bool:
        """Wait for the next probe, and make it; False when it comes after `until`."""
        if self.link.probe_at >= until:
            return False
        self.clock.on(self.link.probe_at)
        self.link = links.after_probe(self.link, self.cloud.weather.link_up, self.clock.seconds, self.clock.seconds)
        return True

    def _one(self, row: Row) -> None:
        try:
            done = self._deliver(row)
        except CloudFailed as failed:
            self._spend()
            self._failed(row, failed)
            return
        self._spend()
        if done:
            self.told.delivered += 1
            self.trouble = 0
            self.link = links.after_result(self.link, Result.ANSWERED, self.clock.seconds)

    def _spend(self) -> None:
        """Note what was sent of the day's budget; a kill before takes that along."""
        if self.unspent:
            self.queue.spend(self.pacer.day, self.unspent)
            self.unspent = 0

    def _failed(self, row: Row, failed: CloudFailed) -> None:
        fault = failed.fault
        if fault.code == "PaceClosed":
            self.closed_until = self.clock.seconds + min(max(fault.wait_seconds_min, 1.0), CLOSED_SECONDS_MAX)
            return
        self.told.failures[fault.kind] = self.told.failures.get(fault.kind, 0) + 1
        what = setback(fault, row.attempts, self.trouble >= TROUBLE_MIN, self.clock.ns, self.random.random())
        if fault.kind is Kind.LINK:
            self.clock.on(self.clock.seconds + NO_WAY_SECONDS)
        result = Result.ANSWERED if answered(fault) else Result.NO_WAY
        self.link = links.after_result(self.link, result, self.clock.seconds)
        if what.trouble:
            self.trouble += 1
            self.closed_until = max(self.closed_until, self.clock.seconds + fault.wait_seconds_min)
        if what.failure is None:
            self.clock.on(self.clock.seconds + REST_SECONDS)
        else:
            self.queue.failed(row, what.failure)

    def _deliver(self, row: Row) -> bool:
        """One row: True when something was done in the cloud. Raises CloudFailed, Killed."""
        file, now = self.disk.files.get((row.container, row.name)), self.clock.ns
        if file is None:
            return self._missing(row)
        seen = Seen(file.etag, file.size, file.modified_ns)
        if file.away is not None:
            at = row.container, file.away.name
            self.queue.stubbed(row, seen, Copy(file.etag, file.away.cloud_etag, *at, now))
            return False
        subject = Subject(ACCOUNT, row.container, row.name, file.size, file.modified_ns, row.modified_ns, True)
        decision = decide(self.rules, subject, now)
        if not decision.upload:
            self.queue.kept(row, seen)
            return False
        known = row.etag == seen.etag and row.residency is Residency.QUEUED
        if not (known and decision.due_at <= now):
            current = self.queue.changed(row, seen, decision.turn, now)
            in_order = decision.turn[1:] == (row.priority, row.order_key)
            if not (current and decision.due_at <= now and in_order):
                return False
        return self._send(row, file, decision)

    def _send(self, row: Row, file: File, decision: Decision) -> bool:
        """Bring the version to the cloud, if it is not there. Raises CloudFailed, Killed."""
        assert decision.target is not None
        at: Name = decision.target.container, decision.target.name
        guard = row.cloud_etag if row.copied_at and (row.cloud_container, row.cloud_name) == at else ""
        there = self.cloud.head(at) if row.attempts or not guard else None
        for _ in range(3):
            if there is not None and (there.version, there.writer) == (file.etag, NODE):
                etag = there.etag  # an answer that was lost
                break
            condition = self._admitted(row, at, guard, there, decision)
            if condition is None:
                return True
            self._pieces(at, file)
            try:
                etag = self.cloud.put(at, condition, _copy(file, self.clock.day))
                break
            except CloudFailed as failed:
                if failed.fault.kind is not Kind.CONFLICT and not failed.maybe_done:
                    raise
                there = self.cloud.head(at)
        else:
            raise found("ChangesAllTheTime")
        self.cloud.staged.pop((at, file.etag), None)
        if self.random.random() < self.kill_share:
            raise Killed
        self.queue.copied(row, Copy(file.etag, etag, *at, self.clock.ns))
        return True

    def _admitted(self, row: Row, at: Name, guard: str, there: clouds.Copy | None, decision: Decision) -> str | None:
        """What the cloud must have at the commit, by the policy of conflicts; None when theirs was taken over."""
        if there is None or there.etag == guard or there.writer == NODE:
            return guard if there is None else there.etag
        self.told.conflicts[decision.conflict] = self.told.conflicts.get(decision.conflict, 0) + 1
        if decision.conflict == "cloud-wins":
            name = row.container, row.name
            self.took_over(name, there.content)
            etag = self.disk.plant(name, there.content, there.size, self.clock.ns, Away(there.etag, at[1]))
            copy = Copy(etag, there.etag, *at, self.clock.ns)
            self.queue.stubbed(row, Seen(etag, there.size, self.clock.ns), copy)
            return None
        if decision.conflict == "keep-both":
            beside = at[0], conflict_name(at[1], there.etag)
            self.cloud.ask("Copy Blob", beside)()
            self.cloud.blobs[beside] = clouds.Copy(self.cloud.etag(), there.content, there.size, there.writer)
            self.told.kept_beside[beside] = there.content
        return there.etag

    def _pieces(self, at: Name, file: File) -> None:
        """Send what is not staged yet, as the pace grants it. Raises CloudFailed."""
        staged = self.cloud.staged.get((at, file.etag), 0)
        self.told.resumed_bytes += staged
        while staged < file.size:
            piece = min(PIECE_BYTES, file.size - staged)
            while (turn := self.pacer.ask(piece, self.clock.seconds, self.clock.ns)).wait_seconds:
                if turn.closed:
                    raise found("PaceClosed", wait_seconds=turn.wait_seconds)
                self.clock.on(self.clock.seconds + turn.wait_seconds)
            self.told.sent_by_day[self.pacer.day] += piece
            self.clock.on(self.clock.seconds + REQUEST_SECONDS + piece / LINK_BYTES_A_SECOND)
            self.unspent += piece
            self.cloud.ask("Put Block", at)()
            staged += piece
            self.cloud.staged[at, file.etag] = staged

    def _missing(self, row: Row) -> bool:
        """The blob is not here any more. Raises CloudFailed."""
        now = self.clock.ns
        subject = Subject(ACCOUNT, row.container, row.name, row.size, row.modified_ns, row.modified_ns)
        decision = decide(self.rules, subject, now)
        if not row.copied_at or decision.delete != "propagate":
            if decision.delete == "propagate" and row.etag and decision.target is not None:
                self._delete((decision.target.container, decision.target.name), "")
            self.queue.gone(row)
            return False
        if row.residency is not Residency.GOING:
            turn = Turn(now + int(SETTLE_SECONDS * SECOND), decision.priority, decision.order_key)
            self.queue.deleted(row, turn, now)
            return False
        fuse = self.fuses.setdefault(row.container, Fuse())
        if self.clock.seconds - self.totals_at > COUNTS_SECONDS:
            self.totals, self.waiting = self.queue.counts(), self.queue.unconfirmed()
            self.totals_at = self.clock.seconds
        if row.changed_at != CONFIRMED:
            waiting, copies = self.waiting.get((ACCOUNT, row.container), 0), _copies(self.totals, row.container)
            if reason := fuse.blows(waiting, copies, decision.delete_fuse_percent, self.clock.seconds):
                self.queue.failed(row, Failure(FUSE, reason, Hold.OPERATOR))
                return False
        self._delete((row.cloud_container, row.cloud_name), row.cloud_etag)
        if row.changed_at != CONFIRMED:
            fuse.done(self.clock.seconds)
        self.queue.gone(row)
        return True

    def _delete(self, at: Name, etag: str) -> None:
        self.clock.on(self.clock.seconds + REQUEST_SECONDS)
        self.cloud.delete(at, etag)


def _copy(file: File, day: int) -> clouds.Copy:
    return clouds.Copy("", file.content, file.size, NODE, file.etag, day)


def _copies(totals: list[Total], container: str) -> int:
    mine = (each for each in totals if each.container == container)
    return sum(each.blobs for each in mine if each.residency in (Residency.COPIED, Residency.REMOTE))
