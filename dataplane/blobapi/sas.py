"""Shared access signatures: account and service SAS tokens as values, their strings to sign, and making them.

Sources: REST pages "Create an account SAS", "Create a service SAS", "Create a user delegation SAS" and "Versioning for
Azure Storage". The same SasToken is parsed by the side that verifies and issued by the side that signs.

What is guaranteed:
- signatures cover decoded values, and no field may hold a line break or another control character, as one would shift
  the fields behind it in the string to sign; nor may the name of a blob or directory that a token is made out to;
- `sv` before 2015-04-05 is refused: the strings of those versions leave out the address and the protocol. Newer
  unknown versions take the newest string, which has not changed for account keys since 2020-12-06;
- a field that the token's version does not sign is not taken from it: such a token is refused, except for an account
  SAS's header overrides, which are ignored as Azure's account SAS has none;
- tokens signed with a user delegation key are recognised by their fields and never checked with an account key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import quote

from dataplane.blobapi import limits
from dataplane.blobapi.dates import parse_iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Level, Resource
from dataplane.blobapi.sharedkey import signature

OLDEST_VERSION: Final = "2015-04-05"
RESOURCE_SIGNED_SINCE: Final = "2018-11-09"  # sr and the snapshot became part of a service SAS's string
DIRECTORY_SINCE: Final = "2020-02-10"
SCOPE_SIGNED_SINCE: Final = "2020-12-06"  # ses became part of both strings
DEFAULT_VERSION: Final = "2021-12-02"

#: Query parameters that override an answer's header, in the order in which they are signed.
OVERRIDES: Final[Mapping[str, str]] = {
    "rscc": "Cache-Control",
    "rscd": "Content-Disposition",
    "rsce": "Content-Encoding",
    "rscl": "Content-Language",
    "rsct": "Content-Type",
}
#: Everything that an account SAS consists of, and a service SAS; what a cache of verified tokens is keyed by.
ACCOUNT_FIELDS: Final = ("sig", "sv", "sp", "se", "st", "ss", "srt", "sip", "spr", "ses")
FIELDS: Final = (*ACCOUNT_FIELDS, "sr", "sdd", "si", *OVERRIDES)
#: A token with one of these was signed with a user delegation key, or claims so.
DELEGATION_FIELDS: Final = frozenset(
    {"skoid", "sktid", "skt", "ske", "sks", "skv", "skdutid", "sduoid", "saoid", "suoid", "scid", "srh", "srq"}
)

_VERSION = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\Z")
_LETTERS = re.compile(r"[a-z]+\Z")
_DEPTH = re.compile(r"\d{1,3}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Address = IPv4Address | IPv6Address


class SasKind(Enum):
    """Which string a token's signature covers."""

    ACCOUNT = "account"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class SasToken:
    """One token, decoded. An absent field is "", as both are signed alike; times are text as signed."""

    kind: SasKind
    version: str
    permissions: str = ""
    start: str = ""
    expiry: str = ""
    services: str = ""
    resource_types: str = ""
    resource: str = ""  # sr: b, bs, bv, c, d
    depth: str = ""  # sdd
    policy_id: str = ""
    ip: str = ""
    protocol: str = ""
    encryption_scope: str = ""
    overrides: tuple[str, ...] = ("", "", "", "", "")
    signature: str = ""

    def response_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that the token sets on answers to reads, as (name, value)."""
        return tuple((name, value) for name, value in zip(OVERRIDES.values(), self.overrides, strict=True) if value)

    def ip_range(self) -> tuple[Address, Address] | None:
        """First and last address that may use it; None: any. Raises BlobError for text that is no range."""
        if not self.ip:
            return None
        first, dash, last = self.ip.partition("-")
        try:
            low = ip_address(first)
            high = ip_address(last) if dash else low
        except ValueError:
            raise malformed("sip is not an IP address or a range of them") from None
        if low.version != high.version or int(low) > int(high):
            raise malformed("sip is not a range of IP addresses")
        return low, high

    def query(self) -> str:
        """The token as it is appended to a URL."""
        values = (
            ("sv", self.version), ("ss", self.services), ("srt", self.resource_types), ("sr", self.resource),
            ("sdd", self.depth), ("si", self.policy_id), ("st", self.start), ("se", self.expiry),
            ("sp", self.permissions), ("sip", self.ip), ("spr", self.protocol), ("ses", self.encryption_scope),
            *zip(OVERRIDES, self.overrides, strict=True), ("sig", self.signature),
        )  # fmt: skip
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in values if value)


def malformed(detail: str) -> BlobError:
    """The refusal of a token that cannot be verified: 403 AuthenticationFailed with Azure's detail node."""
    return BlobError(ErrorCode.AUTHENTICATION_FAILED, detail=(("AuthenticationErrorDetail", detail),))


def is_delegation(query: Mapping[str, str]) -> bool:
    """Whether the token of a request needs a user delegation key (REST page "Create a user delegation SAS")."""
    return not DELEGATION_FIELDS.isdisjoint(query)


def is_account(query: Mapping[str, str]) -> bool:
    """Whether the token of a request is an account SAS, which has no other resource than its types."""
    return "ss" in query or "srt" in query


def parse(query: Mapping[str, str]) -> SasToken:
    """The token in a request's query (uri.parse_query: lower-case names, decoded values, no name twice).

    Raises BlobError AuthenticationFailed, with the reason, for every token whose form is wrong.
    """
    fields = {name: query[name] for name in FIELDS if name in query}
    if sum(len(name) + len(value) for name, value in fields.items()) > limits.sas_token_bytes_max:
        raise malformed("The token is too long")
    for name, value in fields.items():
        if _CONTROL.search(value):
            raise malformed(f"{name} has a control character")
    get = fields.get
    kind = SasKind.ACCOUNT if is_account(fields) else SasKind.SERVICE
    token = SasToken(
        kind,
        get("sv", ""), get("sp", ""), get("st", ""), get("se", ""), get("ss", ""), get("srt", ""), get("sr", ""),
        get("sdd", ""), get("si", ""), get("sip", ""), get("spr", ""), get("ses", ""),
        tuple(get(name, "") if kind is SasKind.SERVICE else "" for name in OVERRIDES), get("sig", ""),
    )  # fmt: skip
    _check(token)
    _check_kind(token)
    return token


def _check(token: SasToken) -> None:
    """The form of what both kinds have."""
    if not token.signature:
        raise malformed("sig is mandatory. Cannot be empty")
    if _VERSION.match(token.version) is None or token.version < OLDEST_VERSION:
        raise malformed(f"sv is not a version from {OLDEST_VERSION} on")
    if token.permissions and (
        _LETTERS.match(token.permissions) is None or len(token.permissions) > limits.sas_permissions_chars_max
    ):
        raise malformed("sp is not a list of permissions")
    for name, value in (("st", token.start), ("se", token.expiry)):
        if value and parse_iso_ticks(value) is None:
            raise malformed(f"{name} is not a time in an ISO 8601 form")
    if token.protocol not in ("", "https", "https,http"):
        raise malformed("spr is neither https nor https,http")
    if token.encryption_scope and token.version < SCOPE_SIGNED_SINCE:
        raise malformed(f"ses needs sv {SCOPE_SIGNED_SINCE} or newer")
    token.ip_range()


def _check_kind(token: SasToken) -> None:
    if token.kind is SasKind.ACCOUNT:
        if token.resource or token.policy_id or token.depth:
            raise malformed("An account SAS has no sr, si or sdd")
        if _LETTERS.match(token.services) is None or re.match(r"[sco]+\Z", token.resource_types) is None:
            raise malformed("ss or srt is missing or not a list of letters")
        return
    if token.resource not in ("b", "bs", "bv", "c", "d"):
        raise malformed("sr is mandatory and one of b, bs, bv, c, d")
    if token.resource in ("bs", "bv") and token.version < RESOURCE_SIGNED_SINCE:
        raise malformed(f"sr={token.resource} needs sv {RESOURCE_SIGNED_SINCE} or newer")
    if (token.resource == "d") != bool(token.depth):
        raise malformed("sdd belongs to sr=d, which needs it")
    if token.resource == "d" and (_DEPTH.match(token.depth) is None or token.version < DIRECTORY_SINCE):
        raise malformed(f"sdd is not a number, or sv is older than {DIRECTORY_SINCE}")
    if len(token.policy_id) > limits.policy_id_chars_max:
        raise malformed("si is too long")


def signed_path(resource_type: str, depth: str, resource: Resource, prefix: str | None) -> str:
    """What a service SAS is made out to, `/container[/blob]`, as far as the request's own target tells.

    A token never names its resource: it fits whatever target gives the same string. `prefix` is that of a listing:
    below a directory, only a listing of that directory's inside is the directory's. Raises BlobError
    AuthenticationFailed when the target is of another kind than the token.
    """
    if resource.level is Level.SERVICE:
        raise malformed("A service SAS is for a container or a blob")
    if resource_type == "c":
        return "/" + resource.container
    if resource_type == "d":
        path = "/" + _directory(depth, resource.blob if resource.level is Level.BLOB else prefix, prefix is not None)
    elif resource.level is Level.BLOB:
        path = "/" + resource.blob
    else:
        raise malformed(f"sr={resource_type} is for a blob")
    if "\n" in path:
        raise malformed("The name has a line break; it cannot be signed without doubt")
    return f"/{resource.container}{path}"


def _directory(depth: str, name: str | None, listing: bool) -> str:
    """The first `depth` segments of a blob's name or a listing's prefix, which has to end the last one with a slash."""
    segments = (name or "").split("/")
    count = int(depth) if _DEPTH.match(depth) else -1
    if name is None or count < 1 or count > len(segments) - listing:
        raise malformed("The target is not in a directory of the depth that sdd says")
    return "/".join(segments[:count])


def string_to_sign(token: SasToken, account: str, path: str = "", snapshot: str = "") -> str:
    """The string of the token's kind and version. `path` and `snapshot` belong to a service SAS (signed_path)."""
    if token.kind is SasKind.ACCOUNT:
        lines = [
            account, token.permissions, token.services, token.resource_types, token.start, token.expiry, token.ip,
            token.protocol, token.version,
        ]  # fmt: skip
        if token.version >= SCOPE_SIGNED_SINCE:
            lines.append(token.encryption_scope)
        return "\n".join(lines) + "\n"
    lines = [
        token.permissions, token.start, token.expiry, f"/blob/{account}{path}", token.policy_id, token.ip,
        token.protocol, token.version,
    ]  # fmt: skip
    if token.version >= RESOURCE_SIGNED_SINCE:
        lines += [token.resource, snapshot]
    if token.version >= SCOPE_SIGNED_SINCE:
        lines.append(token.encryption_scope)
    return "\n".join([*lines, *token.overrides])


def issue(token: SasToken, account: str, key: bytes, path: str = "", snapshot: str = "") -> SasToken:
    """The token with its signature; `key` is the decoded account key, `path` is `/container[/blob]`, not escaped.

    Raises BlobError as parse does, so that no token is issued that this server would refuse.
    """
    if "\n" in path or any(map(_CONTROL.search, token.overrides)):
        raise malformed("A name or header to be signed has a line break")
    signed = replace(token, signature=signature(key, string_to_sign(token, account, path, snapshot)))
    _check(signed)
    _check_kind(signed)
    return signed


def service_token(resource: str, permissions: str, expiry: str, version: str = DEFAULT_VERSION) -> SasToken:
    """An unsigned service SAS for issue: `resource` is sr. Other fields are set with dataclasses.replace."""
    return SasToken(SasKind.SERVICE, version, permissions, expiry=expiry, resource=resource)


def account_token(
    permissions: str, expiry: str, resource_types: str = "sco", services: str = "b", version: str = DEFAULT_VERSION
) -> SasToken:
    """An unsigned account SAS for issue."""
    return SasToken(
        SasKind.ACCOUNT, version, permissions, expiry=expiry, services=services, resource_types=resource_types
    )
