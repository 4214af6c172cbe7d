"""The parameters that listings share: maxresults and include.

Sources: REST pages "List Blobs", "List Containers" and "Find Blobs by Tags". What a client asks for and this service
has none of (versions, soft-deleted blobs, legal holds) is accepted and adds nothing; a name that no version of the
service knows is refused, because it may be a misspelt one.
"""

import re
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode

_NUMBER: Final = re.compile(r"-?\d{1,19}\Z", re.ASCII)
_INT32_MAX: Final = 2**31 - 1

LIST_BLOBS_INCLUDE: Final = frozenset(
    {
        "metadata", "tags", "copy", "snapshots", "uncommittedblobs",
        "deleted", "versions", "deletedwithversions", "immutabilitypolicy", "legalhold", "permissions",
    }
)  # fmt: skip
LIST_CONTAINERS_INCLUDE: Final = frozenset({"metadata", "deleted", "system"})


def max_results(text: str | None) -> tuple[int | None, int]:
    """(what the answer repeats, how many results a page may have). A value above 5,000 counts as 5,000.

    Raises BlobError InvalidQueryParameterValue for what is no number, OutOfRangeQueryParameterValue below 1.
    """
    if not text:
        return None, limits.list_results_max
    if _NUMBER.match(text) is None:
        raise BlobError(
            ErrorCode.INVALID_QUERY_PARAMETER_VALUE,
            query_name="maxresults",
            query_value=text[: limits.xml_error_value_chars_max],
            reason="Invalid integer value.",
        )
    number = int(text)
    if not 1 <= number <= _INT32_MAX:
        raise BlobError(
            ErrorCode.OUT_OF_RANGE_QUERY_PARAMETER_VALUE,
            query_name="maxresults",
            query_value=text,
            detail=(("MinimumAllowed", "1"), ("MaximumAllowed", str(_INT32_MAX))),
        )
    return number, min(number, limits.list_results_max)


def include(text: str | None, known: frozenset[str]) -> frozenset[str]:
    """The datasets of `include`, in lower case; none of it and an empty one mean none.

    Raises BlobError InvalidQueryParameterValue for a name outside `known`.
    """
    names = frozenset(name.strip().lower() for name in (text or "").split(",")) - {""}
    if not names <= known:
        raise BlobError(
            ErrorCode.INVALID_QUERY_PARAMETER_VALUE,
            query_name="include",
            query_value=(text or "")[: limits.xml_error_value_chars_max],
            reason="Invalid query parameter value.",
        )
    return names
