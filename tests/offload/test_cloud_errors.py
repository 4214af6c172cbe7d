"""What is taken over from an exception of the SDK: a status, a code, a pause, the innermost cause; nothing else."""

import ssl
from datetime import UTC, datetime
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from hypothesis import given
from hypothesis import strategies as st
from requests.exceptions import InvalidHeader

from agent.offload.cloud import observation
from agent.offload.failures import Kind, Request, judge

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def answer(status: int, headers: dict[str, str], method: str = "PUT") -> HttpResponseError:
    response = SimpleNamespace(
        status_code=status, reason="", headers=headers, request=SimpleNamespace(method=method), text=lambda: ""
    )
    return HttpResponseError("the message may quote a request: sig=c2VjcmV0", response=cast(Any, response))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        (format_datetime(NOW.replace(minute=1), usegmt=True), 60.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert observation(answer(503, {"Retry-After": value}), NOW).retry_after_seconds == seconds


@given(st.text(max_size=60), st.text(max_size=60), st.integers(100, 599))
def test_no_header_breaks_it(retry_after: str, code: str, status: int) -> None:
    seen = observation(answer(status, {"Retry-After": retry_after, "x-ms-error-code": code}), NOW)
    assert judge(Request("Put Blob", "w"), seen).text
    assert seen.status == status


def test_the_message_is_not_taken_over() -> None:
    seen = observation(answer(500, {}), NOW)
    fault = judge(Request("Put Blob", "w"), seen)
    assert "c2VjcmV0" not in repr(seen) + repr(fault)


def test_a_look_that_finds_nothing_needs_no_code() -> None:
    assert observation(answer(404, {}, "HEAD"), NOW).code == "BlobNotFound"
    assert observation(answer(404, {}), NOW).code == ""
    assert observation(answer(404, {"x-ms-error-code": "ContainerNotFound"}, "HEAD"), NOW).code == "ContainerNotFound"


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (ssl.SSLCertVerificationError(1, "no"), Kind.OPERATOR),
        (InvalidHeader("no"), Kind.POISON),
        (OSError(), Kind.LINK),
    ],
)
def test_the_innermost_cause_counts(inner: Exception, kind: Kind) -> None:
    outer = ServiceRequestError("no", error=Exception(Exception(inner)))
    assert judge(Request("Put Blob", "w"), observation(outer, NOW)).kind is kind
