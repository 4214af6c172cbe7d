"""A blob that is not here any more: deleted, or its directory is away, for which nothing that may have a copy is
forgotten, and no copy goes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.offload.acts import Act
from agent.offload.delivery import Delivery
from agent.offload.fuse import BLOBS_MIN, FAILURE
from agent.offload.gate import FuseBlown, Gate
from agent.offload.homes import Homes
from agent.offload.pace import Pacer, SharedPace
from agent.offload.queries import Filter
from agent.offload.rows import Change, Failure
from agent.offload.schema import COMPARED_KEY
from agent.offload.states import Hold, Residency
from agent.offload.transport import Errand
from tests.offload.reconcile_support import ACCOUNT, HERE, INSTANCE, LATER, Node
from tests.offload.upload_support import World

pytestmark = pytest.mark.trio
FEW = [f"b{number}" for number in range(3)]
MANY = [f"b{number:02}" for number in range(2 * BLOBS_MIN)]
Make = Callable[..., Node]


@pytest.fixture
def make(world: World, tmp_path: Path) -> Iterator[Make]:
    made: list[Node] = []

    def node(**rule: Any) -> Node:
        made.append(Node.make(world, tmp_path / "node", **rule))
        return made[-1]

    yield node
    for each in made:
        each.close()


async def copied(node: Node, names: list[str]) -> None:
    """Blobs that were sent, of a container that the queue knows."""
    for name in names:
        node.put(name, name.encode())
    node.send(*names)
    await Homes(node.queue, node.stores).found(ACCOUNT, HERE)


async def delivered(node: Node, names: list[str]) -> set[str]:
    """Each is looked at twice, as a scan or a journal has the engine do, with the time of the fuse between. Returns
    those that a person is asked about."""
    node.queue.queue.note([Change(ACCOUNT, HERE, name, time.time_ns(), 0, 0, 0) for name in names])
    gate, pace = Gate(node.queue), SharedPace(Pacer(node.offload.weekly()))
    parts = node.queue, node.stores, node.rules, node.world.cloud, gate, pace
    delivery, asked = Delivery(*parts, INSTANCE, 0), set()
    for _ in range(2):
        for name in names:
            row = node.row(name)
            if row is None or row.residency not in (Residency.QUEUED, Residency.GOING):
                continue
            try:
                await delivery.deliver(row, Errand())
            except FuseBlown:
                asked.add(name)
                node.queue.queue.failed(row, Failure(FAILURE, "", Hold.OPERATOR))
    return asked


def in_cloud(node: Node) -> set[str]:
    return set(node.cloud.list_blob_names())


@pytest.mark.parametrize("delete", ["keep", "propagate"])
async def test_rows_outlive_a_directory_that_is_away_and_nothing_is_sent_again(make: Make, delete: str) -> None:
    node = make(delete=delete)
    await copied(node, FEW)
    (node.root / HERE).rename(node.root.parent / "aside")
    assert await delivered(node, FEW) == set(FEW)
    assert in_cloud(node) == set(FEW)
    (node.root.parent / "aside").rename(node.root / HERE)
    sent = node.world.proxy.body_bytes
    assert await delivered(node, FEW) == set()
    assert {residency for residency, _, _ in node.rows().values()} == {Residency.COPIED}
    assert {row.hold for row in map(node.row, FEW) if row} == {Hold.NONE}
    assert node.world.proxy.body_bytes == sent


async def test_a_person_may_say_that_it_is_gone_for_good(make: Make) -> None:
    node = make(delete="keep")
    await copied(node, FEW)
    (node.root / HERE).rename(node.root.parent / "aside")
    await delivered(node, FEW)
    node.queue.queue.act(Act.CONFIRM, Filter(residencies=frozenset({Residency.GOING})))
    for name in FEW:
        await one(node, name)
    assert node.rows() == {}
    assert in_cloud(node) == set(FEW)


async def one(node: Node, name: str) -> None:
    """Carry out its row as it is."""
    row = node.row(name)
    assert row is not None
    pace = SharedPace(Pacer(node.offload.weekly()))
    parts = node.queue, node.stores, node.rules, node.world.cloud, Gate(node.queue), pace
    await Delivery(*parts, INSTANCE, 0).deliver(row, Errand())


def forget_copies(node: Node, names: list[str]) -> None:
    """As when the database was lost while the cloud was away: the mounts were looked at alone, and each blob with
    them."""
    node.new_queue()
    node.queue.queue.note([Change(ACCOUNT, HERE, name, time.time_ns(), 0, 0, 0) for name in names])
    for name in names:
        looked, row = node.look(name), node.row(name)
        assert row is not None
        looked.blob.close()
        assert node.queue.queue.changed(row, looked.seen, looked.decision.turn, LATER)


async def test_copies_that_a_new_database_does_not_know_outlive_a_directory_that_is_away(make: Make) -> None:
    node = make(delete="propagate")
    await copied(node, FEW)
    forget_copies(node, FEW)
    (node.root / HERE).rename(node.root.parent / "aside")
    assert await delivered(node, FEW) == set(FEW)
    assert in_cloud(node) == set(FEW)


async def test_a_mass_delete_of_copies_that_a_new_database_does_not_know_asks_a_person(make: Make) -> None:
    node = make(delete="propagate")
    await copied(node, [*MANY, "stays"])
    forget_copies(node, MANY)
    await Homes(node.queue, node.stores).found(ACCOUNT, HERE)
    for name in MANY:
        (node.root / HERE / name).unlink()
    assert await delivered(node, MANY) == set(MANY)
    assert in_cloud(node) == {*MANY, "stays"}


async def test_few_deletes_of_copies_that_a_new_database_does_not_know_go_there_too(make: Make) -> None:
    node = make(delete="propagate")
    await copied(node, [*FEW, "stays"])
    forget_copies(node, FEW)
    await Homes(node.queue, node.stores).found(ACCOUNT, HERE)
    for name in FEW:
        (node.root / HERE / name).unlink()
    assert await delivered(node, FEW) == set()
    assert in_cloud(node) == {"stays"}
    assert node.rows() == {}


async def test_a_copy_that_nobody_reported_stays_while_its_directory_is_away(make: Make) -> None:
    """The row knows of no copy although all was compared: a sidecar was killed before it could say so."""
    node = make(delete="propagate")
    await copied(node, FEW)
    forget_copies(node, FEW)
    node.queue.queue.remember(COMPARED_KEY, "{}")
    (node.root / HERE).rename(node.root.parent / "aside")
    assert await delivered(node, FEW) == set()
    assert in_cloud(node) == set(FEW)
