"""The gate: every operation against every kind of caller, what is remembered, and what fails closed."""

import time
from dataclasses import replace
from typing import Any

import pytest

from dataplane.blobapi import sas
from dataplane.blobapi.authorization import (
    USER_DELEGATION_SAS,
    AccountKeys,
    Caller,
    CallerKind,
    SasCache,
    authorize,
    needs_container,
)
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Level, Request
from dataplane.blobapi.model import AccessPolicy, PublicAccess
from dataplane.blobapi.operations import SPECS, Operation, OperationSpec
from dataplane.blobapi.sharedkey import sign

from .authorization_cases import (
    ACCOUNT,
    DATE,
    EARLIER,
    KEY1,
    KEY2,
    KEYS,
    LATER,
    NOW,
    REQUESTS,
    admit,
    request,
    request_for,
    target,
)

LETTERS = "racwdxyltfmeopi"
ALL_OPERATIONS = list(Operation)


def outcome(made: Request, spec: OperationSpec, **more: Any) -> ErrorCode | None:
    """None when the request is let in, else the code that it is refused with."""
    try:
        admit(made, spec=spec, **more)
    except BlobError as error:
        return error.code
    return None


def account_sas(letters: str = LETTERS, types: str = "sco", services: str = "b") -> str:
    return sas.issue(sas.account_token(letters, LATER, types, services), ACCOUNT, KEY1).query()


def container_sas(letters: str = LETTERS, container: str = "pics") -> str:
    return sas.issue(sas.service_token("c", letters, LATER), ACCOUNT, KEY1, "/" + container).query()


def blob_sas(letters: str = LETTERS, blob: str = "cat") -> str:
    return sas.issue(sas.service_token("b", letters, LATER), ACCOUNT, KEY1, "/pics/" + blob).query()


def test_the_cases_cover_every_operation() -> None:
    assert set(REQUESTS) == set(Operation) == set(SPECS)


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_owner_of_the_key_may_do_everything(operation: Operation) -> None:
    made = request_for(operation, headers={"x-ms-date": DATE})
    signed = sign(made.method, ACCOUNT, made.resource.raw_path, made.query, made.headers, KEY1)
    made.headers = {**made.headers, "authorization": signed}
    caller = admit(made, spec=SPECS[operation])
    assert caller.kind is (CallerKind.ANONYMOUS if operation is Operation.PREFLIGHT else CallerKind.SHARED_KEY)


@pytest.mark.parametrize("operation", [o for o in ALL_OPERATIONS if o is not Operation.PREFLIGHT])
def test_account_sas_matrix(operation: Operation) -> None:
    """Each letter alone and each resource type alone: exactly those of the table get in."""
    spec = SPECS[operation]
    for letter in LETTERS:
        found = outcome(request_for(operation, account_sas(letter)), spec)
        if not spec.sas:
            assert found is ErrorCode.AUTHORIZATION_FAILURE
        else:
            assert found is (None if letter in spec.sas else ErrorCode.AUTHORIZATION_PERMISSION_MISMATCH)
    free = operation.name.endswith("_BATCH") or operation is Operation.GET_ACCOUNT_INFORMATION
    for kind in "sco":
        found = outcome(request_for(operation, account_sas(types=kind)), spec)
        fits = kind == spec.resource_type or free or (operation is Operation.FIND_BLOBS_BY_TAGS and kind == "o")
        assert (found is ErrorCode.AUTHORIZATION_RESOURCE_TYPE_MISMATCH) is not fits
    assert outcome(request_for(operation, account_sas(services="q")), spec) is ErrorCode.AUTHORIZATION_SERVICE_MISMATCH


@pytest.mark.parametrize("operation", [o for o in ALL_OPERATIONS if o is not Operation.PREFLIGHT])
@pytest.mark.parametrize("kind", ["container", "blob"])
def test_service_sas_matrix(operation: Operation, kind: str) -> None:
    spec = SPECS[operation]
    make = container_sas if kind == "container" else blob_sas
    made = request_for(operation, make())
    level = made.resource.level
    fits = level is not Level.SERVICE if kind == "container" else level is Level.BLOB
    for letter in LETTERS:
        found = outcome(request_for(operation, make(letter)), spec)
        if not fits:
            assert found is ErrorCode.AUTHENTICATION_FAILED
        elif not spec.service_sas:
            assert found is ErrorCode.AUTHORIZATION_FAILURE
        else:
            assert found is (None if letter in spec.sas else ErrorCode.AUTHORIZATION_PERMISSION_MISMATCH)


@pytest.mark.parametrize("operation", [o for o in ALL_OPERATIONS if o is not Operation.PREFLIGHT])
@pytest.mark.parametrize("version", ["2023-11-03", "2018-11-09", ""])
def test_anonymous_matrix(operation: Operation, version: str) -> None:
    spec = SPECS[operation]
    challenged = ErrorCode.NO_AUTHENTICATION_INFORMATION if version == "2023-11-03" else ErrorCode.RESOURCE_NOT_FOUND
    for access in PublicAccess:
        made = request_for(operation, headers={"x-ms-version": version})
        ranks = {None: 0, PublicAccess.CONTAINER: 1, PublicAccess.BLOB: 2}
        allowed = {PublicAccess.NONE: 9, PublicAccess.CONTAINER: 1, PublicAccess.BLOB: 2}[access]
        free = ranks[spec.public] >= allowed and made.resource.level is not Level.SERVICE
        assert outcome(made, spec, access=access) is (None if free else challenged)


def test_preflight_needs_no_credential() -> None:
    assert admit(request_for(Operation.PREFLIGHT), spec=SPECS[Operation.PREFLIGHT]).permissions == frozenset()


def test_challenge_of_a_401() -> None:
    with pytest.raises(BlobError) as caught:
        admit(request_for(Operation.GET_BLOB))
    assert caught.value.code.status == 401
    assert dict(caught.value.headers)["WWW-Authenticate"].startswith("SharedKey")


def test_account_that_forbids_public_access() -> None:
    closed = replace(KEYS, public_access_permitted=False)
    made = request_for(Operation.GET_BLOB, headers={"x-ms-version": ""})
    spec = SPECS[Operation.GET_BLOB]
    found = outcome(made, spec, account=closed, access=PublicAccess.CONTAINER)
    assert found is ErrorCode.PUBLIC_ACCESS_NOT_PERMITTED
    made = request_for(Operation.PUT_BLOB, headers={"x-ms-version": ""})
    found = outcome(made, SPECS[Operation.PUT_BLOB], account=closed, access=PublicAccess.CONTAINER)
    assert found is ErrorCode.RESOURCE_NOT_FOUND


def test_anonymous_readers_get_no_tags() -> None:
    made = request("GET", target("pics", "", "restype=container&comp=list&include=metadata,tags"))
    assert outcome(made, SPECS[Operation.LIST_BLOBS], access=PublicAccess.CONTAINER) is not None


# --- one credential, known schemes ---


def test_two_credentials_are_refused() -> None:
    good = sign("GET", ACCOUNT, f"/{ACCOUNT}/pics/cat", {}, {"x-ms-date": DATE}, KEY1)
    for value in (good, "Bearer x", "SharedKey"):
        made = request_for(Operation.GET_BLOB, container_sas(), {"x-ms-date": DATE, "authorization": value})
        assert outcome(made, SPECS[Operation.GET_BLOB]) is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize("field", sorted(sas.DELEGATION_FIELDS))
def test_delegation_tokens_fail_closed(field: str) -> None:
    made = request_for(Operation.GET_BLOB, f"{container_sas()}&{field}=x")
    assert outcome(made, SPECS[Operation.GET_BLOB]) is ErrorCode.AUTHENTICATION_FAILED
    made = request_for(Operation.GET_BLOB, f"{field}=x")
    found = outcome(made, SPECS[Operation.GET_BLOB], access=PublicAccess.CONTAINER)
    assert found is ErrorCode.AUTHENTICATION_FAILED


@pytest.mark.parametrize("rest", ["sp=r&se=2035-01-01", "se=2035-01-01", "sp=r&sr=c&sv=2021-12-02"])
def test_token_without_signature_is_not_anonymous(rest: str) -> None:
    made = request_for(Operation.GET_BLOB, rest)
    found = outcome(made, SPECS[Operation.GET_BLOB], access=PublicAccess.CONTAINER)
    assert found is ErrorCode.AUTHENTICATION_FAILED


class Gatekeeper:
    """A further scheme, as Entra ID will be one."""

    challenge = "Bearer authorization_uri=https://login.example/t resource_id=https://storage.example"

    def authorize(self, request: Request, spec: OperationSpec, now: int) -> Caller:
        return Caller(CallerKind.OAUTH, request.resource.account, frozenset("r"))


def test_registered_schemes_get_their_requests() -> None:
    schemes = {"bearer": Gatekeeper(), USER_DELEGATION_SAS: Gatekeeper()}
    made = request_for(Operation.GET_BLOB, headers={"authorization": "Bearer token"})
    assert admit(made, schemes=schemes).kind is CallerKind.OAUTH
    assert admit(request_for(Operation.GET_BLOB, "sig=x&skoid=1"), schemes=schemes).kind is CallerKind.OAUTH
    with pytest.raises(BlobError) as caught:
        admit(request_for(Operation.GET_BLOB), schemes=schemes)
    assert dict(caught.value.headers)["WWW-Authenticate"].startswith("Bearer authorization_uri")


@pytest.mark.parametrize("name", ["user delegation sas", "User Delegation SAS x", "user"])
def test_the_delegation_scheme_is_no_name_for_a_header(name: str) -> None:
    made = request_for(Operation.GET_BLOB, headers={"authorization": name})
    with pytest.raises(BlobError):
        admit(made, schemes={USER_DELEGATION_SAS: Gatekeeper()})


# --- permissions beyond the table ---


@pytest.mark.parametrize(
    ("operation", "headers", "query", "letters", "good"),
    [
        (Operation.LEASE_BLOB, {"x-ms-lease-action": "break"}, "", "d", True),
        (Operation.LEASE_BLOB, {"x-ms-lease-action": "acquire"}, "", "d", False),
        (Operation.DELETE_BLOB, {}, "snapshot=2025-06-15T15:00:00.0000001Z", "d", True),
        (Operation.DELETE_BLOB, {}, "deletetype=permanent", "d", False),
        (Operation.DELETE_BLOB, {}, "deletetype=permanent", "y", True),
        (Operation.DELETE_BLOB, {}, "versionid=2025-06-15T15:00:00.0000001Z", "d", False),
        (Operation.DELETE_BLOB, {}, "versionid=2025-06-15T15:00:00.0000001Z", "x", True),
        (Operation.PUT_BLOB, {"x-ms-tags": "a=b"}, "", "w", False),
        (Operation.PUT_BLOB, {"x-ms-tags": "a=b"}, "", "wt", True),
        (Operation.COPY_BLOB, {"x-ms-tags": "a=b"}, "", "w", False),
        (Operation.GET_BLOB, {"x-ms-if-tags": "a='b'"}, "", "r", False),
        (Operation.GET_BLOB, {"x-ms-if-tags": "a='b'"}, "", "rt", True),
        (Operation.LIST_BLOBS, {}, "include=metadata,tags", "l", False),
        (Operation.LIST_BLOBS, {}, "include=metadata,tags", "lt", True),
    ],
)
def test_permission_edges(operation: Operation, headers: dict[str, str], query: str, letters: str, good: bool) -> None:
    made = request_for(operation, "&".join(part for part in (query, container_sas(letters)) if part), headers)
    found = outcome(made, SPECS[operation])
    assert found is (None if good else ErrorCode.AUTHORIZATION_PERMISSION_MISMATCH)


def test_create_alone_may_not_overwrite() -> None:
    for operation in (Operation.PUT_BLOB, Operation.COPY_BLOB, Operation.PUT_BLOCK_LIST, Operation.PUT_BLOB_FROM_URL):
        spec = SPECS[operation]
        creator = admit(request_for(operation, container_sas("c")), spec=spec)
        assert not creator.may_overwrite(spec)
        with pytest.raises(BlobError) as caught:
            creator.require_overwrite(spec)
        assert caught.value.code is ErrorCode.UNAUTHORIZED_BLOB_OVERWRITE
        admit(request_for(operation, container_sas("cw")), spec=spec).require_overwrite(spec)
    Caller(CallerKind.SHARED_KEY, ACCOUNT).require_overwrite(SPECS[Operation.PUT_BLOB])


def test_what_needs_the_container() -> None:
    assert needs_container(request_for(Operation.GET_BLOB))
    assert needs_container(request_for(Operation.GET_BLOB, "si=full&sig=x"))
    assert not needs_container(request_for(Operation.GET_BLOB, container_sas()))
    assert not needs_container(request_for(Operation.GET_BLOB, headers={"authorization": "SharedKey a:b"}))


# --- what is remembered ---


def test_cache_remembers_and_still_checks() -> None:
    cache = SasCache()
    token = sas.issue(
        replace(sas.service_token("c", "r", LATER), protocol="https", ip="10.0.0.1"), ACCOUNT, KEY1, "/pics"
    ).query()

    def made(blob: str = "cat", **more: Any) -> Request:
        return request("GET", target("pics", blob, token), **{"secure": True, "peer": "10.0.0.1", **more})

    first = admit(made(), cache=cache)
    assert admit(made("dog"), cache=cache) is first
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)
    spec = SPECS[Operation.GET_BLOB]
    assert outcome(made(secure=False), spec, cache=cache) is ErrorCode.AUTHORIZATION_PROTOCOL_MISMATCH
    assert outcome(made(peer="10.0.0.2"), spec, cache=cache) is ErrorCode.AUTHORIZATION_SOURCE_IP_MISMATCH
    assert outcome(made(), SPECS[Operation.PUT_BLOB], cache=cache) is ErrorCode.AUTHORIZATION_PERMISSION_MISMATCH
    assert outcome(made(), spec, cache=cache, now=NOW + 86400) is ErrorCode.AUTHENTICATION_FAILED
    assert len(cache) == 1  # verified again to tell why, and expired again on the next look


def test_cache_forgets_nothing_forged_and_everything_of_old_keys() -> None:
    cache = SasCache()
    made = request_for(Operation.GET_BLOB, container_sas())
    admit(made, cache=cache)
    forged = request_for(Operation.GET_BLOB, container_sas().replace("sp=r", "sp=w"))
    assert outcome(forged, SPECS[Operation.GET_BLOB], cache=cache) is ErrorCode.AUTHENTICATION_FAILED
    assert len(cache) == 1
    rotated = AccountKeys(ACCOUNT, (KEY2,), generation=1)
    assert outcome(made, SPECS[Operation.GET_BLOB], cache=cache, account=rotated) is ErrorCode.AUTHENTICATION_FAILED


def test_cache_keeps_targets_apart() -> None:
    cache = SasCache()
    admit(request_for(Operation.GET_BLOB, blob_sas()), cache=cache)
    other = request("GET", target("pics", "dog", blob_sas()))
    assert outcome(other, SPECS[Operation.GET_BLOB], cache=cache) is ErrorCode.AUTHENTICATION_FAILED
    other = request("GET", target("pets", "cat", blob_sas()))
    assert outcome(other, SPECS[Operation.GET_BLOB], cache=cache) is ErrorCode.AUTHENTICATION_FAILED


def test_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    cache = SasCache(entries_max=2)
    for blob in ("cat", "dog", "cat", "cow"):
        admit(request("GET", target("pics", blob, blob_sas(blob=blob))), cache=cache)
    assert len(cache) == 2
    hits = cache.hits
    admit(request("GET", target("pics", "cat", blob_sas())), cache=cache)
    assert cache.hits == hits + 1


def test_revoked_policy_counts_at_once() -> None:
    cache = SasCache()
    unsigned = replace(sas.service_token("c", "", ""), policy_id="p")
    token = sas.issue(unsigned, ACCOUNT, KEY1, "/pics").query()
    made = request_for(Operation.GET_BLOB, token)
    policy = AccessPolicy("p", None, LATER, "r")
    spec = SPECS[Operation.GET_BLOB]
    assert outcome(made, spec, cache=cache, policies={"pics": (policy,)}) is None
    assert outcome(made, spec, cache=cache, policies={"pics": (replace(policy, permissions="l"),)}) is not None
    assert outcome(made, spec, cache=cache, policies={"pics": (replace(policy, expiry=EARLIER),)}) is not None
    assert outcome(made, spec, cache=cache, policies={"pics": ()}) is ErrorCode.AUTHENTICATION_FAILED
    assert outcome(made, spec, cache=cache, policies={"pics": (policy,)}) is None
    assert cache.misses == 1


def test_hit_computes_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hot path of reads: no HMAC, and a few microseconds (the bound is ten times what was measured)."""
    cache = SasCache()
    made = request_for(Operation.GET_BLOB, container_sas("r"))
    spec = SPECS[Operation.GET_BLOB]
    accounts = {ACCOUNT: KEYS}
    admit(made, cache=cache)

    def forbidden(*_: Any) -> bool:
        raise AssertionError("a signature was computed")

    monkeypatch.setattr("dataplane.blobapi.sharedkey.signature_matches", forbidden)
    rounds = 2000
    begin = time.perf_counter()
    for _ in range(rounds):
        authorize(made, spec, accounts, lambda c: None, lambda c: PublicAccess.NONE, NOW, cache=cache)
    seconds = time.perf_counter() - begin
    assert seconds / rounds < 50e-6
