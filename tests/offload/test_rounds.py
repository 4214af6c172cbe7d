"""When everything is looked at: an operator's wish is one reason, and neither a kill nor another look forgets it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agent.config import Account
from agent.config_offload import Offload, Rule
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.look import Stores
from agent.offload.rounds import ASKED, RULES, Rounds
from agent.offload.rules import Rules
from agent.offload.scan import Place, Scanner

pytestmark = pytest.mark.trio

OFFLOAD = Offload(rules=[Rule(upload="now")])
SECONDS_MAX = 30.0


def made(scratch: Path, queue: AsyncQueue, offload: Offload = OFFLOAD) -> Rounds:
    scanner = Scanner(Stores([Account(name="acct", root=str(scratch / "root"))]), queue, Rules(offload, ["acct"]))
    return Rounds(scanner, queue, offload, scratch / "journals")


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - the product tells no event
            await trio.sleep(0.01)


@asynccontextmanager
async def looked(scratch: Path) -> AsyncIterator[tuple[Rounds, AsyncQueue]]:
    """Rounds that run, after their first look; the container `data` is there."""
    (scratch / "root" / "data").mkdir(parents=True)
    (scratch / "journals").mkdir()
    with Queue(scratch / "queue.db") as database:
        queue = AsyncQueue(database)
        rounds = made(scratch, queue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rounds.run)
            await until(lambda: rounds.scanned_at)
            yield rounds, queue
            nursery.cancel_scope.cancel()


async def test_a_look_that_is_asked_for_finds_what_another_program_wrote(tmp_path: Path) -> None:
    async with looked(tmp_path) as (rounds, queue):
        before = rounds.scanned_at
        (tmp_path / "root" / "data" / "new").write_bytes(b"x")
        await rounds.ask()
        await until(lambda: rounds.scanned_at != before)
        assert queue.queue.find("acct", "data", "new") is not None
        assert not queue.queue.recall(ASKED)  # once, not for ever
        assert await rounds.scanner.unfinished() is None


async def test_a_wish_during_a_look_is_another_look_and_outlives_the_process(tmp_path: Path) -> None:
    async with looked(tmp_path) as (_, queue):
        pass
    with Queue(tmp_path / "queue.db") as database:
        queue = AsyncQueue(database)
        (tmp_path / "root" / "data" / "passed").write_bytes(b"x")
        rounds = made(tmp_path, queue)
        digest = database.recall(RULES) or ""
        await rounds.scanner.begin(Place("acct", "data", "z", rules=digest))  # a look that has passed the blob
        await rounds.ask()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made(tmp_path, queue).run)  # the next process
            await until(lambda: database.find("acct", "data", "passed"))
            nursery.cancel_scope.cancel()


async def test_a_look_that_other_rules_began_begins_again(tmp_path: Path) -> None:
    async with looked(tmp_path):
        (tmp_path / "root" / "data" / "passed").write_bytes(b"x")
    with Queue(tmp_path / "queue.db") as database:
        queue = AsyncQueue(database)
        digest = database.recall(RULES) or ""
        await made(tmp_path, queue).scanner.begin(Place("acct", "data", "z", rules=digest))
        other = made(tmp_path, queue, Offload(rules=[Rule(upload="now", prefix="p")]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run)
            await until(lambda: database.find("acct", "data", "passed"))
            nursery.cancel_scope.cancel()


async def test_a_container_whose_mount_fails_is_looked_at_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.offload.rounds.RETRY_SECONDS", 0.05)
    fails = [True]
    async with looked(tmp_path) as (rounds, queue):
        seen: list[str] = []

        async def scan_container(account: str, container: str) -> None:
            if fails and container == "data":
                fails.pop()
                raise OSError("hangs")
            seen.append(f"{account}/{container}")

        monkeypatch.setattr(rounds.scanner, "scan_container", scan_container)
        containers = {("acct", "data"), ("acct", "other")}
        await queue(lambda queue: queue.ingest("s", 1, [], looks=containers))
        rounds.want(containers)
        await until(lambda: len(seen) == 2)
        assert seen == ["acct/other", "acct/data"]
        assert queue.queue.looks() == []


async def test_a_container_that_was_changed_is_looked_at_although_the_process_was_killed(tmp_path: Path) -> None:
    async with looked(tmp_path) as (_, queue):
        await queue(lambda queue: queue.ingest("s", 1, [], looks={("acct", "data")}))
    (tmp_path / "root" / "data" / "new").write_bytes(b"x")
    with Queue(tmp_path / "queue.db") as database:
        rounds = made(tmp_path, AsyncQueue(database))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rounds.run)
            await until(lambda: database.find("acct", "data", "new") and not database.looks())
            nursery.cancel_scope.cancel()
