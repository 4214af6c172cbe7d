"""Which rows are worked on next."""

from collections import Counter

from agent.offload.database import Queue
from agent.offload.rows import Failure
from agent.offload.states import Hold

from .database_support import NOW, change, poison, queue

__all__ = ["queue"]  # a fixture


def names(queue: Queue, limit: int, running: list[int] | None = None, now: int = NOW) -> list[str]:
    return [row.name for row in queue.take(now, limit, running or [])]


def test_priority_then_the_order(queue: Queue) -> None:
    queue.ingest("s", 1, [change("late", 9, priority=1), change("second", 2), change("first", 1)])
    queue.ingest("s", 2, [change("urgent", 10, priority=-1)])
    assert names(queue, 10) == ["urgent", "first", "second", "late"]
    assert names(queue, 2) == ["urgent", "first"]


def test_what_is_running_or_held_or_not_due_is_passed_over(queue: Queue) -> None:
    queue.ingest("s", 1, [change(name, at) for at, name in enumerate("abcd", 1)] + [change("later", 5, due=NOW + 1)])
    first, second, third, _ = queue.take(NOW, 10, [])
    queue.failed(second, poison())
    queue.failed(third, Failure("permission", "403", Hold.OPERATOR))
    assert names(queue, 10, [first.id]) == ["d"]
    assert queue.next_due() == NOW + 1
    assert names(queue, 10, [first.id], NOW + 1) == ["d", "later"]
    assert queue.next_due() is None


def test_containers_take_turns_within_a_call(queue: Queue) -> None:
    big = [change(f"big {number:03d}", number, "big") for number in range(100)]
    small = [change(f"small {number}", 1_000 + number, "small") for number in range(3)]
    queue.ingest("s", 1, big + small)
    taken = queue.take(NOW, 8, [])
    assert Counter(row.container for row in taken) == {"big": 5, "small": 3}
    assert [row.name for row in taken if row.container == "big"] == [f"big {number:03d}" for number in range(5)]


def test_containers_take_turns_from_call_to_call(queue: Queue) -> None:
    """One worker that takes one row at a time, with nothing running in between."""
    queue.ingest("s", 1, [change(f"{number:03d}", number, "big") for number in range(20)])
    queue.ingest("s", 2, [change(f"{number:03d}", 1_000 + number, "small") for number in range(20)])
    served: list[str] = []
    for _ in range(10):
        (row,) = queue.take(NOW, 1, [])
        served.append(row.container)
        queue.gone(row)
    assert Counter(served) == {"big": 5, "small": 5}


def test_a_container_with_much_running_waits_for_the_others(queue: Queue) -> None:
    queue.ingest("s", 1, [change(f"{number:03d}", number, "big") for number in range(20)])
    running = [row.id for row in queue.take(NOW, 6, [])]
    queue.ingest("s", 2, [change(f"{number:03d}", 1_000 + number, "small") for number in range(20)])
    assert Counter(row.container for row in queue.take(NOW, 6, running)) == {"small": 6}


def test_priority_goes_before_turns(queue: Queue) -> None:
    queue.ingest("s", 1, [change(f"{number}", number, "urgent", priority=0) for number in range(5)])
    queue.ingest("s", 2, [change("x", 0, "other", priority=1)])
    assert [row.container for row in queue.take(NOW, 6, [])] == ["urgent"] * 5 + ["other"]


def test_poison_is_left_behind(queue: Queue) -> None:
    """One in a hundred, and the oldest ones: the rest is taken as if they were not there."""
    queue.ingest("s", 1, [change(f"{number:05d}", number) for number in range(2_000)])
    for row in queue.take(NOW, 20, []):
        queue.failed(row, poison())
    assert names(queue, 2) == ["00020", "00021"]
