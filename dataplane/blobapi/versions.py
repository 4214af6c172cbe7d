"""x-ms-version: which versions are taken, and which one a request is answered as.

Any well-formed date from 2014-02-14 on is accepted, also ones newer than anything known here: clients run ahead of
servers, and refusing them is what the neighbours' users complain of most. The request's version is echoed. Versions are
compared as strings, which for ISO dates is comparing them as dates.
Source: REST page "Versioning for Azure Storage".
"""

import re
from typing import Final

from dataplane.blobapi.errors import BlobError, ErrorCode

OLDEST: Final = "2014-02-14"
#: What a request without x-ms-version is answered as (anonymous reads; SAS requests take their sv).
NEWEST: Final = "2026-10-06"

_FORM = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\Z")


def echoed_version(text: str | None) -> str:
    """The version to put on the answer to a request that was refused before its version counted for anything."""
    return text if text is not None and _FORM.match(text) is not None else NEWEST


def accepted_version(text: str | None, sas_version: str | None = None) -> str:
    """The version to answer as. `sas_version` is the token's `sv`, which counts when the header is absent.

    Raises BlobError InvalidHeaderValue for anything that is not a date or is too old.
    """
    if text is None:
        return sas_version if sas_version is not None and _FORM.match(sas_version) else NEWEST
    if _FORM.match(text) is None or text < OLDEST:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name="x-ms-version", header_value=text)
    return text
