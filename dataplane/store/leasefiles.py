"""Leases of blobs. They belong to the name, not to the file: overwriting a blob keeps its lease.

A container without leases has no directory for them, so that a reader of an ordinary container pays one failing open.

A lease document that does not read (a flipped bit, a newer format) does not read as "no lease": who holds one relies on
nobody else writing. It stands for a lease without end whose id nobody knows, so that reads go on, writes are refused,
and Break Lease ends it.
"""

import os
from typing import Final

from dataplane.blobapi import leases
from dataplane.blobapi.model import Lease
from dataplane.store import smallfile, syscalls, trust
from dataplane.store.errors import translated
from dataplane.store.mount import DIRECTORY
from dataplane.store.place import Place, blob_key

MAGIC: Final = "blobedge-lease1"
UNREADABLE: Final = Lease("unreadable", -1, None)  # no GUID, so no request can name it


def to_json(lease: Lease) -> dict[str, object]:
    """A lease as it is stored, in a file of its own or in a container's document."""
    return {
        "id": lease.lease_id,
        "duration": lease.duration,
        "expires": lease.expires,
        "breaks": lease.breaks,
        "released": lease.released,
        "modified_since": lease.modified_since,
        "broken_etag": lease.broken_etag,
    }


def from_json(document: dict[str, object]) -> Lease:
    """Raises one of trust.MALFORMED for something else."""
    expires, breaks = document["expires"], document["breaks"]
    return Lease(
        lease_id=str(document["id"]),
        duration=int(str(document["duration"])),
        expires=None if expires is None else int(str(expires)),
        breaks=None if breaks is None else int(str(breaks)),
        released=bool(document["released"]),
        modified_since=bool(document["modified_since"]),
        broken_etag=str(document.get("broken_etag", "")),
    )


def read(place: Place, name: str) -> Lease | None:
    """The lease of a blob, None when it never had one or it was removed."""
    mount = place.mount
    if mount.read_only:
        return None
    quick = mount.capabilities.local
    if syscalls.certainly_absent(mount.containers_fd, place.private("leases"), quick=quick):
        return None  # no blob of the container ever had one: the usual case costs one short call
    data = smallfile.read(mount.containers_fd, place.private("leases", blob_key(name)))
    return _decode(data) if data is not None else None


def read_with(place: Place, name: str, etag: str) -> Lease | None:
    """The same as the blob has it while its ETag is this one: a write ends a broken lease."""
    return leases.seen_with(read(place, name), etag)


def _decode(data: bytes) -> Lease:
    document = smallfile.decode(MAGIC, data)
    if document is None:
        return UNREADABLE
    try:
        lease = from_json(document)
        trust.check_lease(lease)
    except trust.MALFORMED:
        return UNREADABLE
    return lease


def leased_keys(place: Place) -> frozenset[str]:
    """The keys of all blobs that have a lease document: what a listing looks at instead of asking for each blob."""
    try:
        fd = os.open(place.private("leases"), DIRECTORY, dir_fd=place.mount.containers_fd)
    except FileNotFoundError:
        return frozenset()
    try:
        return frozenset(os.listdir(fd))
    finally:
        os.close(fd)


def write(place: Place, name: str, lease: Lease | None) -> dict[str, int]:
    """Replace the lease, by rename, or remove it. Returns descriptors of directories to fsync and close, by their
    paths. Raises StoreError."""
    directory_fd = place.mount.containers_fd
    directory = place.private("leases")
    path = f"{directory}/{blob_key(name)}"
    changed = smallfile.make_directories(directory_fd, directory)
    try:
        with translated("write lease"):
            if lease is None:
                try:
                    os.unlink(path, dir_fd=directory_fd)
                except FileNotFoundError:
                    return changed
            else:
                data = smallfile.encode(MAGIC, to_json(lease))
                smallfile.replace(place.mount.staging_fd, directory_fd, path, data, place.durable)
            changed[directory] = os.open(directory, DIRECTORY, dir_fd=directory_fd)
    except BaseException:
        smallfile.close_all(changed)
        raise
    return changed
