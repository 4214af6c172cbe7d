"""Blobs that leave the node: when the cloud is asked, what keeps them here, and what a kill leaves."""

import hashlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from azure.storage.blob import ContentSettings

from agent.offload.evict.departure import NO_COPY, OFFLINE
from agent.offload.evict.space import Mode
from agent.offload.states import Residency
from dataplane.blobapi.model import Lease, Remote
from dataplane.store.store import BlobRef
from tests.offload.azurite import Exchange
from tests.offload.evict_support import CONTAINER, Node, node, offline
from tests.offload.upload_support import World, answered

pytestmark = pytest.mark.trio
SILENT_SECONDS = 8.0
CONTENT = b"0123456789" * 1000
LEASE = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> AsyncIterator[Node]:
    (tmp_path / "root").mkdir()
    rules: tuple[dict[str, Any], ...] = (
        {"glob": "tmp/**", "delete_after_upload": True},
        {"glob": "kept/**", "upload": "now"},
        {"evict": "space"},
    )
    async with node(world, tmp_path / "root", *rules) as made:
        yield made


def is_here(edge: Node, name: str, content: bytes = CONTENT) -> bool:
    """The blob's bytes are in its file."""
    state = edge.state(name)
    return (
        state is not None and state.properties.remote is None and (edge.root / CONTAINER / name).read_bytes() == content
    )


async def test_a_stub_takes_the_place_of_a_blob_that_the_cloud_has(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    before = edge.state("a")
    assert await edge.batch(row) == {"a": ""}
    after = edge.state("a")
    assert before is not None
    assert after is not None
    assert (after.size, after.properties.etag) == (len(CONTENT), before.properties.etag)
    remote = after.properties.remote
    assert remote is not None
    assert (remote.md5, remote.etag) == (hashlib.md5(CONTENT).digest(), edge.world.etag_of("a"))
    assert (remote.container, remote.name, remote.version) == (edge.world.name, "a", row.etag)
    assert (edge.root / CONTAINER / "a").stat().st_size == 0
    assert (await edge.row("a")).residency is Residency.REMOTE


async def test_with_room_on_the_disk_it_stays(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    assert await edge.batch(row, mode=Mode.NORMAL) == {"a": "the disk has room"}
    assert is_here(edge, "a")


async def test_a_copy_that_went_is_sent_again_and_nothing_is_evicted(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    edge.world.container.delete_blob("a")
    assert await edge.batch(row) == {"a": NO_COPY}
    assert is_here(edge, "a")
    assert (await edge.row("a")).residency is Residency.QUEUED
    assert edge.departures.lost_count == 1


@pytest.mark.parametrize("theirs", [CONTENT, CONTENT[:-1] + b"x", b""])
async def test_a_copy_that_somebody_else_replaced_is_none(edge: Node, theirs: bytes) -> None:
    row = await edge.copied("a", CONTENT)
    edge.world.container.upload_blob("a", theirs, overwrite=True)
    assert await edge.batch(row) == {"a": NO_COPY}
    assert is_here(edge, "a")


async def test_our_own_copy_under_another_etag_is_one(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    client = edge.world.container.get_blob_client("a")
    client.set_blob_metadata(client.get_blob_properties().metadata)
    assert edge.world.etag_of("a") != row.cloud_etag
    assert await edge.batch(row) == {"a": ""}
    state = edge.state("a")
    assert state is not None
    assert state.properties.remote is not None
    assert state.properties.remote.etag == edge.world.etag_of("a")


async def test_a_copy_whose_properties_somebody_changed_is_sent_again(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    md5 = bytearray(hashlib.md5(CONTENT).digest())
    settings = ContentSettings(content_type="text/html", content_md5=md5)
    edge.world.container.get_blob_client("a").set_http_headers(settings)
    assert await edge.batch(row) == {"a": NO_COPY}
    assert is_here(edge, "a")


async def test_a_change_here_wins(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    edge.put("a", b"newer")
    assert await edge.batch(row) == {"a": "it has changed"}
    assert is_here(edge, "a", b"newer")
    assert (await edge.row("a")).residency is Residency.QUEUED


async def test_a_change_by_another_program_wins(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    (edge.root / CONTAINER / "a").write_bytes(b"by another program")
    assert await edge.batch(row) == {"a": "it has changed"}
    assert is_here(edge, "a", b"by another program")


@pytest.mark.parametrize("status", ["500 Oops", "503 Server Busy", "403 Forbidden"])
async def test_a_cloud_that_does_not_say_so_evicts_nothing(edge: Node, status: str) -> None:
    row = await edge.copied("a", CONTENT)

    def refuse(exchange: Exchange) -> None:
        exchange.answer = answered(status, "ServerBusy")

    edge.world.proxy.fault = refuse
    (why,) = (await edge.batch(row, mode=Mode.LOW_SPACE)).values()
    assert why.startswith("the cloud was not to be asked")
    assert is_here(edge, "a")
    assert (await edge.row("a")).residency is Residency.COPIED


async def test_offline_only_low_space_evicts(edge: Node) -> None:
    rows = [await edge.copied(name, CONTENT) for name in ("a", "tmp/b")]
    offline(edge.watch)
    before = len(edge.world.proxy.log)
    assert set((await edge.batch(*rows)).values()) == {OFFLINE}
    assert await edge.batch(*rows, mode=Mode.LOW_SPACE) == {"a": "", "tmp/b": OFFLINE}
    assert len(edge.world.proxy.log) == before, "it was asked over a link that is down"
    state = edge.state("a")
    assert state is not None
    assert state.properties.remote is not None
    assert state.properties.remote.md5 == hashlib.md5(CONTENT).digest()
    assert is_here(edge, "tmp/b")


async def test_a_link_that_breaks_while_the_cloud_is_asked_holds_nobody_up(edge: Node) -> None:
    rows = [await edge.copied(name, CONTENT) for name in ("a", "b")]
    asked, over = threading.Event(), threading.Event()

    def silent(exchange: Exchange) -> None:
        asked.set()
        over.wait(2 * SILENT_SECONDS)
        exchange.reset_after_body_bytes = 0

    edge.world.proxy.fault = silent
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def cut() -> None:
            await trio.to_thread.run_sync(asked.wait)
            offline(edge.watch)

        with trio.fail_after(SILENT_SECONDS):
            assert await edge.batch(*rows, mode=Mode.LOW_SPACE) == {"a": "", "b": ""}
        over.set()


async def test_what_is_pinned_stays_and_what_no_rule_evicts_goes_when_asked(edge: Node) -> None:
    row = await edge.copied("kept/a", CONTENT)
    assert await edge.batch(row, mode=Mode.LOW_SPACE) == {"kept/a": "no rule evicts it"}
    assert await edge.batch(row._replace(pinned=True), asked=True) == {"kept/a": "pinned"}
    assert await edge.batch(row, mode=Mode.NORMAL, asked=True) == {"kept/a": ""}


async def test_a_rule_deletes_after_upload_and_the_copy_stays(edge: Node) -> None:
    row = await edge.copied("tmp/a", CONTENT)
    assert await edge.batch(row, mode=Mode.NORMAL) == {"tmp/a": ""}
    assert edge.state("tmp/a") is None
    assert not (edge.root / CONTAINER / "tmp/a").exists()
    assert await edge.gone("tmp/a")
    assert edge.world.bytes_of("tmp/a") == CONTENT


async def test_a_delete_gives_way_to_leases_snapshots_and_a_missing_copy(edge: Node) -> None:
    leased, kept, lost = [await edge.copied(f"tmp/{name}", CONTENT) for name in ("leased", "kept", "lost")]
    edge.store.run(edge.store.set_lease(BlobRef(CONTAINER, "tmp/leased"), lambda _: Lease(LEASE, -1, None)))
    state = edge.state("tmp/kept")
    assert state is not None
    properties = state.properties
    snapshot = edge.store.snapshot(BlobRef(CONTAINER, "tmp/kept"), lambda _: properties, "2026-11-23T00:00:00.0000000Z")
    edge.store.run(snapshot)
    edge.world.container.delete_blob("tmp/lost")
    found = await edge.batch(leased, kept, lost)
    assert found == {
        "tmp/leased": "the store refuses: LeaseIdMissing",
        "tmp/kept": "it has snapshots, which only this node has",
        "tmp/lost": NO_COPY,
    }
    for name in ("leased", "kept", "lost"):
        assert is_here(edge, f"tmp/{name}")


async def test_a_delete_gives_way_to_whoever_is_writing(edge: Node) -> None:
    row = await edge.copied("tmp/open", CONTENT)
    with (edge.root / CONTAINER / "tmp/open").open("ab"):
        assert await edge.batch(row) == {"tmp/open": "another program has it open for writing"}
    assert is_here(edge, "tmp/open")
    assert await edge.batch(row) == {"tmp/open": ""}
    assert edge.state("tmp/open") is None


async def test_a_kill_after_the_stub_and_before_the_report_is_reported_by_the_next_look(edge: Node) -> None:
    row = await edge.copied("a", CONTENT)
    remote = Remote(len(CONTENT), hashlib.md5(CONTENT).digest(), row.cloud_etag, edge.world.name, "a", row.etag, 0, 0)
    edge.store.run(edge.store.evict(BlobRef(CONTAINER, "a"), row.etag, remote))
    assert (await edge.row("a")).residency is Residency.COPIED
    assert await edge.batch(row) == {"a": "its bytes are not here"}
    assert (await edge.row("a")).residency is Residency.REMOTE


async def test_many_go_together(edge: Node) -> None:
    rows = [await edge.copied(f"{number:03}", CONTENT) for number in range(60)]
    began = time.monotonic()
    assert set((await edge.batch(*rows)).values()) == {""}
    print(f"{len(rows) / (time.monotonic() - began):.0f} blobs a second")
    assert all(edge.state(row.name).properties.remote is not None for row in rows)  # type: ignore[union-attr]
