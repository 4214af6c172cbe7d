"""cloud-wins, for any order of writes here and there, deletes there, faults and crashes.

What is here in the end is ours when they changed nothing since our last upload, else theirs, or nothing when they
deleted it."""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from azure.storage.blob import BlobBlock, ContentSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.offload.failures import CloudFailed
from agent.offload.source import source_of
from agent.offload.transport import Errand
from agent.offload.upload import Conflict, Policy
from agent.offload.verify import Seen
from agent.offload.yielding import delete_here, take_theirs
from dataplane.blobapi.model import BlobProperties, BlobState, ContainerProperties, Lease
from dataplane.store.errors import NotEvictable
from dataplane.store.store import BlobRef, Store
from tests.offload.azurite import Exchange
from tests.offload.upload_support import To, World, answered

EXAMPLES = 60
BOX = "box"
HERE, DESCRIBED_HERE, THERE, GONE_THERE, CRASH = "written", "described", "written there", "deleted there", "crash"
_numbers = itertools.count(1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "root").mkdir()
    made = Store(str(tmp_path / "root"))
    made.run(made.create_container(BOX, ContainerProperties("0x1", 0)))
    yield made
    made.close()


def put(store: Store, name: str, data: bytes, etag: str, **more: str) -> BlobState:
    """Write a blob here, as a client does."""
    staged = store.stage(BOX)
    staged.write(data)
    properties = BlobProperties(etag, 1_760_000_000, 1_700_000_000, content_md5=hashlib.md5(data).digest(), **more)  # type: ignore[arg-type]
    return store.run(store.put(BlobRef(BOX, name), staged, lambda _: properties))


@dataclass
class Life:
    """A blob here and there, and what the queue and its stub know."""

    world: World
    store: Store
    name: str = field(default_factory=lambda: f"blob-{next(_numbers)}")
    versions: int = 0
    here: bytes | None = None  # what was last written here
    theirs: bytes | None = None  # what they wrote since our last upload; b"" for a delete
    cloud_etag: str = ""
    failed: bool = False

    @property
    def ref(self) -> BlobRef:
        return BlobRef(BOX, self.name)

    def write(self) -> None:
        self.versions += 1
        self.here = b"ours %d" % self.versions
        put(self.store, self.name, self.here, f"0x8DC{self.versions:012X}")

    def describe(self) -> None:
        state = self.store.stat_blob(self.ref)
        if state is not None:
            self.versions += 1
            new = f"0x8DC{self.versions:012X}"

            def decide(now: BlobState | None) -> BlobProperties:
                assert now is not None

                return replace(now.properties, etag=new, metadata={"version": str(self.versions)})

            self.store.run(self.store.update(self.ref, decide))

    def they_write(self) -> None:
        self.versions += 1
        self.theirs = b"theirs %d" % self.versions
        self.world.container.upload_blob(self.name, self.theirs, overwrite=True)

    def they_delete(self) -> None:
        blob = self.world.container.get_blob_client(self.name)
        if blob.exists():
            blob.delete_blob()
            self.theirs = b""

    def crash(self) -> None:
        """The queue is lost; what a stub says is not."""
        self.cloud_etag, self.failed = "", False

    def attempt(self, accident: str = "", number: int = -1) -> None:
        """What a delivery does, with an accident in one of its requests."""
        begin = len(self.world.proxy.log)

        def fault(exchange: Exchange) -> None:
            if exchange.number == begin + number:
                exchange.lose_answer = accident == "lost answer"
                exchange.reset_after_body_bytes = 0 if accident == "reset" else None
                exchange.answer = answered("500 No") if accident == "500" else b""

        self.world.proxy.fault = fault
        try:
            with contextlib.suppress(CloudFailed):
                self._deliver()
        finally:
            self.world.proxy.fault = lambda exchange: None

    def _deliver(self) -> None:
        blob = self.store.open_blob(self.ref)
        if blob is None:
            return
        with contextlib.closing(blob):
            etag, remote = blob.state.properties.etag, blob.state.properties.remote
            if remote is not None and remote.version == etag:
                return
            known = remote.etag if remote is not None else self.cloud_etag
            self.failed, again = True, self.failed
            try:
                source = source_of(self.store, self.ref, blob)
                sent = self.world.send(source, self.name, etag=known, policy=Policy.CLOUD_WINS, again=again)
                self.cloud_etag, self.theirs, self.failed = sent.cloud_etag, None, False
            except Conflict as conflict:
                self._give_way(etag, conflict.present)
                return
        if remote is not None:
            now = replace(remote, etag=sent.cloud_etag, version=etag)
            self.store.run(self.store.retarget(self.ref, etag, now))

    def _give_way(self, etag: str, present: Seen | None) -> None:
        if present is None:
            delete_here(self.store, self.ref, etag)
            self.cloud_etag, self.theirs, self.here = "", None, None
        else:
            target = To(self.world.name, self.name)
            _, remote = take_theirs(self.world.cloud, self.store, self.ref, etag, target, present, Errand())
            self.cloud_etag, self.theirs, self.here = remote.etag, None, None
        self.failed = False


attempts = st.tuples(st.sampled_from(["", "reset", "lost answer", "500"]), st.integers(0, 5))
steps = st.lists(st.sampled_from([HERE, HERE, DESCRIBED_HERE, THERE, GONE_THERE, CRASH]) | attempts, max_size=12)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
def test_here_ends_as_the_cloud_is(world: World, store: Store, plan: list[str | tuple[str, int]]) -> None:
    life = Life(world, store)
    does = {
        HERE: life.write, DESCRIBED_HERE: life.describe, THERE: life.they_write, GONE_THERE: life.they_delete,
        CRASH: life.crash,
    }  # fmt: skip
    for step in plan:
        if isinstance(step, tuple):
            life.attempt(*step)
        else:
            does[step]()
    life.attempt()
    life.attempt()
    state = store.stat_blob(life.ref)
    blob = world.container.get_blob_client(life.name)
    if state is None:
        return  # never written here, or deleted there
    there = blob.download_blob().readall() if blob.exists() else None
    remote = state.properties.remote
    if remote is not None:
        # A stub without a change of its own is not sent: what they did to it since is a reconciliation's to find.
        if there is not None and life.theirs is None:
            assert (remote.size, remote.md5) == (len(there), hashlib.md5(there).digest())
            assert remote.etag == life.world.etag_of(life.name)
    else:
        opened = store.open_blob(life.ref)
        assert opened is not None
        with contextlib.closing(opened):
            assert os.pread(opened.fd, 1000, 0) == life.here == there


def conflict_of(world: World, store: Store, name: str) -> tuple[str, Seen | None]:
    """Send what is here against what they did; the local ETag and theirs."""
    blob = store.open_blob(BlobRef(BOX, name))
    assert blob is not None
    with contextlib.closing(blob), pytest.raises(Conflict) as raised:
        world.send(source_of(store, BlobRef(BOX, name), blob), name, etag="0x8DC", policy=Policy.CLOUD_WINS, again=True)
    return blob.state.properties.etag, raised.value.present


def test_theirs_is_here_with_everything_that_they_gave_it(world: World, store: Store) -> None:
    """Also without an MD5, as one who uploads blocks may leave it."""
    ours = put(store, "b", b"ours", "0x8DC0000000000A1")
    data = os.urandom(5 << 20)
    blob = world.container.get_blob_client("b")
    blob.stage_block("a", data)
    blob.commit_block_list(
        [BlobBlock("a")], metadata={"By": "them"}, tags={"k": "v"},
        content_settings=ContentSettings(content_type="text/x", content_encoding="gzip"),
    )  # fmt: skip
    etag, theirs = conflict_of(world, store, "b")
    assert theirs is not None
    take_theirs(world.cloud, store, BlobRef(BOX, "b"), etag, To(world.name, "b"), theirs, Errand())
    state = store.stat_blob(BlobRef(BOX, "b"))
    assert state is not None
    found, remote = state.properties, state.properties.remote
    assert remote is not None
    assert (state.size, remote.size, remote.md5) == (len(data), len(data), hashlib.md5(data).digest())
    assert (remote.etag, remote.name, remote.version) == (world.etag_of(), "b", found.etag)
    assert found.etag != ours.properties.etag
    assert found.last_modified > ours.properties.last_modified
    assert found.created == ours.properties.created
    assert (found.content_type, found.content_encoding) == ("text/x", "gzip")
    assert (dict(found.metadata), dict(found.tags)) == ({"By": "them"}, {"k": "v"})


def test_ours_stays_for_whoever_uses_it_here(world: World, store: Store) -> None:
    put(store, "b", b"ours", "0x8DC0000000000A1")
    world.container.upload_blob("b", b"theirs")
    etag, theirs = conflict_of(world, store, "b")
    assert theirs is not None
    ref, target = BlobRef(BOX, "b"), To(world.name, "b")

    def refused(reason: str, etag: str = etag) -> None:
        assert theirs is not None
        with pytest.raises(NotEvictable, match=reason):
            take_theirs(world.cloud, store, ref, etag, target, theirs, Errand())
        with pytest.raises(NotEvictable, match=reason):
            delete_here(store, ref, etag)
        state = store.stat_blob(ref)
        assert state is not None
        assert state.properties.remote is None

    refused("changed", etag="0x8DC0000000000FF")
    store.run(store.set_lease(ref, lambda _: Lease("00000000-0000-0000-0000-000000000001", -1, None)))
    refused("lease")


def test_theirs_that_changes_again_is_not_taken(world: World, store: Store) -> None:
    put(store, "b", b"ours", "0x8DC0000000000A1")
    world.container.upload_blob("b", b"theirs")
    etag, theirs = conflict_of(world, store, "b")
    assert theirs is not None
    world.container.upload_blob("b", b"theirs again", overwrite=True)
    with pytest.raises(CloudFailed) as raised:
        take_theirs(world.cloud, store, BlobRef(BOX, "b"), etag, To(world.name, "b"), theirs, Errand())
    assert raised.value.fault.code == "ConditionNotMet"
    state = store.stat_blob(BlobRef(BOX, "b"))
    assert state is not None
    assert state.properties.remote is None
