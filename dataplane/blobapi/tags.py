"""Blob index tags: the x-ms-tags header and the XML of Get and Set Blob Tags.

Rules (REST page "Set Blob Tags"): at most ten, keys of 1 to 128 and values of 0 to 256 characters, case-sensitive, from
letters, digits, space and `+ - . / : = _`. A set that passed here needs no escaping in XML.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote_plus, unquote_to_bytes

from dataplane.blobapi import limits, xmlcodec
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import EMPTY

HEADER: Final = "x-ms-tags"
_CHARS: Final = re.compile(r"[A-Za-z0-9 +\-./:=_]*\Z")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def checked(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """A tag set from its pairs.

    Raises BlobError TagsTooLarge, EmptyTagName, InvalidTags, DuplicateTagNames.
    """
    found: dict[str, str] = {}
    for key, value in pairs:
        if not key:
            raise BlobError(ErrorCode.EMPTY_TAG_NAME)
        if len(key) > limits.tag_key_chars_max or len(value) > limits.tag_value_chars_max:
            raise BlobError(ErrorCode.TAGS_TOO_LARGE)
        if not permitted(key) or not permitted(value):
            raise BlobError(ErrorCode.INVALID_TAG)
        if key in found:
            raise BlobError(ErrorCode.DUPLICATE_TAG_NAMES)
        found[key] = value
        if len(found) > limits.tags_count_max:
            raise BlobError(ErrorCode.TAGS_TOO_LARGE)
    return found or EMPTY


def permitted(text: str) -> bool:
    """Whether a key or value has only characters that tags may have."""
    return _CHARS.match(text) is not None


def from_header(value: str | None) -> Mapping[str, str]:
    """The tags of an x-ms-tags header, which is encoded like a query string. None and "" mean no tags.

    Raises BlobError as `checked`, and InvalidHeaderValue when it is not of that form.
    """
    if not value:
        return EMPTY
    pairs = []
    for part in value.split("&"):
        key, equals, text = part.partition("=")
        if not equals:
            raise _bad_header(value)
        pairs.append((_decoded(key, value), _decoded(text, value)))
    return checked(pairs)


def to_header(tags: Mapping[str, str]) -> str:
    """The form of x-ms-tags (used when blobs are sent on to Azure)."""
    return "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in tags.items())


def parse(body: bytes) -> Mapping[str, str]:
    """The tags of a Set Blob Tags body; an empty TagSet removes them all.

    Raises BlobError as `checked`, and those of the XML reader.
    """
    root = xmlcodec.parse(body, "Tags", limits.tags_xml_bytes_max)
    root.only(("TagSet",))
    tag_set = root.required("TagSet")
    tag_set.only(("Tag",))
    pairs = []
    for tag in tag_set.children:
        tag.only(("Key", "Value"))
        key, value = tag.required("Key"), tag.required("Value")
        key.only(())
        value.only(())
        pairs.append((key.text, value.text))  # blanks are part of tags
    return checked(pairs)


def tag_set(tags: Mapping[str, str]) -> str:
    """The TagSet element, as in Get Blob Tags, listings and Find Blobs."""
    if not tags:
        return "<TagSet />"
    items = "".join(f"<Tag><Key>{key}</Key>{xmlcodec.node('Value', value)}</Tag>" for key, value in tags.items())
    return f"<TagSet>{items}</TagSet>"


def render(tags: Mapping[str, str]) -> bytes:
    """The body of Get Blob Tags."""
    return xmlcodec.document(["<Tags>", tag_set(tags), "</Tags>"])


def _decoded(text: str, header: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise _bad_header(header)
    try:
        return unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeDecodeError:
        raise BlobError(ErrorCode.INVALID_TAG) from None


def _bad_header(value: str) -> BlobError:
    return BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=HEADER, header_value=value)
