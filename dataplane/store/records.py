"""The record of a blob: everything that its bytes do not say, as one checksummed line keyed by the file's seal.

A seal is (inode, size, mtime in nanoseconds). A record counts only for a file with that very seal, so it follows a file
that somebody renames and dies with a change that somebody makes. A line is

    blobedge1 <crc32 of the rest, 8 hexadecimal digits> <JSON object>

and a value of several lines holds the newest first: while properties change, the record of the coming seal and that of
the present one stand side by side. The JSON keys are in docs/on-disk-format.md. A line that does not parse, or says
what this program would not have written (trust.py), is skipped, never guessed at: its file is then served as one that
another writer made.
Rejected: pickle (unsafe to read from a shared mount), a binary codec (not readable without this program; json decodes a
record in about 3 us).
"""

import base64
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dataplane.blobapi.model import EMPTY, AccessTier, BlobProperties, CopyState, CopyStatus, Remote
from dataplane.store import trust

_MAGIC: Final = b"blobedge1 "
VERSION: Final = 1
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


class Seal(NamedTuple):
    """What ties a record to a file's content. Equal seals mean an unchanged file, as far as a mount can tell."""

    inode: int
    size: int
    mtime_ns: int


def seal_of(stat: os.stat_result) -> Seal:
    """The seal of a file as fstat(2) shows it."""
    return Seal(stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Record:
    """One decoded line. `name_hash` tells which blob it was written for."""

    seal: Seal
    name_hash: str
    properties: BlobProperties


def name_hash(container: str, name: str) -> str:
    """Ties a record to a name where an inode number alone could belong to another file by now."""
    return blake2b(f"{container}/{name}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def encode(record: Record) -> bytes:
    """One line, newline included."""
    body = _ENCODER.encode(_to_json(record)).encode("utf-8", "surrogateescape")
    return b"%s%08x %s\n" % (_MAGIC, zlib.crc32(body), body)


def decode(value: bytes) -> list[Record]:
    """All records of a value that are whole; damaged lines and those of other versions are left out."""
    return [record for line in value.split(b"\n") if (record := _decode_line(line)) is not None]


def _decode_line(line: bytes) -> Record | None:
    if not line.startswith(_MAGIC):
        return None
    crc, _, body = line[len(_MAGIC) :].partition(b" ")
    try:
        if int(crc, 16) != zlib.crc32(body):
            return None
        record = _from_json(json.loads(body.decode("utf-8", "surrogateescape")))
        trust.check_blob(record.properties)
        if record.properties.remote is not None and record.seal.size != 0:
            return None  # a stub is empty
    except trust.MALFORMED:
        return None
    return record


def _to_json(record: Record) -> dict[str, Any]:
    p = record.properties
    fields: dict[str, Any] = {
        "seal": list(record.seal),
        "name": record.name_hash,
        "etag": p.etag,
        "modified": p.last_modified,
        "created": p.created,
        "type": p.content_type,
        "encoding": p.content_encoding,
        "language": p.content_language,
        "disposition": p.content_disposition,
        "cache": p.cache_control,
        "md5": base64.b64encode(p.content_md5).decode() if p.content_md5 else "",
        "meta": dict(p.metadata),
        "tags": dict(p.tags),
        "tier": p.access_tier.value if p.access_tier else "",
        "tier_changed": p.tier_changed,
        "rehydrate": [p.rehydrate_to.value, p.rehydrate_priority] if p.rehydrate_to else None,
        "copy": _copy_to_json(p.copy) if p.copy else None,
        "blocks": p.block_list,
        "remote": _remote_to_json(p.remote) if p.remote else None,
    }
    return {key: value for key, value in fields.items() if value not in ("", None, {})}


def _copy_to_json(copy: CopyState) -> list[Any]:
    return [copy.copy_id, copy.source, copy.status.value, copy.bytes_copied, copy.bytes_total, copy.completed,
            copy.description]  # fmt: skip


def _remote_to_json(remote: Remote) -> list[Any]:
    return [remote.size, base64.b64encode(remote.md5).decode(), remote.etag, remote.container, remote.name,
            remote.version, remote.mtime_ns, remote.mode]  # fmt: skip


def _remote_from_json(value: list[Any]) -> Remote:
    size, md5, *rest = value
    return Remote(size, base64.b64decode(md5), *rest)


def _from_json(data: dict[str, Any]) -> Record:
    get = data.get
    inode, size, mtime_ns = data["seal"]
    rehydrate, copy, tier, remote = get("rehydrate"), get("copy"), get("tier"), get("remote")
    properties = BlobProperties(
        etag=data["etag"],
        last_modified=data["modified"],
        created=data["created"],
        content_type=get("type", ""),
        content_encoding=get("encoding", ""),
        content_language=get("language", ""),
        content_disposition=get("disposition", ""),
        cache_control=get("cache", ""),
        content_md5=base64.b64decode(data["md5"]) if "md5" in data else None,
        metadata=_mapping(get("meta")),
        tags=_mapping(get("tags")),
        access_tier=AccessTier(tier) if tier else None,
        tier_changed=get("tier_changed"),
        rehydrate_to=AccessTier(rehydrate[0]) if rehydrate else None,
        rehydrate_priority=rehydrate[1] if rehydrate else "",
        copy=CopyState(copy[0], copy[1], CopyStatus(copy[2]), *copy[3:7]) if copy else None,
        block_list=get("blocks", ""),
        remote=_remote_from_json(remote) if remote else None,
    )
    return Record(Seal(inode, size, mtime_ns), get("name", ""), properties)


def _mapping(value: dict[str, str] | None) -> Mapping[str, str]:
    return MappingProxyType(value) if value else EMPTY
