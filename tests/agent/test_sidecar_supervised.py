"""The sidecar under the supervisor: its deaths are a worker's, but one that is hopeless does not end the service."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.supervision import policy, sidecar
from agent.supervision.child import Child
from agent.supervision.leaks import Place
from agent.supervision.service import Service
from tests.agent.in_process import kill, make_plan, run, until

PLACE = Place("sidecar", 0)
CRASHES = (sys.executable, "-c", "raise SystemExit(17)")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The lines of the log that have a text."""
    caplog.set_level(logging.INFO, "blobedge.supervisor")
    return lambda text: [message for message in caplog.messages if text in message]


def environment(pid: int) -> dict[str, str]:
    """What a process was started with of what `sidecar.MEMORY` names."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    variables = dict(entry.partition("=")[::2] for entry in entries)
    return {name: variables[name] for name in sidecar.MEMORY if name in variables}


async def serving(service: Service) -> Child:
    """The sidecar, when it is ready."""
    child = service.sidecar.child
    assert child is not None
    assert await child.wait_serving()
    return child


def test_one_that_is_killed_is_back(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        child = await serving(service)
        victim = child.pid
        kill(child)
        await until(lambda: child.ready.is_set() and child.pid not in (0, victim))
        assert child.last_exit == "signal SIGKILL"

    assert run(scenario, make_plan(tmp_path, 1), with_sidecar=True) == 0


def test_one_that_hangs_is_aborted_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    monkeypatch.setattr(policy, "HEARTBEAT_SECONDS_MAX", 2.0)
    monkeypatch.setattr(policy, "ABORT_SECONDS", 0.2)

    async def scenario(service: Service) -> None:
        child = await serving(service)
        victim = child.pid
        os.kill(victim, signal.SIGSTOP)
        await until(lambda: child.ready.is_set() and child.pid not in (0, victim))

    assert run(scenario, make_plan(tmp_path, 1), with_sidecar=True) == 0
    steps = said("sidecar (pid")
    assert "no heartbeat for 2 s; SIGABRT" in steps[0]
    assert "did not end at SIGABRT; SIGKILL" in steps[1]
    assert "ended: signal SIGKILL" in steps[2]


def test_the_service_goes_on_without_one_that_always_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    monkeypatch.setattr(sidecar, "COMMAND", CRASHES)

    async def scenario(service: Service) -> None:
        await until(lambda: said("is given up, the service goes on without it"))
        assert all(child.ready.is_set() for child in service.fleet.current)
        states = {each.role: each.state for each in service.snapshot().processes}
        assert states == {"worker": "running", "sidecar": "failed"}

    assert run(scenario, make_plan(tmp_path, 1), with_sidecar=True) == 0
    assert "exit code 17" in said("given up")[0]


def test_a_successor_that_crashes_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(service: Service) -> None:
        child = await serving(service)
        monkeypatch.setattr(sidecar, "COMMAND", CRASHES)
        assert await service.recycle(PLACE) == ["the new sidecar did not get ready (exit code 17)"]
        assert service.sidecar.child is child
        assert child.ready.is_set()
        assert child.state is policy.State.RUNNING

    assert run(scenario, make_plan(tmp_path, 1), with_sidecar=True) == 0


@pytest.mark.parametrize("own", [None, "8"])
def test_its_memory_goes_back_to_the_system_and_the_operators_word_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    if own is None:
        monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    else:
        monkeypatch.setenv("MALLOC_ARENA_MAX", own)

    async def scenario(service: Service) -> None:
        child = await serving(service)
        assert environment(child.pid) == {**sidecar.MEMORY, **({} if own is None else {"MALLOC_ARENA_MAX": own})}

    assert run(scenario, make_plan(tmp_path, 1), with_sidecar=True) == 0
