"""Pins outlive the queue's database; what is written after the first comparison is pinned by nobody."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.offload.acts import Act
from agent.offload.database import Queue
from agent.offload.opening import QueueUnwritable
from agent.offload.pins import FILE, Pins, Prefix
from agent.offload.queries import Filter
from agent.offload.rows import Change
from agent.offload.schema import COMPARED_KEY
from agent.offload.states import Residency
from tests.offload.reconcile_support import ACCOUNT, HERE, Node
from tests.offload.upload_support import World


def change(name: str, container: str = "c") -> Change:
    return Change("acct", container, name, 1, 1, 0, 0)


def pinned(queue: Queue) -> set[str]:
    return {row.name for row in queue.rows(Filter(), None, 100).rows if row.pinned}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def lose(state: Path) -> None:
    for file in state.glob("queue.db*"):
        file.unlink()


def test_the_last_act_that_covers_a_blob_counts_and_takes_the_place_of_those_it_covers(tmp_path: Path) -> None:
    pins = Pins(tmp_path / FILE)
    for place, pin in (
        (("acct", "c", "models/old/a"), True),
        (("acct", "c", "models/"), True),
        (("acct", "c", "models/old/"), False),
        (("acct", "c", "models/old/b"), True),
        (("acct", "d", ""), True),
        (("other", "c", ""), False),  # says nothing that was not so
        (("acct", "c", "ä\udcff"), True),
    ):
        pins.note(Prefix(*place), pinned=pin)
    for each in (pins, Pins(tmp_path / FILE)):
        assert [each.has("acct", "c", name) for name in ("models/x", "models/old/a", "models/old/b")] == [1, 0, 1]
        assert [each.has("acct", "c", name) for name in ("model", "ä\udcff/b")] == [0, 1]
        assert [each.has("acct", "d", "x"), each.has("other", "d", "x")] == [1, 0]
    assert len(json.loads((tmp_path / FILE).read_text())) == 5
    pins.note(Prefix("", "", ""), pinned=False)
    assert json.loads((tmp_path / FILE).read_text()) == []


def test_a_database_that_is_made_anew_has_the_pins_of_the_lost_one(state: Path) -> None:
    with Queue(state / "queue.db") as queue:
        queue.note([change(name) for name in ("a/1", "a/2", "b/1")])
        assert queue.act(Act.PIN, Filter("acct", "c", "a/")).rows == 2
        assert queue.act(Act.UNPIN, Filter("acct", "c", "a/2")).rows == 1
        queue.act(Act.PIN, Filter(prefix="b/", residencies=frozenset({Residency.LOCAL})))  # of no place: not kept
    lose(state)
    with Queue(state / "queue.db") as queue:
        queue.note([change(name) for name in ("a/1", "a/2", "b/1")])
        assert pinned(queue) == {"a/1"}
        queue.remember(COMPARED_KEY, "{}")
        queue.note([change("a/3")])
        assert pinned(queue) == {"a/1"}
        assert queue.act(Act.UNPIN, Filter()).rows == 1
    lose(state)
    with Queue(state / "queue.db") as queue:
        queue.note([change("a/1")])
        assert pinned(queue) == set()


@pytest.mark.parametrize("text", ["{", "[1]", '[["a", "b"]]', "ä"])
def test_a_file_that_cannot_be_read_is_told_and_stops_nothing(
    state: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    state.mkdir()
    (state / FILE).write_text(text)
    with Queue(state / "queue.db") as queue:
        assert "cannot be read" in caplog.text
        queue.note([change("a")])
        assert queue.act(Act.PIN, Filter("acct", "c", "a")).rows == 1
    assert json.loads((state / FILE).read_text()) == [["acct", "c", "a", True]]


def test_a_pin_that_cannot_be_kept_is_not_made(state: Path) -> None:
    with Queue(state / "queue.db") as queue:
        queue.note([change("a")])
        (state / f"{FILE}.new").mkdir()
        with pytest.raises(QueueUnwritable):
            queue.act(Act.PIN, Filter("acct"))
        assert pinned(queue) == set()


@pytest.fixture
def node(world: World, tmp_path: Path) -> Iterator[Node]:
    made = Node.make(world, tmp_path / "node")
    yield made
    made.close()


@pytest.mark.trio
async def test_what_a_comparison_finds_is_pinned_in_the_transaction_that_makes_its_row(node: Node) -> None:
    for name in ("kept", "other"):
        node.put(name)
    node.send("kept", "other")
    node.queue.queue.act(Act.PIN, Filter(ACCOUNT, HERE, "kept"))
    node.new_queue()
    await node.reconcile(repair=True)
    assert pinned(node.queue.queue) == {"kept"}
    assert {residency for residency, _, _ in node.rows().values()} == {Residency.COPIED}
