"""Targets and query strings: bytes off the wire to a Resource, decoded once.

Path style puts the account first (`/account/container/blob`); host style has it in the Host header. Azure's rules
(REST page "Naming and Referencing Containers, Blobs, and Metadata"): a blob without a container is in `$root`; a
backslash in a blob name is stored as a slash. Invalid escapes, NUL and text that is not UTF-8 are refused, as a name
that cannot be written back must not be stored.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Resource

ROOT_CONTAINER = "$root"
SPECIAL_CONTAINERS = frozenset({"$root", "$web", "$logs", "$blobchangefeed"})

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9])*\Z")
_CONTAINER_CHARS = re.compile(r"[a-z0-9-]*\Z")


def split_target(target: str) -> tuple[str, str]:
    """(path, query) of an origin-form or absolute-form target, both as sent (RFC 9112 section 3.2)."""
    if not target.startswith("/"):
        match = re.match(r"https?://[^/?#]*", target)
        if match is None:
            raise BlobError(ErrorCode.INVALID_URI)
        target = target[match.end() :] or "/"
        if not target.startswith("/"):
            target = "/" + target
    if "#" in target:
        raise BlobError(ErrorCode.INVALID_URI)
    path, _, query = target.partition("?")
    return path, query


def decode(text: str) -> str:
    """Percent-decode once. Raises BlobError InvalidUri for a bad escape, NUL, or bytes that are not UTF-8."""
    if "%" not in text and text.isascii() and text.isprintable():
        return text
    if _BAD_ESCAPE.search(text):
        raise BlobError(ErrorCode.INVALID_URI)
    try:
        decoded = unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeDecodeError:
        raise BlobError(ErrorCode.INVALID_URI) from None
    if "\0" in decoded:
        raise BlobError(ErrorCode.INVALID_URI)
    return decoded


def parse_query(query: str) -> Mapping[str, str]:
    """Names (lower-case) to decoded values; a name that occurs twice is refused, so that no two readers can differ.

    `+` means a space, as Azure reads it, except in `sig`, where clients that do not escape base64 mean a plus.
    """
    found: dict[str, str] = {}
    if not query:
        return found
    for part in query.split("&"):
        if not part:
            continue
        raw_name, _, raw_value = part.partition("=")
        name = decode(raw_name).lower()
        value = decode(raw_value if name == "sig" else raw_value.replace("+", " "))
        if name in found:
            raise BlobError(
                ErrorCode.AUTHENTICATION_FAILED if name == "sig" else ErrorCode.INVALID_QUERY_PARAMETER_VALUE,
                query_name=None if name == "sig" else name,
            )
        found[name] = value
    return found


def parse_resource(path: str, host_account: str | None) -> Resource:
    """What a path names. `host_account` is the account of a host-style request, None for path style.

    Raises BlobError InvalidUri when path style names no account, InvalidResourceName or OutOfRangeInput for names.
    """
    if host_account is None:
        account, slash, rest = path[1:].partition("/")
        account = decode(account)
        raw_path = path
        rest = rest if slash else ""
        if not account:
            raise BlobError(ErrorCode.INVALID_URI)
    else:
        account, rest, raw_path = host_account, path[1:], path
    container, slash, blob = rest.partition("/")
    container = decode(container)
    blob = decode(blob).replace("\\", "/")
    return Resource(account, container, blob, raw_path, host_account is None)


def in_root_container(resource: Resource) -> Resource:
    """The same target read as a blob of `$root`: `/name` alone, when the operation is one on a blob."""
    return Resource(resource.account, ROOT_CONTAINER, resource.container, resource.raw_path, resource.path_style)


@lru_cache(maxsize=4096)
def check_container_name(name: str) -> None:
    """REST page "Naming and Referencing ...": 3 to 63 of a-z, 0-9 and single dashes. Raises as Azure does:
    OutOfRangeInput for the length, InvalidResourceName for the characters."""
    if name in SPECIAL_CONTAINERS:
        return
    if _CONTAINER_CHARS.match(name) is None:
        raise BlobError(ErrorCode.INVALID_RESOURCE_NAME)
    if not limits.container_name_chars_min <= len(name) <= limits.container_name_chars_max:
        raise BlobError(ErrorCode.OUT_OF_RANGE_INPUT)
    if _CONTAINER.match(name) is None:
        raise BlobError(ErrorCode.INVALID_RESOURCE_NAME)


def check_blob_name(name: str) -> None:
    """1 to 1,024 characters, at most 254 segments (same REST page). Raises BlobError InvalidUri or OutOfRangeInput."""
    if not name:
        raise BlobError(ErrorCode.INVALID_URI)
    if len(name) > limits.blob_name_chars_max:
        raise BlobError(ErrorCode.OUT_OF_RANGE_INPUT)
    if name.count("/") >= limits.blob_name_segments_max:
        raise BlobError(ErrorCode.INVALID_URI)
