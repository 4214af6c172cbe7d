"""Which account a request is for: path style or host style, primary or secondary, and the blobs of `$root`.

The account comes from the authority (`ACCOUNT.SUFFIX` for each configured suffix, or a whole name of its own), or else
from the first path segment.
`ACCOUNT-secondary` is the same data, to be read only (REST page "Designing highly available applications using
read-access geo-redundant storage"); the suffix is removed here, from the path that is signed as well, because clients
sign the primary's name. Nothing after this knows how the account was written.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Level, Resource
from dataplane.blobapi.model import EMPTY
from dataplane.blobapi.uri import in_root_container, parse_query, parse_resource, split_target

SECONDARY: Final = "-secondary"
HOST_CACHE_ENTRIES_MAX: Final = 1024
QUERY_CACHE_ENTRIES_MAX: Final = 1024
QUERY_CACHE_CHARS_MAX: Final = 512
KEPT_TARGETS_MAX: Final = 4096
KEPT_TARGET_CHARS_MAX: Final = 768

_AUTHORITY = re.compile(r"(?i)https?://([^/?#]*)")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::\d{1,5})?\Z")
_LABEL = re.compile(r"[a-z0-9]{3,24}\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """A target, read once. `host` is the authority's name in lower case, without a port."""

    resource: Resource
    query: Mapping[str, str]
    secondary: bool
    host: str


class Hosts:
    """The names by which this node is called. `names` maps whole host names to the account that each means."""

    def __init__(self, suffixes: Iterable[str], names: Mapping[str, str] = EMPTY) -> None:
        self._suffixes = tuple("." + suffix.strip(".").lower() for suffix in suffixes)
        self._names = {name.strip(".").lower(): account for name, account in names.items()}
        self._known = lru_cache(maxsize=HOST_CACHE_ENTRIES_MAX)(self._split)

    def account(self, host: str) -> tuple[str, str | None]:
        """(host name, account or None for path style) of a Host header. Raises BlobError InvalidHeaderValue."""
        return self._known(host)

    def _split(self, host: str) -> tuple[str, str | None]:
        match = _HOST.match(host)
        if match is None:
            raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name="Host")
        name = match["name"].lower().rstrip(".")
        if name in self._names:
            return name, self._names[name]
        for suffix in self._suffixes:
            label = name.removesuffix(suffix)
            if label != name and _LABEL.match(label.removesuffix(SECONDARY)):
                return name, label
        return name, None


@lru_cache(maxsize=QUERY_CACHE_ENTRIES_MAX)
def _kept_query(text: str) -> Mapping[str, str]:
    """A query string that comes with every request of a client, as a SAS token does, is parsed once."""
    return MappingProxyType(dict(parse_query(text)))


def locate(target: str, host_header: str, hosts: Hosts) -> Address:
    """Read a request's target. Raises BlobError InvalidUri, InvalidHeaderValue, InvalidQueryParameterValue.

    An absolute-form target's authority counts instead of the Host header (RFC 9112 section 3.2.2). Short targets are
    remembered: what is read often is read with the same words.
    """
    return (_kept if len(target) <= KEPT_TARGET_CHARS_MAX else _locate)(target, host_header, hosts)


def _locate(target: str, host_header: str, hosts: Hosts) -> Address:
    authority = _AUTHORITY.match(target)
    host, host_account = hosts.account(authority[1] if authority else host_header)
    path, query_text = split_target(target)
    query = _kept_query(query_text) if len(query_text) <= QUERY_CACHE_CHARS_MAX else parse_query(query_text)
    resource, secondary = _primary(parse_resource(path, host_account))
    if resource.level is Level.CONTAINER and "restype" not in query:
        resource = in_root_container(resource)
    return Address(resource, query, secondary, host)


_kept = lru_cache(maxsize=KEPT_TARGETS_MAX)(_locate)


def _primary(resource: Resource) -> tuple[Resource, bool]:
    """The resource under its primary's name, and whether it was asked for at the secondary."""
    account = resource.account.removesuffix(SECONDARY)
    if account == resource.account:
        return resource, False
    raw_path = resource.raw_path
    if resource.path_style:
        prefix = "/" + resource.account
        if not raw_path.startswith(prefix):  # the account was percent-encoded; no client does that
            raise BlobError(ErrorCode.INVALID_URI)
        raw_path = "/" + account + raw_path[len(prefix) :]
    return Resource(account, resource.container, resource.blob, raw_path, resource.path_style), True
