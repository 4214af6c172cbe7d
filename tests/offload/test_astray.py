"""Which versions in the cloud may be all that there is of a stub, through everything that happens to their rows."""

from pathlib import Path

import pytest

from agent.offload.acts import Act
from agent.offload.database import Queue
from agent.offload.queries import Filter
from agent.offload.rows import Adopted, Freed, Row, Wandered
from agent.offload.states import Residency
from tests.offload.database_support import NOW, change, copy, only, queue, seen, turn

__all__ = ["queue"]

BLOB = ("a", "c", "b")


def copied(queue: Queue, etag: str = "v1") -> Row:
    queue.note([change("b")])
    queue.changed(only(queue), seen(etag), turn(), NOW)
    queue.copied(only(queue), copy(etag))
    return only(queue)


def evicted(queue: Queue) -> Row:
    row = copied(queue)
    queue.leaving([row])
    queue.evicted(row)
    return only(queue)


def test_a_blob_is_away_from_before_its_bytes_go_until_they_are_back(queue: Queue) -> None:
    row = copied(queue)
    assert not row.away
    queue.leaving([row])
    assert (only(queue).residency, only(queue).away) == (Residency.COPIED, True)  # as a kill leaves it
    queue.stayed([row])
    assert not only(queue).away
    queue.leaving([row])
    queue.evicted(row)
    queue.stayed([row])  # as a second task reports it
    assert (only(queue).residency, only(queue).away) == (Residency.REMOTE, True)
    queue.arrived(*BLOB, "v1")
    assert not only(queue).away


def test_a_blob_whose_tags_change_while_it_is_evicted_is_away(queue: Queue) -> None:
    row = copied(queue)
    queue.note([change("b", NOW + 1)])
    queue.leaving([row])
    assert not queue.evicted(row)
    assert (only(queue).residency, only(queue).away) == (Residency.QUEUED, True)


def test_a_change_leaves_it_away_until_the_next_version_is_sent(queue: Queue) -> None:
    evicted(queue)
    queue.note([change("b", NOW + 1)])
    queue.changed(only(queue), seen("v2"), turn(), NOW + 1)
    assert only(queue).away
    queue.copied(only(queue), copy("v2"))
    assert only(queue).away  # the bytes there were described: a stub that was moved stands for them too
    queue.copied(only(queue), copy("v2"), safe=True)
    assert not only(queue).away


def test_an_upload_that_looked_before_the_stub_was_made_says_nothing_of_it(queue: Queue) -> None:
    row = copied(queue)
    queue.note([change("b", NOW + 1)])  # its tags
    taken = only(queue)
    queue.leaving([row])
    assert not queue.evicted(row)
    queue.copied(taken, copy("v1"))
    assert only(queue).away


@pytest.mark.parametrize(("version", "away"), [("v1", False), ("v0", True)])
def test_a_stub_that_went_through_the_endpoint_frees_its_version(queue: Queue, version: str, away: bool) -> None:
    evicted(queue)
    queue.ingest("segment", 1, [change("b", NOW + 1)], freed=[Freed(*BLOB, version)])
    assert (only(queue).residency, only(queue).away) == (Residency.QUEUED, away)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_name_whose_row_went_is_away_again(tmp_path: Path, dropped: bool) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        evicted(queue)
        if dropped:
            queue.note([change("b", NOW + 1)])
            queue.act(Act.DROP, Filter())
        else:
            queue.gone(only(queue), astray_too=True)
        queue.note([change("other"), change("b", NOW + 2)])
        rows = {row.name: row for row in queue.rows(Filter()).rows}
        assert (rows["b"].away, rows["other"].away) == (True, False)
        queue.copied(rows["b"], copy("v2"), safe=True)
        queue.gone(queue.find(*BLOB) or rows["b"], astray_too=True)
        queue.note([change("b", NOW + 3)])
        assert not (queue.find(*BLOB) or rows["b"]).away  # its copy was no stub's


def test_a_name_whose_copy_was_deleted_is_not_away(queue: Queue) -> None:
    queue.gone(evicted(queue))
    queue.note([change("b", NOW + 1)])
    assert not only(queue).away


@pytest.mark.parametrize("residency", [Residency.REMOTE, Residency.COPIED])
def test_stubs_that_are_found_are_away(queue: Queue, residency: Residency) -> None:
    queue.adopt([Adopted(*BLOB, residency, seen("v1"), copy("v1"))])
    assert only(queue).away is (residency is Residency.REMOTE)
    queue.note([change("b", NOW + 1)])
    queue.stubbed(only(queue), seen("v1"), copy("v1"))
    assert only(queue).away
    queue.adopt([Adopted(*BLOB, Residency.COPIED, seen("v1"), copy("v1"), only(queue).revision)])
    assert only(queue).away  # it is not known how it came back


def test_a_stub_that_is_found_under_another_name_has_its_version_kept(queue: Queue) -> None:
    """Whether its blob has a row by now or not; but where the cloud is known to have a later version."""
    queue.note([change("b")])
    copied_later = [Adopted("a", "c", "later", Residency.COPIED, seen("v2"), copy("v2"))]
    queue.adopt(copied_later)
    queue.wandered(Wandered("a", "c", name, "v1") for name in ("b", "later", "new"))
    queue.note([change("new"), change("b", NOW + 1)])
    rows = {row.name: row.away for row in queue.rows(Filter()).rows}
    assert rows == {"b": True, "later": False, "new": True}
