"""Time to live: what has lived long enough is deleted here, never before the cloud has it, and the copy stays."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.offload.evict.expiry import Expiry
from agent.offload.evict.space import Mode
from dataplane.blobapi.model import BlobState, Lease
from dataplane.store.store import BlobRef
from tests.offload.evict_support import ACCOUNT, CONTAINER, Node, node
from tests.offload.upload_support import World

pytestmark = pytest.mark.trio
SECONDS_MAX = 60.0
OLD = int(time.time()) - 4 * 86_400
LEASE = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> AsyncIterator[Node]:
    (tmp_path / "root").mkdir()
    rules: tuple[dict[str, Any], ...] = (
        {"glob": "local/**", "upload": "never", "ttl_days": 3},
        {"glob": "sent/**", "ttl_days": 3, "evict": "space"},
        {"upload": "now"},
    )
    async with node(world, tmp_path / "root", *rules) as made:
        yield made


def old(edge: Node, name: str, content: bytes = b"x" * 1000) -> BlobState:
    """A blob that was last changed four days ago."""
    return edge.put(name, content, last_modified=OLD, created=OLD)


async def one_pass(edge: Node, count: int) -> Expiry:
    """Run until that many were deleted."""
    before = edge.departures.deleted_count
    expiry = Expiry(edge.queue, edge.stores, edge.rules, edge.departures, 0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expiry.run)
        end = trio.current_time() + SECONDS_MAX
        while edge.departures.deleted_count < before + count:
            assert trio.current_time() < end
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    return expiry


async def test_what_no_rule_sends_goes_when_its_time_has_come(edge: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "blobedge.offload")
    old(edge, "local/old")
    edge.put("local/new")
    old(edge, "other/old")
    await one_pass(edge, 1)
    edge.departures.tell_deleted()  # what a pass does at its end
    assert f"ttl_days): 1 in {ACCOUNT}/{CONTAINER}" in caplog.text
    assert edge.state("local/old") is None
    assert edge.state("local/new") is not None
    assert edge.state("other/old") is not None


async def test_what_a_rule_sends_stays_until_the_cloud_has_it_and_the_copy_stays(edge: Node) -> None:
    old(edge, "sent/copied")
    await edge.send("sent/copied")
    old(edge, "sent/not-yet")
    old(edge, "sent/lost")
    await edge.send("sent/lost")
    edge.world.container.delete_blob("sent/lost")
    await one_pass(edge, 1)
    assert edge.state("sent/copied") is None
    assert await edge.gone("sent/copied")
    assert edge.world.bytes_of("sent/copied") == b"x" * 1000
    assert edge.state("sent/not-yet") is not None
    assert edge.state("sent/lost") is not None


async def test_a_stub_goes_too_and_what_is_leased_or_pinned_stays(edge: Node) -> None:
    for name in ("stub", "pinned"):
        old(edge, f"sent/{name}")
    row = await edge.send("sent/stub")
    pinned = await edge.send("sent/pinned")
    old(edge, "local/leased")
    edge.store.run(edge.store.set_lease(BlobRef(CONTAINER, "local/leased"), lambda _: Lease(LEASE, -1, None)))
    remote = await edge.queue(lambda queue: queue.find(ACCOUNT, CONTAINER, "sent/stub"))
    assert remote is not None
    never = row._replace(modified_ns=time.time_ns())
    assert await edge.batch(never, mode=Mode.EVICT) == {"sent/stub": ""}
    await edge.queue(lambda queue: queue._connection.execute("UPDATE blobs SET pinned = 1 WHERE id = ?", (pinned.id,)))
    await one_pass(edge, 1)
    assert edge.state("sent/stub") is None
    assert edge.state("sent/pinned") is not None
    assert edge.state("local/leased") is not None
