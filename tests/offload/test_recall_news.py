"""What the queue hears of recalls is of the version that was asked for."""

import time
from pathlib import Path

import pytest

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.recall.news import QueueNews
from agent.offload.recall.shelf import Key
from agent.offload.states import Hold, Residency

from .database_support import NOW, change, copy, only, seen

KEY = Key("a", "c", "b", "e1")


@pytest.mark.trio
async def test_a_copy_that_is_missing_holds_its_stub_until_bytes_come(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        queue.ingest("s", 1, [change("b")])
        queue.stubbed(only(queue), seen("e1"), copy("e1"))
        news = QueueNews(AsyncQueue(queue))
        await news.missing(KEY, "404 BlobNotFound")
        assert (only(queue).residency, only(queue).hold) == (Residency.REMOTE, Hold.OPERATOR)
        await news.arrived(KEY)
        assert (only(queue).residency, only(queue).hold) == (Residency.COPIED, Hold.NONE)


@pytest.mark.trio
async def test_what_is_written_over_a_stub_without_a_copy_is_sent(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        queue.ingest("s", 1, [change("b")])
        queue.stubbed(only(queue), seen("e1"), copy("e1"))
        await QueueNews(AsyncQueue(queue)).missing(KEY, "404 BlobNotFound")
        queue.ingest("s", 2, [change("b", NOW + 1)])
        (row,) = queue.take(NOW + 1, 1, [])
        assert (row.failure, row.error) == ("", "")


@pytest.mark.trio
async def test_a_blob_that_was_written_meanwhile_is_not_held(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        queue.ingest("s", 1, [change("b")])
        queue.stubbed(only(queue), seen("e1"), copy("e1"))
        queue.ingest("s", 2, [change("b", NOW + 1)])
        await QueueNews(AsyncQueue(queue)).missing(KEY, "404 BlobNotFound")
        assert len(queue.take(NOW + 1, 1, [])) == 1


@pytest.mark.trio
async def test_what_came_back_counts_as_used_before_its_read_is_noted(tmp_path: Path) -> None:
    # A recall by hand reads nothing, and a rule that evicts by age would take the blob away at once.
    with Queue(tmp_path / "queue.db") as queue:
        queue.ingest("s", 1, [change("b")])
        queue.stubbed(only(queue), seen("e1"), copy("e1"))
        before = time.time_ns()
        await QueueNews(AsyncQueue(queue)).arrived(KEY)
        assert before <= only(queue).read_at <= time.time_ns()
        assert queue.candidates(10, unused_since=before) == []
        assert [row.name for row in queue.candidates(10)] == ["b"]
