"""Deletes before the gate: what the fuse holds, and what a person's confirmation lets go, however late."""

from pathlib import Path

import pytest

from agent.offload.acts import Act
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.fuse import BLOBS_MIN, CONFIRMED, FAILURE
from agent.offload.gate import FuseBlown, Gate
from agent.offload.queries import Filter
from agent.offload.rows import Failure, Row
from agent.offload.states import Hold, Residency
from agent.offload.templates import Target

from .database_support import NOW, change, copy, everything, poison, queue, turn

__all__ = ["queue"]  # a fixture

TARGET = Target("cloud-c", "cloud/name")
PERCENT_MAX = 20.0
MANY = 2 * BLOBS_MIN


def deleted(queue: Queue, names: list[str]) -> list[Row]:
    """Rows of blobs that the cloud has, and that are not here any more."""
    queue.ingest("s", 1, [change(name) for name in names])
    for row in queue.take(NOW, len(names), []):
        queue.copied(row, copy("e"))
        assert queue.deleted(row, turn(), NOW)
    return [row for row in everything(queue) if row.name in names]


def confirm(queue: Queue) -> int:
    """What `queue resume --confirm-deletes` does to the rows."""
    return queue.act(Act.CONFIRM, Filter(residencies=frozenset({Residency.GOING}))).rows


async def passes(gate: Gate, row: Row) -> bool:
    try:
        async with gate.delete(row, TARGET, PERCENT_MAX):
            return True
    except FuseBlown:
        return False


@pytest.mark.trio
async def test_what_was_confirmed_goes_whenever_and_what_is_deleted_later_is_asked_about(tmp_path: Path) -> None:
    queue = await AsyncQueue.open(tmp_path / "queue.db")
    names = [f"b{number:02}" for number in range(MANY)]
    rows = await queue(lambda opened: deleted(opened, names))
    assert not any([await passes(Gate(queue), row) for row in rows])
    assert await queue(confirm) == MANY
    rows = await queue(everything)
    gate = Gate(queue)  # another life of the sidecar, after any time
    for row in rows[1:]:
        assert await passes(gate, row)
        await queue(lambda opened, row=row: opened.gone(row))  # type: ignore[misc]
    for name in ("late-1", "late-2"):  # few: those that were meant do not count, whether they went or wait
        (late,) = await queue(lambda opened, name=name: deleted(opened, [name]))  # type: ignore[misc]
        assert await passes(Gate(queue), late)
    more = await queue(lambda opened: deleted(opened, [f"more{number:02}" for number in range(MANY)]))
    assert not await passes(Gate(queue), more[0])
    await queue.aclose()


def test_a_confirmation_is_of_the_deletes_that_wait_and_outlives_their_failures(queue: Queue) -> None:
    names = ["fuse", "mine", "poison", "settles"]
    fuse, mine, bad, _ = deleted(queue, names)
    queue.failed(fuse, Failure(FAILURE, "many", Hold.OPERATOR))
    queue.failed(mine, Failure("held", "", Hold.OPERATOR))
    queue.failed(bad, poison())
    assert queue.unconfirmed() == {("a", "c"): len(names)}
    assert confirm(queue) == len(names)
    assert (confirm(queue), queue.unconfirmed()) == (0, {})
    rows = {row.name: row for row in everything(queue)}
    assert {name: (row.hold, row.failure) for name, row in rows.items()} == {
        "fuse": (Hold.NONE, ""),
        "mine": (Hold.OPERATOR, "held"),  # by `hold`: until `release`
        "poison": (Hold.POISON, "poison"),
        "settles": (Hold.NONE, ""),
    }
    assert queue.failed(rows["fuse"], Failure("later", "busy", Hold.WAITING, NOW + 1))
    assert {row.changed_at for row in everything(queue)} == {CONFIRMED}


def test_a_fuse_that_was_asked_before_the_confirmation_comes_too_late(queue: Queue) -> None:
    (row,) = deleted(queue, ["b"])
    confirm(queue)
    assert not queue.failed(row, Failure(FAILURE, "many", Hold.OPERATOR))
    assert [each.hold for each in everything(queue)] == [Hold.NONE]


def test_a_blob_that_was_back_is_asked_about_again(queue: Queue) -> None:
    deleted(queue, ["b"])
    confirm(queue)
    queue.ingest("s", 2, [change("b", NOW + 1)])
    (row,) = queue.take(NOW + 1, 1, [])
    assert (row.residency, row.changed_at) == (Residency.QUEUED, NOW + 1)
    assert queue.deleted(row, turn(), NOW + 2)
    assert queue.unconfirmed() == {("a", "c"): 1}
