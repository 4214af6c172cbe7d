"""Whatever is done to blobs in whatever order, evictions and recalls change nothing that a client sees."""

import os
import tempfile
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.blobapi.model import BlobState, Lease, Remote
from dataplane.store.errors import BytesAway, NotAStub, NotEvictable
from dataplane.store.mount import RecordsOption
from dataplane.store.store import BlobRef, DeleteScope, OpenBlob, Store
from tests.store.support import changed, delete, make, put
from tests.store.test_stubs import recall, remote_of, without_remote

NAMES = ("a", "a/b", "c")
View = dict[str, tuple[bytes, BlobState]]
OPERATIONS = ("put", "update", "tag", "delete", "lease", "evict", "evict", "recall", "touch", "retarget", "open",
              "snapshot", "other worker")  # fmt: skip
operations = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(NAMES), st.binary(max_size=20)), max_size=25
)


class Node:
    """Two workers' stores, each with its memory; the cloud (contents by MD5); and what clients should see."""

    def __init__(self, root: str, records: RecordsOption) -> None:
        self.root = root
        self.store, self.other = (Store(root, records=records, durable=False) for _ in range(2))
        self.cloud: dict[bytes, bytes] = {}
        self.shown: View = {}
        self.readers: list[tuple[OpenBlob, bytes]] = []

    def seen(self, store: Store) -> View:
        """What clients see: bytes, wherever they are, and states without where they are."""
        seen: View = {}
        page = store.list_blobs("box", prefix="", delimiter="", start="", limit=100)
        for item in page.items:
            assert item.state is not None
            opened = store.open_blob(BlobRef("box", item.state.name))
            assert opened is not None
            assert opened.state == item.state
            seen[item.state.name] = self.content(opened), without_remote(opened.state)
            opened.close()
        return seen

    def content(self, opened: OpenBlob) -> bytes:
        remote = opened.state.properties.remote
        content = os.pread(opened.fd, 100, 0)
        if remote is None:
            return content
        assert content == b""
        return self.cloud[remote.md5]

    def do(self, operation: str, name: str, data: bytes) -> None:
        getattr(self, "_" + operation.replace(" ", "_"))(BlobRef("box", name), data)

    def _put(self, ref: BlobRef, data: bytes) -> None:
        before = self.shown.get(ref.name)
        state = put(self.store, ref.name, data, tags={"size": str(len(data))})
        assert state.lease == (before[1].lease if before else None)
        self.shown[ref.name] = data, state

    def _update(self, ref: BlobRef, data: bytes, **fields: Any) -> None:
        if ref.name in self.shown:
            state = self.store.run(self.store.update(ref, changed(metadata={"k": data.hex()}, **fields)))
            self.shown[ref.name] = self.shown[ref.name][0], without_remote(state)

    def _tag(self, ref: BlobRef, data: bytes) -> None:
        """As Set Blob Tags: the ETag stays."""

        def decide(state: BlobState | None) -> Any:
            assert state is not None
            return replace(state.properties, tags={"k": data.hex()})

        if ref.name in self.shown:
            state = self.store.run(self.store.update(ref, decide))
            self.shown[ref.name] = self.shown[ref.name][0], without_remote(state)

    def _delete(self, ref: BlobRef, data: bytes) -> None:
        if self.shown.pop(ref.name, None) is not None:
            delete(self.store, ref.name, scope=DeleteScope.BLOB_AND_SNAPSHOTS)

    def _lease(self, ref: BlobRef, data: bytes) -> None:
        if ref.name in self.shown:
            lease = Lease(data.hex(), -1, None)
            state = self.store.run(self.store.set_lease(ref, lambda _: lease))
            self.shown[ref.name] = self.shown[ref.name][0], without_remote(state)

    def _evict(self, ref: BlobRef, data: bytes) -> None:
        if ref.name not in self.shown:
            return
        content, state = self.shown[ref.name]
        remote = remote_of(state, content)
        self.cloud[remote.md5] = content
        was_here = self._remote(ref) is None
        try:
            assert self.store.run(self.store.evict(ref, state.properties.etag, remote)) == len(content)
            assert self._remote(ref) is not None
        except NotEvictable:
            assert not content or not was_here

    def _recall(self, ref: BlobRef, data: bytes) -> None:
        if ref.name not in self.shown:
            return
        content, state = self.shown[ref.name]
        was_here = self._remote(ref) is None
        try:
            assert recall(self.store, state.properties.etag, ref.name, content) == state
        except NotAStub:
            assert was_here
        assert self._remote(ref) is None

    def _touch(self, ref: BlobRef, data: bytes) -> None:
        """Another program changes the mtime: of a blob it makes another version, of a stub it changes nothing."""
        if self._remote(ref) is not None:
            os.utime(os.path.join(self.root, "box", self.store.mount.encode(ref.name)))

    def _retarget(self, ref: BlobRef, data: bytes) -> None:
        remote = self._remote(ref)
        if remote is not None:
            etag = self.shown[ref.name][1].properties.etag
            self.store.run(self.store.retarget(ref, etag, replace(remote, etag="0x8D" + data.hex()[:30])))

    def _open(self, ref: BlobRef, data: bytes) -> None:
        opened = self.store.open_blob(ref)
        if opened is not None:
            self.readers.append((opened, self.shown[ref.name][0]))

    def _snapshot(self, ref: BlobRef, data: bytes) -> None:
        if ref.name in self.shown:
            job = self.store.snapshot(ref, lambda s: s.properties, "2026-11-23T06:55:00.1234567Z")  # type: ignore[union-attr]
            was_here = self._remote(ref) is None
            try:
                self.store.run(job)
            except BytesAway:
                assert not was_here

    def _other_worker(self, ref: BlobRef, data: bytes) -> None:
        """The other worker makes the changes from here on."""
        self.store, self.other = self.other, self.store

    def _remote(self, ref: BlobRef) -> Remote | None:
        state = self.store.stat_blob(ref)
        return None if state is None else state.properties.remote

    def close(self) -> None:
        for opened, content in self.readers:
            assert self.content(opened) == content, "an open reader has other bytes"
            opened.close()
        self.store.close()
        self.other.close()


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["xattr", "sidecar"]), operations)
def test_evictions_and_recalls_are_not_seen(records: RecordsOption, wanted: list[tuple[str, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        node = Node(root, records)
        make(node.store)
        for operation, name, data in wanted:
            node.do(operation, name, data)
            for store in (node.store, node.other):
                assert node.seen(store) == node.shown, operation
        node.close()
