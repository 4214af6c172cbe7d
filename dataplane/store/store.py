"""The store of one account: what the server and the tools call.

Reads are plain calls. Writes are Jobs: hand them to a GroupCommitter, or to `run` where one at a time will do.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeVar

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState, Block, ContainerProperties, ContainerState, Lease, Remote
from dataplane.blobapi.uri import check_container_name
from dataplane.store import blobstate, blocks, commit, containers, listing, smallfile, swap
from dataplane.store.blobjob import DecideProperties
from dataplane.store.blobstate import BlobRef, OpenBlob
from dataplane.store.blocks import CommitJob, PutBlockJob
from dataplane.store.commit import Job
from dataplane.store.deletejob import DeleteJob, DeleteScope
from dataplane.store.documents import DocumentJob
from dataplane.store.index import DirectoryIndex
from dataplane.store.leasejob import LeaseJob
from dataplane.store.listing import ListItem, ListPage
from dataplane.store.mount import Mount, RecordsOption
from dataplane.store.place import Place
from dataplane.store.putjob import PutJob
from dataplane.store.recordstore import REMEMBERED_COUNT
from dataplane.store.snapshotjob import SnapshotJob
from dataplane.store.staging import StagedFile
from dataplane.store.stubs import EvictJob, PlantJob, RecallJob, RetargetJob
from dataplane.store.trash import Trash, list_names
from dataplane.store.updatejob import UpdateJob

T = TypeVar("T")

_SERVICE_DOCUMENT: Final = "service"
_PLACES_COUNT_MAX: Final = 4096
EMPTY_MAPPING: Final[Mapping[str, bool]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MappedDirectory:
    """A container that is an existing directory elsewhere."""

    container: str
    path: str
    read_only: bool = False
    durable: bool = True


@dataclass(slots=True)
class _Tree:
    """A mount with what is remembered of it."""

    mount: Mount
    index: DirectoryIndex
    trash: Trash | None


class Store:
    """One account's containers: the directories of `root`, and directories mapped in from elsewhere."""

    def __init__(
        self,
        root: str,
        *,
        records: RecordsOption = "auto",
        durable: bool = True,
        mapped: Sequence[MappedDirectory] = (),
        durable_containers: Mapping[str, bool] = EMPTY_MAPPING,
        remembered_count: int = REMEMBERED_COUNT,
    ) -> None:
        """`durable_containers` says it for single containers, whatever holds for the account; `remembered_count` is
        how many records each mount keeps in memory. Raises OSError when a
        directory is missing or not writable, FormatTooNew."""
        self._durable: Final = durable
        self._durable_containers: Final = durable_containers
        self._main = _open_tree(root, records, False, remembered_count)
        self._mapped: Final[Mapping[str, tuple[_Tree, MappedDirectory]]] = {
            each.container: (_open_tree(each.path, records, each.read_only, remembered_count), each) for each in mapped
        }
        trees = (self._main, *(tree for tree, _ in self._mapped.values()))
        self._places: Final[dict[str, tuple[_Tree, Place]]] = {}
        self._local = all(tree.mount.capabilities.local for tree in trees)

    # --- the service -------------------------------------------------------------------------------------------

    @property
    def mount(self) -> Mount:
        """The mount of the account's root."""
        return self._main.mount

    def mounts(self) -> Iterator[tuple[str, Mount]]:
        """Every mount: the account's root as "", then the mapped containers by their names."""
        yield "", self._main.mount
        for name, (tree, _) in self._mapped.items():
            yield name, tree.mount

    def local(self) -> bool:
        """Whether metadata calls are short enough for an event loop."""
        return self._local

    def service_properties(self) -> bytes | None:
        """The stored service properties document, None when they were never set."""
        return smallfile.read(self._main.mount.private_fd, _SERVICE_DOCUMENT)

    def set_service_properties(self, data: bytes) -> Job[None]:
        """Replace the service properties document."""
        return DocumentJob(self._main.mount, _SERVICE_DOCUMENT, data, self._durable)

    # --- containers --------------------------------------------------------------------------------------------

    def container(self, name: str) -> ContainerState | None:
        """A container, None when it does not exist."""
        tree_place = self._place(name)
        return containers.read(tree_place[1]) if tree_place is not None else None

    def list_containers(self, prefix: str, marker: str, limit: int) -> tuple[list[ContainerState], str]:
        """Containers in order of their names from `marker` on (inclusive), and the next marker ("" at the end)."""
        with os.scandir(self._main.mount.root_fd) as entries:
            names = {e.name for e in entries if e.is_dir(follow_symlinks=False) and _is_container_name(e.name)}
        wanted = sorted(n for n in names | self._mapped.keys() if n.startswith(prefix) and n >= marker)
        found: list[ContainerState] = []
        for name in wanted:
            if len(found) >= limit:
                return found, name
            state = self.container(name)
            if state is not None:
                found.append(state)
        return found, ""

    def create_container(self, name: str, properties: ContainerProperties) -> Job[bool]:
        """Create a container. The job's result is False when it exists."""
        tree, place = self._require(name)
        return containers.CreateJob(place, _trash(tree), properties)

    def update_container(
        self, name: str, decide: Callable[[ContainerState | None], ContainerProperties]
    ) -> Job[ContainerState]:
        """Replace a container's properties, metadata, policies or lease."""
        tree, place = self._require(name)
        return containers.UpdateContainerJob(place, _trash(tree), decide)

    def delete_container(self, name: str, decide: Callable[[ContainerState | None], None]) -> Job[None]:
        """Delete a container and all that is in it."""
        tree, place = self._require(name)
        return containers.DeleteContainerJob(place, _trash(tree), decide)

    # --- blobs -------------------------------------------------------------------------------------------------

    def open_blob(self, ref: BlobRef) -> OpenBlob | None:
        """Open a blob for reading. None when it, or its container, does not exist. Raises StoreError."""
        tree_place = self._place(ref.container)
        if tree_place is None:
            return None
        opened = blobstate.open_blob(tree_place[1], ref.name, ref.snapshot)
        return None if opened is None else OpenBlob(opened[0].fd, opened[1])

    def stat_blob(self, ref: BlobRef) -> BlobState | None:
        """A blob's state. None when it, or its container, does not exist. Raises StoreError."""
        opened = self.open_blob(ref)
        if opened is None:
            return None
        opened.close()
        return opened.state

    def stage(self, container: str) -> StagedFile:
        """A file to write a blob's or a block's bytes to, on the container's mount. Raises StoreError."""
        return StagedFile.create(self._require(container)[1].mount)

    def stage_block(self, ref: BlobRef, block_id: str, length: int | None) -> StagedFile:
        """The same for a block of `length` bytes, None when that is not known: at its final place where that works."""
        return blocks.stage_block(self._require(ref.container)[1], ref.name, block_id, length)

    def put(
        self, ref: BlobRef, content: bytes | StagedFile, decide: DecideProperties, block_list: Sequence[Block] = ()
    ) -> Job[BlobState]:
        """Replace or create a blob. The job owns a StagedFile from here on."""
        tree, place = self._require(ref.container)
        return PutJob(place, _trash(tree), ref.name, content, decide, block_list)

    def update(self, ref: BlobRef, decide: DecideProperties) -> Job[BlobState]:
        """New properties for a blob or a snapshot; the content stays."""
        tree, place = self._require(ref.container)
        return UpdateJob(place, _trash(tree), ref, decide)

    def delete(
        self, ref: BlobRef, decide: Callable[[BlobState | None], DeleteScope], *, yields: bool = False
    ) -> Job[BlobState]:
        """Delete a blob, its snapshots, or one snapshot. The state that `decide` sees tells whether it has
        snapshots. `yields`: no client asked for it; then NotEvictable while somebody is writing the blob anew."""
        tree, place = self._require(ref.container)
        return DeleteJob(place, _trash(tree), ref, decide, yields=yields)

    def snapshot(self, ref: BlobRef, decide: DecideProperties, snapshot_id: str) -> Job[BlobState]:
        """Make a snapshot; `decide` returns the snapshot's properties."""
        tree, place = self._require(ref.container)
        return SnapshotJob(place, _trash(tree), ref.name, decide, snapshot_id)

    def set_lease(self, ref: BlobRef, decide: Callable[[BlobState | None], Lease | None]) -> Job[BlobState]:
        """Change a blob's lease; None removes it."""
        tree, place = self._require(ref.container)
        return LeaseJob(place, _trash(tree), ref.name, decide)

    # --- stubs -------------------------------------------------------------------------------------------------

    def evict(self, ref: BlobRef, etag: str, remote: Remote, properties: BlobProperties | None = None) -> Job[int]:
        """Let a blob's bytes go, of which `remote` was verified to be a copy; the result is how many. The file's mtime
        and mode are noted by itself. Nothing that clients see changes, unless `properties` says that the copy is of
        another version, which is the blob from now on. Raises NotEvictable."""
        tree, place = self._require(ref.container)
        return EvictJob(place, _trash(tree), ref.name, etag, remote, properties)

    def recall(self, ref: BlobRef, staged: StagedFile, etag: str, md5: bytes | None = None) -> Job[BlobState]:
        """Put a whole and verified file in the place of the stub with this ETag, or of one whose bytes have this MD5:
        properties may have changed meanwhile, they are kept. The job owns the StagedFile, whose `size` is set. Raises
        NotAStub."""
        tree, place = self._require(ref.container)
        return RecallJob(place, _trash(tree), ref.name, staged, etag, md5)

    def plant(self, ref: BlobRef, properties: BlobProperties) -> Job[BlobState]:
        """Make a stub, of properties with `remote`, where nothing is or a stub that lost its record. Raises BlobError
        BlobAlreadyExists, ContainerNotFound."""
        tree, place = self._require(ref.container)
        return PlantJob(place, _trash(tree), ref.name, properties)

    def retarget(self, ref: BlobRef, etag: str, remote: Remote) -> Job[BlobState]:
        """Have a stub with this ETag say that its bytes are elsewhere; nothing else changes. Raises NotAStub."""
        tree, place = self._require(ref.container)
        return RetargetJob(place, _trash(tree), ref.name, etag, remote)

    # --- blocks ------------------------------------------------------------------------------------------------

    def put_block(
        self, ref: BlobRef, block_id: str, content: bytes | StagedFile, decide: Callable[[BlobState | None], None]
    ) -> Job[BlobState]:
        """Add an uncommitted block. Raises BlobError InvalidBlobOrBlock when the ids differ in length."""
        tree, place = self._require(ref.container)
        return PutBlockJob(place, _trash(tree), ref.name, block_id, content, decide)

    def block_list(self, ref: BlobRef) -> tuple[tuple[Block, ...], tuple[Block, ...]] | None:
        """(committed, uncommitted) blocks; None when there is neither a blob nor a block of it."""
        tree_place = self._place(ref.container)
        return None if tree_place is None else blocks.block_list(tree_place[1], ref.name, ref.snapshot)

    def commit_blocks(
        self, ref: BlobRef, entries: Sequence[tuple[str, str]], decide: DecideProperties
    ) -> Job[BlobState]:
        """Make the blob of these blocks: (Committed | Uncommitted | Latest, id) in order. Raises InvalidBlockList."""
        tree, place = self._require(ref.container)
        return CommitJob(place, _trash(tree), ref.name, entries, decide)

    # --- listings ----------------------------------------------------------------------------------------------

    def list_blobs(
        self, container: str, *, prefix: str, delimiter: str, start: str, limit: int,
        snapshots: bool = False, uncommitted: bool = False,
    ) -> ListPage:  # fmt: skip
        """One page of a container's blobs in order of their names, from `start` on (inclusive).

        A group of names that have the delimiter after the prefix counts as one result. Snapshots come before their
        blob, oldest first, and are never split over pages, so a page may hold more than `limit` items.
        """
        tree, place = self._require(container)
        return listing.list_blobs(
            place, tree.index, prefix=prefix, delimiter=delimiter, start=start, limit=limit,
            snapshots=snapshots, uncommitted=uncommitted,
        )  # fmt: skip

    def tagged_blobs(self, container: str | None) -> Iterator[tuple[str, BlobState]]:
        """(container, blob) for every blob that has tags, in order; of one container or of all."""
        names = [container] if container is not None else [c.name for c in self.list_containers("", "", 1 << 30)[0]]
        for name in names:
            tree_place = self._place(name)
            if tree_place is None or tree_place[1].mount.read_only:
                continue
            place = tree_place[1]
            for blob in _tagged_names(place):
                state = self.stat_blob(BlobRef(name, blob))
                if state is not None and state.properties.tags:
                    yield name, state

    def run(self, job: Job[T]) -> T:
        """Execute one job now; durable when it returns."""
        return commit.run(job)

    def close(self) -> None:
        """Stop the store's own threads and close its descriptors."""
        for tree in (self._main, *(tree for tree, _ in self._mapped.values())):
            if tree.trash is not None:
                tree.trash.stop()
            tree.index.close()
            tree.mount.close()

    # --- inside ------------------------------------------------------------------------------------------------

    def _place(self, container: str) -> tuple[_Tree, Place] | None:
        """Where a container is or would be; None for what is no container's name."""
        known = self._places.get(container)
        if known is None:
            known = self._new_place(container)
            if known is not None:
                if len(self._places) >= _PLACES_COUNT_MAX:
                    self._places.clear()
                self._places[container] = known
        return known

    def _new_place(self, container: str) -> tuple[_Tree, Place] | None:
        found = self._mapped.get(container)
        if found is not None:
            tree, mapped = found
            return tree, Place(container, tree.mount, "", mapped.durable, mapped.read_only)
        if not _is_container_name(container):
            return None
        durable = self._durable_containers.get(container, self._durable)
        return self._main, Place(container, self._main.mount, f"{container}/", durable, False)

    def _require(self, container: str) -> tuple[_Tree, Place]:
        found = self._place(container)
        if found is None:
            check_container_name(container)
            raise BlobError(ErrorCode.CONTAINER_NOT_FOUND)
        return found


def _open_tree(path: str, records: RecordsOption, read_only: bool, remembered_count: int) -> _Tree:
    mount = Mount(path, records, read_only, remembered_count)
    return _Tree(mount, DirectoryIndex(mount), None if read_only else Trash(mount, _sweep))


def _sweep(mount: Mount, trash: Trash, now: float) -> None:
    blocks.sweep(mount, trash, now)
    swap.sweep(mount, now)


def _trash(tree: _Tree) -> Trash:
    if tree.trash is None:
        raise BlobError(ErrorCode.AUTHORIZATION_FAILURE, message="This container is read-only.")
    return tree.trash


@lru_cache(maxsize=4096)
def _is_container_name(name: str) -> bool:
    try:
        check_container_name(name)
    except BlobError:
        return False
    return True


def _tagged_names(place: Place) -> list[str]:
    directory = place.private("tagged")
    names = []
    for key in list_names(place.mount.containers_fd, directory):
        data = smallfile.read(place.mount.containers_fd, f"{directory}/{key}")
        if data and b"\0" not in data:
            names.append(data.decode("utf-8", "surrogateescape"))
    return sorted(names)


__all__ = [
    "BlobRef",
    "DeleteScope",
    "Job",
    "ListItem",
    "ListPage",
    "MappedDirectory",
    "OpenBlob",
    "StagedFile",
    "Store",
]
