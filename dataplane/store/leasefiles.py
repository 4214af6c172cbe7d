"""Leases of blobs. They belong to the name, not to the file: overwriting a blob keeps its lease.

A container without leases has no directory for them, so that a reader of an ordinary container pays one access(2).
"""

import os
import secrets
from typing import Final

from dataplane.blobapi.model import Lease
from dataplane.store import smallfile, trust
from dataplane.store.errors import translated
from dataplane.store.fileio import write_all
from dataplane.store.mount import DIRECTORY
from dataplane.store.place import Place, blob_key

MAGIC: Final = "blobedge-lease1"


def to_json(lease: Lease) -> dict[str, object]:
    """A lease as it is stored, in a file of its own or in a container's document."""
    return {
        "id": lease.lease_id,
        "duration": lease.duration,
        "expires": lease.expires,
        "breaks": lease.breaks,
        "released": lease.released,
        "modified_since": lease.modified_since,
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
    )


def read(place: Place, name: str) -> Lease | None:
    """The lease of a blob, None when it never had one or it was removed."""
    mount = place.mount
    if mount.read_only or not os.access(place.private("leases"), os.F_OK, dir_fd=mount.containers_fd):
        return None
    data = smallfile.read(mount.containers_fd, place.private("leases", blob_key(name)))
    document = smallfile.decode(MAGIC, data) if data is not None else None
    if document is None:
        return None
    try:
        lease = from_json(document)
        trust.check_lease(lease)
    except trust.MALFORMED:
        return None
    return lease


def leased_keys(place: Place) -> frozenset[str]:
    """The keys of all blobs that have a lease document: what a listing looks at instead of asking for each blob."""
    try:
        fd = os.open(place.private("leases"), DIRECTORY, dir_fd=place.mount.containers_fd)
    except OSError:
        return frozenset()
    try:
        return frozenset(os.listdir(fd))
    finally:
        os.close(fd)


def write(place: Place, name: str, lease: Lease | None) -> list[int]:
    """Replace the lease, by rename. Returns descriptors of directories to fsync and close."""
    directory_fd = place.mount.containers_fd
    directory = place.private("leases")
    path = f"{directory}/{blob_key(name)}"
    with translated("write lease"):
        changed = smallfile.make_directories(directory_fd, directory)
        if lease is None:
            try:
                os.unlink(path, dir_fd=directory_fd)
            except FileNotFoundError:
                return changed
        else:
            _replace(place, path, smallfile.encode(MAGIC, to_json(lease)))
        changed.append(os.open(directory, DIRECTORY, dir_fd=directory_fd))
    return changed


def _replace(place: Place, path: str, data: bytes) -> None:
    mount = place.mount
    temporary = secrets.token_hex(12)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=mount.staging_fd)
    try:
        write_all(fd, data)
        if place.durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path, src_dir_fd=mount.staging_fd, dst_dir_fd=mount.containers_fd)
