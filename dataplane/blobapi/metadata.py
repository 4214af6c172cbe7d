"""User metadata: x-ms-meta-* headers to a mapping and back.

Rules (REST pages "Naming and Referencing Containers, Blobs, and Metadata" and "Setting and Retrieving Properties and
Metadata for Blob Resources"): a name is a C# identifier, compared without case and kept as it arrives; a value is
printable ASCII, blanks around it do not count; names and values together have at most 8 KiB. Metadata that passed here
can be written into a header or into XML without another look.
"""

import re
from collections.abc import Mapping
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import EMPTY

PREFIX: Final = "x-ms-meta-"
#: Letters outside ASCII are C# identifiers too, but cannot be header names (RFC 9110 section 5.1).
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*\Z")


def from_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The metadata that a request sets, empty when it has no such header.

    Raises BlobError EmptyMetadataKey, InvalidMetadata, MetadataTooLarge.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    size = 0
    for header, value in headers.items():
        if header[: len(PREFIX)].lower() != PREFIX:
            continue
        name, value = header[len(PREFIX) :], value.strip(" \t")
        if not name:
            raise BlobError(ErrorCode.EMPTY_METADATA_KEY)
        if _NAME.match(name) is None or _VALUE.match(value) is None or name.lower() in seen:
            raise BlobError(ErrorCode.INVALID_METADATA)
        seen.add(name.lower())
        size += len(name) + len(value)
        found[name] = value
    if size > limits.metadata_bytes_max:
        raise BlobError(ErrorCode.METADATA_TOO_LARGE)
    return found or EMPTY


def to_headers(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers of an answer, in the order in which they were set."""
    return [(PREFIX + name, value) for name, value in metadata.items()]
