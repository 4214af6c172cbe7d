"""Conditional headers: parsed once into ConditionalHeaders, then decided for reads, writes, sources and containers.

Azure has two rule sets (REST page "Specifying conditional headers for Blob service operations"): reads since 2013-08-15
combine all four headers and take lists of ETags; writes take one ETag and only two pairs of headers. Dates are compared
in whole seconds, the resolution of Last-Modified. Everything here is pure; the evaluation of x-ms-if-tags comes in as a
callable, because its language has a module of its own.

Not taken over: RFC 9110's order of precedence for reads, under which If-None-Match would silence If-Modified-Since;
Azure passes when either of the two does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from dataplane.blobapi.dates import parse_http_date
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.etag import unquoted

#: matches(expression, tags) of a tag condition; raises BlobError for an expression that is not one.
TagMatcher = Callable[[str, Mapping[str, str]], bool]

_ANY: Final = ("*",)


@dataclass(frozen=True, slots=True)
class ConditionalHeaders:
    """The conditions of a request. ETags are without quotes, `("*",)` is the wildcard, times are in seconds."""

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None
    if_tags: str | None = None


NO_CONDITIONS: Final = ConditionalHeaders()

_NAMES: Final = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "x-ms-if-tags")
_SOURCE_NAMES: Final = (
    "x-ms-source-if-match",
    "x-ms-source-if-none-match",
    "x-ms-source-if-modified-since",
    "x-ms-source-if-unmodified-since",
    "x-ms-source-if-tags",
)


_TIER_NAMES: Final = (
    "",
    "",
    "x-ms-access-tier-if-modified-since",
    "x-ms-access-tier-if-unmodified-since",
    "",
)


class Outcome(Enum):
    """What a read's conditions say of a resource."""

    MET = auto()
    NOT_MODIFIED = auto()  # If-None-Match or If-Modified-Since says that the client's copy is good
    FAILED = auto()  # If-Match, If-Unmodified-Since or the tags say no


def parse_conditions(headers: Mapping[str, str]) -> ConditionalHeaders:
    """The conditions on the target of a request. Raises BlobError InvalidHeaderValue for a date that is none."""
    return _parse(headers, _NAMES)


def parse_source_conditions(headers: Mapping[str, str]) -> ConditionalHeaders:
    """The conditions on a copy's source (x-ms-source-if-*). Raises BlobError InvalidHeaderValue as above."""
    return _parse(headers, _SOURCE_NAMES)


def parse_tier_conditions(headers: Mapping[str, str]) -> ConditionalHeaders:
    """The conditions of Delete Blob on when the tier was changed. Raises BlobError InvalidHeaderValue as above."""
    return _parse(headers, _TIER_NAMES)


def _parse(headers: Mapping[str, str], names: tuple[str, ...]) -> ConditionalHeaders:
    if headers.keys().isdisjoint(names):  # nearly every request, and each of them asks
        return NO_CONDITIONS
    match, none_match, modified, unmodified, tags = (headers.get(name) for name in names)
    if not (match or none_match or modified or unmodified or tags):
        return NO_CONDITIONS
    return ConditionalHeaders(
        if_match=_etags(match),
        if_none_match=_etags(none_match, weak=True),
        if_modified_since=_date(names[2], modified),
        if_unmodified_since=_date(names[3], unmodified),
        if_tags=tags or None,
    )


def _etags(text: str | None, weak: bool = False) -> tuple[str, ...]:
    """The ETags of a list. If-None-Match compares weakly (RFC 9110 section 13.1.2): compressing proxies add `W/`."""
    if not text:
        return ()
    found = []
    for part in text.split(","):
        part = part.strip()
        if weak and part.startswith("W/"):
            part = part[2:]
        if part:
            found.append(unquoted(part))
    return tuple(found)


def _date(name: str, text: str | None) -> int | None:
    if not text:
        return None
    seconds = parse_http_date(text)
    if seconds is None:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=name, header_value=text)
    return seconds


def evaluate_read(
    conditions: ConditionalHeaders, etag: str, last_modified: int, tags: Mapping[str, str], matches: TagMatcher
) -> Outcome:
    """If-Match && If-Unmodified-Since && (If-None-Match || If-Modified-Since), then the tags (version 2013-08-15 on).

    Raises BlobError UnsatisfiableCondition for `If-None-Match: *`, which asks to read what must not exist.
    """
    if conditions is NO_CONDITIONS:
        return Outcome.MET
    if conditions.if_none_match == _ANY:
        raise BlobError(ErrorCode.UNSATISFIABLE_CONDITION)
    if conditions.if_match and conditions.if_match != _ANY and etag not in conditions.if_match:
        return Outcome.FAILED
    if conditions.if_unmodified_since is not None and last_modified > conditions.if_unmodified_since:
        return Outcome.FAILED
    fresh = [
        verdict
        for given, verdict in (
            (bool(conditions.if_none_match), etag not in conditions.if_none_match),
            (conditions.if_modified_since is not None, last_modified > (conditions.if_modified_since or 0)),
        )
        if given
    ]
    if fresh and not any(fresh):
        return Outcome.NOT_MODIFIED
    if conditions.if_tags is not None and not matches(conditions.if_tags, tags):
        return Outcome.FAILED
    return Outcome.MET


def check_read(
    conditions: ConditionalHeaders, etag: str, last_modified: int, tags: Mapping[str, str], matches: TagMatcher
) -> None:
    """Let a read of an existing blob pass. Raises BlobError: 304 or 412 ConditionNotMet, 400 UnsatisfiableCondition."""
    outcome = evaluate_read(conditions, etag, last_modified, tags, matches)
    if outcome is Outcome.NOT_MODIFIED:
        raise BlobError(ErrorCode.NOT_MODIFIED)
    if outcome is Outcome.FAILED:
        raise BlobError(ErrorCode.CONDITION_NOT_MET)


def check_absent(conditions: ConditionalHeaders) -> None:
    """Let a request on a blob that does not exist pass its conditions (whether it may be absent is another question).

    If-Match cannot hold, nor can a condition on tags; the others hold. Raises BlobError 412 ConditionNotMet.
    """
    if conditions.if_match or conditions.if_tags is not None:
        raise BlobError(ErrorCode.CONDITION_NOT_MET)


def check_write(
    conditions: ConditionalHeaders, etag: str, last_modified: int, tags: Mapping[str, str], matches: TagMatcher
) -> None:
    """Let a write to an existing blob pass.

    If-None-Match hides If-Modified-Since, and If-Match hides If-Unmodified-Since. `If-None-Match: *` passes here, as it
    does for Delete Blob and Set Blob Properties of the service; operations that create a blob call check_create.
    Raises BlobError: 412 ConditionNotMet, 400 MultipleConditionHeadersNotSupported.
    """
    if conditions is NO_CONDITIONS:
        return
    check_combination(conditions)
    if conditions.if_none_match:
        passed = conditions.if_none_match == _ANY or conditions.if_none_match[0] != etag
    elif conditions.if_match:
        passed = conditions.if_match == _ANY or conditions.if_match[0] == etag
    elif conditions.if_modified_since is not None:
        passed = last_modified > conditions.if_modified_since
    elif conditions.if_unmodified_since is not None:
        passed = last_modified <= conditions.if_unmodified_since
    else:
        passed = True
    if not passed or (conditions.if_tags is not None and not matches(conditions.if_tags, tags)):
        raise BlobError(ErrorCode.CONDITION_NOT_MET)


def check_create(
    conditions: ConditionalHeaders,
    etag: str,
    last_modified: int,
    tags: Mapping[str, str],
    matches: TagMatcher,
    *,
    lease_held: bool,
) -> None:
    """Let Put Blob, Put Block List or a copy replace an existing blob.

    As check_write, but `If-None-Match: *` is refused with 409 BlobAlreadyExists, unless the request holds the blob's
    active lease (`lease_held`): recordings of the service overwrite then.
    """
    if conditions.if_none_match == _ANY and not lease_held:
        check_combination(conditions)
        raise BlobError(ErrorCode.BLOB_ALREADY_EXISTS)
    check_write(conditions, etag, last_modified, tags, matches)


def check_combination(conditions: ConditionalHeaders) -> None:
    """Writes take one ETag, and either If-Match with If-Unmodified-Since or If-None-Match with If-Modified-Since.

    Raises BlobError 400 MultipleConditionHeadersNotSupported.
    """
    unchanged = bool(conditions.if_match) + (conditions.if_unmodified_since is not None)
    changed = bool(conditions.if_none_match) + (conditions.if_modified_since is not None)
    if (unchanged and changed) or len(conditions.if_match) > 1 or len(conditions.if_none_match) > 1:
        raise BlobError(ErrorCode.MULTIPLE_CONDITION_HEADERS_NOT_SUPPORTED)


def check_tier_changed(conditions: ConditionalHeaders, tier_changed: int) -> None:
    """Let Delete Blob pass its conditions on the tier, which was set or first inferred at `tier_changed`. Raises
    BlobError 412 ConditionNotMet."""
    modified, unmodified = conditions.if_modified_since, conditions.if_unmodified_since
    if modified is not None and tier_changed <= modified:
        raise BlobError(ErrorCode.CONDITION_NOT_MET)
    if unmodified is not None and tier_changed > unmodified:
        raise BlobError(ErrorCode.CONDITION_NOT_MET)


def check_source(
    conditions: ConditionalHeaders,
    etag: str,
    last_modified: int,
    tags: Mapping[str, str],
    matches: TagMatcher,
    *,
    asynchronous: bool,
) -> None:
    """Let a copy read its source. `asynchronous` is Copy Blob; the From URL operations have codes of their own.

    Raises BlobError: 412 SourceConditionNotMet for Copy Blob, else CannotVerifyCopySource with 304 or 412.
    """
    outcome = evaluate_read(conditions, etag, last_modified, tags, matches)
    if outcome is Outcome.MET:
        return
    if asynchronous:
        raise BlobError(ErrorCode.SOURCE_CONDITION_NOT_MET)
    if outcome is Outcome.NOT_MODIFIED:
        raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_304)
    raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412)


def check_container(conditions: ConditionalHeaders, last_modified: int, *, unmodified: bool = True) -> None:
    """Let an operation on a container pass: containers have conditions on dates only, and fail with 412.

    `unmodified` is False where the operation takes If-Modified-Since alone (Set Container Metadata). Raises BlobError:
    412 ConditionNotMet, 400 ConditionHeadersNotSupported for a header that the operation does not take.
    """
    if conditions is NO_CONDITIONS:
        return
    unsupported = bool(conditions.if_match or conditions.if_none_match or conditions.if_tags is not None)
    if unsupported or (conditions.if_unmodified_since is not None and not unmodified):
        raise BlobError(ErrorCode.CONDITION_HEADERS_NOT_SUPPORTED)
    if conditions.if_modified_since is not None and last_modified <= conditions.if_modified_since:
        raise BlobError(ErrorCode.CONDITION_NOT_MET)
    if conditions.if_unmodified_since is not None and last_modified > conditions.if_unmodified_since:
        raise BlobError(ErrorCode.CONDITION_NOT_MET)
