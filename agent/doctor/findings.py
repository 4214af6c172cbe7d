"""What a check says, as a value: a status, what is so, and what mends it.

A check is two functions: one observes (files, sockets, clocks; may fail or be slow), one judges (pure, facts in,
findings out), so every finding can be tested without the machine that shows it. A finding that is not "ok" always has a
mend: an operator who is told of a trouble without a way out is worse off than before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Status = Literal["ok", "note", "warning", "problem"]

# Monitoring plug-ins' order: 1 warns, 2 is critical. A note asks for nothing.
EXIT_CODES: Final[dict[Status, int]] = {"ok": 0, "note": 0, "warning": 1, "problem": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement. `what` and `mend` are for people, `check` and `status` for scripts too."""

    check: str
    status: Status
    what: str
    mend: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """0 all well (or only notes), 1 at least a warning, 2 at least a problem."""
    return max((EXIT_CODES[finding.status] for finding in findings), default=0)


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the answer for scripts: the worst status, how many of each, and every finding in the order of checks."""
    counts = {status: sum(finding.status == status for finding in findings) for status in EXIT_CODES}
    worst = next((status for status in reversed(EXIT_CODES) if counts[status]), "ok")
    return {"status": worst, "counts": counts, "findings": [asdict(finding) for finding in findings]}
