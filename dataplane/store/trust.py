"""Whether properties read from a mount may be believed.

Whoever can write a file on the mount can also write its record, with a right checksum. What such a record says goes
into headers and XML, and into calculations, so it has to be what this program would have written: text without control
characters, times that have a date, metadata and tags by their own rules. Nothing is repaired: a record that is not
right in every part is none, and its file is served as one that another writer made.
"""

import re
from collections.abc import Mapping
from typing import Final

from dataplane.blobapi import metadata, tags
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.model import BlobProperties, ContainerProperties, CopyState, Lease, Remote

SECONDS_MAX: Final = 253_402_300_799  # the last second of the year 9999: later ones have no RFC 1123 form
_BYTES_MAX: Final = 1 << 62
_TEXT_CHARS_MAX: Final = 32 * 1024
_MD5_BYTES: Final = 16
_MODE_MAX: Final = 0o7777

#: What no header of a client can have put there: control characters but a tab, and surrogates that stand for no byte.
_HOSTILE: Final = re.compile("[\0-\x08\x0a-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")
_ETAG: Final = re.compile(r"[!#-%'-;=?-~]{1,64}\Z")  # RFC 9110 section 8.8.3, without what XML would have to escape


def check_blob(properties: BlobProperties) -> None:
    """Raises ValueError or BlobError for properties that this program would not have written."""
    p = properties
    _check_etag(p.etag)
    _check_texts(
        p.content_type, p.content_encoding, p.content_language, p.content_disposition, p.cache_control,
        p.rehydrate_priority, p.block_list,
    )  # fmt: skip
    _check_seconds(p.last_modified, p.created)
    if p.tier_changed is not None:
        _check_seconds(p.tier_changed)
    if p.content_md5 is not None and len(p.content_md5) != _MD5_BYTES:
        raise ValueError("not an MD5")
    if p.metadata:
        _check_metadata(p.metadata)
    if p.tags:
        _check_mapping(p.tags)
        tags.checked(p.tags.items())
    if p.copy is not None:
        _check_copy(p.copy)
    if p.remote is not None:
        _check_remote(p.remote)


def check_container(properties: ContainerProperties) -> None:
    """The same for a container."""
    _check_etag(properties.etag)
    _check_seconds(properties.last_modified)
    if type(properties.metadata) is not dict:
        raise ValueError("not metadata")
    _check_metadata(properties.metadata)
    for policy in properties.policies:
        _check_texts(policy.policy_id, policy.start or "", policy.expiry or "", policy.permissions or "")
    if properties.lease is not None:
        check_lease(properties.lease)


def check_lease(lease: Lease) -> None:
    """The same for a lease."""
    _check_texts(lease.lease_id, lease.broken_etag)
    for seconds in (lease.expires, lease.breaks):
        if seconds is not None:
            _check_seconds(seconds)


def _check_copy(copy: CopyState) -> None:
    _check_texts(copy.copy_id, copy.source, copy.description)
    for count in (copy.bytes_copied, copy.bytes_total):
        if type(count) is not int or not 0 <= count <= _BYTES_MAX:
            raise ValueError("not a number of bytes")
    if copy.completed is not None:
        _check_seconds(copy.completed)


def _check_remote(remote: Remote) -> None:
    _check_texts(remote.container, remote.name)
    f"{remote.container}/{remote.name}".encode()  # bytes that are no text name nothing in the cloud
    _check_etag(remote.etag)
    _check_etag(remote.version)
    if len(remote.md5) != _MD5_BYTES or not remote.container or not remote.name:
        raise ValueError("not a place in the cloud")
    for number, most in ((remote.size, _BYTES_MAX), (remote.mode, _MODE_MAX)):
        if type(number) is not int or not 0 <= number <= most:
            raise ValueError("not a number of a stub")
    if type(remote.mtime_ns) is not int or abs(remote.mtime_ns) > SECONDS_MAX * 1_000_000_000:
        raise ValueError("not a time")


def _check_etag(etag: object) -> None:
    if type(etag) is not str or _ETAG.match(etag) is None:
        raise ValueError("not an ETag")


def _check_texts(*texts: object) -> None:
    for text in texts:
        if type(text) is not str or len(text) > _TEXT_CHARS_MAX:
            raise ValueError("not a text")
        if text and not (text.isascii() and text.isprintable()) and _HOSTILE.search(text):
            raise ValueError("text with control characters")


def _check_seconds(*times: object) -> None:
    for seconds in times:
        if type(seconds) is not int or not 0 <= seconds <= SECONDS_MAX:
            raise ValueError("not a time")


def _check_mapping(mapping: Mapping[str, str]) -> None:
    if not all(type(key) is str and type(value) is str for key, value in mapping.items()):
        raise ValueError("not text to text")


def _check_metadata(mapping: Mapping[str, str]) -> None:
    _check_mapping(mapping)
    metadata.from_headers({metadata.PREFIX + name: text for name, text in mapping.items()})


#: What reading a document of the wrong shape may raise.
MALFORMED: Final = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    BlobError,
)
