"""The supervisor in the test's own process, over stub_worker.py: a test sees its parts and acts in the right moment."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from agent.config import Account, Admin, Config, Limits
from agent.problems import OperatorError
from agent.supervision.child import Child
from agent.supervision.plan import Plan, plan
from agent.supervision.service import Service
from agent.supervision.supervisor import Companion, supervise

KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
SCENARIO_SECONDS_MAX = 60.0
MIB_MAX = 1024  # no stub holds so much
STUB_COMMAND = (sys.executable, "-m", "tests.agent.stub_worker")
NO_ADMIN = Admin(listen=[])

Scenario = Callable[[Service], Awaitable[None]]


def make_plan(
    root: Path, workers: int, account: str = "acct", memory_mib_max: int = MIB_MAX, admin: Admin = NO_ADMIN
) -> Plan:
    """A plan with an address of the kernel's choice; the stub refuses an account that is called "refuse"."""
    return plan(
        Config(
            listen=["http://127.0.0.1:0"],
            workers=workers,
            drain_seconds=5.0,
            admin=admin,
            limits=Limits(memory_mib_max=memory_mib_max),
            accounts=[Account(name=account, root=str(root), key1=KEY)],
        )
    )


def run(
    scenario: Scenario,
    first: Plan,
    mode: str = "ok",
    *,
    with_sidecar: bool = False,
    beside: Sequence[Companion] = (),
    command: Sequence[str] = STUB_COMMAND,
) -> int:
    """Supervise until the scenario is over, then stop by SIGTERM; returns the exit code. Fails if it takes too long.

    `mode` is the stub's; it goes behind `command`, unless it is "".
    """

    async def companion(service: Service) -> None:
        await service.wait_ready()
        with trio.fail_after(SCENARIO_SECONDS_MAX):
            await scenario(service)
        os.kill(os.getpid(), signal.SIGTERM)

    async def announce(_: object) -> None:
        pass

    async def serve() -> int:
        return await supervise(
            first,
            announce,
            [*command, *([mode] if mode else [])],
            companions=[*beside, companion],
            with_sidecar=with_sidecar,
        )

    return trio.run(serve)


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; the scenario's deadline is the test's."""
    while not condition():  # noqa: ASYNC110  (the product has no event for each moment that a test looks for)
        await trio.sleep(0.005)


async def serving(service: Service) -> None:
    """Wait until each place has a worker that accepts, and nobody drains any more."""
    await until(lambda: not service.fleet.draining and all(child.ready.is_set() for child in service.fleet.current))


def kill(child: Child) -> None:
    """End its process at once, if it has one."""
    if child.pid:
        os.kill(child.pid, signal.SIGKILL)


def refuse() -> Plan:
    """What a configuration with a mistake loads as."""
    raise OperatorError("port 99999")
