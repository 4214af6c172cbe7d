"""A mount, a queue and a cloud that are compared: real stores, a real queue, and Azurite behind a proxy."""

import json
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
from azure.storage.blob import ContainerClient

from agent.config import Account
from agent.config_offload import Offload, Rule
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.look import Looked, Stores, look
from agent.offload.queries import Filter
from agent.offload.reconcile.course import Course, Wish
from agent.offload.reconcile.reconciler import Reconciler
from agent.offload.rows import Change, Copy, Row
from agent.offload.rules import Rules
from agent.offload.source import source_of
from agent.offload.states import Residency
from agent.offload.templates import Target
from agent.offload.transport import Errand
from agent.offload.upload import Guard, upload
from dataplane.blobapi.model import BlobProperties, BlobState, ContainerProperties, Remote
from dataplane.store.store import BlobRef
from tests.offload.command_line import blobedge
from tests.offload.upload_support import NODE, World

ACCOUNT: Final = "acct"
HERE: Final = "photos"  # the container of the mount
INSTANCE: Final = f"{NODE}/0123456789ab"
LATER: Final = 4_000_000_000_000_000_000
SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The commands, against the service at this admin address."""

    admin: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one."""
        return blobedge(*arguments, "--admin", self.admin)

    def queue(self, *arguments: str) -> Any:
        """What `blobedge queue` prints."""
        ran = self.run("queue", *arguments)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def document(self, *arguments: str) -> dict[str, Any]:
        """What `blobedge reconcile --json` prints."""
        ran = self.run("reconcile", "--json", *arguments)
        assert ran.returncode in (0, 1), ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        assert ran.returncode == (1 if found["left"] else 0)
        return found


@dataclass(slots=True)
class Node:
    """A node, and its cloud."""

    world: World
    root: Path
    state: Path
    offload: Offload
    rules: Rules
    stores: Stores
    queue: AsyncQueue
    reconciler: Reconciler

    @classmethod
    def make(cls, world: World, scratch: Path, **rule: Any) -> "Node":
        """One with the container HERE, whose blobs go to the world's container."""
        root, state = scratch / "root", scratch / "state"
        root.mkdir(parents=True)
        offload = Offload(
            node=NODE, rules=[Rule(**{"upload": "now", "container": world.name, "containers": [HERE], **rule})]
        )
        account = Account(name=ACCOUNT, root=str(root))
        rules, stores = Rules(offload, [ACCOUNT]), Stores([account])
        state.mkdir()
        queue = AsyncQueue(Queue(state / "queue.db"))
        made = cls(
            world, root, state, offload, rules, stores, queue,
            Reconciler(queue, stores, rules, world.cloud, offload, state),
        )  # fmt: skip
        made.store.run(made.store.create_container(HERE, ContainerProperties("0x8D1", 1)))
        return made

    @property
    def store(self) -> Any:
        return self.stores._store(ACCOUNT)

    def close(self) -> None:
        self.store.close()
        self.queue.queue.close()

    def reopen(self) -> None:
        """As a process does that has just begun."""
        self.stores = Stores([Account(name=ACCOUNT, root=str(self.root))])
        self.reconciler = Reconciler(self.queue, self.stores, self.rules, self.world.cloud, self.offload, self.state)

    def lose_record(self, name: str) -> None:
        """As a tool does to a stub that copies files without their attributes."""
        path = self.root / HERE / name
        mode = path.stat().st_mode
        path.unlink()
        path.touch()
        path.chmod(stat.S_IMODE(mode))
        self.store.close()
        self.reopen()

    def new_queue(self) -> None:
        """As if the database had been lost."""
        self.queue.queue.close()
        for file in self.state.glob("queue.db*"):
            file.unlink()
        self.queue = AsyncQueue(Queue(self.state / "queue.db"))
        self.reopen()

    @property
    def cloud(self) -> ContainerClient:
        return self.world.container

    def put(self, name: str, data: bytes = b"bytes", **properties: Any) -> BlobState:
        """Write a blob, as a client does, and have the queue know it."""
        now = int(time.time())
        etag = f"0x{time.time_ns():X}"
        described = BlobProperties(etag, now, now, **properties)
        state: BlobState = self.store.run(self.store.put(BlobRef(HERE, name), data, lambda _: described))
        self.queue.queue.note([Change(ACCOUNT, HERE, name, time.time_ns(), 0, 0, 0)])
        return state

    def look(self, name: str) -> Looked:
        row = self.row(name)
        assert row is not None
        found = look(self.store, self.rules, row, LATER)
        assert found is not None
        return found

    def send(self, *names: str) -> None:
        """As the engine does: upload, then note the copy."""
        for name in names:
            looked = self.look(name)
            row = self.row(name)
            target = looked.decision.target
            assert target is not None
            assert row is not None
            source = source_of(self.store, BlobRef(HERE, name), looked.blob)
            sent = upload(self.world.cloud, source, target, Guard(), Errand(), node=INSTANCE)
            looked.blob.close()
            assert self.queue.queue.changed(row, looked.seen, looked.decision.turn, LATER)
            copy = Copy(looked.seen.etag, sent.cloud_etag, target.container, target.name, time.time_ns())
            assert self.queue.queue.copied(row, copy)

    def stub(self, name: str) -> None:
        """Evict a blob that was sent."""
        row = self.row(name)
        assert row is not None
        state = self.state_of(name)
        there = self.world.service.get_blob_client(row.cloud_container, row.cloud_name).get_blob_properties()
        remote = Remote(
            state.size, bytes(there.content_settings.content_md5 or b""), row.cloud_etag, row.cloud_container,
            row.cloud_name, state.properties.etag, 0, 0,
        )  # fmt: skip
        self.store.run(self.store.evict(BlobRef(HERE, name), state.properties.etag, remote))
        assert self.queue.queue.evicted(row)

    def state_of(self, name: str) -> BlobState:
        found: BlobState | None = self.store.stat_blob(BlobRef(HERE, name))
        assert found is not None
        return found

    def row(self, name: str) -> Row | None:
        return self.queue.queue.find(ACCOUNT, HERE, name)

    def rows(self) -> dict[str, tuple[Residency, str, str]]:
        """What the queue says of each blob: where it is, which version, and which one of the cloud."""
        page = self.queue.queue.rows(Filter(), None, 1_000_000)
        return {row.name: (row.residency, row.etag, row.cloud_etag) for row in page.rows}

    def target(self, name: str) -> Target:
        """Where a blob of today goes."""
        candidates = self.rules.candidates(ACCOUNT, HERE)
        assert candidates[0].route is not None
        return candidates[0].route.target(ACCOUNT, HERE, name, time.time_ns())

    async def reconcile(self, **wish: Any) -> Course:
        """Ask for one, and run it to its end."""
        reconciler = self.reconciler
        with trio.fail_after(SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reconciler.run)
                began = await reconciler.ask(Wish(**{"fast": True, **wish}))
                while reconciler.last is None or reconciler.last.began < began:
                    assert not reconciler.problem, reconciler.problem
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        return reconciler.last
