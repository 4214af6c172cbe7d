"""What is well and what is not, decided from observations: pure functions, each gives one Check.

`failing` is for what stops clients (no worker, a mount that is away), `degraded` for what will, or what a person has to
look at. A check says in one sentence what is wrong and, where it is not obvious, what mends it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from agent.config import Health
from agent.observability.mounts import Reading
from agent.offload.states import COPY_LOST
from agent.supervision.snapshot import ProcessSnapshot, ReportSnapshot

Status = Literal["ok", "degraded", "failing"]
SEVERITY: Final[Mapping[str, int]] = {"ok": 0, "degraded": 1, "failing": 2}

HEARTBEAT_SECONDS_MAX: Final = 1.5  # three beats; the supervisor waits longer before it aborts the worker
DESCRIPTORS_SHARE_MAX: Final = 0.9
STARTS_COUNT_MAX: Final = 3  # starts of one worker, within a short life of each, that are no accident any more
SHORT_LIFE_SECONDS: Final = 60.0
REPORT_SECONDS_MAX: Final = 900.0  # the sidecar looks at the cloud and the tuning every minute or so
DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `reason` is "" when all is well."""

    name: str
    status: Status
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the check as JSON has it."""
        return {"name": self.name, "status": self.status, "reason": self.reason, "details": dict(self.details)}


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The file descriptors of one process."""

    who: str
    open: int
    limit: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate of the https listeners, or why it cannot be read."""

    expires_at: float | None  # Unix time
    error: str = ""
    renewed: bool = False  # the file holds a later one, which nobody serves yet


def worst(checks: Iterable[Check]) -> Status:
    """Return the worst status of all; "ok" of none."""
    return max((check.status for check in checks), key=SEVERITY.__getitem__, default="ok")


def mount(reading: Reading, now: float, seconds_max: float) -> Check:
    """Does the mount answer, and is it still the one that we wrote to? `now` is on the clock of the readings."""
    name = f"mount:{reading.place.name}"
    details: dict[str, Any] = {"path": reading.place.path}
    age = 0.0 if reading.asked_at is None else now - reading.asked_at
    if age >= seconds_max:
        details["hung_seconds"] = round(age, 1)
        return Check(name, "failing", f"{reading.place.path} has not answered for {age:.1f} s: it hangs", details)
    if reading.error:
        return Check(name, "failing", f"{reading.place.path}: {reading.error}", details)
    if reading.facts is None:
        return Check(name, "degraded", f"{reading.place.path} has not been asked yet", details)
    if reading.was_marked and not reading.facts.marked:
        reason = f"{reading.place.path} has lost its .blobedge: is another file system mounted there, or none?"
        return Check(name, "failing", reason, details)
    return Check(name, "ok", "", details)


def space(reading: Reading, free_percent_min: float) -> Check:
    """Is enough of the mount's space free? A mount that does not answer is no matter of space."""
    facts = reading.facts
    if facts is None or not facts.size_bytes:
        return Check(f"space:{reading.place.name}", "ok")
    return _share(f"space:{reading.place.name}", "space", facts.free_bytes, facts.size_bytes, free_percent_min, reading)


def inodes(reading: Reading, free_percent_min: float) -> Check:
    """Are enough of the mount's inodes free? Many file systems have no fixed number of them and report 0."""
    facts = reading.facts
    if facts is None or not facts.inodes:
        return Check(f"inodes:{reading.place.name}", "ok")
    return _share(f"inodes:{reading.place.name}", "inodes", facts.free_inodes, facts.inodes, free_percent_min, reading)


def _share(name: str, what: str, free: int, size: int, percent_min: float, reading: Reading) -> Check:
    percent = 100.0 * free / size
    details = {"free": free, "size": size, "free_percent": round(percent, 2)}
    if not free:
        return Check(name, "failing", f"{reading.place.path} is full: no {what} left", details)
    if percent < percent_min:
        return Check(name, "degraded", f"{reading.place.path} has {percent:.1f} % of its {what} left", details)
    return Check(name, "ok", "", details)


def certificate(seen: Certificate, now: float, days_min: int) -> Check:
    """How long is the certificate still good? `now` is Unix time."""
    if seen.expires_at is None:
        return Check("certificate", "degraded", f"the certificate cannot be read: {seen.error}")
    days = (seen.expires_at - now) / DAY_SECONDS
    details = {"expires_at": seen.expires_at, "days": round(days, 1), "renewed": seen.renewed}
    mend = "its file has a later one: reload" if seen.renewed else "renew it"
    if days <= 0:
        return Check(
            "certificate", "failing", f"the certificate expired {_span(now - seen.expires_at)} ago: {mend}", details
        )
    if days < days_min:
        return Check(
            "certificate", "degraded", f"the certificate expires in {_span(seen.expires_at - now)}: {mend}", details
        )
    return Check("certificate", "ok", "", details)


def _span(seconds: float) -> str:
    """A length of time in the unit that a person would take."""
    for unit, size in (("days", DAY_SECONDS), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def descriptors(seen: Sequence[Descriptors]) -> Check:
    """Is a process near its limit of open files? Beyond it no connection is accepted and no blob opened."""
    details = {each.who: {"open": each.open, "limit": each.limit} for each in seen}
    near = [each for each in seen if each.open >= DESCRIPTORS_SHARE_MAX * each.limit]
    if near:
        words = ", ".join(f"{each.who} has {each.open} of {each.limit} files open" for each in near)
        return Check("descriptors", "degraded", f"{words}: raise LimitNOFILE", details)
    return Check("descriptors", "ok", "", details)


def serves(process: ProcessSnapshot) -> bool:
    """Whether this worker takes new connections and its loop turns."""
    alive = process.role == "worker" and process.state == "running" and not process.draining
    return alive and (process.heartbeat_age_seconds or 0.0) <= HEARTBEAT_SECONDS_MAX


def workers(processes: Sequence[ProcessSnapshot]) -> Check:
    """How many workers serve? One that does not is a degraded node, none a failing one."""
    wanted = [each for each in processes if each.role == "worker" and not each.draining]
    absent = [each for each in wanted if not serves(each)]
    details = {"serving": len(wanted) - len(absent), "wanted": len(wanted)}
    if not absent:
        return Check("workers", "ok", "", details) if wanted else Check("workers", "failing", "no worker", details)
    words = ", ".join(f"worker {each.number} {_condition(each)}" for each in absent)
    return Check("workers", "failing" if len(absent) == len(wanted) else "degraded", words, details)


def crash_loops(processes: Sequence[ProcessSnapshot]) -> Check:
    """Does a process come back only to die again?"""
    looping = [
        each
        for each in processes
        if each.starts_count >= STARTS_COUNT_MAX
        and each.last_exit
        and (each.uptime_seconds is None or each.uptime_seconds < SHORT_LIFE_SECONDS)
    ]
    details = {f"{each.role}:{each.number}": each.starts_count for each in looping}
    if not looping:
        return Check("crashes", "ok")
    words = ", ".join(
        f"{each.role} {each.number} was started {each.starts_count} times, the last end: {each.last_exit}"
        for each in looping
    )
    return Check("crashes", "degraded", words, details)


def sidecar(processes: Sequence[ProcessSnapshot]) -> Check | None:
    """Does the sidecar run? None where there is none: clients do not need it."""
    found = [each for each in processes if each.role == "sidecar" and not each.draining]
    if not found:
        return None
    silent = (found[0].heartbeat_age_seconds or 0.0) > HEARTBEAT_SECONDS_MAX
    if found[0].state != "running" or silent:
        return Check("sidecar", "degraded", f"the sidecar {_condition(found[0])}", {"pid": found[0].pid})
    return Check("sidecar", "ok", "", {"pid": found[0].pid})


def _condition(process: ProcessSnapshot) -> str:
    if process.state == "running":
        return f"has been silent for {process.heartbeat_age_seconds or 0.0:.1f} s"
    return f"is {process.state}" + (f" ({process.last_exit})" if process.last_exit else "")


def report(seen: ReportSnapshot, now: float) -> Check:
    """What the sidecar found: degraded when it failed, is old, or tells of an absent cloud or settings that drifted.

    The documents are those of agent.doctor.cloud.report, agent.tuning.report.report and agent.offload.service; `error`
    is the sidecar's own word for a reporter that failed. A cloud that is away, or an offload that does not run, never
    makes the node fail: clients are served from the mounts.
    """
    document = seen.document
    age = now - seen.at
    reason = ""
    if age > REPORT_SECONDS_MAX:
        reason = f"the last report is {age:.0f} s old"
    elif "error" in document:
        reason = f"the report failed: {document['error']}"
    elif seen.kind == "offload":
        reason = _offload(document)
    elif document.get("configured") and not document.get("reachable"):
        reason = f"{document.get('step')}: {document.get('reason')}"
    elif drift := document.get("drift"):
        reason = f"{len(drift)} settings are not as `blobedge tune apply` left them: see `blobedge tune verify`"
    return Check(seen.kind, "degraded" if reason else "ok", reason, {**document, "at": seen.at})


def _offload(document: Mapping[str, Any]) -> str:
    """What an operator has to mend; "" when it goes on by itself. A pause was asked for, a link comes back."""
    if not document.get("configured"):
        return ""
    if not document.get("socket"):
        return f"nothing goes to the cloud: {document.get('state')}"
    if held := _held(document):
        return held
    stuck = [disk for disk in document.get("eviction", {}).get("disks", []) if disk["stuck"]]
    return f"nothing may leave the disk of {', '.join(stuck[0]['of'])}: docs/runbooks/low-space.md" if stuck else ""


def _held(document: Mapping[str, Any]) -> str:
    """What a person has to mend, lost bytes first: they are in the cloud's trash for so long only."""
    held = sum(each["blobs"] for each in document["totals"] if each["hold"] in ("operator", "poison"))
    lost = min(document.get("failed_rows", {}).get(COPY_LOST, 0), held)
    others = f"{held - lost:,} {'more ' if lost else ''}blob{' is' if held - lost == 1 else 's are'} held"
    if lost:
        text = f"the bytes of {lost:,} stub{'' if lost == 1 else 's'} are not in the cloud any more"
        return f"{text}: blobedge queue ls --failure {COPY_LOST}" + (f"; {others}" if held > lost else "")
    return f"{others}: blobedge queue ls --hold operator,poison" if held else ""


def clock(reports: Iterable[ReportSnapshot], seconds_max: float) -> Check | None:
    """Does our clock agree with the cloud's? None if no report has seen the date of an answer of the cloud.

    HTTP dates have whole seconds, and the answer was on its way: a difference below two seconds means nothing.
    """
    for each in reports:
        skew = each.document.get("clock_skew_seconds")
        if skew is None:
            continue
        details = {"skew_seconds": skew}
        if abs(skew) > seconds_max:
            words = "ahead of" if skew > 0 else "behind"
            return Check(
                "clock", "degraded", f"this clock is {abs(skew):.0f} s {words} the cloud's: see chrony", details
            )
        return Check("clock", "ok", "", details)
    return None


def of_mount(reading: Reading, now: float, limits: Health) -> list[Check]:
    """Return all checks of one mount."""
    return [
        mount(reading, now, limits.mount_seconds_max),
        space(reading, limits.free_percent_min),
        inodes(reading, limits.free_percent_min),
    ]
