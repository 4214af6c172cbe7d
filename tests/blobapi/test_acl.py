"""Signed identifiers and x-ms-blob-public-access."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import acl
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import AccessPolicy, PublicAccess

TIMES = st.none() | st.datetimes().map(
    lambda t: f"{max(t.year, 1970):04d}-{t.month:02d}-{min(t.day, 28):02d}T03:04:05.0000000Z"
)
IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x2FF), min_size=1, max_size=64)
POLICIES = st.builds(AccessPolicy, IDS, TIMES, TIMES, st.none() | st.sampled_from(["r", "rw", "racwdl"]))


@given(st.lists(POLICIES, max_size=5, unique_by=lambda policy: policy.policy_id))
def test_round_trip(policies: list[AccessPolicy]) -> None:
    assert acl.parse(acl.render(policies)) == tuple(policies)


def test_times_are_normalised() -> None:
    body = (
        "<SignedIdentifiers><SignedIdentifier><Id>p</Id><AccessPolicy><Start>2024-01-02</Start>"
        "<Expiry>2024-01-02T03:04:05Z</Expiry><Permission>r</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>"
    )
    assert acl.parse(body.encode()) == (
        AccessPolicy("p", "2024-01-02T00:00:00.0000000Z", "2024-01-02T03:04:05.0000000Z", "r"),
    )


def test_an_id_alone_comes_back_alone() -> None:
    body = b"<SignedIdentifiers><SignedIdentifier><Id>p</Id></SignedIdentifier></SignedIdentifiers>"
    assert acl.render(acl.parse(body)).endswith(body)


def test_no_policies() -> None:
    assert acl.parse(b"") == acl.parse(b"<SignedIdentifiers/>") == ()
    assert acl.render(()).decode("utf-8-sig").endswith("?><SignedIdentifiers />")


def _body(*ids: str, inner: str = "") -> bytes:
    items = "".join(f"<SignedIdentifier><Id>{policy_id}</Id>{inner}</SignedIdentifier>" for policy_id in ids)
    return f"<SignedIdentifiers>{items}</SignedIdentifiers>".encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (_body(*"abcdef"), ErrorCode.INVALID_XML_DOCUMENT),
        (_body("a", "a"), ErrorCode.INVALID_XML_DOCUMENT),
        (_body(""), ErrorCode.INVALID_XML_DOCUMENT),
        (_body("a" * 65), ErrorCode.INVALID_XML_DOCUMENT),
        (_body("a", inner="<AccessPolicy><Start>soon</Start></AccessPolicy>"), ErrorCode.INVALID_XML_DOCUMENT),
        (
            _body("a", inner="<AccessPolicy><Permission>rZ</Permission></AccessPolicy>"),
            ErrorCode.INVALID_XML_DOCUMENT,
        ),
        (_body("a", inner="<Other/>"), ErrorCode.INVALID_XML_DOCUMENT),
        (b"<SignedIdentifiers><SignedIdentifier/></SignedIdentifiers>", ErrorCode.INVALID_XML_DOCUMENT),
    ],
)
def test_refusals(body: bytes, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        acl.parse(body)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("header", "access"),
    [(None, PublicAccess.NONE), ("blob", PublicAccess.BLOB), ("Container", PublicAccess.CONTAINER)],
)
def test_public_access(header: str | None, access: PublicAccess) -> None:
    assert acl.parse_public_access(header) is access


def test_unknown_public_access_is_refused() -> None:
    with pytest.raises(BlobError) as caught:
        acl.parse_public_access("true")
    assert caught.value.code is ErrorCode.INVALID_HEADER_VALUE
