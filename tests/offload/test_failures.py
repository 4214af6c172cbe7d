"""The table of failures: total, without secrets, and saying what an operator has to mend."""

import builtins

import azure.core.exceptions
import azure.identity
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.offload.failures import (
    CODES,
    EXCEPTIONS,
    LATER_SECONDS_MAX,
    NOW_TRIES_MAX,
    RETRY_AFTER_SECONDS_MAX,
    STATUSES,
    Kind,
    Observation,
    Request,
    found,
    judge,
    pause,
)

PUT = Request("Put Blob", "w", "edgestore", "photos", "2026/a.jpg")
SECRET = "c2VjcmV0c2lnbmF0dXJl"

observations = st.builds(
    Observation,
    status=st.integers(-1, 1000) | st.sampled_from(sorted(STATUSES)),
    code=st.text(max_size=80) | st.sampled_from(sorted(CODES)),
    exception=st.text(max_size=80) | st.sampled_from(sorted(EXCEPTIONS)),
    retry_after_seconds=st.none() | st.floats(allow_nan=False),
)


@given(observations, st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_every_observation_has_a_fault_and_a_pause(seen: Observation, attempts: int, jitter: float) -> None:
    fault = judge(PUT, seen)
    assert fault.text
    assert "{" not in fault.text
    assert 0 <= fault.wait_seconds_min <= RETRY_AFTER_SECONDS_MAX
    seconds = pause(fault, attempts, jitter)
    if fault.kind in (Kind.NOW, Kind.LATER, Kind.CONFLICT):
        assert seconds is not None
        assert fault.wait_seconds_min <= seconds <= max(LATER_SECONDS_MAX, RETRY_AFTER_SECONDS_MAX)
    else:
        assert seconds is None


@given(st.integers(0, 1000), st.sampled_from(["?sig={}", "AccountKey={}", "Bearer {}", "{}"]))
def test_no_text_repeats_what_a_server_wrote(status: int, shape: str) -> None:
    written = shape.format(SECRET + "==")
    fault = judge(PUT, Observation(status, written, written))
    assert SECRET not in fault.text + fault.code


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (403, "AuthorizationPermissionMismatch", Kind.OPERATOR, "lacks w (write)"),
        (403, "UnauthorizedBlobOverwrite", Kind.OPERATOR, "c (create) alone"),
        (403, "AuthorizationFailure", Kind.OPERATOR, "firewall"),
        (404, "ContainerNotFound", Kind.OPERATOR, "container photos"),
        (409, "BlobAlreadyExists", Kind.CONFLICT, "photos/2026/a.jpg"),
        (412, "ConditionNotMet", Kind.CONFLICT, "somebody else"),
        (412, "LeaseIdMissing", Kind.LATER, "lease"),
        (400, "Md5Mismatch", Kind.NOW, "damaged"),
        (400, "InvalidMetadata", Kind.POISON, "400 InvalidMetadata"),
        (409, "SomethingNew", Kind.LATER, "409 SomethingNew"),
        (429, "", Kind.LATER, "fewer"),
        (500, "", Kind.LATER, "500"),
        (503, "ServerBusy", Kind.LATER, "busy"),
        (507, "", Kind.LATER, "507"),
        (302, "", Kind.OPERATOR, "302"),
    ],
)
def test_the_rows_that_operators_meet(status: int, code: str, kind: Kind, said: str) -> None:
    fault = judge(PUT, Observation(status, code))
    assert fault.kind is kind
    assert said in fault.text


def test_a_tagged_upload_names_both_permissions_that_it_needs() -> None:
    request = Request("Put Blob", "wt", "edgestore", "photos", "a")
    fault = judge(request, Observation(403, "AuthorizationPermissionMismatch"))
    assert "w (write) or t (tags)" in fault.text


def test_an_expired_sas_is_told_with_its_date() -> None:
    request = Request("Put Blob", "w", "edgestore", "photos", "a", expires="2026-11-01T00:00:00+00:00", expired=True)
    assert "expired at 2026-11-01" in judge(request, Observation(403, "AuthenticationFailed")).text
    fresh = Request("Put Blob", "w", "edgestore", "photos", "a", expires="2027-11-01T00:00:00+00:00")
    assert "clock" in judge(fresh, Observation(403, "AuthenticationFailed")).text


def test_a_refusal_of_an_account_key_names_the_key() -> None:
    request = Request("Put Blob", "w", "edgestore", "photos", "a", keyed=True)
    text = judge(request, Observation(403, "AuthorizationFailure")).text
    assert "account key" in text
    assert "firewall" in text
    assert "SAS" not in text


def test_the_exceptions_are_those_of_the_libraries() -> None:
    ours = {"SSLCertVerificationError", "InvalidHeader", "AzureSigningError"}
    for name in EXCEPTIONS.keys() - ours:
        assert any(hasattr(library, name) for library in (azure.core.exceptions, azure.identity, builtins)), name


def test_pauses_grow_and_haste_ends() -> None:
    fault = found("NotVerified").fault
    seconds = [pause(fault, attempts, 0.5) for attempts in range(20)]
    assert all(each is not None for each in seconds)
    assert seconds[NOW_TRIES_MAX - 1] == pytest.approx(0.6)
    assert seconds[NOW_TRIES_MAX] == pytest.approx(6.0)
    assert seconds[-1] == pytest.approx(0.75 * LATER_SECONDS_MAX)


def test_retry_after_is_a_lower_bound() -> None:
    fault = judge(PUT, Observation(503, "ServerBusy", retry_after_seconds=7))
    assert pause(fault, 0, 0.0) == 7
    assert pause(fault, 20, 0.0) == LATER_SECONDS_MAX / 2
