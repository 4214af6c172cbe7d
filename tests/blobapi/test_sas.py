"""SAS tokens: those of Azure's own SDK verify here, those made here are the SDK's, and forgeries do not pass."""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobSasPermissions,
    ContainerSasPermissions,
    ResourceTypes,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import sas
from dataplane.blobapi.authorization import AccountKeys, CallerKind
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Request
from dataplane.blobapi.operations import SPECS, Operation
from dataplane.blobapi.sharedkey import signature

from .authorization_cases import ACCOUNT, EARLIER, KEY1, KEY2, KEYS, LATER, NOW, admit, request, target

EXPIRY = datetime(2025, 6, 15, 16, tzinfo=UTC)
START = datetime(2025, 6, 15, 14, tzinfo=UTC)
SDK_KEYS = st.sampled_from([KEY1, KEY2]).map(lambda key: b64encode(key).decode())
SEGMENTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\n\\/", exclude_categories=["Cs"]), min_size=1, max_size=12
)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
LINE = st.text(st.characters(codec="utf-8", min_codepoint=32, exclude_categories=["Cs", "Cc"]), max_size=20)
OVERRIDE_NAMES = ("cache_control", "content_disposition", "content_encoding", "content_language", "content_type")
OVERRIDES: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=dict.fromkeys(OVERRIDE_NAMES, LINE))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "start": st.just(START),
        "ip": st.sampled_from(["10.1.2.3", "10.1.2.0-10.1.2.9"]),
        "protocol": st.sampled_from(["https", "https,http"]),
        "encryption_scope": st.just("scope1"),
    },
)


def get(blob: str, token: str, query: str = "", **more: Any) -> Request:
    joined = f"{query}&{token}" if query else token
    return request("GET", target("pics", blob, joined), **{"secure": True, "peer": "10.1.2.3", **more})


@given(
    key=SDK_KEYS,
    letters=st.sampled_from(["r", "rwd", "racwdxyltmeopif"]),
    options=OPTIONS,
    types=st.tuples(st.booleans(), st.booleans()),
)
def test_account_sas_of_the_sdk(key: str, letters: str, options: Any, types: tuple[bool, bool]) -> None:
    token = generate_account_sas(
        ACCOUNT,
        key,
        ResourceTypes(service=types[0], container=types[1], object=True),
        AccountSasPermissions.from_string(letters),  # type: ignore[no-untyped-call]
        expiry=EXPIRY,
        **options,
    )
    caller = admit(get("any", token))
    assert caller.kind is CallerKind.SAS
    assert "r" in (caller.permissions or ())


@given(key=SDK_KEYS, name=NAMES, options=OPTIONS, overrides=OVERRIDES)
def test_blob_sas_of_the_sdk(key: str, name: str, options: Any, overrides: Any) -> None:
    token = generate_blob_sas(
        ACCOUNT,
        "pics",
        name,
        account_key=key,
        permission=BlobSasPermissions(read=True, write=True),
        expiry=EXPIRY,
        **options,
        **overrides,
    )
    caller = admit(get(name, token))
    assert caller.permissions == frozenset("rw")
    wanted = {name.title().replace("_", "-"): value for name, value in overrides.items() if value}
    assert dict(caller.overrides) == wanted
    assert refused(get(name + "x", token)).code is ErrorCode.AUTHENTICATION_FAILED


@given(key=SDK_KEYS, name=NAMES, options=OPTIONS, policy=st.sampled_from([None, "expiry-only"]))
def test_container_sas_of_the_sdk(key: str, name: str, options: Any, policy: str | None) -> None:
    token = generate_container_sas(
        ACCOUNT,
        "pics",
        key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=None if policy else EXPIRY,
        policy_id=policy,
        **options,
    )
    assert admit(get(name, token)).permissions == frozenset("rl")
    listing = request("GET", target("pics", "", "restype=container&comp=list&" + token), secure=True, peer="10.1.2.3")
    assert admit(listing).permissions == frozenset("rl")


@given(name=NAMES, below=NAMES, options=OPTIONS)
def test_directory_sas_of_the_sdk(name: str, below: str, options: Any) -> None:
    token = generate_blob_sas(
        ACCOUNT,
        "pics",
        name,
        account_key=b64encode(KEY1).decode(),
        permission=BlobSasPermissions(read=True),
        expiry=EXPIRY,
        is_directory=True,
        **options,
    )
    assert admit(get(name, token)).permissions == frozenset("r")
    assert admit(get(f"{name}/{below}", token)).permissions == frozenset("r")
    assert refused(get(f"{name}x/{below}", token)).code is ErrorCode.AUTHENTICATION_FAILED
    assert refused(get(f"x{name}", token)).code is ErrorCode.AUTHENTICATION_FAILED


def test_snapshot_sas_of_the_sdk() -> None:
    moment = "2025-06-15T15:00:00.0000001Z"
    token = generate_blob_sas(
        ACCOUNT, "pics", "cat", moment, b64encode(KEY1).decode(), permission=BlobSasPermissions(True), expiry=EXPIRY
    )
    assert admit(get("cat", token, "snapshot=" + quote(moment))).permissions == frozenset("r")
    assert refused(get("cat", token)).code is ErrorCode.AUTHENTICATION_FAILED
    assert refused(get("cat", token, "snapshot=2025-06-15T15:00:00.0000002Z")).code is ErrorCode.AUTHENTICATION_FAILED


@given(key=SDK_KEYS, name=NAMES, overrides=st.tuples(*[LINE] * 5))
def test_tokens_made_here_are_the_sdks(key: str, name: str, overrides: tuple[str, ...]) -> None:
    given_overrides: Any = dict(zip(OVERRIDE_NAMES, overrides, strict=True))
    theirs = generate_blob_sas(
        ACCOUNT,
        "pics",
        name,
        account_key=key,
        permission="rw",
        expiry=LATER,
        **given_overrides,
    )  # fmt: skip
    version = dict(parse_qsl(theirs))["sv"]
    token = replace(sas.service_token("b", "rw", LATER, version), overrides=overrides)
    ours = sas.issue(token, ACCOUNT, b64decode(key), "/pics/" + name).query()
    assert dict(parse_qsl(ours)) == dict(parse_qsl(theirs))


@given(key=SDK_KEYS)
def test_account_tokens_made_here_are_the_sdks(key: str) -> None:
    theirs = generate_account_sas(ACCOUNT, key, "sco", "rwl", LATER)
    version = dict(parse_qsl(theirs))["sv"]
    ours = sas.issue(sas.account_token("rwl", LATER, version=version), ACCOUNT, b64decode(key)).query()
    assert dict(parse_qsl(ours)) == dict(parse_qsl(theirs))


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("2015-04-05", 13), ("2018-03-28", 13), ("2018-11-09", 15), ("2020-10-02", 15), ("2020-12-06", 16),
        ("2099-01-01", 16),
    ],
)  # fmt: skip
def test_every_version_has_its_string(version: str, lines: int) -> None:
    token = sas.service_token("b", "r", LATER, version)
    assert sas.string_to_sign(token, ACCOUNT, "/pics/cat").count("\n") == lines - 1
    issued = sas.issue(token, ACCOUNT, KEY1, "/pics/cat").query()
    assert admit(get("cat", issued)).permissions == frozenset("r")


def test_string_of_an_account_sas_by_version() -> None:
    old = sas.string_to_sign(sas.account_token("rl", LATER, "co", "b", "2019-02-02"), ACCOUNT)
    assert old == f"{ACCOUNT}\nrl\nb\nco\n\n{LATER}\n\n\n2019-02-02\n"
    new = sas.string_to_sign(sas.account_token("rl", LATER, "co", "b", "2020-12-06"), ACCOUNT)
    assert new == f"{ACCOUNT}\nrl\nb\nco\n\n{LATER}\n\n\n2020-12-06\n\n"


# --- refusals ---


def refused(made: Request, **more: Any) -> BlobError:
    with pytest.raises(BlobError) as caught:
        admit(made, **more)
    return caught.value


def blob_token(**fields: Any) -> sas.SasToken:
    """A good token for pics/cat, with fields changed before it is signed."""
    return sas.issue(replace(sas.service_token("b", "r", LATER), **fields), ACCOUNT, KEY1, "/pics/cat")


def container_token(**fields: Any) -> sas.SasToken:
    return sas.issue(replace(sas.service_token("c", "r", LATER), **fields), ACCOUNT, KEY1, "/pics")


def account_token(**fields: Any) -> sas.SasToken:
    return sas.issue(replace(sas.account_token("r", LATER), **fields), ACCOUNT, KEY1)


@pytest.mark.parametrize("make", [blob_token, container_token, account_token])
def test_every_flipped_bit_of_a_signature(make: Any) -> None:
    token = make()
    raw = b64decode(token.signature)
    for bit in range(len(raw) * 8):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        made = get("cat", replace(token, signature=b64encode(forged).decode()).query())
        assert refused(made).code is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize("make", [blob_token, container_token, account_token])
@pytest.mark.parametrize("old", [None, "", " ", "=", "x", "AAAA", "A" * 43 + "=", "A" * 8000])
def test_signatures_that_are_none(make: Any, old: str | None) -> None:
    token = replace(make(), signature="").query()
    made = get("cat", token if old is None else f"{token}&sig={quote(old)}")
    assert refused(made).code is ErrorCode.AUTHENTICATION_FAILED


def _forgeries() -> Iterator[tuple[str, dict[str, str]]]:
    """Changed fields of a good container token, by what an attacker would want of them."""
    good = dict(parse_qsl(container_token(start=EARLIER, protocol="https", ip="10.1.2.3").query()))
    for name, value in (
        ("sp", "rw"), ("sp", "racwdl"), ("se", "2035-01-01"), ("st", "2025-01-01"), ("sip", "10.1.2.0-10.1.2.255"),
        ("spr", "https,http"), ("sr", "b"), ("sr", "d"), ("sv", "2020-12-06"), ("sv", "2019-02-02"),
        ("sv", "2015-04-05"), ("sv", "2014-02-14"), ("sv", "2012-02-12"), ("si", "full"), ("rsct", "text/html"),
        ("ses", "scope"), ("sdd", "1"), ("ss", "b"), ("srt", "sco"),
    ):  # fmt: skip
        yield f"{name}={value}", {**good, name: value}
    for name in ("sp", "se", "st", "sip", "spr", "sr", "sv"):
        yield f"without {name}", {key: value for key, value in good.items() if key != name}
        yield f"empty {name}", {**good, name: ""}
    yield "account SAS", {**{k: v for k, v in good.items() if k != "sr"}, "ss": "b", "srt": "sco"}
    for first, second in (("sp", "se"), ("st", "se"), ("sip", "spr"), ("sp", "sr")):
        yield f"{first} and {second} swapped", {**good, first: good[second], second: good[first]}
    for name in good:
        yield f"line break in {name}", {**good, name: good[name] + "\n"}
        yield f"blank in {name}", {**good, name: good[name] + " "}
        yield f"NUL-like in {name}", {**good, name: good[name] + "\x01"}
    yield "fields moved into one", {**{k: v for k, v in good.items() if k != "st"}, "sp": "r\n" + good["st"]}


@pytest.mark.parametrize("fields", [pytest.param(fields, id=name) for name, fields in _forgeries()])
def test_forged_fields(fields: dict[str, str]) -> None:
    made = get("cat", urlencode(fields, quote_via=quote))
    assert refused(made).code is ErrorCode.AUTHENTICATION_FAILED


def test_the_good_token_of_the_forgeries() -> None:
    assert admit(get("cat", container_token(start=EARLIER, protocol="https", ip="10.1.2.3").query())).holds("r")


def test_names_in_other_case_are_one_name() -> None:
    token = container_token().query()
    assert admit(get("cat", token.replace("sp=", "SP=").replace("sig=", "SIG="))).permissions == frozenset("r")
    for extra in ("SP=rw", "Sig=AAAA", "sp=rw", "s%70=rw"):
        with pytest.raises(BlobError):
            admit(get("cat", f"{token}&{extra}"))


@pytest.mark.parametrize("container", ["pics2", "pic", "pics-", "$root"])
def test_token_of_another_container(container: str) -> None:
    made = request("GET", target(container, "cat", container_token().query()))
    assert refused(made, spec=SPECS[Operation.GET_BLOB]).code is ErrorCode.AUTHENTICATION_FAILED


def test_token_of_another_account() -> None:
    other = sas.issue(sas.account_token("r", LATER), "other", KEY1).query()
    assert refused(get("cat", other)).code is ErrorCode.AUTHENTICATION_FAILED
    made = request("GET", f"/nobody/pics/cat?{account_token().query()}")
    assert refused(made).code is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize("name", ["cat\n", "cat\nfull", "cat\n\n\nhttps\n2018-11-09"])
def test_line_breaks_in_names(name: str) -> None:
    with pytest.raises(BlobError):
        sas.issue(sas.service_token("b", "r", LATER), ACCOUNT, KEY1, "/pics/" + name)
    assert refused(get(name, blob_token().query())).code is ErrorCode.AUTHENTICATION_FAILED
    assert admit(get(name, container_token().query())).holds("r")


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\x00", "a\x7f"])
def test_overrides_cannot_hold_line_breaks(value: str) -> None:
    with pytest.raises(BlobError):
        blob_token(overrides=("", value, "", "", ""))
    unsigned = replace(sas.service_token("b", "r", LATER), overrides=("", value, "", "", ""))
    text = sas.string_to_sign(unsigned, ACCOUNT, "/pics/cat")
    forged = replace(unsigned, signature=signature(KEY1, text))
    if "\x00" not in value:
        assert refused(get("cat", forged.query())).code is ErrorCode.AUTHENTICATION_FAILED


def test_account_sas_overrides_nothing() -> None:
    assert admit(get("cat", account_token().query() + "&rsct=text/html")).overrides == ()


@pytest.mark.parametrize(
    ("depth", "blob", "good"),
    [
        ("2", "a/b", True), ("2", "a/b/c", True), ("2", "a/b//c", True), ("2", "a/bc", False), ("1", "a/b/c", False),
        ("3", "a/b/c", False), ("2", "a", False), ("0", "a/b", False), ("02", "a/b", True), ("+2", "a/b", False),
        ("-1", "a/b", False), ("", "a/b", False), ("2", "A/B", False), ("9999", "a/b", False), ("2", "a//b", False),
    ],
)  # fmt: skip
def test_directory_depth(depth: str, blob: str, good: bool) -> None:
    token = sas.issue(replace(sas.service_token("d", "r", LATER), depth="2"), ACCOUNT, KEY1, "/pics/a/b")
    made = get(blob, replace(token, depth=depth).query())
    if good:
        assert admit(made).holds("r")
    else:
        assert refused(made).code is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize(
    ("prefix", "good"), [("a/b/", True), ("a/b/c", True), ("a/b", False), ("a/bc", False), ("a/", False), ("", False)]
)
def test_directory_token_lists_the_inside_alone(prefix: str, good: bool) -> None:
    token = sas.issue(replace(sas.service_token("d", "l", LATER), depth="2"), ACCOUNT, KEY1, "/pics/a/b").query()
    made = request("GET", target("pics", "", f"restype=container&comp=list&prefix={quote(prefix)}&{token}"))
    if good:
        assert admit(made).holds("l")
    else:
        assert refused(made).code is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize("query", ["restype=container&comp=blobs", "restype=container&comp=list&prefix=cat"])
def test_blob_tokens_reach_no_container(query: str) -> None:
    token = blob_token(permissions="rlf").query()
    assert refused(request("GET", target("pics", "", f"{query}&{token}"))).code is ErrorCode.AUTHENTICATION_FAILED


# --- time, protocol, address ---


@pytest.mark.parametrize("expiry", [EARLIER, "2025-06-15T15:06:40Z", "2025-06-15", "2024-01-01T00:00Z"])
def test_expired(expiry: str) -> None:
    error = refused(get("cat", blob_token(expiry=expiry).query()))
    assert error.code is ErrorCode.AUTHENTICATION_FAILED
    assert "must be after signed start time" in error.detail[0][1]


def test_not_yet_valid_and_out_of_the_time_frame() -> None:
    early = refused(get("cat", blob_token(start="2025-06-15T15:30:00Z").query()))
    late = refused(get("cat", blob_token(start="2025-06-15T14:00:00Z", expiry=EARLIER).query()))
    for error in (early, late):
        assert error.code is ErrorCode.AUTHENTICATION_FAILED
        assert error.detail[0][1].startswith("Signature not valid in the specified time frame: Start [Sun, 15 Jun 2025")


@pytest.mark.parametrize("text", ["2025-06-16", "2025-06-15T15:07Z", "2025-06-15T15:06:41Z", "2025-06-15T15:06:40.1Z"])
def test_forms_of_time(text: str) -> None:
    assert admit(get("cat", blob_token(expiry=text).query())).holds("r")


def test_protocol() -> None:
    only = get("cat", blob_token(protocol="https").query(), secure=False)
    assert refused(only).code is ErrorCode.AUTHORIZATION_PROTOCOL_MISMATCH
    assert admit(get("cat", blob_token(protocol="https").query())).holds("r")
    assert admit(get("cat", blob_token(protocol="https,http").query(), secure=False)).holds("r")


@pytest.mark.parametrize(
    ("ip", "peer", "good"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "::ffff:10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.3", "", False),
        ("10.1.2.3", "::1", False),
        ("10.1.2.0-10.1.2.9", "10.1.2.9", True),
        ("10.1.2.0-10.1.2.9", "10.1.2.10", False),
        ("fd00::-fd00::ff", "fd00::7", True),
        ("fd00::-fd00::ff", "fd00::1:7", False),
        ("fd00::-fd00::ff", "10.1.2.3", False),
    ],
)
def test_address(ip: str, peer: str, good: bool) -> None:
    made = get("cat", blob_token(ip=ip).query(), peer=peer)
    if good:
        assert admit(made).holds("r")
    else:
        assert refused(made).code is ErrorCode.AUTHORIZATION_SOURCE_IP_MISMATCH


def test_forwarded_addresses_count_for_nothing() -> None:
    headers = {"x-forwarded-for": "10.1.2.3", "forwarded": "for=10.1.2.3", "x-real-ip": "10.1.2.3"}
    made = request("GET", target("pics", "cat", blob_token(ip="10.1.2.3").query()), headers, peer="192.0.2.1")
    assert refused(made).code is ErrorCode.AUTHORIZATION_SOURCE_IP_MISMATCH


@pytest.mark.parametrize("ip", ["10.1.2", "10.1.2.9-10.1.2.0", "10.1.2.0/24", "fd00::-10.1.2.3", "a", "1-2-3"])
def test_malformed_addresses(ip: str) -> None:
    with pytest.raises(BlobError):
        blob_token(ip=ip)


# --- stored access policies ---


def policy_token(policy: str, **fields: Any) -> str:
    unsigned = replace(sas.service_token("c", "", ""), policy_id=policy, **fields)
    return sas.issue(unsigned, ACCOUNT, KEY1, "/pics").query()


def test_policy_gives_permission_and_expiry() -> None:
    assert admit(get("cat", policy_token("full"))).permissions == frozenset("racwdl")
    assert admit(get("cat", policy_token("expiry-only", permissions="r"))).permissions == frozenset("r")
    assert admit(get("cat", policy_token("empty", permissions="r", expiry=LATER))).permissions == frozenset("r")


@pytest.mark.parametrize(
    "token",
    [
        policy_token("full", permissions="r"),
        policy_token("full", expiry="2035-01-01"),
        policy_token("expiry-only"),
        policy_token("empty"),
        policy_token("empty", permissions="r"),
        policy_token("empty", expiry=LATER),
        policy_token("over"),
        policy_token("revoked"),
        policy_token("FULL"),
    ],
)
def test_policies_that_do_not_fit(token: str) -> None:
    assert refused(get("cat", token)).code is ErrorCode.AUTHENTICATION_FAILED


def test_policy_of_an_absent_container() -> None:
    assert refused(get("cat", policy_token("full")), policies={}).code is ErrorCode.AUTHENTICATION_FAILED


def test_keys_of_the_account_alone() -> None:
    assert refused(get("cat", blob_token().query()), account=AccountKeys(ACCOUNT, (KEY2,))).code.status == 403
    assert admit(get("cat", blob_token().query()), account=KEYS, now=NOW).holds("r")
