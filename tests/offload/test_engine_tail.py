"""Journals into the queue: what was done is queued once, what was only meant is looked at, and nothing is left over."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from agent.config_offload import Offload, Rule
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.queries import Filter
from agent.offload.rows import Adopted, Copy, Seen
from agent.offload.rules import Rules
from agent.offload.states import Residency
from agent.offload.tail import Tail, unanswered
from dataplane.journal import unclean
from dataplane.journal.reader import segments
from dataplane.journal.record import Kind, freed_name
from dataplane.journal.writer import Journal

pytestmark = pytest.mark.trio

RULES = Rules(Offload(rules=[Rule(containers=["data"], upload="now")]), ["acct"])
SECONDS_MAX = 20.0


class World:
    """A directory of journals, a queue, and the tail between them."""

    def __init__(self, scratch: Path) -> None:
        self.journals = scratch / "journal"
        self.queue = AsyncQueue(Queue(scratch / "queue.db"))
        self.containers: set[tuple[str, str]] = set()

    def rows(self) -> dict[str, Residency]:
        page = self.queue.queue.rows(Filter(), None, 100_000)
        return {row.name: row.residency for row in page.rows}

    async def until(self, condition: Callable[["World"], bool]) -> None:
        """Run the tail until the condition holds."""
        with trio.fail_after(SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Tail(self.journals, self.queue, RULES, self.containers.update).run)
                while not await self.queue(lambda _: condition(self)):  # noqa: ASYNC110  (the tail has no such event)
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()


def there(names: set[str], segments_count: int) -> Callable[[World], bool]:
    """A condition: these rows, and this many segments."""
    return lambda world: set(world.rows()) == names and len(segments(world.journals)) == segments_count


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.queue.queue.close()


def done(*names: str, container: str = "data") -> list[tuple[Kind, str, str, str]]:
    return [(Kind.DONE, "acct", container, name) for name in names]


async def test_what_is_done_is_queued_and_a_finished_segment_goes(world: World) -> None:
    journal = Journal(world.journals, 0)
    journal.append([(Kind.INTENT, "acct", "data", "a"), (Kind.INTENT, "acct", "data", "b")])
    journal.append([*done("a"), *done("b"), *done("not-for-a-rule", container="other")])
    await world.until(there({"a", "b"}, 1))
    journal.append([(Kind.CONTAINER, "acct", "data", ""), *done("c")])
    journal.close()
    await world.until(there({"a", "b", "c"}, 0))
    await world.until(lambda world: world.queue.queue.offsets() == {})  # noted after the segment has gone
    assert world.containers == {("acct", "data")}
    assert [look[:2] for look in world.queue.queue.looks()] == [("acct", "data")]  # a kill forgets it no more
    assert not unclean.is_due(world.journals)


async def test_what_a_killed_worker_only_meant_to_do_is_looked_at(world: World) -> None:
    journal = Journal(world.journals, 0)
    journal.append([(Kind.INTENT, "acct", "data", name) for name in ("a", "b")])
    journal.append(done("a"))
    await world.until(there({"a"}, 1))  # it may be done yet
    journal.close()  # as far as the segment is concerned, a kill is no different
    await world.until(there({"a", "b"}, 0))


async def test_the_end_of_one_change_does_not_answer_for_another_of_the_same_blob(world: World) -> None:
    journal = Journal(world.journals, 0)
    for kind in (Kind.INTENT, Kind.INTENT, Kind.DONE):  # two commit threads, and a kill before the second is done
        journal.append([(kind, "acct", "data", "a")])
    (segment,) = segments(world.journals)
    assert unanswered(segment) == {("acct", "data", "a")}
    journal.append(done("a"))
    assert unanswered(segment) == set()
    journal.close()


async def test_a_tail_that_ends_anywhere_goes_on_there(world: World) -> None:
    journal = Journal(world.journals, 0, segment_bytes_max=4096)
    names: set[str] = set()
    for turn in range(10):
        batch = {f"{turn}-{number:03}" for number in range(100)}
        journal.append(done(*batch))
        names |= batch
        await world.until(lambda world: len(world.rows()) == len(names))  # noqa: B023  (called at once)
    journal.close()
    await world.until(there(names, 0))


@pytest.mark.parametrize("ended", [True, False])
async def test_damage_is_told_and_the_rest_goes_on(world: World, ended: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Behind the end of a worker, as a power cut leaves it, it is no error: what is missing is found again."""
    journal = Journal(world.journals, 0)
    journal.append(done("a"))
    journal.append(done("lost"))
    if ended:
        journal.close()
    (segment,) = segments(world.journals)
    path = world.journals / segment.name
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    other = Journal(world.journals, 1)
    other.append(done("b"))
    await world.until(there({"a", "b"}, 1 if ended else 2))
    await world.until(lambda world: unclean.is_due(world.journals))
    assert [record.levelname for record in caplog.records if segment.name in record.message][:1] == [
        "WARNING" if ended else "ERROR"
    ]
    other.close()
    journal.close()


async def test_a_stub_that_a_client_replaced_lets_its_copy_go(world: World) -> None:
    """Also one whose row knows of another version: that stub was moved to the name."""
    queue = world.queue.queue
    queue.adopt(
        Adopted("acct", "data", name, Residency.REMOTE, Seen("v1", 5, 1), Copy("v1", "c1", "cloud", name, 1))
        for name in ("same", "other")
    )
    Journal(world.journals, 1).append([
        (Kind.DONE, "acct", "data", "same"), (Kind.DONE, "acct", "data", "other"),
        (Kind.FREED, "acct", "data", freed_name("same", "v1")), (Kind.FREED, "acct", "data", freed_name("other", "v0")),
    ])  # fmt: skip
    await world.until(lambda world: set(world.rows().values()) == {Residency.QUEUED})
    assert {row.name: row.away for row in queue.rows(Filter(), None, 9).rows} == {"same": False, "other": True}
