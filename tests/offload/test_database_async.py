"""The queue for trio: in order, together where that saves a flush, and each call for itself when it fails."""

from pathlib import Path

import pytest
import trio
import trio.testing

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.opening import QueueUnwritable

from .database_support import change, everything


@pytest.mark.trio
async def test_calls_that_wait_together_are_one_transaction(tmp_path: Path) -> None:
    queue = await AsyncQueue.open(tmp_path / "queue.db")
    commits: list[str] = []
    queue.queue._connection.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(queue, lambda q, name=str(number): q.note([change(name)]))
    rows = await queue(everything)
    assert len(rows) == 50
    assert len(commits) <= 3  # the first call, those that waited for it, and the reading
    await queue.aclose()


@pytest.mark.trio
async def test_a_call_that_fails_undoes_its_own_part_only(tmp_path: Path) -> None:
    queue = await AsyncQueue.open(tmp_path / "queue.db")

    def noted_and_failed(q: Queue) -> None:
        q.note([change("undone")])
        raise ZeroDivisionError

    async def fails() -> None:
        with pytest.raises(ZeroDivisionError):
            await queue(noted_and_failed)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(queue, lambda q, name=str(number): q.note([change(name)]))
            nursery.start_soon(fails)
    assert [row.name for row in await queue(everything)] == ["0", "1", "2", "3", "4"]
    await queue.aclose()


@pytest.mark.trio
async def test_what_the_disk_refuses_is_said_to_all_who_were_in_the_transaction(tmp_path: Path) -> None:
    queue = await AsyncQueue.open(tmp_path / "queue.db")
    connection = queue.queue._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    refused: list[str] = []

    async def note(names: list[str]) -> None:
        try:
            await queue(lambda q: q.note([change(name) for name in names]))
        except QueueUnwritable:
            refused.extend(names[:1])

    many = [f"{number} {'x' * 500}" for number in range(100)]
    async with trio.open_nursery() as nursery:
        for names in (["first"], many, ["together 1"], many, ["together 2"]):
            nursery.start_soon(note, names)
    rows = [row.name for row in await queue(everything)]
    assert many[0] in refused
    assert {"first", "together 1", "together 2"} == {*rows, *refused} - {many[0]}
    assert not {*rows} & {*refused}
    await queue.aclose()


@pytest.mark.trio
async def test_work_that_goes_alone_is_a_transaction_without_parts_while_others_wait(tmp_path: Path) -> None:
    queue = await AsyncQueue.open(tmp_path / "queue.db")
    said: list[str] = []
    queue.queue._connection.set_trace_callback(said.append)

    async def whole(name: str) -> None:
        await queue.alone(lambda q: q.note([change(name)]))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(whole, str(number))
    assert [text for text in said if text in ("BEGIN", "COMMIT")] == ["BEGIN", "COMMIT"] * 5
    assert not [text for text in said if text.startswith("SAVEPOINT")]
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(whole, f"alone {number}")
            nursery.start_soon(queue, lambda q, name=f"shared {number}": q.note([change(name)]))
    assert len(await queue(everything)) == 15
    await queue.aclose()


@pytest.mark.trio
async def test_a_call_that_is_cancelled_while_it_waits_is_not_made(tmp_path: Path) -> None:
    queue = await AsyncQueue.open(tmp_path / "queue.db")
    async with trio.open_nursery() as nursery, queue._turn:
        with trio.CancelScope() as scope:
            scope.cancel()
            await queue(lambda q: q.note([change("never")]))
        nursery.start_soon(queue, lambda q: q.note([change("made")]))
    assert [row.name for row in await queue(everything)] == ["made"]
    await queue.aclose()


@pytest.mark.trio
async def test_a_call_that_has_its_turn_is_made_and_so_are_those_beside_it(tmp_path: Path) -> None:
    """The task that is to start the thread is cancelled in the moment in which it gets its turn."""
    queue = await AsyncQueue.open(tmp_path / "queue.db")
    scope = trio.CancelScope()

    async def leads() -> None:
        with scope:
            await queue(lambda q: q.note([change("leads")]))

    async with trio.open_nursery() as nursery:
        async with queue._turn:
            nursery.start_soon(leads)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(queue, lambda q: q.note([change("beside")]))
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert [row.name for row in await queue(everything)] == ["beside", "leads"]
    await queue.aclose()


@pytest.mark.trio
async def test_a_second_one_opens_when_the_first_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    first = await AsyncQueue.open(path)
    await first(lambda q: q.note([change("kept")]))
    opened: list[AsyncQueue] = []

    async def second() -> None:
        opened.append(await AsyncQueue.open(path))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not opened
        await first.aclose()
    assert [row.name for row in await opened[0](everything)] == ["kept"]
    await opened[0].aclose()


@pytest.mark.trio
async def test_a_damaged_one_is_set_aside_after_the_calls_that_wait(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queue = await AsyncQueue.open(path)
    await queue(lambda q: q.note([change("lost")]))
    assert await queue.set_aside(7) == tmp_path / "queue.db.damaged-7"
    again = await AsyncQueue.open(path)
    assert again.queue.fresh
    await again.aclose()


@pytest.mark.trio
async def test_waiting_for_the_lock_can_be_cancelled(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db"):
        with trio.move_on_after(0) as scope:
            await AsyncQueue.open(tmp_path / "queue.db")
        assert scope.cancelled_caught
