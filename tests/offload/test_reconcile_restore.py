"""A node that is built again from nothing: what the cloud holds of it is here again, as it was, and nothing else is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import DecodeError
from azure.storage.blob import BlobBlock, ContentSettings

from agent.offload.evict.departure import Departures
from agent.offload.evict.expiry import Expiry
from agent.offload.linkwatch import LinkWatch
from agent.offload.reconcile.course import Course
from agent.offload.reconcile.listed import Entry, parse
from agent.offload.reconcile.verdict import Kind, of_absent
from agent.offload.rows import Turn
from agent.offload.states import Residency
from dataplane.blobapi.model import LOST, AccessTier, BlobState
from dataplane.store.store import BlobRef
from tests.offload.reconcile_support import HERE, LATER, Node
from tests.offload.upload_support import World

pytestmark = pytest.mark.trio


@pytest.fixture
def node(world: World, tmp_path: Path) -> Iterator[Node]:
    made = Node.make(world, tmp_path / "node")
    yield made
    made.close()


def told(state: BlobState) -> tuple[Any, ...]:
    """What a client sees."""
    p = state.properties
    return (
        state.size, p.etag, p.last_modified, p.content_type or "application/octet-stream", p.content_encoding,
        p.content_language, p.content_disposition, p.cache_control, p.metadata, p.tags, p.access_tier,
    )  # fmt: skip


async def test_everything_is_back_as_it_was(world: World, tmp_path: Path) -> None:
    rule = {"name": "{node}/{date:%Y/%m}/{name}"}
    first = Node.make(world, tmp_path / "first", **rule)
    first.put("plain")
    first.put("empty", b"")
    first.put("deep/er/name with ä%~2E\\.", b"x" * 5000)
    first.put(
        "dressed", content_type="text/x-a; q=\"1\"", content_encoding="gzip", content_language="de",
        content_disposition="inline", cache_control="no-cache", metadata={"CamelCase": "a b"}, tags={"k": "v w"},
        access_tier=AccessTier.COOL,
    )  # fmt: skip
    names = list(first.rows())
    first.send(*names)
    before = {name: told(first.state_of(name)) for name in names}
    first.close()
    second = Node.make(world, tmp_path / "second", **rule)
    (second.root / HERE).rmdir()  # the container is made, too
    only = await second.reconcile()
    assert dict(only.found) == {Kind.COPY_WITHOUT_BLOB: 4}
    assert second.rows() == {}
    done = await second.reconcile(restore=True)
    assert dict(done.mended) == {Kind.COPY_WITHOUT_BLOB: 4}
    assert {name: told(second.state_of(name)) for name in names} == before
    assert {residency for residency, _, _ in second.rows().values()} == {Residency.REMOTE}
    assert dict((await second.reconcile()).found) == {Kind.IN_STEP: 4}
    second.close()


async def test_what_is_here_is_never_replaced_and_what_is_deleted_here_stays_so(node: Node) -> None:
    for name in ("newer", "going", "lost"):
        node.put(name, name.encode())
    node.send("newer", "going", "lost")
    assert of_absent(node.row("lost"), deleted=False) is Kind.WAITING  # until the queue has heard that it is gone, too
    node.put("newer", b"written since")
    for name in ("going", "lost"):
        (node.root / HERE / name).unlink()
    row = node.row("going")
    assert row is not None
    assert node.queue.queue.deleted(row, Turn(LATER, 0, 0), LATER)
    row = node.row("lost")
    assert row is not None
    assert node.queue.queue.gone(row)  # under a rule that keeps the copy
    done = await node.reconcile(restore=True)
    assert dict(done.mended) == {Kind.COPY_WITHOUT_BLOB: 1}
    assert node.state_of("newer").properties.remote is None
    assert node.store.stat_blob(BlobRef(HERE, "going")) is None
    assert node.state_of("lost").properties.remote is not None


async def test_a_stub_names_what_the_cloud_has_when_it_is_planted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stays", "goes", "changes", "lost"):
        node.put(name, name.encode())
    node.send("stays", "goes", "changes", "lost")
    node.stub("lost")
    node.lose_record("lost")
    for name in ("stays", "goes", "changes"):
        (node.root / HERE / name).unlink()
    node.new_queue()
    compare = node.reconciler._mounts

    async def hours_later(now: Course) -> Course:
        """The listing is complete by now."""
        node.cloud.delete_blob("goes")
        node.cloud.delete_blob("lost")
        node.cloud.upload_blob("changes", b"by somebody", overwrite=True)
        return await compare(now)

    monkeypatch.setattr(node.reconciler, "_mounts", hours_later)
    done = await node.reconcile(restore=True)
    assert dict(done.found) == {Kind.COPY_WITHOUT_BLOB: 2, Kind.LOST_STUB: 1}
    assert dict(done.mended) == {Kind.COPY_WITHOUT_BLOB: 1}
    assert any(name.startswith(f"acct/{HERE}/changes (") for name in done.examples[Kind.COPY_WITHOUT_BLOB])
    assert list(node.rows()) == ["stays"]
    assert [node.store.stat_blob(BlobRef(HERE, name)) for name in ("goes", "changes")] == [None, None]
    assert node.state_of("lost").properties.remote == LOST


async def test_each_planted_copy_is_asked_for_and_no_other(world: World, node: Node) -> None:
    for name in "abc":
        node.put(name)
    node.send(*"abc")
    for name in "ab":
        (node.root / HERE / name).unlink()
    node.new_queue()
    before = world.proxy.count("^HEAD ")
    await node.reconcile()
    assert world.proxy.count("^HEAD ") == before
    await node.reconcile(restore=True)
    assert world.proxy.count("^HEAD ") == before + 2


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ({"delete_after_upload": True}, Kind.DELETED_BY_RULE),
        ({"ttl_days": 1e-9}, Kind.DELETED_BY_RULE),
        ({"ttl_days": 3}, Kind.COPY_WITHOUT_BLOB),
        ({"ttl_days": 1e-9, "pin": True}, Kind.COPY_WITHOUT_BLOB),
    ],
)
async def test_what_its_rule_deletes_here_is_not_planted_to_be_deleted_again(
    world: World, tmp_path: Path, rule: dict[str, Any], kind: Kind
) -> None:
    node = Node.make(world, tmp_path / "node", **rule)
    node.put("a")
    node.send("a")
    (node.root / HERE / "a").unlink()
    node.new_queue()
    done = await node.reconcile(restore=True)
    assert dict(done.found) == {kind: 1}
    planted = kind is Kind.COPY_WITHOUT_BLOB
    assert (node.store.stat_blob(BlobRef(HERE, "a")) is not None) == planted
    departures = Departures(node.queue, node.stores, node.rules, world.cloud, LinkWatch("127.0.0.1", 1, None))
    await Expiry(node.queue, node.stores, node.rules, departures, 1.0)._account("acct")
    again = await node.reconcile(restore=True)  # and so it stays, whatever the rules' own pass does
    assert dict(again.found) == {Kind.IN_STEP if planted else kind: 1}
    node.close()


async def test_copies_of_others_are_restored_when_they_are_asked_for(node: Node) -> None:
    for name in ("mine", "theirs"):
        node.put(name)
    node.send("mine")
    theirs = node.cloud.get_blob_client("mine").get_blob_properties()
    node.cloud.upload_blob("theirs", b"bytes", metadata={**theirs.metadata, "blobedge_node": "edge-9/ab"})
    node.cloud.upload_blob("nobodys", b"by hand", metadata={"k": "v"})
    for name in ("mine", "theirs"):
        (node.root / HERE / name).unlink()
    node.new_queue()
    done = await node.reconcile(restore=True)
    assert dict(done.found) == {Kind.COPY_WITHOUT_BLOB: 1, Kind.STRANGER: 2}
    done = await node.reconcile(restore=True, nodes="edge-9")
    assert node.state_of("theirs").properties.remote is not None
    assert done.found[Kind.STRANGER] == 1
    await node.reconcile(restore=True, nodes="*")
    state = node.state_of("nobodys")
    assert (state.size, state.properties.metadata) == (7, {"k": "v"})


async def test_a_copy_that_was_changed_in_the_cloud_is_another_version(node: Node) -> None:
    before = node.put("a", metadata={"k": "v"})
    node.send("a")
    client = node.cloud.get_blob_client("a")
    client.set_blob_metadata({**client.get_blob_properties().metadata, "k": "by somebody"})
    (node.root / HERE / "a").unlink()
    node.new_queue()
    await node.reconcile(restore=True)
    state = node.state_of("a")
    assert state.properties.etag != before.properties.etag
    assert state.properties.etag == client.get_blob_properties().etag.strip('"')
    assert state.properties.metadata == {"k": "by somebody"}


async def test_what_no_rule_leads_to_and_what_has_no_md5_is_told_and_left(world: World, tmp_path: Path) -> None:
    node = Node.make(world, tmp_path / "node", name="in/{name}")
    node.put("a")
    node.send("a")
    metadata = node.cloud.get_blob_client("in/a").get_blob_properties().metadata
    node.cloud.upload_blob("elsewhere", b"x", metadata=metadata)
    blob = node.cloud.get_blob_client("in/no-md5")
    blob.stage_block("AAAA", b"x")
    blob.commit_block_list([BlobBlock("AAAA")], metadata=metadata, content_settings=ContentSettings())
    done = await node.reconcile(restore=True)
    assert dict(done.found) == {Kind.IN_STEP: 1, Kind.UNPLACED: 1, Kind.COPY_WITHOUT_BLOB: 1}
    assert dict(done.mended) == {}
    assert done.examples[Kind.UNPLACED] == [f"{world.name}/elsewhere"]
    assert done.examples[Kind.COPY_WITHOUT_BLOB][0].startswith(f"acct/{HERE}/no-md5 (without an MD5")
    node.close()


async def test_one_container_is_restored_alone(world: World, tmp_path: Path) -> None:
    node = Node.make(world, tmp_path / "node", containers=["p*"], name="{container}/{name}")
    node.put("a")
    node.send("a")
    metadata = node.cloud.get_blob_client(f"{HERE}/a").get_blob_properties().metadata
    node.cloud.upload_blob("plans/b", b"bytes", metadata=metadata)
    (node.root / HERE / "a").unlink()
    node.new_queue()
    done = await node.reconcile(restore=True, account="acct", container="plans")
    assert dict(done.mended) == {Kind.COPY_WITHOUT_BLOB: 1}
    assert set(node.rows()) == {"b"}
    assert node.store.stat_blob(BlobRef(HERE, "a")) is None
    node.close()


async def test_an_account_whose_mount_fails_is_told_and_nothing_is_said_of_its_blobs(node: Node) -> None:
    node.put("a")
    node.send("a")
    node.store.close()
    node.reopen()
    node.root.rename(node.root.with_name("away"))
    done = await node.reconcile(repair=True)
    assert list(done.failed) == ["acct"]
    assert not any(done.found.values())
    node.root.with_name("away").rename(node.root)
    assert dict((await node.reconcile()).found) == {Kind.IN_STEP: 1}


BLOB = (
    '<?xml version="1.0"?><EnumerationResults><Blobs><Blob><Name Encoded="true">a%01</Name><Properties>'
    '<Etag>"0x1"</Etag><Content-Length>1</Content-Length></Properties></Blob></Blobs><NextMarker>m</NextMarker>'
    "</EnumerationResults>"
)


async def test_a_listing_is_read_whole_or_not_at_all() -> None:
    page = parse("c", BLOB.encode())
    assert page.following == "m"
    (entry,) = page.entries
    assert (entry.name, entry.etag, entry.facts.size, entry.facts.md5) == ("a\x01", "0x1", 1, None)
    assert Entry.from_json("c", "a\x01", entry.to_json()) == entry
    for body in (BLOB[:-30], "<Error/>", "", BLOB.replace("<Etag>", "<E>").replace("</Etag>", "</E>")):
        with pytest.raises(DecodeError):
            parse("c", body.encode())
