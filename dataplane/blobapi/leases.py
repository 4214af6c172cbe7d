"""Leases of blobs and containers: the state machine as tables, and who may use a leased resource.

A lease is stored as it was last changed; its state follows from the clock. So no timer exists, a restart loses nothing,
and two workers agree. A write to a blob whose lease has run out or was broken makes the lease go away (REST page
"Lease Blob", table of use attempts); that too is derived, from Last-Modified, rather than written: the write itself is
then the one commit point. Tables: REST pages "Lease Blob" and "Lease Container"; codes where those pages give a status
only: recordings of the service and Azurite's state classes.

Times are whole seconds, rounded down, so a fixed lease ends up to a second early, never late: clients that wait for the
end of a lease expect to get it then, and holders have to renew before the end anyway.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final
from uuid import UUID

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import Lease

INFINITE: Final = -1
_GUID_CHARS_MAX: Final = 68  # the longest notation of a GUID that .NET's constructor takes


class LeaseState(Enum):
    """x-ms-lease-state."""

    AVAILABLE = "available"
    LEASED = "leased"
    EXPIRED = "expired"
    BREAKING = "breaking"
    BROKEN = "broken"


class LeaseAction(Enum):
    """x-ms-lease-action."""

    ACQUIRE = "acquire"
    RENEW = "renew"
    CHANGE = "change"
    RELEASE = "release"
    BREAK = "break"


class Use(Enum):
    """What a request does with a resource, as far as its lease cares."""

    READ = "read"
    WRITE = "write"  # and delete


class Given(Enum):
    """The x-ms-lease-id of a request, compared with the lease's."""

    NONE = "none"
    MATCH = "match"
    OTHER = "other"


_S = LeaseState
_LOCKED: Final = (LeaseState.LEASED, LeaseState.BREAKING)
_MISMATCH: Final = ErrorCode.LEASE_ID_MISMATCH_WITH_LEASE_OPERATION
_ABSENT: Final = ErrorCode.LEASE_NOT_PRESENT_WITH_LEASE_OPERATION

#: (action, state, the id given is the lease's) -> the next state, or the refusal. Acquire compares the proposed id.
TRANSITIONS: Final[Mapping[tuple[LeaseAction, LeaseState, bool], LeaseState | ErrorCode]] = {
    (LeaseAction.ACQUIRE, _S.AVAILABLE, False): _S.LEASED,
    (LeaseAction.ACQUIRE, _S.LEASED, True): _S.LEASED,
    (LeaseAction.ACQUIRE, _S.LEASED, False): ErrorCode.LEASE_ALREADY_PRESENT,
    (LeaseAction.ACQUIRE, _S.EXPIRED, True): _S.LEASED,
    (LeaseAction.ACQUIRE, _S.EXPIRED, False): _S.LEASED,
    (LeaseAction.ACQUIRE, _S.BREAKING, True): ErrorCode.LEASE_IS_BREAKING_AND_CANNOT_BE_ACQUIRED,
    (LeaseAction.ACQUIRE, _S.BREAKING, False): ErrorCode.LEASE_ALREADY_PRESENT,
    (LeaseAction.ACQUIRE, _S.BROKEN, True): _S.LEASED,
    (LeaseAction.ACQUIRE, _S.BROKEN, False): _S.LEASED,
    (LeaseAction.RENEW, _S.AVAILABLE, False): _MISMATCH,
    (LeaseAction.RENEW, _S.LEASED, True): _S.LEASED,
    (LeaseAction.RENEW, _S.LEASED, False): _MISMATCH,
    (LeaseAction.RENEW, _S.EXPIRED, True): _S.LEASED,
    (LeaseAction.RENEW, _S.EXPIRED, False): _MISMATCH,
    (LeaseAction.RENEW, _S.BREAKING, True): ErrorCode.LEASE_IS_BROKEN_AND_CANNOT_BE_RENEWED,
    (LeaseAction.RENEW, _S.BREAKING, False): _MISMATCH,
    (LeaseAction.RENEW, _S.BROKEN, True): ErrorCode.LEASE_IS_BROKEN_AND_CANNOT_BE_RENEWED,
    (LeaseAction.RENEW, _S.BROKEN, False): _MISMATCH,
    (LeaseAction.CHANGE, _S.AVAILABLE, False): _ABSENT,
    (LeaseAction.CHANGE, _S.LEASED, True): _S.LEASED,
    (LeaseAction.CHANGE, _S.LEASED, False): _MISMATCH,
    (LeaseAction.CHANGE, _S.EXPIRED, True): _ABSENT,
    (LeaseAction.CHANGE, _S.EXPIRED, False): _ABSENT,
    (LeaseAction.CHANGE, _S.BREAKING, True): ErrorCode.LEASE_IS_BREAKING_AND_CANNOT_BE_CHANGED,
    (LeaseAction.CHANGE, _S.BREAKING, False): _MISMATCH,
    (LeaseAction.CHANGE, _S.BROKEN, True): _ABSENT,
    (LeaseAction.CHANGE, _S.BROKEN, False): _ABSENT,
    (LeaseAction.RELEASE, _S.AVAILABLE, False): _MISMATCH,
    (LeaseAction.RELEASE, _S.LEASED, True): _S.AVAILABLE,
    (LeaseAction.RELEASE, _S.LEASED, False): _MISMATCH,
    (LeaseAction.RELEASE, _S.EXPIRED, True): _S.AVAILABLE,
    (LeaseAction.RELEASE, _S.EXPIRED, False): _MISMATCH,
    (LeaseAction.RELEASE, _S.BREAKING, True): _S.AVAILABLE,
    (LeaseAction.RELEASE, _S.BREAKING, False): _MISMATCH,
    (LeaseAction.RELEASE, _S.BROKEN, True): _S.AVAILABLE,
    (LeaseAction.RELEASE, _S.BROKEN, False): _MISMATCH,
    # Break takes no id; with a period of 0, or at the end of one, BREAKING is BROKEN at once.
    (LeaseAction.BREAK, _S.AVAILABLE, False): _ABSENT,
    (LeaseAction.BREAK, _S.LEASED, False): _S.BREAKING,
    (LeaseAction.BREAK, _S.EXPIRED, False): _S.BROKEN,
    (LeaseAction.BREAK, _S.BREAKING, False): _S.BREAKING,
    (LeaseAction.BREAK, _S.BROKEN, False): _S.BROKEN,
}

_NOT_PRESENT: Final = ErrorCode.LEASE_NOT_PRESENT_WITH_BLOB_OPERATION
_OTHER_ID: Final = ErrorCode.LEASE_ID_MISMATCH_WITH_BLOB_OPERATION

#: (use, state, id given) -> the refusal; what is not in it is allowed. Every state is listed for every id given.
REFUSALS: Final[Mapping[tuple[Use, LeaseState, Given], ErrorCode]] = {
    (Use.WRITE, _S.LEASED, Given.NONE): ErrorCode.LEASE_ID_MISSING,
    (Use.WRITE, _S.BREAKING, Given.NONE): ErrorCode.LEASE_ID_MISSING,
    **{(use, _S.AVAILABLE, Given.OTHER): _NOT_PRESENT for use in Use},
    **{(use, state, Given.OTHER): _OTHER_ID for use in Use for state in _S if state is not _S.AVAILABLE},
    **{(use, state, Given.MATCH): ErrorCode.LEASE_LOST for use in Use for state in (_S.EXPIRED, _S.BROKEN)},
}

#: The codes of REFUSALS for a container.
_FOR_CONTAINER: Final = {
    _NOT_PRESENT: ErrorCode.LEASE_NOT_PRESENT_WITH_CONTAINER_OPERATION,
    _OTHER_ID: ErrorCode.LEASE_ID_MISMATCH_WITH_CONTAINER_OPERATION,
}


def state_of(lease: Lease | None, now: int, last_modified: int = 0) -> LeaseState:
    """The state of a lease at `now`. `last_modified` is the blob's; containers leave it out, as writing to a container
    does not end its lease.

    By the time alone, a write in the very second of a break does not count as one after it: a blob that is written,
    leased and broken within a second has to look broken. `seen_with` tells by the ETag.
    """
    if lease is None or lease.released or lease.modified_since:
        return LeaseState.AVAILABLE
    if lease.breaks is not None:
        if now < lease.breaks:
            return LeaseState.BREAKING
        return LeaseState.AVAILABLE if last_modified > lease.breaks else LeaseState.BROKEN
    if lease.expires is None or now < lease.expires:
        return LeaseState.LEASED
    return LeaseState.AVAILABLE if last_modified >= lease.expires else LeaseState.EXPIRED


def seen_with(lease: Lease | None, etag: str) -> Lease | None:
    """A lease as a blob with this ETag has it: one that was broken while the blob had another ended with the write."""
    if lease is None or lease.broken_etag in ("", etag):
        return lease
    return replace(lease, modified_since=True)


def lease_headers(lease: Lease | None, now: int, last_modified: int = 0) -> tuple[tuple[str, str], ...]:
    """The x-ms-lease-* response headers of a blob's or container's properties."""
    if lease is None:
        return _AVAILABLE_HEADERS
    state = state_of(lease, now, last_modified)
    status = "locked" if state in _LOCKED else "unlocked"
    headers = (("x-ms-lease-status", status), ("x-ms-lease-state", state.value))
    if state is not LeaseState.LEASED:
        return headers
    return (*headers, ("x-ms-lease-duration", "infinite" if lease.duration == INFINITE else "fixed"))


_AVAILABLE_HEADERS: Final = (("x-ms-lease-status", "unlocked"), ("x-ms-lease-state", "available"))


def parse_lease_id(text: str | None, header_name: str = "x-ms-lease-id") -> str | None:
    """A lease id in canonical form, None for none. Raises BlobError InvalidHeaderValue for what is no GUID."""
    if not text:
        return None
    try:
        if len(text) > _GUID_CHARS_MAX:
            raise ValueError
        return str(UUID(text.strip()))
    except ValueError:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=header_name, header_value=text) from None


def given(lease: Lease | None, lease_id: str | None) -> Given:
    """How a request's lease id (canonical, None for none) compares with a lease."""
    if lease_id is None:
        return Given.NONE
    return Given.MATCH if lease is not None and lease.lease_id == lease_id else Given.OTHER


def holds(lease: Lease | None, lease_id: str | None, now: int, last_modified: int = 0) -> bool:
    """Whether a request holds the active lease."""
    return given(lease, lease_id) is Given.MATCH and state_of(lease, now, last_modified) in _LOCKED


def check_blob_use(lease: Lease | None, lease_id: str | None, now: int, last_modified: int, use: Use) -> None:
    """Let a request with that lease id read or write (delete) a blob; an absent blob has no lease.

    Raises BlobError 412 LeaseIdMissing, LeaseIdMismatchWithBlobOperation, LeaseLost, LeaseNotPresentWithBlobOperation.
    """
    if lease is None and lease_id is None:
        return
    code = _refusal(lease, lease_id, state_of(lease, now, last_modified), use)
    if code is not None:
        raise BlobError(code)


def check_container_use(lease: Lease | None, lease_id: str | None, now: int, use: Use) -> None:
    """Let a request use a container. Only deleting it counts as WRITE: everything else needs no id, but a wrong one
    fails. Raises BlobError as check_blob_use, with the container's codes."""
    if lease is None and lease_id is None:
        return
    code = _refusal(lease, lease_id, state_of(lease, now), use)
    if code is not None:
        raise BlobError(_FOR_CONTAINER.get(code, code), resource="container")


def _refusal(lease: Lease | None, lease_id: str | None, state: LeaseState, use: Use) -> ErrorCode | None:
    comparison = given(lease, lease_id)
    if state is LeaseState.AVAILABLE and comparison is Given.MATCH:
        comparison = Given.OTHER  # the id of a lease that is gone
    return REFUSALS.get((use, state, comparison))


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A Lease Blob or Lease Container request. Ids are canonical; durations and periods are in seconds."""

    action: LeaseAction
    lease_id: str | None = None
    proposed_id: str | None = None
    duration: int = INFINITE
    break_period: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseOutcome:
    """What a lease operation leaves and answers: the new lease (None: there is none), and the answer's parts."""

    lease: Lease | None
    status: int
    lease_id: str | None = None
    seconds_left: int | None = None  # x-ms-lease-time of Break

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The x-ms-lease-* headers of the answer."""
        found = []
        if self.lease_id is not None:
            found.append(("x-ms-lease-id", self.lease_id))
        if self.seconds_left is not None:
            found.append(("x-ms-lease-time", str(self.seconds_left)))
        return found


_STATUS: Final = {LeaseAction.ACQUIRE: 201, LeaseAction.BREAK: 202}


def parse_lease_request(header: Callable[[str], str | None]) -> LeaseRequest:
    """The lease operation that headers ask for; `header(name)` gives a value or None.

    Raises BlobError MissingRequiredHeader or InvalidHeaderValue.
    """
    action_text = _required(header, "x-ms-lease-action")
    try:
        action = LeaseAction(action_text.lower())
    except ValueError:
        raise _invalid("x-ms-lease-action", action_text) from None
    lease_id = parse_lease_id(header("x-ms-lease-id"))
    proposed_id = parse_lease_id(header("x-ms-proposed-lease-id"), "x-ms-proposed-lease-id")
    if action in (LeaseAction.RENEW, LeaseAction.RELEASE, LeaseAction.CHANGE) and lease_id is None:
        raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name="x-ms-lease-id")
    if action is LeaseAction.CHANGE and proposed_id is None:
        raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name="x-ms-proposed-lease-id")
    duration = INFINITE
    if action is LeaseAction.ACQUIRE:
        duration = _seconds("x-ms-lease-duration", _required(header, "x-ms-lease-duration"))
        if duration != INFINITE and not limits.lease_seconds_min <= duration <= limits.lease_seconds_max:
            raise _invalid("x-ms-lease-duration", str(duration))
    period_text = header("x-ms-lease-break-period") if action is LeaseAction.BREAK else None
    period = None if period_text is None else _seconds("x-ms-lease-break-period", period_text)
    if period is not None and not 0 <= period <= limits.lease_break_seconds_max:
        raise _invalid("x-ms-lease-break-period", str(period))
    return LeaseRequest(action, lease_id, proposed_id, duration, period)


def _required(header: Callable[[str], str | None], name: str) -> str:
    value = header(name)
    if not value:
        raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name=name)
    return value


def _invalid(name: str, value: str) -> BlobError:
    return BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=name, header_value=value)


def _seconds(name: str, text: str) -> int:
    """A number of at most three digits, maybe negative."""
    digits = text.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3):
        raise _invalid(name, text)
    return int(text)


def apply(
    request: LeaseRequest,
    lease: Lease | None,
    now: int,
    new_id: str,
    *,
    last_modified: int = 0,
    etag: str = "",
    resource: str = "blob",
) -> LeaseOutcome:
    """Carry out a lease operation at `now`. `new_id` is the id for Acquire without a proposed one.

    `last_modified` and `etag` are the blob's. `resource` ("blob" or "container") is for messages. Raises BlobError 409,
    the codes of TRANSITIONS.
    """
    state = state_of(lease, now, last_modified)
    following = TRANSITIONS[request.action, state, _is_same(request, lease, state)]
    if isinstance(following, ErrorCode):
        raise BlobError(following, resource=resource)
    status = _STATUS.get(request.action, 200)
    if request.action is LeaseAction.ACQUIRE:
        taken = _started(request.proposed_id or new_id, request.duration, now)
        return LeaseOutcome(taken, status, taken.lease_id)
    assert lease is not None  # every other action is refused in AVAILABLE
    if request.action is LeaseAction.RENEW:
        return LeaseOutcome(_started(lease.lease_id, lease.duration, now), status, lease.lease_id)
    if request.action is LeaseAction.CHANGE:
        changed = replace(lease, lease_id=request.proposed_id or lease.lease_id)
        return LeaseOutcome(changed, status, changed.lease_id)
    if request.action is LeaseAction.RELEASE:
        return LeaseOutcome(None, status)
    breaks = _breaks(request.break_period, lease, state, now)
    broken = replace(lease, breaks=breaks, broken_etag=etag if breaks <= now else "")
    return LeaseOutcome(broken, status, seconds_left=max(0, breaks - now))


def _is_same(request: LeaseRequest, lease: Lease | None, state: LeaseState) -> bool:
    if lease is None or state is LeaseState.AVAILABLE or request.action is LeaseAction.BREAK:
        return False
    if request.action is LeaseAction.ACQUIRE:
        return request.proposed_id == lease.lease_id
    if request.action is LeaseAction.CHANGE and request.proposed_id == lease.lease_id:
        return True  # a repeated Change: the page's table lets (B) to (A) pass while (A) is active
    return request.lease_id == lease.lease_id


def _started(lease_id: str, duration: int, now: int) -> Lease:
    return Lease(lease_id, duration, None if duration == INFINITE else now + duration)


def _breaks(period: int | None, lease: Lease, state: LeaseState, now: int) -> int:
    """When the lease is broken. What is left never grows: a period only shortens it, and without one a fixed lease runs
    to its end while an infinite one is broken at once."""
    if state is LeaseState.BROKEN:
        return lease.breaks if lease.breaks is not None else now
    if state is LeaseState.EXPIRED:
        return now
    left = lease.breaks if state is LeaseState.BREAKING else lease.expires
    if left is None:
        return now + (period or 0)
    return left if period is None else min(left, now + period)
