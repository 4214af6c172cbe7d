"""The clock: Azure refuses requests that are 15 minutes off, SAS tokens start and end by it, certificates too.

The kernel says by adjtimex(2) whether a time service disciplines the clock, whichever it is (chrony, timesyncd, ntpd),
so no program is asked. How far off the clock is, only another clock can say: the Date of the cloud's answer.
"""

import ctypes
import os
from dataclasses import dataclass
from typing import Final

from agent.doctor.findings import Finding
from dataplane.blobapi import limits

CHECK: Final = "clock"
MEND: Final = "timedatectl set-ntp true, or install chrony; then chronyc makestep (docs/runbooks/clock-skew.md)"

_STA_UNSYNC: Final = 0x0040  # linux/timex.h
_TIME_ERROR: Final = 5
_TIMEX_BYTES: Final = 512  # struct timex has 208; room for what a kernel adds


class _TimexHead(ctypes.Structure):
    """The first fields of struct timex (adjtimex(2))."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What the kernel says of its clock."""

    synchronised: bool
    error_seconds_max: float  # the kernel's bound; grows while nobody corrects the clock


def observe() -> ClockFacts:
    """Ask adjtimex(2) to change nothing. Raises OSError where the call is forbidden."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(buffer)
    if state < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    head = _TimexHead.from_buffer(buffer)
    return ClockFacts(state != _TIME_ERROR and not head.status & _STA_UNSYNC, head.maxerror / 1e6)


def judge(facts: ClockFacts) -> Finding:
    """Say whether somebody keeps the clock right."""
    if not facts.synchronised:
        return Finding(CHECK, "warning", "no time service keeps this clock right", MEND)
    return Finding(CHECK, "ok", f"synchronised, at most {facts.error_seconds_max:.3f} s off")


def judge_skew(skew_seconds: float, seconds_max: float) -> Finding:
    """Judge the difference to the cloud's clock; positive: ours is ahead."""
    way = "ahead of" if skew_seconds > 0 else "behind"
    what = f"{abs(skew_seconds):.1f} s {way} the cloud's clock"
    if abs(skew_seconds) >= limits.clock_skew_seconds_max:
        return Finding(CHECK, "problem", f"{what}: Azure refuses every signed request", MEND)
    if abs(skew_seconds) > seconds_max:
        return Finding(CHECK, "warning", f"{what}: SAS tokens start and end at the wrong moment", MEND)
    return Finding(CHECK, "ok", what)
