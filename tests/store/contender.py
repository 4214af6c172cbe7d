"""A process that works on a store's blobs at random, together with others: `python -m tests.store.contender ...`.

It prints one JSON document: every change that was acknowledged, as (name, ETag before, ETag after) with "" for no blob,
and every failure that is not the proper answer to what was asked. The caller checks that the changes of all contenders
make one history (test_contention.py); what a contender can see by itself it checks itself: that a blob's bytes belong
to its record, that listings are in order, and that blobs which nobody deletes are always there.
"""

import hashlib
import json
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState, Lease, Remote
from dataplane.store.commit import Again
from dataplane.store.errors import BytesAway, NotAStub, NotEvictable
from dataplane.store.store import BlobRef, DeleteScope, Store

CONTAINER = "box"
#: Names that want the same path: each is a file where others need a directory.
NAMES = ("a", "a/b", "a/b/c", "a/b/c/d", "a/", "a//b", "a/b/", "b/x/y/z")
#: Never deleted, below directories that the others come and go in.
LASTING = ("a/b/lasting", "lasting", "b/x/lasting")
LISTED_NAMES = frozenset((*NAMES, *LASTING))
_ABSENT = ErrorCode.BLOB_NOT_FOUND
_TICKS_2020 = 132_223_104_000_000_000 - 116_444_736_000_000_000  # 100 ns since 1970


_KEPT_BLOCKS_MAX = 5
Content = Callable[[BlobState | None], str]
DecideProperties = Callable[[BlobState | None], BlobProperties]


def _nothing(_: BlobState | None) -> str:
    return ""


def _block_ids(state: BlobState) -> list[str]:
    return [entry.partition(":")[0] for entry in state.properties.block_list.split(",") if entry]


def _md5(said: str) -> bytes:
    return hashlib.md5(said.encode()).digest()


@dataclass(slots=True)
class Log:
    """What one thread did."""

    changes: list[tuple[str, str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: int = 0
    busy: int = 0
    reads: int = 0
    evicted: int = 0
    recalled: int = 0


class Contender:
    """One thread's random operations."""

    def __init__(self, store: Store, number: int, seed: int) -> None:
        self._store = store
        self._number = number
        self._count = 0
        self._random = random.Random(seed)
        self.log = Log()

    def step(self) -> None:
        """One operation. A refusal that the operation may have is counted, everything else is a failure."""
        ref = BlobRef(CONTAINER, self._random.choice(NAMES))
        choose: list[Callable[[BlobRef], None]] = [
            *(self._put, self._put, self._delete, self._delete, self._update),
            *(self._commit, self._snapshot, self._lease, self._read, self._list),
            *(self._evict, self._recall),
        ]
        action = self._random.choice(choose)
        try:
            action(ref)
        except (BytesAway, NotEvictable, NotAStub):
            self.log.refused += 1
        except Again:  # others were faster every time; the server answers 503 ServerBusy
            self.log.busy += 1
        except Exception:
            self.log.failures.append(f"{action.__name__} {ref.name}: {traceback.format_exc()}")

    def _change(self, ref: BlobRef, run: Callable[[DecideProperties], object], after: Content = _nothing) -> None:
        """Put or commit: note which version was replaced, as the last call of the decision saw it. `after` is what the
        new content comes after in that version."""
        new = self._properties()
        before = ""

        def decide(state: BlobState | None) -> BlobProperties:
            nonlocal before
            before = state.properties.etag if state is not None else ""
            return replace(new, metadata={"content": after(state) + new.etag})

        run(decide)
        self.log.changes.append((ref.name, before, new.etag))

    def _properties(self) -> BlobProperties:
        self._count += 1
        etag = f"0x8D{self._number:03X}{self._count:010X}"
        return BlobProperties(etag, 1_600_000_000, 1_600_000_000, metadata={"content": etag})

    def _put(self, ref: BlobRef) -> None:
        content = self._next_content()
        if self._random.random() < 0.5:
            self._change(ref, lambda decide: self._store.run(self._store.put(ref, content, decide)))
            return
        staged = self._store.stage(CONTAINER)
        staged.write(content)
        self._change(ref, lambda decide: self._store.run(self._store.put(ref, staged, decide)))

    def _next_content(self) -> bytes:
        """What the record of the next change will say that the content is."""
        return f"0x8D{self._number:03X}{self._count + 1:010X}".encode()

    def _commit(self, ref: BlobRef) -> None:
        """A block of our own, alone or after all blocks of the blob as it is. A change by somebody else drops all
        uncommitted blocks, ours too, and makes another list of the committed ones."""
        block_id = f"{self._number:04d}"
        self._put_block(ref, block_id)
        lists = self._store.block_list(ref)
        kept = [block.block_id for block in lists[0]] if lists is not None and self._random.random() < 0.7 else []
        if block_id in kept or len(kept) >= _KEPT_BLOCKS_MAX:
            kept = []
        entries = [*(("Committed", each) for each in kept), ("Uncommitted", block_id)]

        def content(state: BlobState | None) -> str:
            if not kept:
                return ""
            if state is None or _block_ids(state) != kept:
                raise BlobError(ErrorCode.CONDITION_NOT_MET)
            return state.properties.metadata["content"]

        try:
            self._change(ref, lambda d: self._store.run(self._store.commit_blocks(ref, entries, d)), content)
        except BlobError as error:
            self._expect(error, ErrorCode.INVALID_BLOCK_LIST, ErrorCode.CONDITION_NOT_MET)

    def _put_block(self, ref: BlobRef, block_id: str) -> None:
        def allow(_: BlobState | None) -> None:
            return

        content = self._next_content()
        if self._random.random() < 0.5:
            self._store.run(self._store.put_block(ref, block_id, content, allow))
            return
        staged = self._store.stage_block(ref, block_id, len(content))
        staged.write(content)
        self._store.run(self._store.put_block(ref, block_id, staged, allow))

    def _update(self, ref: BlobRef) -> None:
        new = self._properties()
        before = ""

        def decide(state: BlobState | None) -> BlobProperties:
            nonlocal before
            if state is None:
                raise BlobError(_ABSENT)
            before = state.properties.etag
            return replace(state.properties, etag=new.etag)

        if self._is_there(lambda: self._store.run(self._store.update(ref, decide))):
            self.log.changes.append((ref.name, before, new.etag))

    def _delete(self, ref: BlobRef) -> None:
        before = ""

        def decide(state: BlobState | None) -> DeleteScope:
            nonlocal before
            if state is None:
                raise BlobError(_ABSENT)
            before = state.properties.etag
            return DeleteScope.BLOB_AND_SNAPSHOTS

        if self._is_there(lambda: self._store.run(self._store.delete(ref, decide))):
            self.log.changes.append((ref.name, before, ""))

    def _snapshot(self, ref: BlobRef) -> None:
        self._count += 1
        taken = iso_ticks(_TICKS_2020 + self._count * 1000 + self._number)

        def decide(state: BlobState | None) -> BlobProperties:
            if state is None:
                raise BlobError(_ABSENT)
            return state.properties

        if self._is_there(lambda: self._store.run(self._store.snapshot(ref, decide, taken))):
            self._look(BlobRef(ref.container, ref.name, taken))

    def _lease(self, ref: BlobRef) -> None:
        def decide(state: BlobState | None) -> Lease | None:
            if state is None:
                raise BlobError(_ABSENT)
            return None if state.lease is not None else Lease(f"{self._number}", -1, None)

        self._is_there(lambda: self._store.run(self._store.set_lease(ref, decide)))

    def _read(self, ref: BlobRef) -> None:
        self._look(ref)
        lasting = BlobRef(CONTAINER, self._random.choice(LASTING))
        assert self._look(lasting), f"{lasting.name} is gone"

    def _look(self, ref: BlobRef) -> bool:
        """Whether it is there; if so, its bytes are those that its record is about."""
        opened = self._store.open_blob(ref)
        if opened is None:
            return False
        with os.fdopen(opened.fd, "rb") as file:
            content = file.read()
        self.log.reads += 1
        said = opened.state.properties.metadata.get("content", "no record")
        remote = opened.state.properties.remote
        if remote is None:
            assert content.decode() == said, f"{ref}: the bytes of {content!r}, the record of {said!r}"
        else:
            assert (content, remote.md5) == (b"", _md5(said)), f"{ref}: a stub of other bytes than {said!r}"
        assert opened.state.size == len(said)
        return True

    def _evict(self, ref: BlobRef) -> None:
        """A blob, or one that is always there, becomes a stub of its bytes."""
        ref = self._random.choice((ref, BlobRef(CONTAINER, self._random.choice(LASTING))))
        state = self._store.stat_blob(ref)
        if state is None:
            return
        etag, said = state.properties.etag, state.properties.metadata["content"]
        remote = Remote(len(said), _md5(said), "0x8DC", "cloud", ref.name, etag, 0, 0)
        assert self._store.run(self._store.evict(ref, etag, remote)) == len(said)
        self.log.evicted += 1

    def _recall(self, ref: BlobRef) -> None:
        """The bytes of a stub come back."""
        ref = self._random.choice((ref, BlobRef(CONTAINER, self._random.choice(LASTING))))
        state = self._store.stat_blob(ref)
        if state is None:
            return
        said = state.properties.metadata["content"]
        staged = self._store.stage(CONTAINER)
        staged.write(said.encode())
        self._store.run(self._store.recall(ref, staged, state.properties.etag, _md5(said)))
        self.log.recalled += 1

    def _list(self, _: BlobRef) -> None:
        """Nobody is there twice or out of order, and whoever is always there is listed."""
        limit, start = self._random.choice((1, 3, 5000)), ""
        found: list[str] = []
        while True:
            page = self._store.list_blobs(CONTAINER, prefix="", delimiter="", start=start, limit=limit)
            found += [item.state.name for item in page.items if item.state is not None]
            start = page.next_start
            if not start:
                break
        assert found == sorted(set(found)), found
        assert set(LASTING) <= set(found) <= LISTED_NAMES, found

    def _is_there(self, run: Callable[[], object]) -> bool:
        try:
            run()
        except BlobError as error:
            self._expect(error, _ABSENT)
            return False
        return True

    def _expect(self, error: BlobError, *codes: ErrorCode) -> None:
        if error.code not in codes:
            raise error
        self.log.refused += 1


def main(root: str, records: str, first_number: int, threads: int, steps: int, seed: int) -> None:
    """Run the threads, wait for a line on stdin before they start, print what they did."""
    assert records in ("xattr", "sidecar")
    store = Store(root, records="xattr" if records == "xattr" else "sidecar", durable=False)
    contenders = [Contender(store, first_number + i, seed + i) for i in range(threads)]

    def work(contender: Contender) -> None:
        for _ in range(steps):
            contender.step()

    print("ready", flush=True)
    sys.stdin.readline()
    workers = [threading.Thread(target=work, args=(contender,)) for contender in contenders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store.close()
    logs = [contender.log for contender in contenders]
    document = {
        "changes": [change for log in logs for change in log.changes],
        "failures": [failure for log in logs for failure in log.failures],
        "refused": sum(log.refused for log in logs),
        "busy": sum(log.busy for log in logs),
        "reads": sum(log.reads for log in logs),
        "evicted": sum(log.evicted for log in logs),
        "recalled": sum(log.recalled for log in logs),
    }
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(argument) for argument in sys.argv[3:]))
