"""What the queue hears of recalls is of the version that was asked for."""

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
