"""One operation each, on a store that was made ready for it, and everything that can be seen of a store.

What is seen before and after an operation that went well are the two states that any failure may leave; `between` names
the states of the few operations that are several steps by their nature.
"""

import base64
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from dataplane.blobapi.model import LOST, BlobProperties, BlobState, Block, ContainerProperties, Lease, Remote
from dataplane.store import slots, syscalls
from dataplane.store.store import BlobRef, DeleteScope, Store

SNAPSHOT: Final = "2026-11-23T06:55:00.1234567Z"
LATER_SNAPSHOT: Final = "2026-11-23T07:55:00.1234567Z"
SLOT: Final = 600
LEASE: Final = Lease("11111111-2222-3333-4444-555555555555", -1, None)

View = dict[str, Any]


def prop(tag: str, **fields: Any) -> BlobProperties:
    """Properties that say which version they belong to."""
    return BlobProperties(
        etag=f"0x8D{tag}", last_modified=1000, created=900, content_type=f"text/{tag}",
        content_md5=tag.encode().ljust(16, b"."), metadata={"version": tag}, **fields,
    )  # fmt: skip


def put(store: Store, name: str, tag: str, size: int = 40, **fields: Any) -> None:
    store.run(store.put(BlobRef("box", name), tag.encode() * (size // len(tag)), lambda _: prop(tag, **fields)))


def put_staged(store: Store, name: str, tag: str, size: int = 300_000) -> None:
    staged = store.stage("box")
    try:
        for _ in range(3):
            staged.write(tag.encode() * (size // 3 // len(tag)))
    except BaseException:
        staged.discard()
        raise
    store.run(store.put(BlobRef("box", name), staged, lambda _: prop(tag)))


def update(store: Store, name: str, tag: str, snapshot: str = "", **fields: Any) -> None:
    def decide(state: BlobState | None) -> BlobProperties:
        assert state is not None
        return replace(state.properties, etag=f"0x8D{tag}", metadata={"version": tag}, **fields)

    store.run(store.update(BlobRef("box", name, snapshot), decide))


def delete(store: Store, name: str, scope: DeleteScope = DeleteScope.BLOB, snapshot: str = "") -> None:
    store.run(store.delete(BlobRef("box", name, snapshot), lambda _: scope))


def snapshot(store: Store, name: str, snapshot_id: str) -> None:
    def decide(state: BlobState | None) -> BlobProperties:
        assert state is not None
        return state.properties

    store.run(store.snapshot(BlobRef("box", name), decide, snapshot_id))


def lease(store: Store, name: str, value: Lease | None) -> None:
    store.run(store.set_lease(BlobRef("box", name), lambda _: value))


def block_id(i: int) -> str:
    return base64.b64encode(f"block-{i:05d}".encode()).decode()


def block(i: int, size: int = SLOT) -> bytes:
    return bytes([65 + i]) * size


def put_block(store: Store, i: int, data: bytes, name: str = "blocks", staged: bool = False) -> None:
    """A block from memory, or through a staged file (at its final place where that works)."""
    ref = BlobRef("box", name)
    content: Any = data
    if staged:
        content = store.stage_block(ref, block_id(i), len(data))
        try:
            content.write(data)
        except BaseException:
            content.discard()
            raise
    store.run(store.put_block(ref, block_id(i), content, lambda _: None))


def commit(store: Store, order: list[int], tag: str, kind: str = "Latest", name: str = "blocks") -> None:
    entries = [(kind, block_id(i)) for i in order]
    store.run(store.commit_blocks(BlobRef("box", name), entries, lambda _: prop(tag)))


def remote_of(tag: str, size: int = 40) -> Remote:
    """The copy in the cloud of what `put` makes."""
    return Remote(
        size // len(tag) * len(tag), tag.encode().ljust(16, b"."), "0x8DCLOUD", "there", "a", f"0x8D{tag}", 0, 0o644
    )


def evict(store: Store, name: str, tag: str) -> None:
    store.run(store.evict(BlobRef("box", name), f"0x8D{tag}", remote_of(tag)))


def evict_without_exchange(store: Store, name: str, tag: str) -> None:
    """As on a file system where names cannot be exchanged."""
    with patch.object(syscalls, "exchange", lambda *_: False):
        evict(store, name, tag)


def recall(store: Store, name: str, tag: str, size: int = 40) -> None:
    staged = store.stage("box")
    try:
        staged.write(tag.encode() * (size // len(tag)))
    except BaseException:
        staged.discard()
        raise
    store.run(store.recall(BlobRef("box", name), staged, f"0x8D{tag}"))


def plant(store: Store, name: str, tag: str) -> None:
    store.run(store.plant(BlobRef("box", name), prop(tag, tags={"k": tag}, remote=remote_of(tag))))


def retarget(store: Store, name: str, tag: str) -> None:
    store.run(store.retarget(BlobRef("box", name), f"0x8D{tag}", replace(remote_of(tag), etag="0x8DLATER")))


def container(store: Store, name: str, tag: str) -> None:
    store.run(store.create_container(name, ContainerProperties(f"0x8D{tag}", 5, {"version": tag})))


def update_container(store: Store, name: str, tag: str) -> None:
    new = ContainerProperties(f"0x8D{tag}", 6, {"version": tag}, lease=LEASE)
    store.run(store.update_container(name, lambda _: new))


# --- what is ready beforehand ---------------------------------------------------------------------------------------


def empty(store: Store) -> None:
    container(store, "box", "first")


def one_blob(store: Store) -> None:
    empty(store)
    put(store, "a", "old", tags={"k": "old"})


def leased(store: Store) -> None:
    one_blob(store)
    lease(store, "a", LEASE)


def with_snapshots(store: Store) -> None:
    one_blob(store)
    snapshot(store, "a", SNAPSHOT)
    snapshot(store, "a", LATER_SNAPSHOT)
    put(store, "a", "newer")


def nested(store: Store) -> None:
    empty(store)
    put(store, "d/e/f", "old")


def upload(store: Store) -> None:
    """Blocks at their final place."""
    one_blob(store)
    for i in range(4):
        put_block(store, i, block(i), staged=True)


def upload_with_gap(store: Store) -> None:
    """The same, and one of them staged again in a file of its own."""
    upload(store)
    put_block(store, 1, b"z" * SLOT)


def own_blocks(store: Store) -> None:
    empty(store)
    for i in range(3):
        put_block(store, i, block(i, 50))


def committed(store: Store) -> None:
    own_blocks(store)
    commit(store, [0, 1, 2], "old")
    put_block(store, 5, block(5, 50))


def overwritten_upload(store: Store) -> None:
    one_blob(store)
    put_block(store, 0, block(0, 50), name="a")


def evicted(store: Store) -> None:
    leased(store)
    evict(store, "a", "old")


def lost(store: Store) -> None:
    """A stub without its record, as a copy of a tree leaves it."""
    evicted(store)
    path = f"/proc/self/fd/{store.mount.root_fd}/box/a"
    mtime_ns = os.stat(path).st_mtime_ns
    os.unlink(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.chmod(path, 0o1400)
    os.utime(path, ns=(mtime_ns + 1, mtime_ns + 1))


def many_committed(store: Store) -> None:
    """A block list that does not fit its record."""
    empty(store)
    for i in range(60):
        put_block(store, i, block(i, 5))
    commit(store, list(range(60)), "old")


# --- operations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """`ready` makes the state that `operate` changes. `between` are further operations whose results, from the ready
    state, are legal after a failure. `blocks_may_stay`: so is the new state with some of the uncommitted blocks that
    the operation drops in a second step."""

    name: str
    ready: Callable[[Store], None]
    operate: Callable[[Store], None]
    between: tuple[Callable[[Store], None], ...] = ()
    blocks_may_stay: bool = False


def _drop_snapshots(store: Store) -> None:
    delete(store, "a", DeleteScope.SNAPSHOTS_ONLY)


SCENARIOS: Final = [
    Scenario("put small", empty, lambda s: put(s, "new", "new")),
    Scenario("put small with tags", empty, lambda s: put(s, "new", "new", tags={"a": "b"})),
    Scenario("put in new directories", empty, lambda s: put(s, "x/y/z", "new")),
    Scenario("put staged", empty, lambda s: put_staged(s, "new", "new")),
    Scenario("put below a blob's name", one_blob, lambda s: put(s, "a/b", "new")),
    Scenario("put at a directory's name", nested, lambda s: put(s, "d", "new")),
    Scenario("overwrite", one_blob, lambda s: put(s, "a", "new")),
    Scenario("overwrite by a staged file", one_blob, lambda s: put_staged(s, "a", "new")),
    Scenario("overwrite a leased one", leased, lambda s: put(s, "a", "new")),
    Scenario("overwrite one with blocks", overwritten_upload, lambda s: put(s, "a", "new"), blocks_may_stay=True),
    Scenario("overwrite a committed one", many_committed, lambda s: put(s, "blocks", "new")),
    Scenario("update", one_blob, lambda s: update(s, "a", "new")),
    Scenario("update with large metadata", one_blob, lambda s: update(s, "a", "new", content_type="x" * 5000)),
    Scenario("update a snapshot", with_snapshots, lambda s: update(s, "a", "new", SNAPSHOT, tags={"k": "v"})),
    Scenario("delete", one_blob, lambda s: delete(s, "a")),
    Scenario("delete the last of its directories", nested, lambda s: delete(s, "d/e/f")),
    Scenario("delete a leased one", leased, lambda s: delete(s, "a")),
    Scenario("delete with blocks", overwritten_upload, lambda s: delete(s, "a"), blocks_may_stay=True),
    Scenario(
        "delete with snapshots",
        with_snapshots,
        lambda s: delete(s, "a", DeleteScope.BLOB_AND_SNAPSHOTS),
        (_drop_snapshots,),
    ),
    Scenario("delete snapshots", with_snapshots, _drop_snapshots),
    Scenario("delete one snapshot", with_snapshots, lambda s: delete(s, "a", snapshot=SNAPSHOT)),
    Scenario("snapshot", one_blob, lambda s: snapshot(s, "a", SNAPSHOT)),
    Scenario("lease", one_blob, lambda s: lease(s, "a", LEASE)),
    Scenario("change a lease", leased, lambda s: lease(s, "a", replace(LEASE, released=True))),
    Scenario("remove a lease", leased, lambda s: lease(s, "a", None)),
    Scenario("first block", empty, lambda s: put_block(s, 0, block(0, 50))),
    Scenario("second block", own_blocks, lambda s: put_block(s, 3, block(3, 50))),
    Scenario("block again", own_blocks, lambda s: put_block(s, 1, b"again")),
    Scenario("first block at its place", empty, lambda s: put_block(s, 0, block(0), staged=True)),
    Scenario("next block at its place", upload, lambda s: put_block(s, 4, block(4), staged=True)),
    Scenario("commit in place", upload, lambda s: commit(s, [0, 1, 2, 3], "new"), blocks_may_stay=True),
    Scenario("commit with a gap", upload_with_gap, lambda s: commit(s, [0, 1, 2, 3], "new"), blocks_may_stay=True),
    Scenario("commit in another order", upload, lambda s: commit(s, [3, 1, 0], "new"), blocks_may_stay=True),
    Scenario("commit own files", own_blocks, lambda s: commit(s, [2, 0, 1], "new"), blocks_may_stay=True),
    Scenario("commit from the committed", committed, lambda s: commit(s, [2, 5, 0], "new"), blocks_may_stay=True),
    Scenario("commit a long list", many_committed, lambda s: commit(s, list(range(50)), "new")),
    Scenario("evict", leased, lambda s: evict(s, "a", "old")),
    Scenario("evict where names are not exchanged", one_blob, lambda s: evict_without_exchange(s, "a", "old")),
    Scenario("recall", evicted, lambda s: recall(s, "a", "old")),
    Scenario("retarget", evicted, lambda s: retarget(s, "a", "old")),
    Scenario("plant", empty, lambda s: plant(s, "x/y", "new")),
    Scenario("plant in the place of a lost one", lost, lambda s: plant(s, "a", "new")),
    Scenario("update a stub", evicted, lambda s: update(s, "a", "new")),
    Scenario("overwrite a stub", evicted, lambda s: put(s, "a", "new")),
    Scenario("delete a stub", evicted, lambda s: delete(s, "a")),
    Scenario("create a container", empty, lambda s: container(s, "other", "new")),
    Scenario("update a container", empty, lambda s: update_container(s, "box", "new")),
    Scenario("delete a container", with_snapshots, lambda s: s.run(s.delete_container("box", lambda _: None))),
    Scenario("service properties", empty, lambda s: s.run(s.set_service_properties(b"<new/>"))),
]


# --- what is seen ---------------------------------------------------------------------------------------------------


def view(store: Store) -> View:
    """Everything that a client can see: containers, blobs with content and properties, snapshots, leases, blocks."""
    seen: View = {"service": store.service_properties()}
    for state in store.list_containers("", "", 100)[0]:
        seen[state.name] = (state.properties, dict(_blobs(store, state.name)), _tagged(store, state.name))
    return seen


def _blobs(store: Store, name: str) -> Iterator[tuple[tuple[str, str, bool], Any]]:
    page = store.list_blobs(name, prefix="", delimiter="", start="", limit=1000, snapshots=True, uncommitted=True)
    for item in page.items:
        assert item.state is not None
        listed = item.state
        key = (listed.name, listed.snapshot, item.uncommitted)
        if item.uncommitted:
            yield key, store.block_list(BlobRef(name, listed.name))
            continue
        ref = BlobRef(name, listed.name, listed.snapshot)
        opened = store.open_blob(ref)
        assert opened is not None, "listed, but not to be opened"
        with os.fdopen(opened.fd, "rb") as file:
            content = file.read()
        assert opened.state == listed, "a listing shows another state"
        plain = replace(opened.state.properties, block_list="")
        if plain.remote == LOST:  # what is left comes from the file's times
            plain = replace(plain, etag="", last_modified=0, created=0)
        elif plain.remote is not None:  # when the file was made that is to come back
            plain = replace(plain, remote=replace(plain.remote, mtime_ns=0))
        yield key, (content, replace(opened.state, properties=plain), store.block_list(ref))


def without_uncommitted(seen: View) -> tuple[View, dict[tuple[str, str], frozenset[Block]]]:
    """A view, and apart from it the uncommitted blocks that it shows, by container and blob."""
    rest: View = {}
    blocks: dict[tuple[str, str], frozenset[Block]] = {}
    for container_name, shown in seen.items():
        if container_name == "service":
            rest[container_name] = shown
            continue
        entries = {}
        for (name, snapshot_id, uncommitted), entry in shown[1].items():
            if uncommitted:
                blocks[container_name, name] = frozenset(entry[1])
                continue
            if entry[2][1]:
                blocks[container_name, name] = frozenset(entry[2][1])
            entries[name, snapshot_id] = (*entry[:2], entry[2][0])
        rest[container_name] = (shown[0], entries, shown[2])
    return rest, blocks


def is_new_with_blocks_left(seen: View, old: View, new: View) -> bool:
    """The new state, with some of the old one's uncommitted blocks."""
    (seen_rest, seen_blocks), (_, old_blocks), (new_rest, _) = map(without_uncommitted, (seen, old, new))
    return seen_rest == new_rest and all(left <= old_blocks.get(key, frozenset()) for key, left in seen_blocks.items())


def _tagged(store: Store, name: str) -> list[str]:
    return [state.name for _, state in store.tagged_blobs(name)]


def slots_are_small() -> Any:
    """Blocks of this suite are small; have them lie in slots all the same."""
    return patch.object(slots, "SLOT_BYTES_MIN", SLOT)
