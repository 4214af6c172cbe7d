"""Leases: totality of the tables, the REST pages' tables cell by cell, times, and the recorded sequences."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from dataplane.blobapi import leases
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import (
    REFUSALS,
    TRANSITIONS,
    Given,
    LeaseAction,
    LeaseOutcome,
    LeaseRequest,
    LeaseState,
    Use,
    apply,
    check_blob_use,
    check_container_use,
    lease_headers,
    parse_lease_id,
    parse_lease_request,
    state_of,
)
from dataplane.blobapi.model import Lease

A = "00000000-1111-2222-3333-444444444444"
B = "b831fc5e-5698-4e4e-a897-d8a9fd515ade"
NEW = "a0e6c241-96ea-45a3-a44b-6ae868bc14d0"
NOW = 1_557_362_521
S = LeaseState

#: One lease with id A per state, as it looks at NOW.
LEASES: dict[LeaseState, Lease | None] = {
    S.AVAILABLE: None,
    S.LEASED: Lease(A, 30, NOW + 10),
    S.EXPIRED: Lease(A, 30, NOW - 1),
    S.BREAKING: Lease(A, 30, NOW + 20, breaks=NOW + 5),
    S.BROKEN: Lease(A, 30, NOW + 20, breaks=NOW - 2),
}
OLD = NOW - 100  # Last-Modified before all of it


def refusal(check: Callable[[], None]) -> BlobError | None:
    try:
        check()
    except BlobError as error:
        return error
    return None


def run(state: LeaseState, request: LeaseRequest, last_modified: int = OLD) -> LeaseOutcome | str:
    """The outcome, or the code of the refusal."""
    try:
        return apply(request, LEASES[state], NOW, NEW, last_modified=last_modified)
    except BlobError as error:
        return error.code.code if error.code.status == 409 else f"{error.code.status}"


def test_every_state_and_action_is_decided() -> None:
    for action, state, same in itertools.product(LeaseAction, LeaseState, (True, False)):
        possible = not (same and (state is S.AVAILABLE or action is LeaseAction.BREAK))
        assert ((action, state, same) in TRANSITIONS) is possible
    for use, state in itertools.product(Use, LeaseState):
        assert ((use, state, Given.OTHER) in REFUSALS) is True


@pytest.mark.parametrize("state", list(LeaseState))
def test_states_follow_from_the_clock(state: LeaseState) -> None:
    assert state_of(LEASES[state], NOW, OLD) is state


def test_states_at_their_edges() -> None:
    fixed = Lease(A, 15, NOW)
    assert state_of(fixed, NOW - 1) is S.LEASED
    assert state_of(fixed, NOW) is S.EXPIRED
    assert state_of(Lease(A, -1, None), 2**40) is S.LEASED
    breaking = Lease(A, -1, None, breaks=NOW)
    assert state_of(breaking, NOW - 1) is S.BREAKING
    assert state_of(breaking, NOW) is S.BROKEN
    assert state_of(Lease(A, 15, NOW, released=True), NOW - 1) is S.AVAILABLE


def test_a_write_ends_a_lease_that_had_ended() -> None:
    assert state_of(LEASES[S.EXPIRED], NOW, NOW) is S.AVAILABLE
    assert state_of(LEASES[S.BROKEN], NOW, NOW) is S.AVAILABLE
    assert state_of(LEASES[S.LEASED], NOW, NOW) is S.LEASED
    assert run(S.EXPIRED, LeaseRequest(LeaseAction.RENEW, A), NOW) == "LeaseIdMismatchWithLeaseOperation"
    assert isinstance(run(S.EXPIRED, LeaseRequest(LeaseAction.RENEW, A)), LeaseOutcome)


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (S.AVAILABLE, 201),
        (S.LEASED, "LeaseAlreadyPresent"),
        (S.BREAKING, "LeaseAlreadyPresent"),
        (S.BROKEN, 201),
        (S.EXPIRED, 201),
    ],
)
@pytest.mark.parametrize("proposed", [None, B])
def test_acquire_by_another(state: LeaseState, outcome: int | str, proposed: str | None) -> None:
    found = run(state, LeaseRequest(LeaseAction.ACQUIRE, proposed_id=proposed, duration=20))
    if isinstance(found, LeaseOutcome):
        assert (found.status, found.lease) == (outcome, Lease(proposed or NEW, 20, NOW + 20))
        assert found.headers == [("x-ms-lease-id", proposed or NEW)]
    else:
        assert found == outcome


def test_acquire_by_the_holder_changes_the_duration() -> None:
    found = run(S.LEASED, LeaseRequest(LeaseAction.ACQUIRE, proposed_id=A, duration=-1))
    assert isinstance(found, LeaseOutcome)
    assert found.lease == Lease(A, -1, None)
    breaking = run(S.BREAKING, LeaseRequest(LeaseAction.ACQUIRE, proposed_id=A))
    assert breaking == "LeaseIsBreakingAndCannotBeAcquired"


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (S.AVAILABLE, "LeaseIdMismatchWithLeaseOperation"),
        (S.LEASED, 200),
        (S.BREAKING, "LeaseIsBrokenAndCannotBeRenewed"),
        (S.BROKEN, "LeaseIsBrokenAndCannotBeRenewed"),
        (S.EXPIRED, 200),
    ],
)
def test_renew(state: LeaseState, outcome: int | str) -> None:
    found = run(state, LeaseRequest(LeaseAction.RENEW, A))
    if isinstance(found, LeaseOutcome):
        assert (found.status, found.lease, found.lease_id) == (outcome, Lease(A, 30, NOW + 30), A)
    else:
        assert found == outcome
    assert run(state, LeaseRequest(LeaseAction.RENEW, B)) == "LeaseIdMismatchWithLeaseOperation"


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (S.AVAILABLE, "LeaseNotPresentWithLeaseOperation"),
        (S.LEASED, 200),
        (S.BREAKING, "LeaseIsBreakingAndCannotBeChanged"),
        (S.BROKEN, "LeaseNotPresentWithLeaseOperation"),
        (S.EXPIRED, "LeaseNotPresentWithLeaseOperation"),
    ],
)
def test_change(state: LeaseState, outcome: int | str) -> None:
    found = run(state, LeaseRequest(LeaseAction.CHANGE, A, B))
    if isinstance(found, LeaseOutcome):
        assert (found.status, found.lease, found.lease_id) == (outcome, Lease(B, 30, NOW + 10), B)
    else:
        assert found == outcome


def test_change_by_others() -> None:
    repeated = run(S.LEASED, LeaseRequest(LeaseAction.CHANGE, B, A))
    assert isinstance(repeated, LeaseOutcome)
    assert repeated.lease == LEASES[S.LEASED]
    assert run(S.LEASED, LeaseRequest(LeaseAction.CHANGE, B, NEW)) == "LeaseIdMismatchWithLeaseOperation"


@pytest.mark.parametrize("state", list(LeaseState))
def test_release(state: LeaseState) -> None:
    found = run(state, LeaseRequest(LeaseAction.RELEASE, A))
    if state is S.AVAILABLE:
        assert found == "LeaseIdMismatchWithLeaseOperation"
    else:
        assert found == LeaseOutcome(None, 200)
    assert run(state, LeaseRequest(LeaseAction.RELEASE, B)) == "LeaseIdMismatchWithLeaseOperation"


@pytest.mark.parametrize(
    ("state", "period", "left", "after"),
    [
        (S.LEASED, None, 10, S.BREAKING),
        (S.LEASED, 0, 0, S.BROKEN),
        (S.LEASED, 5, 5, S.BREAKING),
        (S.LEASED, 60, 10, S.BREAKING),
        (S.BREAKING, None, 5, S.BREAKING),
        (S.BREAKING, 3, 3, S.BREAKING),
        (S.BREAKING, 60, 5, S.BREAKING),
        (S.BREAKING, 0, 0, S.BROKEN),
        (S.BROKEN, None, 0, S.BROKEN),
        (S.BROKEN, 60, 0, S.BROKEN),
        (S.EXPIRED, None, 0, S.BROKEN),
        (S.EXPIRED, 60, 0, S.BROKEN),
    ],
)
def test_break_never_grows(state: LeaseState, period: int | None, left: int, after: LeaseState) -> None:
    found = run(state, LeaseRequest(LeaseAction.BREAK, break_period=period))
    assert isinstance(found, LeaseOutcome)
    assert (found.status, found.seconds_left, state_of(found.lease, NOW)) == (202, left, after)
    assert found.headers == [("x-ms-lease-time", str(left))]


def test_break_of_an_infinite_lease() -> None:
    infinite = Lease(A, -1, None)
    at_once = apply(LeaseRequest(LeaseAction.BREAK), infinite, NOW, NEW)
    assert (at_once.seconds_left, state_of(at_once.lease, NOW)) == (0, S.BROKEN)
    later = apply(LeaseRequest(LeaseAction.BREAK, break_period=60), infinite, NOW, NEW)
    assert (later.seconds_left, state_of(later.lease, NOW + 59), state_of(later.lease, NOW + 60)) == (
        60, S.BREAKING, S.BROKEN,
    )  # fmt: skip


def test_break_without_a_lease() -> None:
    assert run(S.AVAILABLE, LeaseRequest(LeaseAction.BREAK)) == "LeaseNotPresentWithLeaseOperation"


PRESENT, MISSING = "LeaseNotPresentWithBlobOperation", "LeaseIdMissing"
OTHER_ID, LOST = "LeaseIdMismatchWithBlobOperation", "LeaseLost"


@pytest.mark.parametrize(
    ("use", "lease_id", "codes"),  # in the order of LEASES: available, leased, expired, breaking, broken
    [
        (Use.WRITE, None, [None, MISSING, None, MISSING, None]),
        (Use.WRITE, A, [PRESENT, None, LOST, None, LOST]),
        (Use.WRITE, B, [PRESENT, OTHER_ID, OTHER_ID, OTHER_ID, OTHER_ID]),
        (Use.READ, None, [None, None, None, None, None]),
        (Use.READ, A, [PRESENT, None, LOST, None, LOST]),
        (Use.READ, B, [PRESENT, OTHER_ID, OTHER_ID, OTHER_ID, OTHER_ID]),
    ],
)
def test_use(use: Use, lease_id: str | None, codes: list[str | None]) -> None:
    for lease, code in zip(LEASES.values(), codes, strict=True):
        blob = refusal(partial(check_blob_use, lease, lease_id, NOW, OLD, use))
        container = refusal(partial(check_container_use, lease, lease_id, NOW, use))
        if code is None:
            assert blob is container is None
            continue
        assert blob is not None
        assert container is not None
        assert blob.code.code == code
        assert container.code.code == code.replace("Blob", "Container")
        assert (blob.code.status, container.code.status) == (412, 412)
        assert "blob" in blob.message
        assert "container" in container.message


def test_the_id_of_a_lease_that_a_write_ended() -> None:
    with pytest.raises(BlobError) as caught:
        check_blob_use(LEASES[S.EXPIRED], A, NOW, NOW, Use.WRITE)
    assert caught.value.code is ErrorCode.LEASE_NOT_PRESENT_WITH_BLOB_OPERATION


def test_holding() -> None:
    held = [leases.holds(lease, A, NOW, OLD) for lease in LEASES.values()]
    assert held == [False, True, False, True, False]
    assert not leases.holds(LEASES[S.LEASED], B, NOW)
    assert not leases.holds(LEASES[S.LEASED], None, NOW)


def test_headers() -> None:
    def of(lease: Lease | None) -> list[str]:
        return [value for _, value in lease_headers(lease, NOW, OLD)]

    assert of(None) == ["unlocked", "available"]
    assert of(LEASES[S.LEASED]) == ["locked", "leased", "fixed"]
    assert of(Lease(A, -1, None)) == ["locked", "leased", "infinite"]
    assert of(LEASES[S.BREAKING]) == ["locked", "breaking"]
    assert of(LEASES[S.BROKEN]) == ["unlocked", "broken"]
    assert of(LEASES[S.EXPIRED]) == ["unlocked", "expired"]


def test_lease_ids_have_one_form() -> None:
    for text in (B, B.upper(), B.replace("-", ""), "{" + B + "}"):
        assert parse_lease_id(text) == B
    assert parse_lease_id(None) is parse_lease_id("") is None
    for text in ("x", B[:-1], B * 2):
        with pytest.raises(BlobError) as caught:
            parse_lease_id(text)
        assert caught.value.code is ErrorCode.INVALID_HEADER_VALUE


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}, LeaseRequest(LeaseAction.ACQUIRE)),
        (
            {"x-ms-lease-action": "Acquire", "x-ms-lease-duration": "15", "x-ms-proposed-lease-id": A},
            LeaseRequest(LeaseAction.ACQUIRE, proposed_id=A, duration=15),
        ),
        ({"x-ms-lease-action": "renew", "x-ms-lease-id": A}, LeaseRequest(LeaseAction.RENEW, A)),
        (
            {"x-ms-lease-action": "change", "x-ms-lease-id": A, "x-ms-proposed-lease-id": B},
            LeaseRequest(LeaseAction.CHANGE, A, B),
        ),
        ({"x-ms-lease-action": "release", "x-ms-lease-id": A}, LeaseRequest(LeaseAction.RELEASE, A)),
        (
            {"x-ms-lease-action": "break", "x-ms-lease-break-period": "60"},
            LeaseRequest(LeaseAction.BREAK, break_period=60),
        ),
    ],
)
def test_requests(headers: dict[str, str], expected: LeaseRequest) -> None:
    assert parse_lease_request(headers.get) == expected


@pytest.mark.parametrize(
    ("headers", "code", "name"),
    [
        ({}, "MissingRequiredHeader", "x-ms-lease-action"),
        ({"x-ms-lease-action": "steal"}, "InvalidHeaderValue", "x-ms-lease-action"),
        ({"x-ms-lease-action": "acquire"}, "MissingRequiredHeader", "x-ms-lease-duration"),
        ({"x-ms-lease-action": "acquire", "x-ms-lease-duration": "14"}, "InvalidHeaderValue", "x-ms-lease-duration"),
        ({"x-ms-lease-action": "acquire", "x-ms-lease-duration": "61"}, "InvalidHeaderValue", "x-ms-lease-duration"),
        ({"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-2"}, "InvalidHeaderValue", "x-ms-lease-duration"),
        ({"x-ms-lease-action": "acquire", "x-ms-lease-duration": "1e1"}, "InvalidHeaderValue", "x-ms-lease-duration"),
        ({"x-ms-lease-action": "renew"}, "MissingRequiredHeader", "x-ms-lease-id"),
        ({"x-ms-lease-action": "change", "x-ms-lease-id": A}, "MissingRequiredHeader", "x-ms-proposed-lease-id"),
        (
            {"x-ms-lease-action": "break", "x-ms-lease-break-period": "61"},
            "InvalidHeaderValue",
            "x-ms-lease-break-period",
        ),
    ],
)
def test_bad_requests(headers: dict[str, str], code: str, name: str) -> None:
    with pytest.raises(BlobError) as caught:
        parse_lease_request(headers.get)
    assert caught.value.code.code == code
    assert ("HeaderName", name) in caught.value.detail
