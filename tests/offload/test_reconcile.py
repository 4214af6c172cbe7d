"""Mount, queue and cloud: what differs is told, and mended; a lost database is made again out of the others."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.keep import beside
from agent.offload.opening import DamagedDatabase
from agent.offload.reconcile import listed, mountside
from agent.offload.reconcile.course import Wish
from agent.offload.reconcile.reconciler import REFUSALS_MAX, UNDER_WAY, Busy
from agent.offload.reconcile.verdict import DIFFERENCES, Kind
from agent.offload.rows import Adopted, Copy, Row, Seen
from agent.offload.states import COPY_LOST, Hold, Residency
from agent.offload.transport import Errand
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState
from dataplane.store.store import BlobRef
from tests.offload.azurite import Exchange
from tests.offload.reconcile_support import ACCOUNT, HERE, Node
from tests.offload.upload_support import World, answered

pytestmark = pytest.mark.trio
YEAR_NS = 365 * 86_400 * 1_000_000_000


@pytest.fixture
def node(world: World, tmp_path: Path) -> Iterator[Node]:
    made = Node.make(world, tmp_path / "node")
    yield made
    made.close()


def differences(found: dict[str, int]) -> dict[str, int]:
    return {word: count for word, count in found.items() if word in DIFFERENCES and count}


async def test_a_lost_database_is_made_again_without_asking_for_a_single_blob(node: Node) -> None:
    node.put("plain")
    node.put("dressed", content_type="text/x-ä", metadata={"Who": "me"}, tags={"k": "v"}, cache_control="no-store")
    node.put("cool", access_tier=AccessTier.COOL)
    node.put("empty", b"")
    node.put("stub", b"s" * 1000)
    node.send("plain", "dressed", "cool", "empty", "stub")
    node.stub("stub")
    (node.root / HERE / "foreign").write_bytes(b"of another program")
    node.put("unsent")
    before = node.rows()
    node.new_queue()
    node.world.proxy.log.clear()
    done = await node.reconcile(repair=True)
    assert dict(done.found) == {Kind.UNRECORDED: 5, Kind.TO_SEND: 2}
    assert done.left == 0
    after = node.rows()
    assert after.pop("foreign")[0] is Residency.QUEUED
    assert after.pop("unsent")[0] is before.pop("unsent")[0] is Residency.QUEUED
    assert after == before
    assert node.world.proxy.count("HEAD") == 0
    assert differences(dict((await node.reconcile()).found)) == {}


async def test_what_was_sent_while_the_clock_was_ahead_is_missed_like_anything_else(node: Node) -> None:
    node.put("a")
    node.send("a")
    row = node.row("a")
    assert row is not None
    ahead = Copy(row.copied_etag, row.cloud_etag, row.cloud_container, row.cloud_name, row.copied_at + YEAR_NS)
    seen = Seen(row.etag, row.size, row.modified_ns)
    assert node.queue.queue.adopt([Adopted(ACCOUNT, HERE, "a", Residency.COPIED, seen, ahead, row.revision)])
    node.cloud.delete_blob("a")
    assert dict((await node.reconcile()).found) == {Kind.MISSING: 1}


async def test_the_queues_file_is_checked_before_everything_is_mended_and_not_for_a_look(node: Node) -> None:
    names = [f"unmistakable {number}" for number in range(3)]
    for name in names:
        node.put(name)
    node.send(*names)
    path = node.queue.queue.path
    node.queue.queue.close()
    content = bytearray(path.read_bytes())
    content[content.index(names[1].encode())] ^= 1  # in the row, or in its index
    path.write_bytes(content)
    node.queue = AsyncQueue(Queue(path))
    node.reopen()
    await node.reconcile(fast=False)
    await node.reconcile(fast=False, account=ACCOUNT, container="other", repair=True)
    with pytest.RaisesGroup(DamagedDatabase, flatten_subgroups=True):
        await node.reconcile(fast=False, repair=True)


async def test_only_a_report_changes_nothing(node: Node) -> None:
    node.put("a")
    node.put("gone")
    node.send("a", "gone")
    node.cloud.delete_blob("gone")
    before = node.rows()
    done = await node.reconcile()
    assert dict(done.found) == {Kind.IN_STEP: 1, Kind.MISSING: 1}
    assert done.examples[Kind.MISSING] == [f"{ACCOUNT}/{HERE}/gone"]
    assert done.left == 1
    assert node.rows() == before


async def test_what_the_cloud_lost_or_has_otherwise_is_sent_again(node: Node) -> None:
    for name in ("kept", "gone", "replaced", "dressed"):
        node.put(name)
    node.send("kept", "gone", "replaced", "dressed")
    node.cloud.delete_blob("gone")
    node.cloud.upload_blob("replaced", b"theirs", overwrite=True)
    node.cloud.get_blob_client("dressed").set_blob_metadata({"a": "b"})
    done = await node.reconcile(repair=True)
    assert dict(done.found) == {Kind.IN_STEP: 1, Kind.MISSING: 1, Kind.OTHER_CONTENT: 2}
    assert done.left == 0
    where = {name: residency for name, (residency, _, _) in node.rows().items()}
    assert where == {
        "kept": Residency.COPIED, "gone": Residency.QUEUED, "replaced": Residency.QUEUED, "dressed": Residency.QUEUED,
    }  # fmt: skip
    row = node.row("replaced")
    assert row is not None
    assert row.cloud_etag == ""  # the conflict policy meets it


@pytest.mark.parametrize("metadata", [{}, {"by": "them"}, {"blobedge_etag": "0x1", "blobedge_node": "edge-9/ab"}])
async def test_a_copy_that_others_wrote_and_that_was_read_here_is_in_step(node: Node, metadata: dict[str, str]) -> None:
    """cloud-wins takes such a copy over, a repair the one that a person put back; then a recall brought its bytes."""
    node.put("a")
    node.send("a")
    node.cloud.upload_blob("a", b"bytes", overwrite=True, metadata=metadata)
    row = node.row("a")
    assert row is not None
    theirs = node.cloud.get_blob_client("a").get_blob_properties().etag.strip('"')
    copy = Copy(row.copied_etag, theirs, row.cloud_container, row.cloud_name, row.copied_at)
    seen = Seen(row.etag, row.size, row.modified_ns)
    assert node.queue.queue.adopt([Adopted(ACCOUNT, HERE, "a", Residency.COPIED, seen, copy, row.revision)])
    before = node.rows()
    done = await node.reconcile(repair=True)
    assert dict(done.found) == {Kind.IN_STEP: 1}
    assert node.rows() == before
    node.cloud.upload_blob("a", b"other", overwrite=True, metadata=metadata)
    assert dict((await node.reconcile()).found) == {Kind.OTHER_CONTENT: 1}


async def test_tags_that_nobody_told_of_are_sent(node: Node) -> None:
    """They change no ETag: after a power cut only a comparison finds them."""

    def tagged(state: BlobState | None) -> BlobProperties:
        assert state is not None
        return replace(state.properties, tags={"line": "0"})

    for name in ("kept", "tagged", "stub"):
        node.put(name)
    node.send("kept", "tagged", "stub")
    node.stub("stub")
    for name in ("tagged", "stub"):
        node.store.run(node.store.update(BlobRef(HERE, name), tagged))
    done = await node.reconcile(repair=True)
    assert dict(done.found) == {Kind.IN_STEP: 1, Kind.TO_SEND: 2}
    assert done.left == 0
    assert [node.rows()[name][0] for name in ("kept", "tagged", "stub")] == [
        Residency.COPIED, Residency.QUEUED, Residency.QUEUED,
    ]  # fmt: skip


async def test_a_blob_that_is_not_here_any_more_is_left_to_the_uploader(node: Node) -> None:
    node.put("a")
    node.send("a")
    (node.root / HERE / "a").unlink()
    done = await node.reconcile(repair=True)
    assert done.found[Kind.ROW_WITHOUT_BLOB] == 1
    assert node.rows()["a"][0] is Residency.QUEUED


async def test_rows_whose_blobs_are_gone_are_read_few_at_a_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that lost a million blobs has as many rows between two names of the mount."""
    monkeypatch.setattr(mountside, "ROWS_COUNT_MAX", 3)
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        node.put(name)
    node.send(*names)
    left = {"00", "05", "19"}
    for name in set(names) - left:
        (node.root / HERE / name).unlink()
    most = 0
    read = mountside.Side.read

    def noted(side: mountside.Side, states: list[BlobState], rows: dict[str, Row], now: int) -> None:
        nonlocal most
        most = max(most, len(rows))
        read(side, states, rows, now)

    monkeypatch.setattr(mountside.Side, "read", noted)
    done = await node.reconcile(repair=True)
    assert most == 3
    assert (done.found[Kind.IN_STEP], done.found[Kind.ROW_WITHOUT_BLOB]) == (len(left), len(names) - len(left))
    assert done.blobs == len(left)


async def test_a_stub_whose_copy_is_gone_is_an_alarm_until_it_is_back(node: Node) -> None:
    for name in ("gone", "other", "whole"):
        node.put(name, name.encode() * 100)
    node.send("gone", "other", "whole")
    kept = node.cloud.download_blob("gone")
    data, metadata = kept.readall(), kept.properties.metadata
    for name in ("gone", "other", "whole"):
        node.stub(name)
    node.cloud.delete_blob("gone")
    node.cloud.upload_blob("other", b"theirs", overwrite=True)
    done = await node.reconcile(repair=True)
    assert differences(dict(done.found)) == {Kind.STUB_WITHOUT_COPY: 2}
    assert done.left == 2
    for name in ("gone", "other"):
        row = node.row(name)
        assert row is not None
        assert (row.residency, row.hold, row.failure) == (Residency.REMOTE, Hold.OPERATOR, COPY_LOST)
        assert node.world.name in row.error
    node.cloud.upload_blob("gone", data, metadata=metadata, content_settings=kept.properties.content_settings)
    again = await node.reconcile(repair=True)
    assert differences(dict(again.found)) == {Kind.UNRECORDED: 1, Kind.STUB_WITHOUT_COPY: 1}
    row = node.row("gone")
    assert row is not None
    assert (row.residency, row.hold) == (Residency.REMOTE, Hold.NONE)


async def test_a_stub_without_a_copy_has_its_alarm_in_a_new_database_too(node: Node) -> None:
    node.put("gone")
    node.send("gone")
    node.stub("gone")
    node.cloud.delete_blob("gone")
    node.new_queue()
    done = await node.reconcile(repair=True)
    assert done.left == 1
    row = node.row("gone")
    assert row is not None
    assert (row.residency, row.hold) == (Residency.REMOTE, Hold.OPERATOR)


async def test_a_stub_that_says_nothing_is_planted_again(node: Node) -> None:
    before = node.put("a", b"a" * 500, content_type="text/plain", metadata={"k": "v"})
    node.send("a")
    node.stub("a")
    node.lose_record("a")
    assert node.state_of("a").properties.etag != before.properties.etag
    assert differences(dict((await node.reconcile()).found)) == {Kind.LOST_STUB: 1}
    done = await node.reconcile(repair=True)
    assert done.found[Kind.LOST_STUB] == done.mended[Kind.LOST_STUB] == 1
    state = node.state_of("a")
    assert (state.size, state.properties.etag, state.properties.metadata) == (500, before.properties.etag, {"k": "v"})
    assert differences(dict((await node.reconcile()).found)) == {}


async def test_a_stub_that_says_nothing_and_has_no_copy_is_told(node: Node) -> None:
    node.put("a")
    node.send("a")
    node.stub("a")
    node.lose_record("a")
    node.cloud.delete_blob("a")
    done = await node.reconcile(repair=True)
    assert done.found[Kind.LOST_STUB] == done.left == 1
    assert done.examples[Kind.LOST_STUB] == [f"{ACCOUNT}/{HERE}/a"]


async def test_what_was_sent_after_the_cloud_was_listed_is_not_called_missing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.put("a")
    read = mountside.read_page

    def late(store: object, container: str, start: str) -> mountside.MountPage:
        node_row = node.row("a")
        assert node_row is not None
        if node_row.residency is Residency.QUEUED:
            node.send("a")
        return read(store, container, start)  # type: ignore[arg-type]

    monkeypatch.setattr(mountside, "read_page", late)
    done = await node.reconcile(repair=True)
    assert dict(done.found) == {Kind.IN_STEP: 1}
    assert node.rows()["a"][0] is Residency.COPIED


async def test_it_goes_on_after_a_kill_where_it_stopped(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "PAGE_BLOBS", 3)
    monkeypatch.setattr(mountside, "PAGE_BLOBS", 3)
    names = [f"{number:02}" for number in range(10)]
    for name in names:
        node.put(name)
    node.send(*names)
    before = node.rows()
    node.new_queue()
    reconciler = node.reconciler
    await reconciler.ask(Wish(repair=True, fast=True))
    with trio.CancelScope() as killed:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconciler.run)
            while reconciler.course is None or not 0 < reconciler.course.blobs < 10:
                await trio.lowlevel.checkpoint()
            killed.cancel()
    node.world.proxy.log.clear()
    node.reopen()
    done = await node.reconcile(repair=True)  # the same wish: it is the one that is under way
    assert (done.listed, done.blobs) == (10, 10)
    assert node.rows() == before
    assert node.world.proxy.count("comp=list") == 0  # the listing was there


async def test_one_at_a_time_and_it_can_be_stopped(node: Node) -> None:
    await node.reconciler.ask(Wish())
    with pytest.raises(Busy):
        await node.reconciler.ask(Wish(repair=True))
    await node.reconciler.stop()
    assert (await node.reconcile(repair=True)).wish.repair
    assert not node.queue.queue.recall(UNDER_WAY)


async def test_one_that_is_begun_right_after_a_stop_is_not_taken_for_the_one_that_was_stopped(node: Node) -> None:
    node.put("a")
    node.send("a")
    reconciler = node.reconciler
    listing = threading.Event()

    def held(_: Exchange) -> None:
        listing.wait()

    node.world.proxy.fault = held
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconciler.run)
            await reconciler.ask(Wish())
            while reconciler.course is None:  # noqa: ASYNC110 - the product tells no event
                await trio.sleep(0.01)
            await reconciler.stop()
            began = await reconciler.ask(Wish(repair=True))
            listing.set()
            while reconciler.last is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert (reconciler.last.began, reconciler.last.wish.repair) == (began, True)


@pytest.mark.parametrize("another", [False, True])
async def test_that_of_a_new_database_is_not_waited_for_when_it_was_stopped(node: Node, another: bool) -> None:
    reconciler = node.reconciler
    rebuilt: list[bool] = []

    async def rebuild() -> None:
        rebuilt.append(await reconciler.rebuild())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rebuild)
            while not await node.queue(lambda queue: queue.recall(UNDER_WAY)):  # noqa: ASYNC110 - no event of it
                await trio.sleep(0.01)
            await reconciler.stop()
            if another:
                await node.reconcile(account=ACCOUNT, container=HERE)  # says nothing of the other containers
    assert rebuilt == [False]


def forbid(exchange: Exchange) -> None:
    exchange.answer = answered("403 Forbidden", "AuthorizationPermissionMismatch")


async def test_a_permission_that_is_missing_ends_it_with_what_is_missing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.offload.reconcile.reconciler.RETRY_SECONDS", 0.05)
    node.put("a")
    node.send("a")
    whole = await node.reconcile()
    node.world.proxy.fault = forbid
    reconciler = node.reconciler
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconciler.run)
            began = await reconciler.ask(Wish(repair=True))
            while reconciler.refused is None:  # noqa: ASYNC110 - the product tells no event
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert "lacks l (list) or t (tags)" in reconciler.refused.failed["the cloud"]
    assert reconciler.ended == reconciler.refused
    assert (reconciler.refused.began, reconciler.course, reconciler.last) == (began, None, whole)
    assert not node.queue.queue.recall(UNDER_WAY)
    node.world.proxy.fault = lambda exchange: None
    assert (await node.reconcile(repair=True)).found == {Kind.IN_STEP: 1}
    assert reconciler.ended == reconciler.last


async def test_a_new_database_waits_for_the_credential(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.offload.reconcile.reconciler.RETRY_SECONDS", 0.01)
    node.put("a")
    node.send("a")
    node.world.proxy.fault = forbid
    reconciler = node.reconciler
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconciler.run)
            assert not await reconciler.rebuild()
            asked = node.world.proxy.count("^GET")
            while node.world.proxy.count("^GET") < asked + 2 * REFUSALS_MAX:  # noqa: ASYNC110 - no event of it either
                await trio.sleep(0.01)
            assert reconciler.refused is None
            node.world.proxy.fault = lambda exchange: None
            while reconciler.last is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert reconciler.last.found == {Kind.IN_STEP: 1}


async def test_a_cloud_that_refuses_is_told_and_asked_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.offload.reconcile.reconciler.RETRY_SECONDS", 0.05)
    node.put("a")
    node.send("a")

    def refuse(exchange: Exchange) -> None:
        exchange.answer = (
            b"HTTP/1.1 503 No\r\nx-ms-error-code: ServerBusy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )

    node.world.proxy.fault = refuse
    reconciler = node.reconciler
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconciler.run)
            assert not await reconciler.rebuild()  # the mounts are looked at alone
            node.world.proxy.fault = lambda exchange: None
            while reconciler.last is None:  # noqa: ASYNC110 - the product tells no event
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert reconciler.last.found == {Kind.IN_STEP: 1}


async def test_a_stub_that_was_moved_is_looked_at_in_a_new_database(node: Node) -> None:
    """It gets a copy of its own then, and what comes under its old name until then does not replace the copy."""
    node.put("old")
    node.send("old")
    node.stub("old")
    (node.root / HERE / "old").rename(node.root / HERE / "new")
    node.new_queue()
    await node.reconcile(repair=True)
    row = node.row("new")
    assert row is not None
    assert row.residency is Residency.QUEUED
    node.put("old", b"again")
    again = node.row("old")
    assert again is not None
    assert again.away


@pytest.mark.parametrize("known", [False, True])
async def test_a_stub_whose_copy_is_kept_beside_is_no_alarm(node: Node, known: bool) -> None:
    node.put("b", b"first")
    node.send("b")
    node.stub("b")
    remote = node.state_of("b").properties.remote
    assert remote is not None
    there = node.world.cloud.head(remote.container, remote.name, Errand())
    assert there is not None
    beside(node.world.cloud, remote.container, remote.name, there, Errand())
    node.cloud.upload_blob("b", b"second", overwrite=True)
    if not known:
        node.new_queue()
    done = await node.reconcile(repair=True)
    assert done.found.get(Kind.STUB_WITHOUT_COPY, 0) == 0
    row = node.row("b")
    assert row is not None
    assert row.residency is (Residency.REMOTE if known else Residency.QUEUED)
