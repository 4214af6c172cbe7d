"""The link to the cloud as a state machine, pure, and the one probe that is made while it is down.

    state      work allowed                  leaves it
    ONLINE     as much as the engine likes   a request that found no way: DEGRADED
    DEGRADED   one blob at a time            SUCCESSES_MIN in a row: ONLINE; FAILURES_MAX in a row: OFFLINE
    OFFLINE    none; one probe at a time     a probe that gets through: DEGRADED

An answer of the service, also an error, means that there is a way. After OFFLINE the first blob is the trial: if it
finds no way either, the link is OFFLINE again at once. Probes start PROBE_SECONDS_FIRST after the failure and are at
most PROBE_SECONDS_MAX apart from start to start, so that work goes on within 5 s of healing, however long the link was
down: 3 s until the next probe, its round trips, and the engine's turn. A probe that finds no way costs a few packets,
so even a day of them is a few MB. Rejected: a back-off to half a minute or more, which saves a few packets and costs
that delay; and DNS in the probe when addresses are known, since a resolver without an upstream holds it up for
many seconds.
"""

import http.client
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Final

PROBE_SECONDS_FIRST: Final = 0.5
PROBE_SECONDS_MAX: Final = 3.0  # from start to start
PROBE_GROWTH: Final = 2.0
PROBE_ANSWER_SECONDS_MAX: Final = 2.0  # each step; below PROBE_SECONDS_MAX, so that the next one is in time
FAILURES_MAX: Final = 3
SUCCESSES_MIN: Final = 3


class Link(StrEnum):
    """How the link is."""

    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"


class Result(Enum):
    """What a request says of the link."""

    ANSWERED = "answered"
    NO_WAY = "no way"


@dataclass(frozen=True, slots=True)
class LinkState:
    """The link as it is known. Times are seconds of one monotonic clock."""

    link: Link = Link.ONLINE
    since: float = 0.0
    in_row: int = 0  # results of one kind: failures while DEGRADED and negative, or successes
    probe_at: float = 0.0  # while OFFLINE: when the next probe starts
    probe_pause: float = 0.0
    trial: bool = False  # DEGRADED out of OFFLINE, and nothing has gone through yet

    def work_max(self, most: int) -> int:
        """How many blobs may be under way."""
        return {Link.ONLINE: most, Link.DEGRADED: min(most, 1), Link.OFFLINE: 0}[self.link]

    def probe_due(self, now: float) -> bool:
        """Whether a probe is to start."""
        return self.link is Link.OFFLINE and now >= self.probe_at


def after_result(state: LinkState, result: Result, now: float) -> LinkState:
    """The state after a request. While OFFLINE, results of what was still under way change nothing but for success."""
    if result is Result.ANSWERED:
        return _after_answer(state, now)
    if state.link is Link.OFFLINE:
        return state
    if state.link is Link.ONLINE:
        return LinkState(Link.DEGRADED, now, in_row=-1)
    failures = min(state.in_row, 0) - 1
    if state.trial or -failures >= FAILURES_MAX:
        return _offline(state, now)
    return replace(state, in_row=failures)


def after_probe(state: LinkState, passed: bool, started: float, now: float) -> LinkState:
    """The state after a probe. `started`: when it was; the next one is counted from there."""
    if state.link is not Link.OFFLINE:
        return state
    if passed:
        return LinkState(Link.DEGRADED, now, probe_pause=state.probe_pause, trial=True)
    pause = min(state.probe_pause * PROBE_GROWTH, PROBE_SECONDS_MAX)
    return replace(state, probe_at=max(started + pause, now), probe_pause=pause)


def _after_answer(state: LinkState, now: float) -> LinkState:
    if state.link is Link.ONLINE:
        return state
    if state.link is Link.OFFLINE:
        return LinkState(Link.DEGRADED, now, in_row=1)
    successes = max(state.in_row, 0) + 1
    if successes >= SUCCESSES_MIN:
        return LinkState(Link.ONLINE, now)
    return replace(state, in_row=successes, trial=False)


def _offline(state: LinkState, now: float) -> LinkState:
    """Probes of a trial that failed go on as slowly as before: what lets a probe through is not yet a way."""
    pause = min(max(state.probe_pause * PROBE_GROWTH, PROBE_SECONDS_FIRST), PROBE_SECONDS_MAX)
    return LinkState(Link.OFFLINE, now, probe_at=now + pause, probe_pause=pause)


def probe(
    addresses: Sequence[str],
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    *,
    seconds: float = PROBE_ANSWER_SECONDS_MAX,
) -> bool:
    """Whether a Blob service, or anything that speaks HTTP, answers an unsigned request. Never raises; blocks.

    `addresses`: where the host was last found, tried in turn; with none, the host is resolved. An accepted connection
    is no answer: a proxy or a firewall on the way may accept it without any way behind. `seconds`: for each step.
    """
    for address in addresses or [host]:
        try:
            with socket.create_connection((address, port), timeout=seconds) as plain:
                wrapped = tls.wrap_socket(plain, server_hostname=host) if tls else plain
                with wrapped:
                    connection = http.client.HTTPConnection(host, port)
                    connection.sock = wrapped
                    connection.request("HEAD", "/?comp=list")
                    connection.getresponse().read()
                    return True
        except (OSError, http.client.HTTPException, ValueError):
            continue
    return False
