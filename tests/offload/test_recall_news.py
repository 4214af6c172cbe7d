"""What the queue hears of recalls is of the version that was asked for."""

import time
from pathlib import Path

import pytest

from agent.offload.acts import Act
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.queries import Filter
from agent.offload.recall.news import QueueNews
from agent.offload.recall.shelf import Key
from agent.offload.rows import Failure
from agent.offload.states import COPY_LOST, Hold, Residency

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
@pytest.mark.parametrize("compared", [False, True])
async def test_the_alarm_of_a_missing_copy_outlives_readers_and_retries(tmp_path: Path, compared: bool) -> None:
    """It tells of lost bytes: only their arrival, or a comparison that finds the copy, takes it back."""
    with Queue(tmp_path / "queue.db") as queue:
        queue.ingest("s", 1, [change("b")])
        queue.stubbed(only(queue), seen("e1"), copy("e1"))
        if compared:
            queue.failed(only(queue), Failure(COPY_LOST, "how to bring it back", Hold.OPERATOR))
        await QueueNews(AsyncQueue(queue)).missing(KEY, "404 BlobNotFound")
        row = only(queue)
        assert (row.hold, row.failure) == (Hold.OPERATOR, COPY_LOST)
        assert row.error == ("how to bring it back" if compared else "404 BlobNotFound")
        for act in (Act.RETRY, Act.RELEASE):
            assert queue.act(act, Filter(holds=frozenset({Hold.OPERATOR}))).rows == 0
        assert only(queue) == row


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
