"""A process that leaks is replaced while it serves: real ones that leak, and replacements that meet other events."""

import errno
import logging
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from agent.supervision import leaks, policy
from agent.supervision.child import Child
from agent.supervision.leaks import Place
from agent.supervision.plan import Plan
from agent.supervision.recycle import MIB, own_bytes
from agent.supervision.service import Service
from dataplane.ipc import control, slots
from dataplane.ipc.settings import MappedContainer
from tests.agent.in_process import kill, make_plan, refuse, run, serving, until
from tests.agent.stub_worker import MODE_FILE
from tests.agent.test_reload import Load

LIMIT_MIB = 64
WORKERS = 2
SIDECAR = Place("sidecar", 0)
RACES = 12  # in one random life


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and pauses that a test can wait for, in the proportions of the real ones."""
    monkeypatch.setattr(leaks, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(leaks, "LOOKS_COUNT", 3)
    monkeypatch.setattr(leaks, "PAUSE_SECONDS", 0.5)
    monkeypatch.setattr(leaks, "PAUSE_SECONDS_MAX", 2.0)
    monkeypatch.setattr(policy, "CRASHES_COUNT_MAX", 3)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The lines of the log that have a text."""
    caplog.set_level(logging.INFO, "blobedge.supervisor")
    return lambda text: [message for message in caplog.messages if text in message]


def address(service: Service) -> tuple[str, int]:
    return "127.0.0.1", service.bounds[0].port


def worker_pids(service: Service) -> set[int]:
    return {child.pid for child in service.fleet.current}


def test_memory_of_its_own_is_what_is_written_not_what_is_mapped(tmp_path: Path) -> None:
    before = own_bytes(os.getpid())
    held = b"x" * (64 * MIB)
    after = own_bytes(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 48 * MIB, len(held)
    assert own_bytes(2**22 + 1) is None  # beyond the largest pid of Linux


def test_workers_that_leak_are_recycled_again_and_again_and_no_connection_fails(
    tmp_path: Path, said: Callable[[str], list[str]]
) -> None:
    recycles = 6

    async def scenario(service: Service) -> None:
        old = worker_pids(service)
        with Load(address(service)) as load:
            await until(lambda: len(said("is recycled")) >= recycles)
            await until(lambda: not worker_pids(service) & old)
        assert load.failures == []
        assert len(load.answers) > WORKERS
        done = service.snapshot().recycles
        assert {(each.role, each.number) for each in done} == {("worker", number) for number in range(WORKERS)}
        assert sum(each.done_count for each in done) >= recycles
        assert all("serves instead" in each.last for each in done)
        assert all(each.failed_count == 0 for each in done)

    assert run(scenario, make_plan(tmp_path, WORKERS, memory_mib_max=LIMIT_MIB), "leak") == 0
    assert f"limits.memory_mib_max is {LIMIT_MIB}" in said("is recycled")[0]
    assert said("SIGKILL") == []
    assert said("did not") == []


def test_a_worker_within_the_limit_is_left_alone(tmp_path: Path, said: Callable[[str], list[str]]) -> None:
    async def scenario(service: Service) -> None:
        old = worker_pids(service)
        await trio.sleep(20 * leaks.LOOK_SECONDS)
        assert worker_pids(service) == old
        assert all(each.memory_bytes for each in service.snapshot().processes), "it was looked at"

    assert run(scenario, make_plan(tmp_path, WORKERS, memory_mib_max=LIMIT_MIB)) == 0
    assert said("recycled") == []


@pytest.mark.parametrize("mode", ["refuse", "crash"])
def test_a_successor_that_cannot_come_up_changes_nothing(
    tmp_path: Path, said: Callable[[str], list[str]], mode: str
) -> None:
    async def scenario(service: Service) -> None:
        old = worker_pids(service)
        (tmp_path / MODE_FILE).write_text(mode)
        with Load(address(service)) as load:
            await until(lambda: len(said("is not recycled")) >= 2)
            assert worker_pids(service) == old
        assert load.failures == []
        assert sum(each.failed_count for each in service.snapshot().recycles) >= 2
        (tmp_path / MODE_FILE).unlink()
        await until(lambda: not worker_pids(service) & old)

    assert run(scenario, make_plan(tmp_path, WORKERS, memory_mib_max=LIMIT_MIB), "leak") == 0
    assert len(said("is not recycled")) <= 2 * len(said("no successor serves")), "one line each"


@pytest.mark.parametrize("missing", ["create", "pair"])
@pytest.mark.parametrize("place", [Place("worker", 0), SIDECAR])
def test_no_descriptor_for_a_successor_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, place: Place
) -> None:
    def none(*_: object) -> NoReturn:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    async def scenario(service: Service) -> None:
        old = worker_pids(service)
        with monkeypatch.context() as full:
            full.setattr(slots if missing == "create" else control, missing, none)
            assert await service.recycle(place)
        assert worker_pids(service) == old
        await until(lambda: not service.fleet.draining)
        assert await service.recycle(place) == []

    assert run(scenario, make_plan(tmp_path, WORKERS), with_sidecar=True) == 0


def test_a_limit_that_is_too_small_becomes_no_storm(tmp_path: Path, said: Callable[[str], list[str]]) -> None:
    """The interpreter alone holds more than the limit; the pauses double."""

    async def scenario(service: Service) -> None:
        await until(lambda: len(said("is recycled")) >= 3)

    assert run(scenario, make_plan(tmp_path, 1, memory_mib_max=16), "leak") == 0
    for line, pause in zip(said("is recycled"), ("0.5", "1", "2"), strict=False):
        assert f"the next not within {pause} s" in line


def test_the_sidecar_is_recycled_alike(tmp_path: Path, said: Callable[[str], list[str]]) -> None:
    async def scenario(service: Service) -> None:
        old = service.sidecar.child
        assert old is not None
        await old.ready.wait()
        assert await service.recycle(SIDECAR) == []
        new = service.sidecar.child
        assert new is not None
        assert new is not old
        assert new.ready.is_set()
        await old.over.wait()
        assert [each.role for each in service.snapshot().processes].count("sidecar") == 1

    assert run(scenario, make_plan(tmp_path, 1), with_sidecar=True) == 0
    assert said("given up") == []


def test_a_worker_that_is_killed_while_it_is_replaced(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        old = list(service.fleet.current)
        with Load(address(service)) as load:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.recycle, Place("worker", 1))
                await until(lambda: service.fleet.successors)
                kill(old[1])
            await serving(service)
        assert load.failures == []
        assert old[0] in service.fleet.current
        assert old[1] not in service.fleet.current
        assert old[1].over.is_set()

    assert run(scenario, make_plan(tmp_path, WORKERS)) == 0


def test_a_successor_that_is_killed_before_the_others_are_ready_is_waited_for(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.reload, lambda: make_plan(tmp_path, 3), nursery)
            await until(lambda: len(service.fleet.successors) > 1)
            first = service.fleet.successors[0]
            kill(first)
            await until(lambda: not first.ready.is_set() or first not in service.fleet.successors)
            assert first in service.fleet.successors, "the old ones were stopped while it was gone"
            await until(lambda: not service.fleet.successors)
            assert all(child.ready.is_set() for child in service.fleet.current)
        assert [child.number for child in service.fleet.current] == [0, 1, 2]

    assert run(scenario, make_plan(tmp_path, 3)) == 0


def test_a_configuration_that_fits_no_message_changes_nothing(tmp_path: Path, said: Callable[[str], list[str]]) -> None:
    def load() -> Plan:
        plan = make_plan(tmp_path, WORKERS)
        containers = tuple(MappedContainer(f"{number:0100}", str(tmp_path)) for number in range(1000))
        return replace(plan, accounts=tuple(replace(each, containers=containers) for each in plan.accounts))

    async def scenario(service: Service) -> None:
        old = worker_pids(service)
        async with trio.open_nursery() as nursery:
            await service.reload(load, nursery)
        assert worker_pids(service) == old
        assert said("reload 1 failed, the old configuration stays: the configuration is too long")

    assert run(scenario, make_plan(tmp_path, WORKERS)) == 0


@pytest.mark.parametrize("reload_first", [True, False])
def test_a_reload_and_a_recycle_wait_for_each_other(tmp_path: Path, reload_first: bool) -> None:
    async def scenario(service: Service) -> None:
        old = worker_pids(service)
        async with trio.open_nursery() as nursery:

            async def reload() -> None:
                await service.reload(lambda: make_plan(tmp_path, 3), nursery)

            async def recycle() -> None:
                assert await service.recycle(Place("worker", 0)) == []

            first, second = (reload, recycle) if reload_first else (recycle, reload)
            nursery.start_soon(first)
            await until(lambda: service.fleet.successors)
            nursery.start_soon(second)
            await until(lambda: not service.fleet.successors or _numbers_differ(service.fleet.successors))
        await serving(service)
        assert [child.number for child in service.fleet.current] == [0, 1, 2]
        assert not worker_pids(service) & old

    assert run(scenario, make_plan(tmp_path, WORKERS)) == 0


def _numbers_differ(children: list[Child]) -> bool:
    numbers = [child.number for child in children]
    assert len(set(numbers)) == len(numbers), "two replacements at the same time"
    return False


def test_a_recycle_that_a_reload_overtook_brings_no_worker_too_many(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.reload, lambda: make_plan(tmp_path, 1), nursery)
            await until(lambda: service.fleet.successors)
            assert await service.recycle(Place("worker", 1)) == ["there is no worker 1 any more"]
        assert [child.number for child in service.fleet.current] == [0]
        assert len(service.bounds[0].sockets) == WORKERS, "a socket whose address is served is never closed"

    assert run(scenario, make_plan(tmp_path, WORKERS)) == 0


@pytest.mark.parametrize("place", [Place("worker", 0), SIDECAR])
def test_a_stop_in_a_recycle_stops_and_leaves_nobody(tmp_path: Path, place: Place) -> None:
    seen: list[Child] = []

    async def scenario(service: Service) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.recycle, place)
            await until(lambda: service.changing)
            await trio.lowlevel.checkpoint()
            service.stop(1.0)
            seen.extend(service.fleet.everyone())

    assert run(scenario, make_plan(tmp_path, WORKERS), with_sidecar=True) == 0
    assert all(child.over.is_set() and not child.pid for child in seen)


def test_a_sidecar_that_is_killed_in_a_reload_or_in_its_recycle_is_there_afterwards(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        for change in ("reload", "recycle"):
            old = service.sidecar.child
            assert old is not None
            await old.wait_serving()
            async with trio.open_nursery() as nursery:
                if change == "reload":
                    nursery.start_soon(service.reload, lambda: make_plan(tmp_path, WORKERS), nursery)
                else:
                    nursery.start_soon(service.recycle, SIDECAR)
                await until(lambda: service.changing)
                kill(old)
            assert service.sidecar.child is not old
            assert service.sidecar.child is not None
            assert await service.sidecar.child.wait_serving()
            await old.over.wait()

    assert run(scenario, make_plan(tmp_path, WORKERS), with_sidecar=True) == 0


class _Life:
    """Random events, several at a time, each of which has to leave a whole service behind."""

    def __init__(self, service: Service, root: Path, seed: int) -> None:
        self.service = service
        self.root = root
        self.random = random.Random(seed)

    async def one(self, nursery: trio.Nursery) -> None:
        match self.random.choice(["kill", "kill", "reload", "bad", "refused", "recycle", "sidecar"]):
            case "kill":
                kill(self.random.choice(self.service.fleet.everyone()))
            case "reload":
                workers = self.random.randint(1, 3)
                await self.service.reload(lambda: make_plan(self.root, workers), nursery)
            case "bad":
                await self.service.reload(refuse, nursery)
            case "refused":
                await self.service.reload(lambda: make_plan(self.root, 2, "refuse"), nursery)
            case "recycle":
                await self.service.recycle(Place("worker", self.random.randrange(len(self.service.fleet.current))))
            case _:
                await self.service.recycle(SIDECAR)

    def check(self) -> Iterator[str]:
        fleet = self.service.fleet
        yield from () if len(fleet.successors) <= 3 else ("too many successors",)
        if [child.number for child in fleet.current] != list(range(self.service.plan.workers)):
            yield f"workers {[child.number for child in fleet.current]}"
        if any(child.over.is_set() for child in fleet.current):
            yield "a worker that is over"


@pytest.mark.parametrize("seed", range(3))
def test_a_stop_at_any_moment_leaves_nobody(tmp_path: Path, seed: int) -> None:
    seen: list[Child] = []

    async def scenario(service: Service) -> None:
        life = _Life(service, tmp_path, seed)
        async with trio.open_nursery() as nursery:
            for _ in range(life.random.randint(1, RACES)):
                nursery.start_soon(life.one, nursery)
                await trio.sleep(life.random.uniform(0, 0.1))
            service.stop(1.0)
            sidecar = service.sidecar.child
            assert sidecar is not None
            seen.extend([*service.fleet.everyone(), sidecar])

    assert run(scenario, make_plan(tmp_path, WORKERS), with_sidecar=True) == 0
    assert all(child.over.is_set() and not child.pid for child in seen)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_deaths_reloads_and_recycles_leaves_a_whole_service(tmp_path: Path, seed: int) -> None:
    async def scenario(service: Service) -> None:
        life = _Life(service, tmp_path, seed)
        async with trio.open_nursery() as closing:
            with Load(address(service)) as load:
                async with trio.open_nursery() as nursery:
                    for _ in range(RACES):
                        nursery.start_soon(life.one, closing)
                        await trio.sleep(life.random.uniform(0, 0.2))
                        assert list(life.check()) == []
                await serving(service)
                assert list(life.check()) == []
        assert load.answers
        assert service.snapshot().state == "ready"
        numbers = [child.number for child in service.fleet.current]
        assert numbers == list(range(service.plan.workers))

    assert run(scenario, make_plan(tmp_path, WORKERS), with_sidecar=True) == 0
