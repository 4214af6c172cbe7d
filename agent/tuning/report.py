"""The tuning's state for status, health and metrics: JSON values, read as any user."""

from typing import TypedDict

from agent.tuning import apply
from agent.tuning.knobs import Roots
from agent.tuning.record import load


class DriftEntry(TypedDict):
    """A setting that is not what was applied; `found` None: its device is gone."""

    key: str
    expected: str
    found: str | None


class Report(TypedDict):
    """Whether a plan is applied, its profile, and what has drifted from it."""

    applied: bool
    profile: str | None
    drift: list[DriftEntry]


def report(roots: Roots | None = None) -> Report:
    """Look once: file reads and, for devices, netlink: blocking, so for a thread. Raises OperatorError."""
    where = roots or Roots()
    recorded = load(where)
    drift = apply.verify(where)
    return {
        "applied": recorded is not None,
        "profile": recorded.profile if recorded is not None else None,
        "drift": [{"key": item.key, "expected": item.expected, "found": item.found} for item in drift],
    }
