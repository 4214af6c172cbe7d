"""A blob as it is now: found, opened and described, and its snapshots with it. Nothing here changes anything.

The state is that of the file that is open: a blob is replaced, never rewritten, so who holds the descriptor has one
version and its description, whatever is written meanwhile.
"""

import os
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from dataplane.blobapi.dates import parse_iso_ticks
from dataplane.blobapi.model import BlobState
from dataplane.store import files, leasefiles
from dataplane.store.files import Found, Missing
from dataplane.store.mount import PRIVATE
from dataplane.store.place import Place, blob_key
from dataplane.store.trash import list_names

SNAPSHOT_DIRECTORY: Final = "snapshots"
_SNAPSHOT_NAME: Final = re.compile(r"[01][0-9a-f]{15}\Z")  # ticks before the year 9,000; others have no date
_STATE_ATTEMPTS_MAX: Final = 8


class BlobRef(NamedTuple):
    """A blob, or one of its snapshots (the snapshot's id as on the wire)."""

    container: str
    name: str
    snapshot: str = ""


@dataclass(slots=True)
class OpenBlob:
    """An open blob and its state at that moment. The descriptor is a consistent version: blobs are replaced, not
    rewritten. Whoever has it closes it, or hands it on in a FileBody."""

    fd: int
    state: BlobState

    def close(self) -> None:
        os.close(self.fd)


def open_blob(place: Place, name: str, snapshot: str = "") -> tuple[Found, BlobState] | None:
    """Open a blob or a snapshot and read its state. None when there is none."""
    found, state = find_state(place, name, snapshot)
    return None if isinstance(found, Missing) or state is None else (found, state)


def find_state(place: Place, name: str, snapshot: str) -> tuple[Found | Missing, BlobState | None]:
    """The same, telling where a blob that is not there would be.

    A file without a record is another writer's, or it was replaced or changed by one of us since it was opened, and its
    record went. So only a file that is still in place is believed to have none; one that changes without end is
    described as it was last seen.
    """
    attempts_left = _STATE_ATTEMPTS_MAX
    while True:
        found = _find_snapshot(place, name, snapshot) if snapshot else files.find(place, name)
        if isinstance(found, Missing):
            return found, None
        state = read_state(place, name, found, snapshot)
        attempts_left -= 1
        if not state.properties.foreign or attempts_left == 0 or files.is_in_place(place.mount, found):
            return found, state
        os.close(found.fd)


def read_state(place: Place, name: str, found: Found, snapshot: str = "") -> BlobState:
    """The state of an open blob; closes it when that fails."""
    try:
        properties = files.properties(place, name, found)
        lease = None if snapshot else leasefiles.read_with(place, name, properties.etag)
        return BlobState(name, files.logical_size(found.seal, properties), properties, lease, snapshot)
    except BaseException:
        os.close(found.fd)
        raise


def snapshot_path(place: Place, name: str, snapshot: str) -> str | None:
    """Where a snapshot is, relative to the mount; None when the id is no instant."""
    ticks = parse_iso_ticks(snapshot)
    if ticks is None or ticks < 0:
        return None
    return f"{PRIVATE}/containers/{place.private(SNAPSHOT_DIRECTORY, blob_key(name))}/{ticks:016x}"


def snapshot_ticks(place: Place, name: str) -> list[int]:
    """The snapshots of a blob, oldest first, as ticks of 100 ns."""
    if place.mount.read_only:
        return []
    entries = list_names(place.mount.containers_fd, place.private(SNAPSHOT_DIRECTORY, blob_key(name)))
    return sorted(int(entry, 16) for entry in entries if _SNAPSHOT_NAME.match(entry))


def _find_snapshot(place: Place, name: str, snapshot: str) -> Found | Missing:
    path = None if place.mount.read_only else snapshot_path(place, name, snapshot)
    if path is None:
        return Missing("")
    opened = files.open_regular(place.mount, path)
    return Missing(path) if isinstance(opened, int) else Found(opened[0], path, opened[1])


def container_exists(place: Place) -> bool:
    """Whether the container's directory is there."""
    fd = files.open_directory(place.mount, place.directory)
    if fd is not None:
        os.close(fd)
    return fd is not None
