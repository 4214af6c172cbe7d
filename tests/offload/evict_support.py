"""A node without its processes, for the tests of eviction: real stores, the real queue, and a cloud."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import Account, Container
from agent.config_offload import Offload
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.evict import spaces
from agent.offload.evict.departure import Departures, Left
from agent.offload.evict.evictor import Evictor
from agent.offload.evict.space import Mode
from agent.offload.evict.spaces import Found
from agent.offload.link import Link
from agent.offload.linkwatch import LinkWatch
from agent.offload.look import Stores, seen_of
from agent.offload.rows import Change, Copy, Row, Seen, Turn
from agent.offload.rules import Rules
from agent.offload.source import source_of
from agent.offload.transport import Errand
from agent.offload.upload import Guard, upload
from dataplane.blobapi.etag import new_etag
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.store.store import BlobRef, Store
from tests.offload.upload_support import NODE, To, World

ACCOUNT = "acct"
CONTAINER = "cam"
Uses = Callable[[Store], list[Found]]
DAY_NS = 86_400_000_000_000


@dataclass(slots=True)
class Node:
    """What eviction is made of. `container` is the one in the cloud."""

    world: World
    stores: Stores
    store: Store
    queue: AsyncQueue
    rules: Rules
    watch: LinkWatch
    departures: Departures
    evictor: Evictor
    root: Path

    def put(self, name: str, content: bytes = b"0123456789", **properties: Any) -> BlobState:
        """Write a blob as a client does."""
        now = int(time.time())
        times = {"last_modified": now, "created": now} | properties
        made = BlobProperties(new_etag(secrets.randbits(64)), **times)
        return self.store.run(self.store.put(BlobRef(CONTAINER, name), content, lambda _: made))

    def state(self, name: str) -> BlobState | None:
        return self.store.stat_blob(BlobRef(CONTAINER, name))

    async def copied(self, name: str, content: bytes = b"0123456789", **properties: Any) -> Row:
        """A blob that was uploaded and verified, and its row."""
        self.put(name, content, **properties)
        return await self.send(name)

    async def send(self, name: str) -> Row:
        """Upload what is there, and have the queue know it."""
        ref = BlobRef(CONTAINER, name)
        blob = self.store.open_blob(ref)
        assert blob is not None
        try:
            seen = seen_of(blob)
            target = To(self.world.name, name)
            sent = upload(self.world.cloud, source_of(self.store, ref, blob), target, Guard(), Errand(), node=NODE)
        finally:
            blob.close()
        return await self.known(name, seen, sent.cloud_etag)

    async def known(self, name: str, seen: Seen, cloud_etag: str) -> Row:
        """Have the queue know a blob as COPIED."""
        now = time.time_ns()
        await self.queue(lambda queue: queue.note([Change(ACCOUNT, CONTAINER, name, now, now, 0, 0)]))
        row = await self.row(name)
        copy = Copy(seen.etag, cloud_etag, self.world.name, name, now)
        assert await self.queue(
            lambda queue: queue.changed(row, seen, Turn(now, 0, 0), now) and queue.copied(row, copy)
        )
        return await self.row(name)

    async def row(self, name: str) -> Row:
        found = await self.queue(lambda queue: queue.find(ACCOUNT, CONTAINER, name))
        assert found is not None
        return found

    async def gone(self, name: str) -> bool:
        """Whether the queue knows nothing of a blob."""
        return await self.queue(lambda queue: queue.find(ACCOUNT, CONTAINER, name)) is None

    async def batch(self, *rows: Row, mode: Mode = Mode.EVICT, asked: bool = False) -> dict[str, str]:
        """Let them go; why each stayed."""
        return whys(await self.departures.batch(ACCOUNT, rows, mode, asked=asked))


@dataclass(slots=True)
class Asked:
    """An operator."""

    blobs: int = 0
    bytes: int = 0
    kept: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, reason: str, name: str) -> None:
        self.kept.setdefault(reason, []).append(name)


def whys(found: list[Left]) -> dict[str, str]:
    return {left.row.name: left.why for left in found}


@asynccontextmanager
async def node(
    world: World,
    root: Path,
    *rules: dict[str, Any],
    uses: Uses = spaces.uses,
    mapped: Path | None = None,
    **offload: Any,
) -> AsyncIterator[Node]:
    """A node with an account in `root`, and these rules. `mapped`: where CONTAINER is, if not there."""
    table = Offload.model_validate({"node": "edge-7", **offload, "rules": list(rules) or [{"evict": "space"}]})
    containers = [] if mapped is None else [Container(name=CONTAINER, path=str(mapped))]
    accounts = [Account(name=ACCOUNT, root=str(root), containers=containers)]
    stores, compiled = Stores(accounts), Rules(table, [ACCOUNT])
    queue = await AsyncQueue.open(world.scratch / "queue.db")
    store = await stores.call(ACCOUNT, _with_container)
    watch = LinkWatch("127.0.0.1", 1, None)
    departures = Departures(queue, stores, compiled, world.cloud, watch)
    evictor = Evictor(queue, stores, compiled, departures, table, uses)
    try:
        yield Node(world, stores, store, queue, compiled, watch, departures, evictor, root)
    finally:
        await queue.aclose()
        store.close()


def _with_container(store: Store) -> Store:
    (Path(f"/proc/self/fd/{store.mount.root_fd}") / CONTAINER).mkdir(exist_ok=True)
    return store


def offline(watch: LinkWatch) -> None:
    """Nothing gets through any more."""
    while watch.state.link is not Link.OFFLINE:
        watch.no_way()
