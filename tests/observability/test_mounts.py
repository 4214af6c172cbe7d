"""Hung mounts: a question that blocks its thread, and, for root, a FUSE file system whose server never answers."""

import threading
from pathlib import Path

import pytest
import trio

from agent.observability.mounts import MARKER, Facts, Mounts, Place, Reading, ask, places
from tests.observability.faults import hung_mount
from tests.observability.support import SECONDS_MAX, config

FACTS = Facts(1, 2, 3, 4, True)
GOOD, BAD = Place("good", "", "/good"), Place("bad", "c", "/bad")


class Server:
    """Answers at once for /good; for /bad when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let = threading.Event()

    def __call__(self, path: str) -> Facts:
        self.asked.append(path)
        if path == "/bad":
            assert self.let.wait(SECONDS_MAX)
        return FACTS


async def settled(mounts: Mounts, *wanted: Place) -> None:
    """Ask, and wait until all of these have answered."""
    async with trio.open_nursery() as nursery:
        mounts.ask(wanted, nursery)


async def until_answered(mounts: Mounts, place: Place) -> Reading:
    with trio.fail_after(SECONDS_MAX):
        while True:
            (reading,) = [each for each in mounts.readings() if each.place == place]
            if reading.asked_at is None:
                return reading
            await trio.sleep(0.001)


@pytest.mark.trio
async def test_a_hung_mount_has_one_thread_and_the_others_are_still_asked() -> None:
    server = Server()
    mounts = Mounts(server)
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        for _ in range(5):
            mounts.ask([GOOD, BAD], nursery)
            assert (await until_answered(mounts, GOOD)).facts == FACTS
        assert sorted(server.asked) == ["/bad", *["/good"] * 5]
        bad = mounts.readings()[1]
        assert bad.facts is None
        assert bad.asked_at == pytest.approx(began, abs=0.2)  # since the first question, not the last

        server.let.set()
        assert (await until_answered(mounts, BAD)).facts == FACTS
        mounts.ask([GOOD, BAD], nursery)
    assert server.asked.count("/bad") == 2


@pytest.mark.trio
async def test_a_mount_that_is_not_wanted_any_more_is_forgotten() -> None:
    server = Server()
    mounts = Mounts(server)
    async with trio.open_nursery() as nursery:
        mounts.ask([GOOD, BAD], nursery)
        mounts.ask([GOOD], nursery)
        assert [reading.place for reading in mounts.readings()] == [GOOD]
        server.let.set()


@pytest.mark.trio
async def test_real_directories(tmp_path: Path) -> None:
    here, gone = Place("a", "", str(tmp_path)), Place("b", "", str(tmp_path / "gone"))
    mounts = Mounts()
    (tmp_path / MARKER).parent.mkdir()
    (tmp_path / MARKER).write_text("1")
    await settled(mounts, here, gone)
    (tmp_path / MARKER).unlink()
    await settled(mounts, here, gone)
    first, second = mounts.readings()
    assert first.facts is not None
    assert (first.facts.marked, first.was_marked) == (False, True)
    assert (second.facts, second.error) == (None, "No such file or directory")
    assert ask(str(tmp_path)).size_bytes > 0


def test_places(tmp_path: Path) -> None:
    the_config = config(tmp_path)
    account = the_config.accounts[0].model_dump()
    account["containers"] = [{"name": "usual"}, {"name": "mapped", "path": "/mnt/x"}]
    mapped = type(the_config).model_validate({"accounts": [account]})
    assert [(each.name, each.path) for each in places(mapped)] == [("acct", str(tmp_path)), ("acct/mapped", "/mnt/x")]


@pytest.mark.trio
async def test_a_real_hung_mount(tmp_path: Path) -> None:
    with hung_mount(tmp_path / "hung") as directory:
        place = Place("acct", "", str(directory))
        mounts = Mounts()
        async with trio.open_nursery() as nursery:
            mounts.ask([place], nursery)
            await trio.sleep(0.3)  # it is to be seen that no answer comes
            mounts.ask([place], nursery)
            (reading,) = mounts.readings()
            assert reading.asked_at is not None
            assert reading.facts is None
            nursery.cancel_scope.cancel()
