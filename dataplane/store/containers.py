"""Containers: a directory with the container's name, and a private document of what else is known of it.

A directory that somebody made on the mount is a container too; its document is written when something changes. Creating
makes the private document first and the directory last; deleting moves the directory into the trash first: the
directory's existence is the one thing that decides. A document without a directory is an older container's, and goes to
the trash when the name is used again, so that nothing of an old container shows in a new one.

A document that does not read leaves its container closed, never open: private, without policies, and leased by nobody
known, so that it can be read with the account's key and is not deleted before Break Lease.
"""

import os
from collections.abc import Callable
from typing import Any, Final

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.etag import foreign_etag
from dataplane.blobapi.model import AccessPolicy, ContainerProperties, ContainerState, PublicAccess
from dataplane.store import files, leasefiles, smallfile, trust
from dataplane.store.commit import Job, Subject
from dataplane.store.errors import translated
from dataplane.store.fileio import fsync
from dataplane.store.mount import DIRECTORY, Mount
from dataplane.store.place import Place
from dataplane.store.trash import Trash

MAGIC: Final = "blobedge-container1"
_DOCUMENT: Final = "properties"


def read(place: Place) -> ContainerState | None:
    """The container at this moment, None when its directory is not there."""
    fd = files.open_directory(place.mount, place.directory)
    if fd is None:
        return None
    try:
        with translated("stat"):
            status = os.fstat(fd)
    finally:
        os.close(fd)
    data = None if place.mount.read_only else smallfile.read(place.mount.containers_fd, place.private(_DOCUMENT))
    document = smallfile.decode(MAGIC, data) if data is not None else None
    properties = _from_json(document) if document is not None else None
    if properties is None:
        lease = None if data is None else leasefiles.UNREADABLE
        etag = foreign_etag(status.st_ino, 0, status.st_ino)
        properties = ContainerProperties(etag, int(status.st_ctime), lease=lease)
    return ContainerState(place.container, properties, place.read_only)


def _to_json(properties: ContainerProperties) -> dict[str, Any]:
    return {
        "etag": properties.etag,
        "modified": properties.last_modified,
        "meta": dict(properties.metadata),
        "public": properties.public_access.value,
        "policies": [[p.policy_id, p.start, p.expiry, p.permissions] for p in properties.policies],
        "lease": leasefiles.to_json(properties.lease) if properties.lease is not None else None,
    }


def _from_json(document: dict[str, Any]) -> ContainerProperties | None:
    """None for a document that is not one of ours: the container then has no metadata, no policies and no public
    access."""
    try:
        properties = ContainerProperties(
            etag=document["etag"],
            last_modified=document["modified"],
            metadata=document["meta"],
            public_access=PublicAccess(document["public"]),
            policies=tuple(AccessPolicy(*fields) for fields in document["policies"]),
            lease=leasefiles.from_json(document["lease"]) if document["lease"] is not None else None,
        )
        trust.check_container(properties)
    except trust.MALFORMED:
        return None
    return properties


class _ContainerJob(Job[Any]):
    def __init__(self, place: Place, trash: Trash) -> None:
        super().__init__()
        self.place: Final = place
        self.mount: Mount = place.mount
        self.trash: Final = trash
        self.durable = place.durable

    def subject(self) -> Subject:
        return Subject(self.place.container, "")

    def sync_after(self, key: str, fd: int) -> None:
        self.own(fd)
        self.directory_fds.setdefault(f"{id(self.mount)}:{key}", fd)

    def write_document(self, properties: ContainerProperties) -> None:
        containers_fd, staging_fd = self.mount.containers_fd, self.mount.staging_fd
        directory, data = self.place.private(), smallfile.encode(MAGIC, _to_json(properties))
        for path, fd in smallfile.make_directories(containers_fd, directory).items():
            self.sync_after(f"private:{path}", fd)
        smallfile.replace(staging_fd, containers_fd, self.place.private(_DOCUMENT), data, self.durable)
        self.sync_after(f"private:{directory}", os.open(directory, DIRECTORY, dir_fd=containers_fd))


class CreateJob(_ContainerJob):
    """Create a container; the result is False when it exists."""

    def __init__(self, place: Place, trash: Trash, properties: ContainerProperties) -> None:
        super().__init__(place, trash)
        self._properties: Final = properties

    def publish(self) -> bool:
        with self.mount.lock(self.place.container_lock_key()):
            if read(self.place) is not None:
                return False
            self.trash.take(self.mount.containers_fd, self.place.private())
            self.write_document(self._properties)
            if self.durable:
                for fd in self.directory_fds.values():
                    fsync(fd)
            with translated("mkdir"):
                try:
                    os.mkdir(self.place.directory, 0o755, dir_fd=self.mount.root_fd)
                except FileExistsError:  # a file or a link of that name, put there by somebody
                    raise BlobError(ErrorCode.CONTAINER_ALREADY_EXISTS) from None
            self.sync_after("root", os.dup(self.mount.root_fd))
            return True


class UpdateContainerJob(_ContainerJob):
    """New properties for a container."""

    def __init__(
        self, place: Place, trash: Trash, decide: Callable[[ContainerState | None], ContainerProperties]
    ) -> None:
        super().__init__(place, trash)
        self._decide: Final = decide

    def publish(self) -> ContainerState:
        with self.mount.lock(self.place.container_lock_key()):
            state = read(self.place)
            properties = self._decide(state)
            assert state is not None  # decide refuses a missing container
            self.write_document(properties)
            return ContainerState(state.name, properties, state.read_only)


class DeleteContainerJob(_ContainerJob):
    """Delete a container with all that is in it, at once for every caller; the removal goes on behind."""

    def __init__(self, place: Place, trash: Trash, decide: Callable[[ContainerState | None], None]) -> None:
        super().__init__(place, trash)
        self._decide: Final = decide

    def publish(self) -> None:
        with self.mount.lock(self.place.container_lock_key()):
            self._decide(read(self.place))
            if not self.place.prefix:  # a mapped directory is the operator's: it is neither moved nor emptied
                raise BlobError(ErrorCode.AUTHORIZATION_FAILURE)
            self.trash.take(self.mount.root_fd, self.place.directory)
            if self.durable:  # before the rest, or a crash could show the container without what belongs to it
                fsync(self.mount.root_fd)
            self.trash.take(self.mount.containers_fd, self.place.private())
            self.sync_after("private:.", os.dup(self.mount.containers_fd))
