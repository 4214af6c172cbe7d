"""What may be evicted and in which order, and rows that are taken over in bulk."""

import pytest

from agent.offload.acts import Act
from agent.offload.cold import place_of
from agent.offload.database import Queue
from agent.offload.ingest import HEAT_GAP_NS
from agent.offload.queries import Filter
from agent.offload.rows import Adopted, Read, Row
from agent.offload.states import Residency

from .database_support import NOW, change, copy, everything, only, poison, queue, seen, turn

__all__ = ["queue"]  # a fixture

LATER = NOW + HEAT_GAP_NS


def adopted(
    name: str, residency: Residency = Residency.COPIED, modified: int = NOW, container: str = "c", revision: int = 0
) -> Adopted:
    told = None if residency is Residency.LOCAL else copy(f"e {name}")
    return Adopted("a", container, name, residency, seen(f"e {name}", 10, modified), told, revision)


def read(name: str, *times: int) -> list[Read]:
    return [Read("a", "c", name, time) for time in times]


def names(rows: list[Row]) -> list[str]:
    return [row.name for row in rows]


def test_the_coldest_go_first_and_one_pass_over_everything_heats_nothing(queue: Queue) -> None:
    queue.adopt(adopted(name, modified=NOW + number) for number, name in enumerate(["hot", "old", "new", "scanned"]))
    queue.ingest("s", 1, [], read("hot", NOW + 9, LATER + 9) + read("scanned", LATER + 99))
    assert names(queue.candidates(9)) == ["old", "new", "scanned", "hot"]


def test_only_what_the_cloud_has_and_nothing_holds_is_a_candidate(queue: Queue) -> None:
    queue.ingest("s", 1, [change("queued"), change("poisoned")])
    poisoned = queue.find("a", "c", "poisoned")
    assert poisoned is not None
    queue.failed(poisoned, poison())
    queue.adopt([adopted("copied"), adopted("held"), adopted("pinned"), adopted("stub", Residency.REMOTE)])
    queue.adopt([adopted("local", Residency.LOCAL)])
    held = queue.find("a", "c", "held")
    assert held is not None
    queue.failed(held, poison())
    queue.act(Act.PIN, Filter(prefix="pinned"))
    assert names(queue.candidates(9)) == ["copied"]
    assert queue.evictable() == [("a", "c", 1, 10)]
    assert queue.evicted(queue.candidates(1)[0])
    assert queue.candidates(9) == []
    assert queue.evictable() == []


def test_pages_of_candidates_are_all_of_them_once(queue: Queue) -> None:
    """Also those that are alike in all that orders them, in several containers."""
    queue.adopt(
        adopted(f"{number:02d}", modified=NOW + number // 10, container=f"c{number % 3}") for number in range(60)
    )
    for wanted in ({}, {"containers": ["c0", "c2", "none"]}, {"account": "nobody"}, {"account": "a"}):
        whole = queue.candidates(100, **wanted)
        paged: list[Row] = []
        while page := queue.candidates(7, after=place_of(paged[-1]) if paged else None, **wanted):
            paged += page
        assert paged == whole
        assert [place_of(row) for row in whole] == sorted(place_of(row) for row in whole)
        expected = {"c0", "c2"} if "containers" in wanted else {"c0", "c1", "c2"}
        assert {row.container for row in whole} == (set() if wanted.get("account") == "nobody" else expected)
    assert [each.blobs for each in queue.evictable()] == [20, 20, 20]


def test_what_was_used_since_stays(queue: Queue) -> None:
    queue.adopt([adopted("read", modified=1), adopted("changed", modified=LATER + 5), adopted("unused", modified=1)])
    queue.ingest("s", 1, [], read("read", 2, LATER + 5))
    assert names(queue.candidates(9, unused_since=LATER + 5)) == ["unused"]
    assert names(queue.candidates(9, unused_since=LATER + 6)) == ["unused", "changed", "read"]


def test_candidates_and_their_totals_come_out_of_their_index_in_order(queue: Queue) -> None:
    queue.adopt(adopted(f"{number:02d}") for number in range(60))
    statements: list[str] = []
    queue._connection.set_trace_callback(statements.append)
    first = queue.candidates(5)
    queue.candidates(5, after=place_of(first[-1]), unused_since=LATER)
    queue.evictable()
    queue._connection.set_trace_callback(None)
    asked = [text for text in statements if "blobs_cold" in text]
    assert len(asked) == 3
    plans = [plan for _, plan in plans_of(queue, asked)]
    seeks = [plan for plan in plans if "SEARCH blobs USING INDEX blobs_cold" in plan]
    assert len(seeks) == 2
    assert all("(container_id=? AND (read_before_at,used_at,size)>(?,?,?)" in plan for plan in seeks)
    assert [plan for plan in plans if plan.startswith("SCAN blobs")] == ["SCAN blobs USING INDEX blobs_cold"]
    assert not any("SCAN b " in plan for plan in plans)
    sorted_texts = {text for text, plan in plans_of(queue, asked) if "B-TREE" in plan}
    assert all("GROUP BY" in text for text in sorted_texts)  # one line for each container


def plans_of(queue: Queue, texts: list[str]) -> list[tuple[str, str]]:
    """Each statement with each step of its plan."""
    execute = queue._connection.execute
    return [(text, step[3]) for text in texts for step in execute(f"EXPLAIN QUERY PLAN {text}")]


def test_adopted_rows_say_what_was_found(queue: Queue) -> None:
    assert queue.adopt([adopted("stub", Residency.REMOTE), adopted("both"), adopted("here", Residency.LOCAL)]) == 3
    both, here, stub = everything(queue)
    assert [row.residency for row in (both, here, stub)] == [Residency.COPIED, Residency.LOCAL, Residency.REMOTE]
    assert (both.etag, both.copied_etag, both.cloud_etag, both.cloud_name) == (
        "e both",
        "e both",
        "cloud e both",
        "cloud/name",
    )
    assert (here.etag, here.copied_etag) == ("e here", "")
    assert queue.take(LATER, 9, []) == []
    assert queue.arrived("a", "c", "stub", "e stub")


def test_what_was_noted_after_the_look_wins(queue: Queue) -> None:
    queue.ingest("s", 1, [change("known"), change("changed")])
    queue.ingest("s", 1, [], read("known", NOW + 7))
    before = {row.name: row.revision for row in everything(queue)}
    queue.ingest("s", 2, [change("changed", NOW + 1), change("appeared", NOW + 1)])
    told = [adopted(name, revision=before.get(name, 0)) for name in ("known", "changed", "appeared", "new")]
    assert queue.adopt(told) == 2
    found = {row.name: row for row in everything(queue)}
    assert {name for name, row in found.items() if row.residency is Residency.COPIED} == {"known", "new"}
    assert found["known"].read_at == NOW + 7
    assert set(names(queue.take(NOW + 1, 9, []))) == {"appeared", "changed"}


def test_an_upload_that_was_under_way_moves_nothing_that_was_adopted(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 9, [])
    assert queue.adopt([adopted("b", revision=row.revision)]) == 1
    assert not queue.changed(row, seen("older"), turn(), NOW)
    assert not queue.copied(row, copy("older"))
    assert (only(queue).residency, only(queue).etag) == (Residency.COPIED, "e b")


@pytest.mark.parametrize(
    "wrong",
    [
        adopted("b")._replace(copy=None),
        adopted("b", Residency.LOCAL)._replace(copy=copy("e")),
        adopted("b")._replace(residency=Residency.GOING),
        adopted("b", Residency.LOCAL)._replace(residency=Residency.QUEUED),
    ],
)
def test_what_a_look_cannot_say_is_refused_whole(queue: Queue, wrong: Adopted) -> None:
    with pytest.raises(ValueError, match="copy"):
        queue.adopt([adopted("a"), wrong])
    assert everything(queue) == []


def test_containers_to_look_at_stay_until_they_were(queue: Queue) -> None:
    queue.ingest("s", 1, [], [], {("a", "c"), ("a", "other")})
    first, other = queue.looks()
    queue.ingest("s", 2, [], [], {("a", "c")})
    queue.looked(first)  # it was made again meanwhile
    queue.looked(other)
    assert [look[:2] for look in queue.looks()] == [("a", "c")]
    queue.looked(queue.looks()[0])
    assert queue.looks() == []
