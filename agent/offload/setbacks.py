"""What a Fault means for the row that met it and for all the others. Pure but for chance, which is given.

    kind       the row                                          the others
    NOW        waits a moment, then longer each time            -
    LATER      the same; rests while the service has trouble    fewer at a time; none before a Retry-After is over
    LINK       rests: nothing is wrong with it                  linkwatch.py
    OPERATOR   held, with the text that says what to mend       the same text, unasked, if it is of all (gate.py)
    POISON     held                                             -
    CONFLICT   held: the policy left it to a person             -

A CONFLICT that gets here changed between two looks, or was not to be looked into: what is known to be somebody else's
is met by the policy, and no policy leaves it to a person.

A row that rests is taken again after REST_SECONDS and nothing of that is written down: otherwise an hour of a broken
service would teach each blob to wait for a quarter of an hour, and work has to go on within 5 s of healing.
"""

from typing import Final, NamedTuple

from agent.offload import failures
from agent.offload.failures import Fault, Kind
from agent.offload.rows import Failure
from agent.offload.states import Hold

REST_SECONDS: Final = 1.0
TROUBLE_MIN: Final = 3  # failures of the service in a row, with no success between them
SECOND_NS: Final = 1_000_000_000

#: What a service that lies once may say, and what would hold a blob for good: it has to say it so many times.
_DOUBTED: Final = frozenset({"CopyGone"})
DOUBTS_COUNT: Final = 2

STAYS_HERE: Final = "StaysHere"  # ours, although theirs counts

#: Failures that are of a file or of our own making, and say nothing of the service.
_OURS: Final = frozenset(
    {
        "ReadFailed",
        "SourceChanged",
        "SourceDamaged",
        "BytesAway",
        "StubLost",
        "StubWritten",
        STAYS_HERE,
        "Cancelled",
        "PaceClosed",
    }
)
_HOLDS: Final = {Kind.OPERATOR: Hold.OPERATOR, Kind.POISON: Hold.POISON}


class Setback(NamedTuple):
    """What to do. `failure` None: the row rests."""

    failure: Failure | None
    trouble: bool = False  # counts as a failure of the service


def of_service(fault: Fault) -> bool:
    """Whether the service could not, for the time being."""
    return fault.kind is Kind.LATER and fault.code not in _OURS


def answered(fault: Fault) -> bool:
    """Whether the service, or something that speaks for it, answered."""
    return fault.kind is not Kind.LINK and fault.code not in _OURS


def setback(fault: Fault, attempts: int, in_trouble: bool, now: int, jitter: float) -> Setback:
    """`attempts`: failures of the row before; `in_trouble`: the service failed TROUBLE_MIN times in a row; `now`: ns
    since 1970; `jitter`: from [0, 1)."""
    if fault.kind is Kind.LINK or fault.code in ("Cancelled", "PaceClosed"):
        return Setback(None)
    if fault.code in _DOUBTED and attempts < DOUBTS_COUNT:
        return Setback(Failure(fault.kind, fault.text, Hold.WAITING, now + (attempts + 1) * SECOND_NS))
    if (hold := _HOLDS.get(fault.kind)) is not None:
        return Setback(Failure(fault.kind, fault.text, hold))
    trouble = of_service(fault)
    if trouble and in_trouble:
        return Setback(None, trouble=True)
    seconds = failures.pause(fault, attempts, jitter) or 0.0
    again_at = now + int(seconds * SECOND_NS)
    return Setback(Failure(fault.kind, fault.text, Hold.WAITING, again_at), trouble=trouble)
