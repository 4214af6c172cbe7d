"""What becomes of a row: changes, reports that are in time, and reports that come too late."""

import os

import pytest

from agent.offload import fuse, moves
from agent.offload.database import Queue
from agent.offload.ingest import HEAT_GAP_NS
from agent.offload.rows import ERROR_CHARACTERS_MAX, Failure, Read
from agent.offload.states import Hold, Residency

from .database_support import NOW, change, copy, everything, only, poison, queue, seen, turn

__all__ = ["queue"]  # a fixture


def test_an_upload_that_ends_in_time_is_a_copy(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    assert queue.changed(row, seen("e1", 7), turn(), NOW)
    assert queue.copied(row, copy("e1"))
    row = only(queue)
    assert (row.residency, row.etag, row.copied_etag, row.size) == (Residency.COPIED, "e1", "e1", 7)
    assert (row.cloud_etag, row.cloud_container, row.cloud_name) == ("cloud e1", "cloud-c", "cloud/name")
    assert queue.take(NOW, 5, []) == []


def test_an_upload_that_ends_after_a_change_is_no_copy_of_it_but_the_cloud_has_it(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b", NOW)])
    (row,) = queue.take(NOW, 5, [])
    queue.changed(row, seen("e1"), turn(), NOW)
    queue.ingest("s", 2, [change("b", NOW + 9)])
    assert not queue.copied(row, copy("e1"))
    late = only(queue)
    assert (late.residency, late.copied_etag, late.cloud_etag) == (Residency.QUEUED, "e1", "cloud e1")
    assert late.changed_at == NOW + 9  # what was before is in the cloud
    assert [again.id for again in queue.take(NOW + 9, 5, [])] == [row.id]


def test_a_look_that_was_before_a_change_says_nothing(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.ingest("s", 2, [change("b")])
    before = only(queue)
    assert not queue.changed(row, seen("e1"), turn(), NOW)
    assert not queue.kept(row, seen("e1"))
    assert not queue.deleted(row, turn(), NOW)
    assert not queue.failed(row, poison())
    assert only(queue) == before


def test_a_delete_in_the_cloud_that_ends_after_the_blob_is_back_leaves_nothing_there(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.copied(row, copy("e1"))
    assert queue.deleted(row, turn(), NOW)
    (row,) = queue.take(NOW, 5, [])
    assert row.residency is Residency.GOING
    queue.ingest("s", 2, [change("b")])
    assert not queue.gone(row)
    back = only(queue)
    assert (back.residency, back.copied_etag, back.cloud_etag) == (Residency.QUEUED, "", "")


def test_a_row_that_is_gone_and_made_again_does_not_get_old_reports(queue: Queue) -> None:
    """SQLite gives a number again when the last row is deleted; the revision is never the same."""
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    assert queue.gone(row)
    queue.ingest("s", 2, [change("other")])
    assert only(queue).id == row.id
    assert not queue.copied(row, copy("e1"))
    assert not queue.gone(row)
    assert (only(queue).residency, only(queue).copied_etag) == (Residency.QUEUED, "")


def test_since_when_the_cloud_lacks_something_is_the_first_change(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b", NOW), change("b", NOW + 1)])
    queue.ingest("s", 2, [change("b", NOW + 2)])
    row = only(queue)
    assert (row.changed_at, row.modified_ns, row.due_at) == (NOW, NOW + 2, NOW + 2)


@pytest.mark.parametrize(
    ("hold", "after"), [(Hold.WAITING, Hold.NONE), (Hold.POISON, Hold.NONE), (Hold.OPERATOR, Hold.OPERATOR)]
)
def test_what_a_change_does_to_a_hold(queue: Queue, hold: Hold, after: Hold) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    assert queue.failed(row, Failure("class", "text", hold, NOW + 1_000))
    assert queue.take(NOW, 5, []) == []
    queue.ingest("s", 2, [change("b")])
    row = only(queue)
    assert row.hold is after
    assert (row.attempts, row.failure, row.error) == ((1, "class", "text") if after else (0, "", ""))


def test_a_blob_that_is_back_is_not_held_by_the_fuse_that_kept_its_copy(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.copied(row, copy("e1"))
    queue.deleted(row, turn(), NOW)
    (row,) = queue.take(NOW, 5, [])
    assert queue.failed(row, Failure(fuse.FAILURE, "many deletes", Hold.OPERATOR))
    assert queue.take(NOW, 5, []) == []
    queue.ingest("s", 2, [change("b", NOW + 1)])
    back = only(queue)
    assert (back.residency, back.hold, back.failure, back.error) == (Residency.QUEUED, Hold.NONE, "", "")
    assert [again.id for again in queue.take(NOW + 1, 5, [])] == [row.id]


@pytest.mark.parametrize(("failure", "after"), [(fuse.FAILURE, Hold.NONE), ("operator", Hold.OPERATOR)])
def test_a_look_that_finds_the_blob_ends_the_hold_of_the_fuse_only(queue: Queue, failure: str, after: Hold) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.copied(row, copy("e1"))
    queue.deleted(row, turn(), NOW)
    queue.failed(row, Failure(failure, "text", Hold.OPERATOR))
    assert queue.changed(row, seen("e2"), turn(), NOW)
    back = only(queue)
    assert (back.residency, back.hold, back.failure) == (Residency.QUEUED, after, failure if after else "")


def test_failures_count_and_wait(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.failed(row, Failure("later", "503", Hold.WAITING, NOW + 50))
    assert (queue.take(NOW + 49, 5, []), queue.next_due()) == ([], NOW + 50)
    (row,) = queue.take(NOW + 50, 5, [])
    assert (row.attempts, row.failure, row.hold) == (1, "later", Hold.NONE)
    queue.failed(row, Failure("now", "reset", Hold.NONE))
    assert [again.attempts for again in queue.take(NOW + 50, 5, [])] == [2]
    assert queue.failures() == {"now": 1}


def test_eviction_and_recall_go_by_the_table(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    assert not queue.evicted(row)  # not in the cloud yet
    queue.copied(row, copy("e1"))
    assert queue.evicted(row)
    assert not queue.evicted(row)
    assert not queue.lost(row)  # a stub cannot be sent again
    assert not queue.arrived("a", "c", "b", "e2")
    assert queue.arrived("a", "c", "b", "e1")
    row = only(queue)
    assert row.residency is Residency.COPIED
    assert queue.lost(row)
    row = only(queue)
    assert (row.residency, row.copied_etag, row.hold) == (Residency.QUEUED, "", Hold.NONE)
    assert [lost.id for lost in queue.take(NOW, 5, [])] == [row.id]


@pytest.mark.parametrize("residency", Residency)
def test_a_stub_that_a_look_finds_is_remote_whatever_its_row_said(queue: Queue, residency: Residency) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue._connection.execute("UPDATE blobs SET residency = ?", [residency])
    queue.failed(row, poison())
    assert queue.stubbed(row, seen("e2", 70, NOW + 1), copy("e1"))
    row = only(queue)
    assert (row.residency, row.hold, row.attempts, row.failure) == (Residency.REMOTE, Hold.NONE, 0, "")
    assert (row.etag, row.size, row.modified_ns) == ("e2", 70, NOW + 1)
    assert (row.copied_etag, row.cloud_etag, row.cloud_name) == ("e1", "cloud e1", "cloud/name")


def test_a_stub_that_was_seen_before_a_change_is_not_the_blob_but_the_cloud_has_it(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.ingest("s", 2, [change("b", NOW + 9)])
    assert not queue.stubbed(row, seen("e1"), copy("e1"))
    late = only(queue)
    assert (late.residency, late.copied_etag, late.etag) == (Residency.QUEUED, "e1", "")


def test_bytes_that_are_back_before_their_eviction_is_reported_are_here(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.copied(row, copy("e1"))
    (evicts,) = queue.candidates(1)
    assert queue.arrived("a", "c", "b", "e1")  # a reader came between the stub and the report of it
    assert not queue.evicted(evicts)
    assert only(queue).residency is Residency.COPIED


def test_a_version_that_changed_before_it_arrived_stays_queued(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.stubbed(row, seen("e1"), copy("e1"))
    queue.ingest("s", 2, [change("b")])
    assert not queue.arrived("a", "c", "b", "e1")
    assert only(queue).residency is Residency.QUEUED


def test_a_blob_that_no_rule_sends_is_left_alone_until_it_changes(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    assert queue.kept(row, seen("e1"))
    assert (only(queue).residency, queue.take(NOW, 5, []), queue.next_due()) == (Residency.LOCAL, [], None)
    queue.ingest("s", 2, [change("b")])
    assert len(queue.take(NOW, 5, [])) == 1


def test_reads_are_kept_of_blobs_that_have_a_row(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")], [Read("a", "c", "b", NOW + 5), Read("a", "c", "unknown", NOW)])
    queue.ingest("s", 2, [], [Read("a", "c", "b", NOW + 3)])
    assert [(row.name, row.read_at) for row in everything(queue)] == [("b", NOW + 5)]


@pytest.mark.parametrize(
    ("times", "last", "before"),
    [
        ([1], 1, 0),
        ([1, 1 + HEAT_GAP_NS - 1], HEAT_GAP_NS, 0),  # one use
        ([1, 1 + HEAT_GAP_NS], 1 + HEAT_GAP_NS, 1),
        ([1, 1 + HEAT_GAP_NS, 2 + HEAT_GAP_NS], 2 + HEAT_GAP_NS, 1),
        ([1, 1 + HEAT_GAP_NS, 1 + 2 * HEAT_GAP_NS], 1 + 2 * HEAT_GAP_NS, 1 + HEAT_GAP_NS),
        ([5 + HEAT_GAP_NS, 5], 5 + HEAT_GAP_NS, None),  # another worker's, read later
    ],
)
def test_the_read_before_the_last_is_another_use(queue: Queue, times: list[int], last: int, before: int | None) -> None:
    """Whether they come one by one, or a sidecar that was away takes them all at once."""
    queue.ingest("s", 1, [change("one by one"), change("at once")])
    for time in times:
        queue.ingest("s", 1, [], [Read("a", "c", "one by one", time)])
    queue.ingest("s", 1, [], [Read("a", "c", "at once", time) for time in times])
    heat = {row.name: (row.read_at, row.read_before_at) for row in everything(queue)}
    assert heat["at once"] == (last, 5 if before is None else before)
    assert heat["one by one"] == (last, before or 0)


NAMES = [
    "a",
    "a/b",
    "a//b",
    "A",
    "é",
    "e\u0301",
    "\u0001",
    "\uffff",
    "\U0001f600",
    "x\0y",
    " ",
    "%41",
    "n" * 1024,
    "日" * 1024,
]


def test_any_name_comes_back_and_they_order_as_bytes(queue: Queue) -> None:
    queue.ingest("s", 1, [change(name) for name in NAMES])
    assert [row.name for row in everything(queue)] == sorted(NAMES, key=str.encode)
    for name in NAMES:
        found = queue.find("a", "c", name)
        assert found is not None
        assert found.name == name


SECRETS = [
    "GET https://x.blob.core.windows.net/c/b?sv=2024-11-04&sig=SECRET%2Bxx%3D&se=2026 answered 403",
    "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=SECRET+xx==;EndpointSuffix=y",
    "Authorization: SharedKey account:SECRET+xx=",
    "Authorization: Bearer SECRET.xx.yy",
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_secret_is_stored(queue: Queue, text: str) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    queue.failed(row, poison(text))
    assert "SECRET" not in only(queue).error
    files = [path.read_bytes() for path in queue.path.parent.iterdir()]
    assert all(b"SECRET" not in content for content in files)


def test_an_error_that_names_what_is_no_text_is_kept(queue: Queue) -> None:
    queue.ingest("s", 1, [change("b")])
    (row,) = queue.take(NOW, 5, [])
    assert queue.failed(row, poison(f"cannot send {os.fsdecode(bytes([120, 255]))}"))
    assert only(queue).error == "cannot send x\\udcff"


def test_a_long_error_is_cut() -> None:
    assert len(moves.without_secrets("x" * 10_000)) == ERROR_CHARACTERS_MAX
