"""Who a request comes from and whether its operation is allowed: the one gate in front of every handler.

`authorize` is a pure function of the request, the accounts' keys, the container's stored policies and public access,
and the time. It fails closed: an operation gets through only when operations.SPECS names a permission for it and the
caller holds it; a credential scheme without a handler is refused, and so are two credentials in one request. The order
is Azure's: signature, time, protocol, address, service, resource type, permission; so nothing about the container is
told to somebody without a valid signature.

Verified tokens are remembered (SasCache) by every field of the token, what it was made out to, and the generation of
the account's keys. Time, address, protocol and permission are looked at on every request, and so are stored access
policies, as they may be revoked at any time; only the HMAC is saved. Only tokens that verified are remembered, so a
stranger cannot push others out.

Anonymous requests (REST page "Authorize with Microsoft Entra ID", "Bearer challenge", and answers seen in public issue
threads): a client of x-ms-version 2019-12-12 or newer gets 401 NoAuthenticationInformation with a challenge, which lets
SDKs turn to their credentials; an older one, or a browser without a version, gets 404 ResourceNotFound, so that a
private container looks like none; or 409 PublicAccessNotPermitted on reads where the account forbids public access.

A service SAS on an operation that no service SAS may call is AuthorizationFailure (azure-sdk-for-net issue 17142,
azure-sdk-for-python issue 24227), a missing letter is AuthorizationPermissionMismatch (REST page "Blob service error
codes").
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final, Protocol

from dataplane.blobapi import limits, sas, sharedkey
from dataplane.blobapi.dates import http_date, parse_iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Request
from dataplane.blobapi.model import AccessPolicy, PublicAccess
from dataplane.blobapi.operations import Operation, OperationSpec
from dataplane.blobapi.sas import Address, SasKind, SasToken

BEARER_CHALLENGE_SINCE: Final = "2019-12-12"
_CHALLENGE: Final = 'SharedKey realm="blob"'  # RFC 9110 section 15.5.2: a 401 names at least one scheme
_TICKS: Final = 10_000_000  # per second

#: Operations that an account SAS of any resource type may call (REST page "Create an account SAS"), and the one whose
#: type is not that of its target.
_RESOURCE_TYPES: Final[Mapping[Operation, str]] = {
    Operation.GET_ACCOUNT_INFORMATION: "sco",
    Operation.SERVICE_BATCH: "sco",
    Operation.CONTAINER_BATCH: "sco",
    Operation.FIND_BLOBS_BY_TAGS: "so",
}
_WITH_TAGS: Final = frozenset(
    {
        Operation.PUT_BLOB,
        Operation.PUT_BLOB_FROM_URL,
        Operation.PUT_BLOCK_LIST,
        Operation.COPY_BLOB,
        Operation.COPY_BLOB_FROM_URL,
    }
)


class CallerKind(Enum):
    """How a caller proved who it is; the values are those of AuthenticationType in Azure's resource logs."""

    SHARED_KEY = "AccountKey"
    SAS = "SAS"
    ANONYMOUS = "Anonymous"
    OAUTH = "OAuth"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authorised caller, and what it may do besides the operation it was let in for.

    `permissions` are the letters of its token, None for the owner of the key, who may do everything. `overrides` are
    headers that the token puts on answers to reads, as (name, value).
    """

    kind: CallerKind
    account: str
    permissions: frozenset[str] | None = None
    overrides: tuple[tuple[str, str], ...] = ()

    def holds(self, letters: str) -> bool:
        """Whether it has any of the permissions."""
        return self.permissions is None or not self.permissions.isdisjoint(letters)

    def require(self, letters: str) -> None:
        """Raises BlobError AuthorizationPermissionMismatch unless it has any of the permissions."""
        if not self.holds(letters):
            raise BlobError(ErrorCode.AUTHORIZATION_PERMISSION_MISMATCH)

    def may_overwrite(self, spec: OperationSpec) -> bool:
        """Whether it may replace what is there: create alone may not (REST page "Create a service SAS")."""
        return not spec.overwrite_sas or self.holds(spec.overwrite_sas)

    def require_overwrite(self, spec: OperationSpec) -> None:
        """For decide callbacks that found a blob at the destination. Raises BlobError UnauthorizedBlobOverwrite."""
        if not self.may_overwrite(spec):
            raise BlobError(ErrorCode.UNAUTHORIZED_BLOB_OVERWRITE)


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """What signs for an account: one or two decoded keys. `generation` changes whenever they do."""

    name: str
    keys: tuple[bytes, ...] = field(repr=False)
    generation: int = 0
    public_access_permitted: bool = True


@dataclass(frozen=True, slots=True)
class VerifiedSas:
    """A token whose signature was verified. `start` and `expiry` count 100 ns ticks since the epoch."""

    token: SasToken
    caller: Caller
    start: int | None
    expiry: int | None
    ip_range: tuple[Address, Address] | None


class SasCache:
    """Verified tokens, the least recently used ones dropped first. Not for use by several threads at once."""

    __slots__ = ("_entries", "_entries_max", "hits", "misses")

    def __init__(self, entries_max: int = limits.sas_cache_entries_max) -> None:
        self._entries: OrderedDict[tuple[object, ...], VerifiedSas] = OrderedDict()
        self._entries_max = entries_max
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: tuple[object, ...], ticks: int) -> VerifiedSas | None:
        """What is known of a token; one that has expired is forgotten."""
        found = self._entries.get(key)
        if found is None:
            self.misses += 1
            return None
        if found.expiry is not None and ticks >= found.expiry:
            del self._entries[key]
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return found

    def put(self, key: tuple[object, ...], verified: VerifiedSas) -> None:
        self._entries[key] = verified
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)


class CredentialScheme(Protocol):
    """What else can vouch for a caller: Entra ID's bearer tokens and user delegation keys get their place here.

    `challenge` goes into www-authenticate. `authorize` checks permissions too; it raises BlobError to refuse.
    """

    challenge: str

    def authorize(self, request: Request, spec: OperationSpec, now: int) -> Caller: ...


#: Name of the scheme in a registry of CredentialSchemes for tokens that a user delegation key signed. Its blanks keep
#: an Authorization header from naming it.
USER_DELEGATION_SAS: Final = "user delegation sas"

Policies = Callable[[str], tuple[AccessPolicy, ...] | None]
Publicity = Callable[[str], PublicAccess]
NO_SCHEMES: Final[Mapping[str, CredentialScheme]] = {}


def needs_container(request: Request) -> bool:
    """Whether `authorize` will ask for the container's policies or public access, so that they may have to be read."""
    return "si" in request.query or ("sig" not in request.query and request.header("authorization") is None)


def authorize(
    request: Request,
    spec: OperationSpec,
    accounts: Mapping[str, AccountKeys],
    policies: Policies,
    public_access: Publicity,
    now: int,
    *,
    cache: SasCache | None = None,
    schemes: Mapping[str, CredentialScheme] = NO_SCHEMES,
) -> Caller:
    """The caller of a request that may call its operation.

    `policies` gives a container's stored access policies (None: no such container), `public_access` its anonymous
    access; `now` is in seconds since the epoch; `schemes` are further credential schemes by lower-case name. Raises
    BlobError with the codes of REST page "Common REST API error codes".
    """
    if spec.anonymous:
        return Caller(CallerKind.ANONYMOUS, request.resource.account, frozenset())
    authorization = request.header("authorization")
    account = accounts.get(request.resource.account)
    if "sig" in request.query:
        if authorization is not None:
            raise sas.malformed("Authorization and sig are two credentials; one request has one")
        if account is None:
            raise sas.malformed("The account is not served here")
        return _with_sas(request, spec, account, policies, now, cache, schemes)
    if authorization is not None:
        return _with_header(request, spec, account, authorization, now, schemes)
    if sas.is_delegation(request.query) or "sp" in request.query or "se" in request.query:
        raise sas.malformed("sig is mandatory. Cannot be empty")
    return _anonymous(request, spec, account, public_access, schemes)


# --- the Authorization header ---


def _with_header(
    request: Request,
    spec: OperationSpec,
    account: AccountKeys | None,
    authorization: str,
    now: int,
    schemes: Mapping[str, CredentialScheme],
) -> Caller:
    name, _, credential = authorization.strip().partition(" ")
    scheme = {"sharedkey": sharedkey.SHARED_KEY, "sharedkeylite": sharedkey.SHARED_KEY_LITE}.get(name.lower())
    if scheme is None:
        handler = schemes.get(name.lower())
        if handler is None:
            raise sas.malformed("The authentication scheme is not supported.")
        return handler.authorize(request, spec, now)
    claimed, colon, signature = credential.strip().partition(":")
    if not (claimed and colon and signature):
        raise BlobError(ErrorCode.INVALID_AUTHENTICATION_INFO)
    if account is None or claimed != account.name:
        raise sas.malformed("The account of the Authorization header is not the account of the request")
    _check_time(request, now)
    _check_signature(request, account, scheme, signature)
    return Caller(CallerKind.SHARED_KEY, account.name)


def _check_time(request: Request, now: int) -> None:
    time = sharedkey.request_time(request.headers)
    if time is None:
        raise sas.malformed("x-ms-date or Date is missing or not an RFC 1123 date")
    if not sharedkey.is_fresh(time, now):
        raise sas.malformed(f"Request date header too old: '{http_date(time)}'" if time < now else "Request date ahead")


def _check_signature(request: Request, account: AccountKeys, scheme: str, signature: str) -> None:
    strings = sharedkey.strings_to_sign(
        request.method, account.name, request.resource.raw_path, request.query, request.headers, scheme
    )
    canonical = ""
    for string in strings:
        canonical = canonical or string
        if sharedkey.signature_matches(account.keys, string, signature):
            return
    shown = canonical.replace("\n", "\\n")
    raise sas.malformed(f"The signature is not that of any key. String to sign here: '{shown}'")


# --- shared access signatures ---


def _with_sas(
    request: Request,
    spec: OperationSpec,
    account: AccountKeys,
    policies: Policies,
    now: int,
    cache: SasCache | None,
    schemes: Mapping[str, CredentialScheme],
) -> Caller:
    query = request.query
    if sas.is_delegation(query):
        handler = schemes.get(USER_DELEGATION_SAS)
        if handler is None:
            raise sas.malformed("User delegation SAS is not supported here")
        return handler.authorize(request, spec, now)
    ticks = now * _TICKS
    path, snapshot = _made_out_to(request, spec)
    fields = sas.ACCOUNT_FIELDS if sas.is_account(query) else sas.FIELDS
    key = (account.name, account.generation, path, snapshot, *map(query.get, fields))
    verified = cache.get(key, ticks) if cache is not None else None
    if verified is None:
        verified = _verify(request, account, path, snapshot)
        if cache is not None:
            cache.put(key, verified)
    if verified.token.policy_id:
        verified = _with_policy(verified, policies(request.resource.container))
    _check_window(verified, ticks)
    _check_origin(verified, request)
    _check_permission(verified, request, spec)
    return verified.caller


def _made_out_to(request: Request, spec: OperationSpec) -> tuple[str, str]:
    """The path and the snapshot that the token must have been signed for to fit this request."""
    query = request.query
    if sas.is_account(query):
        return "", ""
    resource_type = query.get("sr", "")
    prefix = query.get("prefix", "") if spec.operation is Operation.LIST_BLOBS else None
    path = sas.signed_path(resource_type, query.get("sdd", ""), request.resource, prefix)
    if resource_type == "bs":
        return path, query.get("snapshot", "")
    return path, query.get("versionid", "") if resource_type == "bv" else ""


def _verify(request: Request, account: AccountKeys, path: str, snapshot: str) -> VerifiedSas:
    """The token of a request, once its form and its signature are right."""
    token = sas.parse(request.query)
    if token.resource in ("bs", "bv") and (not snapshot or "\n" in snapshot):
        raise sas.malformed(f"sr={token.resource} needs the snapshot or version in the URL")
    string = sas.string_to_sign(token, account.name, path, snapshot)
    if not sharedkey.signature_matches(account.keys, string, token.signature):
        raise sas.malformed(f"Signature did not match. String to sign used was {string}")
    return VerifiedSas(
        token,
        Caller(CallerKind.SAS, account.name, frozenset(token.permissions), token.response_headers()),
        parse_iso_ticks(token.start) if token.start else None,
        parse_iso_ticks(token.expiry) if token.expiry else None,
        token.ip_range(),
    )


def _with_policy(verified: VerifiedSas, policies: tuple[AccessPolicy, ...] | None) -> VerifiedSas:
    """The token with what its stored access policy adds. Neither may say again what the other does
    (REST page "Define a stored access policy")."""
    token = verified.token
    policy = next((policy for policy in policies or () if policy.policy_id == token.policy_id), None)
    if policy is None:
        raise sas.malformed("si names no stored access policy of the container")
    both = ((token.permissions, policy.permissions), (token.start, policy.start), (token.expiry, policy.expiry))
    if any(own and stored for own, stored in both):
        raise sas.malformed("A field is in the token and in its stored access policy")
    start, expiry = verified.start, verified.expiry
    if policy.start:
        start = _policy_time(policy.start)
    if policy.expiry:
        expiry = _policy_time(policy.expiry)
    permissions = frozenset(token.permissions or policy.permissions or "")
    caller = Caller(CallerKind.SAS, verified.caller.account, permissions, verified.caller.overrides)
    return VerifiedSas(token, caller, start, expiry, verified.ip_range)


def _policy_time(text: str) -> int:
    ticks = parse_iso_ticks(text)
    if ticks is None:
        raise sas.malformed("The stored access policy has a time that cannot be read")
    return ticks


def _check_window(verified: VerifiedSas, ticks: int) -> None:
    start, expiry = verified.start, verified.expiry
    if expiry is None:
        raise sas.malformed("se is mandatory. Cannot be empty")
    if (start is None or start <= ticks) and ticks < expiry:
        return
    current = http_date(ticks // _TICKS)
    end = http_date(expiry // _TICKS)
    if start is None or start >= expiry:
        begin = current if start is None else http_date(start // _TICKS)
        raise sas.malformed(f"Signed expiry time [{end}] must be after signed start time [{begin}]")
    raise sas.malformed(
        f"Signature not valid in the specified time frame: Start [{http_date(start // _TICKS)}] - Expiry [{end}] - "
        f"Current [{current}]"
    )


def _check_origin(verified: VerifiedSas, request: Request) -> None:
    """Protocol and address. The address is the connection's: a header that names another can be forged."""
    if verified.token.protocol == "https" and not request.secure:
        raise BlobError(ErrorCode.AUTHORIZATION_PROTOCOL_MISMATCH)
    if verified.ip_range is None:
        return
    low, high = verified.ip_range
    peer = _peer_address(request.peer)
    if peer is None or peer.version != low.version or not int(low) <= int(peer) <= int(high):
        code = ErrorCode.AUTHORIZATION_SOURCE_IP_MISMATCH
        raise BlobError(code, message=code.message.replace("{0}", request.peer))


def _peer_address(peer: str) -> Address | None:
    """The connection's address; an IPv4 client of a dual-stack socket counts as IPv4. None for a Unix socket."""
    try:
        address = ip_address(peer)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _check_permission(verified: VerifiedSas, request: Request, spec: OperationSpec) -> None:
    token, caller = verified.token, verified.caller
    if token.kind is SasKind.ACCOUNT:
        if "b" not in token.services:
            raise BlobError(ErrorCode.AUTHORIZATION_SERVICE_MISMATCH)
        types = _RESOURCE_TYPES.get(spec.operation, spec.resource_type)
        if not any(letter in token.resource_types for letter in types):
            raise BlobError(ErrorCode.AUTHORIZATION_RESOURCE_TYPE_MISMATCH)
    elif not spec.service_sas:
        raise BlobError(ErrorCode.AUTHORIZATION_FAILURE)
    if not spec.sas:
        raise BlobError(ErrorCode.AUTHORIZATION_FAILURE)
    if not caller.permissions:
        raise sas.malformed("sp is mandatory. Cannot be empty")
    caller.require(_letters(request, spec))
    for letters in _also(request, spec):
        caller.require(letters)


def _letters(request: Request, spec: OperationSpec) -> str:
    """Any of these is needed (REST page "Create a service SAS"): the operation's, except that breaking a lease also
    goes with d, deleting a version takes x, and deleting for good takes y."""
    if spec.operation is Operation.DELETE_BLOB:
        if "x-ms-delete-type" in request.headers or "deletetype" in request.query:
            return "y"
        return "x" if "versionid" in request.query else spec.sas
    if spec.operation in (Operation.LEASE_BLOB, Operation.LEASE_CONTAINER):
        return spec.sas + "d" if request.headers.get("x-ms-lease-action", "").lower() == "break" else spec.sas
    return spec.sas


def _also(request: Request, spec: OperationSpec) -> list[str]:
    """What is needed besides: t to write tags along, to list them, and to ask for them in a condition, as the answer
    would tell them (REST page "Manage and find data on Azure Blob Storage with blob index tags")."""
    headers = request.headers
    tags = "x-ms-if-tags" in headers or (spec.operation in _WITH_TAGS and "x-ms-tags" in headers)
    if spec.operation is Operation.LIST_BLOBS:
        tags = tags or "tags" in request.query.get("include", "").lower().split(",")
    return ["t"] if tags else []


# --- nobody ---


def _anonymous(
    request: Request,
    spec: OperationSpec,
    account: AccountKeys | None,
    public_access: Publicity,
    schemes: Mapping[str, CredentialScheme],
) -> Caller:
    if account is not None and _is_public(request, spec, account, public_access):
        return Caller(CallerKind.ANONYMOUS, account.name, frozenset())
    if request.headers.get("x-ms-version", "") >= BEARER_CHALLENGE_SINCE:
        challenge = ", ".join([*(scheme.challenge for scheme in schemes.values()), _CHALLENGE])
        raise BlobError(ErrorCode.NO_AUTHENTICATION_INFORMATION, headers=(("WWW-Authenticate", challenge),))
    if account is not None and spec.public is not None and not account.public_access_permitted:
        raise BlobError(ErrorCode.PUBLIC_ACCESS_NOT_PERMITTED)
    raise BlobError(ErrorCode.RESOURCE_NOT_FOUND)


def _is_public(request: Request, spec: OperationSpec, account: AccountKeys, public_access: Publicity) -> bool:
    if spec.public is None or spec.write or not account.public_access_permitted or not request.resource.container:
        return False
    if _also(request, spec):
        return False
    access = public_access(request.resource.container)
    return access is PublicAccess.CONTAINER or (access is PublicAccess.BLOB and spec.public is PublicAccess.BLOB)
