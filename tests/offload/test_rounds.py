"""When everything is looked at: an operator's wish is one reason, and neither a kill nor another look forgets it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

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
from dataplane.journal import unclean

pytestmark = pytest.mark.trio

OFFLOAD = Offload(rules=[Rule(upload="now")])
SECONDS_MAX = 30.0


def made(scratch: Path, queue: AsyncQueue, offload: Offload = OFFLOAD, **options: Any) -> Rounds:
    scanner = Scanner(Stores([Account(name="acct", root=str(scratch / "root"))]), queue, Rules(offload, ["acct"]))
    return Rounds(scanner, queue, offload, scratch / "journals", **options)


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - the product tells no event
            await trio.sleep(0.01)


async def until_known(queue: AsyncQueue, account: str, name: str) -> None:
    """Wait for a row of the container `data`. Asked through the queue, as a connection is for one thread at a time."""
    with trio.fail_after(SECONDS_MAX):
        while await queue(lambda queue: queue.find(account, "data", name)) is None:  # noqa: ASYNC110 - as above
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
        assert await rounds.scanner.unfinished() == {}


async def test_what_the_journals_lack_is_also_compared_with_the_cloud_once(tmp_path: Path) -> None:
    asked: list[bool] = []

    async def compare() -> bool:
        asked.append(True)
        return len(asked) > 1  # an operator's is under way, at first

    (tmp_path / "root" / "data").mkdir(parents=True)
    (tmp_path / "journals").mkdir()
    with Queue(tmp_path / "queue.db") as database:
        queue = AsyncQueue(database)
        rounds = made(tmp_path, queue, compare=compare)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rounds.run)
            await until(lambda: rounds.scanned_at)
            assert not asked  # an ordinary look
            unclean.mark(tmp_path / "journals")
            await until(lambda: asked)
            await rounds.ask()
            await until(lambda: len(asked) == 2)
            before = rounds.scanned_at
            await rounds.ask()
            await until(lambda: rounds.scanned_at != before)
            nursery.cancel_scope.cancel()
        assert len(asked) == 2


async def test_a_wish_during_a_look_is_another_look_and_outlives_the_process(tmp_path: Path) -> None:
    async with looked(tmp_path) as (_, queue):
        pass
    with Queue(tmp_path / "queue.db") as database:
        queue = AsyncQueue(database)
        (tmp_path / "root" / "data" / "passed").write_bytes(b"x")
        rounds = made(tmp_path, queue)
        digest = database.recall(RULES) or ""
        await rounds.scanner.begin(
            {"acct": Place("acct", "data", "z", rules=digest)}
        )  # a look that has passed the blob
        await rounds.ask()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made(tmp_path, queue).run)  # the next process
            await until_known(queue, "acct", "passed")
            nursery.cancel_scope.cancel()


async def test_a_look_that_other_rules_began_begins_again(tmp_path: Path) -> None:
    async with looked(tmp_path):
        (tmp_path / "root" / "data" / "passed").write_bytes(b"x")
    with Queue(tmp_path / "queue.db") as database:
        queue = AsyncQueue(database)
        digest = database.recall(RULES) or ""
        await made(tmp_path, queue).scanner.begin({"acct": Place("acct", "data", "z", rules=digest)})
        other = made(tmp_path, queue, Offload(rules=[Rule(upload="now", prefix="p")]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run)
            await until_known(queue, "acct", "passed")
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
        queue = AsyncQueue(database)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made(tmp_path, queue).run)
            await until_known(queue, "acct", "new")
            with trio.fail_after(SECONDS_MAX):
                while await queue(lambda queue: queue.looks()):  # noqa: ASYNC110 - as above
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_an_account_whose_mount_fails_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.offload.rounds.RETRY_SECONDS", 0.05)
    for account in ("away", "here"):
        (tmp_path / account / "data").mkdir(parents=True)
    (tmp_path / "journals").mkdir()
    away = tmp_path / "away"
    away.rename(tmp_path / "unmounted")
    with Queue(tmp_path / "queue.db") as database:
        queue = AsyncQueue(database)
        stores = Stores([Account(name=name, root=str(tmp_path / name)) for name in ("away", "here")])
        offload = Offload(rules=[Rule(upload="now", container="{account}-{container}")])
        scanner = Scanner(stores, queue, Rules(offload, ["away", "here"]))
        rounds = Rounds(scanner, queue, offload, tmp_path / "journals")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rounds.run)
            await until(lambda: rounds.scanned_at)
            assert rounds.problem.startswith("away: ")
            first = rounds.scanned_at
            (tmp_path / "here" / "data" / "new").write_bytes(b"x")
            await rounds.ask()  # another look, while the mount is still away
            await until_known(queue, "here", "new")
            await until(lambda: rounds.scanned_at != first)
            assert "away" in await rounds.scanner.unfinished()
            (tmp_path / "unmounted" / "data" / "late").write_bytes(b"x")
            (tmp_path / "unmounted").rename(away)
            await until_known(queue, "away", "late")
            await until(lambda: not rounds.problem)
            assert await rounds.scanner.unfinished() == {}
            nursery.cancel_scope.cancel()


async def test_a_new_database_is_made_again_out_of_the_cloud_where_that_works(tmp_path: Path) -> None:
    for works in (True, False):
        scratch = tmp_path / str(works)
        (scratch / "root" / "data").mkdir(parents=True)
        (scratch / "journals").mkdir()
        (scratch / "root" / "data" / "there").write_bytes(b"x")
        with Queue(scratch / "queue.db") as database:
            rounds = made(scratch, AsyncQueue(database), rebuild=partial(_answer, works))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rounds.run)
                await until(lambda: rounds.scanned_at)  # noqa: B023 - it is asked in this turn
                nursery.cancel_scope.cancel()
            assert (database.find("acct", "data", "there") is None) is works  # no scan on top of it


async def _answer(value: bool) -> bool:
    return value
