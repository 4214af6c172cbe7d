"""Short words for the tests of the queue."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.offload.database import Queue
from agent.offload.queries import Filter
from agent.offload.rows import Change, Copy, Failure, Row, Seen, Turn
from agent.offload.states import Hold

NOW = 1_000_000


def change(name: str, when: int = NOW, container: str = "c", due: int | None = None, priority: int = 0) -> Change:
    """A change that is due at once unless `due` says later; the oldest goes first."""
    return Change("a", container, name, when, when if due is None else due, priority, when)


def seen(etag: str, size: int = 10, modified: int = NOW) -> Seen:
    return Seen(etag, size, modified)


def turn(due: int = NOW, priority: int = 0, order_key: int = NOW) -> Turn:
    return Turn(due, priority, order_key)


def copy(etag: str, at: int = NOW) -> Copy:
    return Copy(etag, f"cloud {etag}", "cloud-c", "cloud/name", at)


def poison(error: str = "400 InvalidBlobOrBlock") -> Failure:
    return Failure("poison", error, Hold.POISON)


def everything(queue: Queue) -> list[Row]:
    """All rows, by small pages."""
    rows: list[Row] = []
    after: str | None = None
    while True:
        page = queue.rows(Filter(), after, 3)
        rows += page.rows
        after = page.after
        if after is None:
            return rows


def only(queue: Queue) -> Row:
    """The one row."""
    (row,) = everything(queue)
    return row


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path / "queue.db") as opened:
        yield opened
