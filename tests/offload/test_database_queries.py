"""Listings by filter, page by page; totals; and what an operator does to many rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.offload import acts, queries
from agent.offload.acts import Act
from agent.offload.database import Queue
from agent.offload.queries import BadCursor, Filter
from agent.offload.rows import Failure, Row
from agent.offload.states import Hold, Residency

from .database_support import NOW, change, copy, everything, poison, queue, seen, turn

__all__ = ["queue"]  # a fixture


def listed(queue: Queue, wanted: Filter, limit: int = 2) -> list[Row]:
    rows: list[Row] = []
    page = queue.rows(wanted, None, limit)
    while page.after is not None:
        assert len(page.rows) <= limit
        rows += page.rows
        page = queue.rows(wanted, page.after, limit)
    return rows + page.rows


def mixed(queue: Queue) -> None:
    """60 rows in three containers: copied, poisoned, waiting, and ready in turn."""
    for number in range(60):
        queue.ingest("s", number, [change(f"dir{number % 2}/{number:02d}", number, f"c{number % 3}")])
    for row in everything(queue):
        match int(row.name[-2:]) % 4:
            case 0:
                queue.copied(row, copy("e"))
            case 1:
                queue.failed(row, poison())
            case 2:
                queue.failed(row, Failure("later", "503", Hold.WAITING, NOW))


FILTERS = [
    Filter(),
    Filter(container="c1"),
    Filter(account="nobody"),
    Filter(prefix="dir1/"),
    Filter(container="c2", prefix="dir0/1"),
    Filter(residencies=frozenset({Residency.COPIED})),
    Filter(holds=frozenset({Hold.POISON, Hold.WAITING})),
    Filter(holds=frozenset({Hold.POISON}), container="c0", prefix="dir1/"),
    Filter(failure="later"),
    Filter(residencies=frozenset({Residency.QUEUED}), holds=frozenset({Hold.NONE})),
    Filter(residencies=frozenset()),
]


def lets_through(wanted: Filter, row: Row) -> bool:
    return (
        wanted.account in (None, row.account)
        and wanted.container in (None, row.container)
        and row.name.startswith(wanted.prefix)
        and (wanted.residencies is None or row.residency in wanted.residencies)
        and (wanted.holds is None or row.hold in wanted.holds)
        and wanted.failure in (None, row.failure)
    )


@pytest.mark.parametrize("examined", [3, 50_000])
@pytest.mark.parametrize("wanted", FILTERS)
def test_pages_hold_what_the_filter_lets_through(
    queue: Queue, wanted: Filter, examined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a page may examine next to nothing, so that most of them are short."""
    mixed(queue)
    monkeypatch.setattr(queries, "EXAMINED_MAX", examined)
    expected = [row for row in everything(queue) if lets_through(wanted, row)]
    found = listed(queue, wanted)
    assert sorted(found) == sorted(expected)
    by_name = wanted.residencies is None and wanted.holds is None
    order = (lambda row: (row.account, row.container, row.name)) if by_name else order_by_state
    assert found == sorted(found, key=order)


def order_by_state(row: Row) -> tuple[object, ...]:
    return (row.residency, row.hold, row.account, row.container, row.changed_at, row.size, row.id)


def test_no_listing_reads_the_table_from_end_to_end(queue: Queue) -> None:
    statements: list[str] = []
    mixed(queue)
    queue._connection.set_trace_callback(statements.append)
    for wanted in FILTERS:
        listed(queue, wanted)
    queue.counts()
    queue.failures()
    queue.take(NOW, 5, [])
    queue._connection.set_trace_callback(None)
    selects = {text for text in statements if "blobs" in text and text.lstrip().startswith("SELECT")}
    plans = [step[3] for text in selects for step in queue._connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    scans = {plan for plan in plans if plan.startswith("SCAN b")}
    assert scans <= {
        "SCAN blobs USING COVERING INDEX blobs_by_state",  # all totals
        "SCAN blobs USING COVERING INDEX blobs_failed",  # how many failed with what
        "SCAN blobs USING INDEX blobs_waiting",  # the first entry only: when something is due
        "SCAN b",  # the rows of a page, once more in memory
    }
    assert any("SEARCH b USING INDEX blobs_by_name" in plan for plan in plans)
    assert any("SEARCH b USING INDEX blobs_by_state" in plan for plan in plans)


@pytest.mark.parametrize("text", ["", "x", "[]", "[[], 3]", '[["queued"], [[]]]', '[["a", "c0"], [1, 2]]', "[1, [2]]"])
def test_a_cursor_that_is_not_ours_is_refused(queue: Queue, text: str) -> None:
    mixed(queue)
    with pytest.raises(BadCursor):
        queue.rows(Filter(), text)


def test_what_is_known_of_a_range_of_names(queue: Queue) -> None:
    queue.ingest("s", 1, [change(name, 5) for name in "abcde"] + [change("b", 5, "other")])
    for row in everything(queue):
        queue.changed(row, seen(f"e {row.name}", modified=7), turn(), NOW)

    def names(start: str, end: str | None, limit: int = 9) -> list[str]:
        return [known.name for known in queue.known("a", "c", start, end, limit)]

    assert names("", None) == ["a", "b", "c", "d", "e"]
    assert names("b", "d") == ["b", "c"]
    assert names("b\0", None, 2) == ["c", "d"]
    (known,) = queue.known("a", "other", "", None, 9)
    assert known[:4] == ("b", "e b", Residency.QUEUED, 7)
    found = queue.find("a", "other", "b")
    assert found is not None
    assert (known.revision, known.copied_etag, known.cloud_etag) == (found.revision, "", "")
    assert queue.known("a", "none", "", None, 9) == []


@given(st.text(max_size=4), st.lists(st.text(max_size=6), max_size=10))
def test_the_end_of_a_prefix_is_right_behind_it(prefix: str, names: list[str]) -> None:
    end = queries.prefix_end(prefix)
    for name in [*names, prefix, prefix + "\U0010ffff" * 3]:
        within = prefix.encode() <= name.encode() and (end is None or name.encode() < end.encode())
        assert within == name.startswith(prefix)


def test_totals_are_of_all_rows(queue: Queue) -> None:
    queue.ingest("s", 1, [change("x", 5, "c1"), change("y", 7, "c1"), change("z", 9, "c2")])
    for row in everything(queue):
        queue.changed(row, seen(f"e {row.name}", 100), turn(), NOW)
    (row,) = listed(queue, Filter(container="c2"))
    queue.copied(row, copy("e z"))
    assert queue.counts() == [
        ("a", "c1", Residency.QUEUED, Hold.NONE, 2, 200, 5),
        ("a", "c2", Residency.COPIED, Hold.NONE, 1, 100, 9),
    ]


def act(queue: Queue, what: Act, wanted: Filter) -> int:
    done = queue.act(what, wanted)
    rows = done.rows
    while done.after is not None:
        done = queue.act(what, wanted, done.after)
        rows += done.rows
    return rows


def test_totals_of_files_that_are_larger_than_any_disk(queue: Queue) -> None:
    """Sparse ones, which whoever writes on the mount can make."""
    queue.ingest("s", 0, [change("a"), change("b"), change("c")])
    for row in everything(queue):
        assert queue.changed(row, seen("e", 1 << 62), turn(), NOW)
        assert queue.copied(only_named(queue, row.name), copy("e"))
    (total,) = queue.counts()
    (evictable,) = queue.evictable()
    assert total.bytes == evictable.bytes == (1 << 63) - 1


def only_named(queue: Queue, name: str) -> Row:
    return next(row for row in everything(queue) if row.name == name)


def test_an_operator_holds_and_releases(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "SLICE_ROWS", 4)
    mixed(queue)
    assert act(queue, Act.HOLD, Filter(prefix="dir")) == 45  # all but those that are copied
    assert queue.take(NOW, 100, []) == []
    assert act(queue, Act.RELEASE, Filter()) == 45
    assert len(queue.take(NOW, 100, [])) == 45


def test_a_hold_outlasts_the_work_that_is_under_way_unless_it_succeeds(queue: Queue) -> None:
    queue.ingest("s", 1, [change("fails"), change("looked at"), change("succeeds")])
    fails, looked, succeeds = queue.take(NOW, 5, [])
    act(queue, Act.HOLD, Filter())
    queue.failed(fails, Failure("later", "503", Hold.WAITING, NOW))
    queue.changed(looked, seen("e"), turn(), NOW)
    queue.copied(succeeds, copy("e"))
    assert [row.hold for row in everything(queue)] == [Hold.OPERATOR, Hold.OPERATOR, Hold.NONE]


def test_an_operator_has_what_failed_tried_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "SLICE_ROWS", 4)
    mixed(queue)
    assert act(queue, Act.RETRY, Filter(holds=frozenset({Hold.POISON}))) == 15
    assert queue.failures() == {"later": 15}
    assert {row.attempts for row in listed(queue, Filter(holds=frozenset({Hold.NONE})))} == {0}


def test_no_row_is_dropped_that_says_where_bytes_are(queue: Queue) -> None:
    mixed(queue)
    assert act(queue, Act.DROP, Filter()) == 45
    assert {row.residency for row in everything(queue)} == {Residency.COPIED}


def test_pins_are_set_and_taken_back(queue: Queue) -> None:
    mixed(queue)
    assert act(queue, Act.PIN, Filter(container="c1")) == 20
    assert {row.container for row in everything(queue) if row.pinned} == {"c1"}
    assert act(queue, Act.UNPIN, Filter()) == 20
