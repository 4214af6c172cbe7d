"""Kernel settings against what `blobedge tune apply` left: applied at all, and still so?"""

from typing import Final

from agent.doctor.findings import Finding
from agent.tuning.report import DriftEntry, Report, report

CHECK: Final = "tune"
TOLD_COUNT_MAX: Final = 3  # of drifted settings in one line; `blobedge tune verify` has them all


def observe() -> Report:
    """Look once. Raises OperatorError for a record that does not read."""
    return report()


def judge(found: Report) -> Finding:
    """Say what drifted. A node that was never tuned works, so that is a note."""
    if not found["applied"]:
        return Finding(CHECK, "note", "the kernel's network settings are not tuned", "look: blobedge tune plan")
    drift = found["drift"]
    if not drift:
        return Finding(CHECK, "ok", f"as applied, profile {found['profile']}")
    told = "; ".join(map(_told, drift[:TOLD_COUNT_MAX])) + ("; ..." if len(drift) > TOLD_COUNT_MAX else "")
    mend = (
        "sudo blobedge tune apply (it keeps what is better), or sudo blobedge tune rollback; all: blobedge tune verify"
    )
    return Finding(CHECK, "warning", f"{len(drift)} settings are not as applied: {told}", mend)


def _told(entry: DriftEntry) -> str:
    found = "gone" if entry["found"] is None else entry["found"] or "empty"
    return f"{entry['key']} is {found}, was set to {entry['expected'] or 'empty'}"
