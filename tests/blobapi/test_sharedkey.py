"""Shared Key: what Azure's own SDK signs verifies here, and nothing else does."""

import string
from base64 import b64decode, b64encode
from dataclasses import replace
from functools import cmp_to_key
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy, compare
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import sharedkey
from dataplane.blobapi.authorization import CallerKind
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Request
from dataplane.blobapi.operations import SPECS, Operation

from .authorization_cases import ACCOUNT, DATE, KEY1, KEY2, KEYS, NOW, admit, request, target

HEADER_CHARS = string.ascii_lowercase + string.digits + "!#$%&'*+-.^_`|~"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0+", exclude_categories=["Cs"]), max_size=20)
NAMES = st.text(st.sampled_from(HEADER_CHARS), min_size=1, max_size=12).map(lambda name: "x-ms-meta-" + name)
VALUES = st.text(st.sampled_from(string.ascii_letters + string.digits + " ;=,-_%"), max_size=30).map(str.strip)


def sdk_signed(method: str, url_target: str, headers: dict[str, str], key: bytes = KEY1) -> Request:
    """The request with the Authorization header that azure-storage-blob puts on it."""
    http = HttpRequest(method, "http://127.0.0.1" + url_target, headers=headers)
    policy = SharedKeyCredentialPolicy(ACCOUNT, b64encode(key).decode())  # type: ignore[no-untyped-call]
    policy.on_request(PipelineRequest(http, PipelineContext(None)))  # type: ignore[no-untyped-call]
    return request(method, url_target, {name.lower(): value for name, value in http.headers.items()})


@given(
    method=st.sampled_from(["GET", "PUT", "HEAD", "DELETE", "POST"]),
    blob=TEXT.filter(lambda name: bool(name) and not name.startswith("\\")),
    query=st.dictionaries(st.sampled_from(["comp", "timeout", "prefix", "marker", "blockid"]), TEXT, max_size=4),
    metadata=st.dictionaries(NAMES, VALUES, max_size=6),
    standard=st.dictionaries(
        st.sampled_from(["content-type", "content-md5", "if-match", "if-none-match", "content-encoding"]),
        VALUES,
    ),
    length=st.sampled_from([None, "0", "17"]),
    key=st.sampled_from([KEY1, KEY2]),
)
def test_what_the_sdk_signs_verifies(
    method: str,
    blob: str,
    query: dict[str, str],
    metadata: dict[str, str],
    standard: dict[str, str],
    length: str | None,
    key: bytes,
) -> None:
    headers = {"x-ms-date": DATE, "x-ms-version": "2023-11-03", **metadata, **standard}
    if length is not None:
        headers["Content-Length"] = length
    made = sdk_signed(method, target("pics", blob, urlencode(query, quote_via=quote)), headers, key)
    assert admit(made, spec=SPECS[Operation.GET_BLOB]).kind is CallerKind.SHARED_KEY


@given(names=st.lists(NAMES, min_size=2, max_size=12, unique=True))
def test_word_sort_is_the_sdks(names: list[str]) -> None:
    by_sdk = sorted(sorted(names), key=cmp_to_key(compare))
    assert sorted(sorted(names), key=sharedkey.word_sort_key) == by_sdk


@given(metadata=st.dictionaries(NAMES, VALUES, max_size=6), lite=st.booleans())
def test_own_signature_verifies(metadata: dict[str, str], lite: bool) -> None:
    headers = {"x-ms-date": DATE, "x-ms-version": "2023-11-03", **metadata}
    made = request("GET", target("pics", "cat", "comp=metadata"), headers)
    scheme = sharedkey.SHARED_KEY_LITE if lite else sharedkey.SHARED_KEY
    signed = sharedkey.sign("GET", ACCOUNT, made.resource.raw_path, made.query, headers, KEY2, scheme=scheme)
    assert admit(request("GET", made.target, {**headers, "authorization": signed})).account == ACCOUNT


def signed_get(query: str = "", key: bytes = KEY1, path: str = "", **headers: str) -> Request:
    """A GET whose headers are given with underscores for dashes."""
    sent = {"x-ms-date": DATE, "x-ms-version": "2023-11-03", **{n.replace("_", "-"): v for n, v in headers.items()}}
    made = request("GET", path or target("pics", "cat", query), sent)
    value = sharedkey.sign("GET", ACCOUNT, made.resource.raw_path, made.query, sent, key)
    return request("GET", made.target, {**sent, "authorization": value})


def refused(made: Request, **more: Any) -> BlobError:
    with pytest.raises(BlobError) as caught:
        admit(made, **more)
    return caught.value


def test_string_of_the_documentation() -> None:
    """The form of the page's example for Get Container Metadata, with its own values."""
    found = next(
        sharedkey.strings_to_sign(
            "GET",
            "myaccount",
            "/mycontainer",
            {"restype": "container", "comp": "metadata", "timeout": "20"},
            {"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21", "host": "x", "date": "no"},
            sharedkey.SHARED_KEY,
        )
    )
    assert found == (
        "GET" + "\n" * 12 + "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )


def test_lite_signs_comp_alone() -> None:
    found = next(
        sharedkey.strings_to_sign(
            "PUT", "a", "/c/b", {"comp": "tier", "timeout": "1"}, {"date": DATE, "content-type": "t"}, "SharedKeyLite"
        )
    )
    assert found == f"PUT\n\nt\n{DATE}\n/a/c/b?comp=tier"


@pytest.mark.parametrize("length", ["", "0"])
def test_zero_length_in_both_forms(length: str) -> None:
    headers = {"x-ms-date": DATE, "x-ms-version": "2023-11-03", "content-length": "0", "x-ms-blob-type": "BlockBlob"}
    made = request("PUT", target("pics", "cat"), headers)
    block = f"x-ms-blob-type:BlockBlob\nx-ms-date:{DATE}\nx-ms-version:2023-11-03\n"
    text = f"PUT\n\n\n{length}\n" + "\n" * 8 + f"{block}/{ACCOUNT}/{ACCOUNT}/pics/cat"
    headers["authorization"] = f"SharedKey {ACCOUNT}:{sharedkey.signature(KEY1, text)}"
    assert admit(request("PUT", made.target, headers)).kind is CallerKind.SHARED_KEY


@pytest.mark.parametrize("order", [["a1", "a-b", "a_b"], ["a-b", "a1", "a_b"], ["a_b", "a1", "a-b"]])
def test_odd_names_verify_in_the_known_orders_only(order: list[str]) -> None:
    headers = {"x-ms-date": DATE, "x-ms-version": "2023-11-03"} | {f"x-ms-meta-{name}": "v" for name in order}
    block = f"x-ms-date:{DATE}\n" + "".join(f"x-ms-meta-{name}:v\n" for name in order) + "x-ms-version:2023-11-03\n"
    text = "GET" + "\n" * 12 + f"{block}/{ACCOUNT}/{ACCOUNT}/pics/cat"
    headers["authorization"] = f"SharedKey {ACCOUNT}:{sharedkey.signature(KEY1, text)}"
    made = request("GET", target("pics", "cat"), headers)
    names = [f"x-ms-meta-{name}" for name in order]
    if names in (sorted(names), sorted(names, key=cmp_to_key(compare))):
        assert admit(made).account == ACCOUNT
    else:
        assert refused(made).code is ErrorCode.AUTHENTICATION_FAILED


def test_folded_and_unfolded_values() -> None:
    made = signed_get(x_ms_meta_a="one  two\tthree")
    assert admit(made).account == ACCOUNT
    folded = sharedkey.sign(
        "GET", ACCOUNT, made.resource.raw_path, {}, {**made.headers, "x-ms-meta-a": "one two three"}, KEY1
    )
    assert admit(request("GET", made.target, {**made.headers, "authorization": folded})).account == ACCOUNT


@pytest.mark.parametrize("version", ["2015-12-11", "2016-05-31"])
def test_empty_header_is_signed_since_2016(version: str) -> None:
    headers = {"x-ms-date": DATE, "x-ms-version": version, "x-ms-meta-e": ""}
    found = next(sharedkey.strings_to_sign("GET", "a", "/", {}, headers, "SharedKey"))
    assert ("x-ms-meta-e:\n" in found) is (version == "2016-05-31")


@pytest.mark.parametrize("seconds", [-901, 901, 86400])
def test_old_and_early_dates(seconds: int) -> None:
    error = refused(signed_get(), now=NOW + seconds)
    assert error.code is ErrorCode.AUTHENTICATION_FAILED
    assert error.detail[0][0] == "AuthenticationErrorDetail"


@pytest.mark.parametrize("seconds", [-900, 0, 900])
def test_dates_within_the_window(seconds: int) -> None:
    assert admit(signed_get(), now=NOW + seconds).account == ACCOUNT


def test_x_ms_date_counts_before_date() -> None:
    assert refused(signed_get(x_ms_date="Sun, 15 Jun 2025 14:00:00 GMT", date=DATE)).code.status == 403
    assert admit(signed_get(date="Sun, 15 Jun 2025 14:00:00 GMT")).account == ACCOUNT


@pytest.mark.parametrize("date", ["", "now", "2025-06-15T15:06:40Z", "Sun, 31 Feb 2025 15:06:40 GMT"])
def test_missing_or_malformed_date(date: str) -> None:
    assert refused(signed_get(x_ms_date=date)).code is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("SharedKey", ErrorCode.INVALID_AUTHENTICATION_INFO),
        ("SharedKey ", ErrorCode.INVALID_AUTHENTICATION_INFO),
        (f"SharedKey {ACCOUNT}", ErrorCode.INVALID_AUTHENTICATION_INFO),
        (f"SharedKey {ACCOUNT}:", ErrorCode.INVALID_AUTHENTICATION_INFO),
        ("SharedKey :c2ln", ErrorCode.INVALID_AUTHENTICATION_INFO),
        (f"SharedKey {ACCOUNT}:c2ln", ErrorCode.AUTHENTICATION_FAILED),
        ("SharedKey other:c2ln", ErrorCode.AUTHENTICATION_FAILED),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", ErrorCode.AUTHENTICATION_FAILED),
        ("Basic dXNlcjpwYXNz", ErrorCode.AUTHENTICATION_FAILED),
        ("AWS4-HMAC-SHA256 Credential=x", ErrorCode.AUTHENTICATION_FAILED),
        (" ", ErrorCode.AUTHENTICATION_FAILED),
    ],
)
def test_authorization_headers_that_are_no_signature(value: str, code: ErrorCode) -> None:
    made = request("GET", target("pics", "cat"), {"x-ms-date": DATE, "authorization": value})
    assert refused(made).code is code


def test_every_flipped_bit_is_refused() -> None:
    made = signed_get()
    scheme, _, signature = made.headers["authorization"].partition(":")
    raw = b64decode(signature)
    for bit in range(len(raw) * 8):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        headers = {**made.headers, "authorization": f"{scheme}:{b64encode(forged).decode()}"}
        assert refused(request("GET", made.target, headers)).code is ErrorCode.AUTHENTICATION_FAILED


def test_other_writing_of_the_same_signature_is_refused() -> None:
    made = signed_get()
    value = made.headers["authorization"]
    for other in (value.rstrip("="), value + "=", value[:-2] + chr(ord(value[-2]) + 1) + "="):
        refused(request("GET", made.target, {**made.headers, "authorization": other}))


@pytest.mark.parametrize(
    "change",
    [
        {"x-ms-meta-new": "1"},
        {"x-ms-version": "2021-01-01"},
        {"content-type": "text/html"},
        {"content-length": "5"},
        {"range": "bytes=0-1"},
        {"if-match": "*"},
        {"content-md5": "AAAA"},
        {"x-ms-date": "Sun, 15 Jun 2025 15:06:41 GMT"},
    ],
)
def test_changed_headers_are_refused(change: dict[str, str]) -> None:
    made = signed_get()
    assert refused(request("GET", made.target, {**made.headers, **change})).code is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize("other", ["pics/dog", "pics/%63at", "pics/cat/", "pics/cat?comp=tags", "pics//cat"])
def test_other_targets_are_refused(other: str) -> None:
    made = signed_get()
    assert refused(request("GET", f"/{ACCOUNT}/{other}", made.headers)).code is ErrorCode.AUTHENTICATION_FAILED


def test_other_method_is_refused() -> None:
    made = signed_get()
    assert refused(request("DELETE", made.target, made.headers)).code is ErrorCode.AUTHENTICATION_FAILED


def test_removed_second_key_no_longer_verifies() -> None:
    made = signed_get(key=KEY2)
    assert admit(made).account == ACCOUNT
    assert refused(made, account=replace(KEYS, keys=(KEY1,), generation=1)).code is ErrorCode.AUTHENTICATION_FAILED


def test_unknown_account() -> None:
    headers = {"x-ms-date": DATE, "authorization": "SharedKey nobody:c2ln"}
    assert refused(request("GET", "/nobody/pics/cat", headers)).code is ErrorCode.AUTHENTICATION_FAILED


def test_keys_are_not_shown() -> None:
    assert repr(KEY1) not in repr(KEYS)
