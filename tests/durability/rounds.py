"""Load, crash, recover, check; again and again on the same data, with the server that recovered."""

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from .disk import Disk
from .history import Crash, Found, StagedBlocks, Write, faults, standing
from .load import Load, Plan
from .processes import ServerProcess
from .recovery import file_faults, observe, staged_faults
from .server import Started
from .transport import Target, Transport

ACKNOWLEDGED_TIMEOUT_S = 60.0
CONTAINER = "proof"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is crashed and how.

    `start` starts a server on the data. `crash` makes the crash and ends every process of the server;
    afterwards `start` must work again. `plan` makes a round's load from a seed. `acknowledged` is the
    range of how many writes are acknowledged before the crash. `directory` is where the container's
    plain files are; None for a server that has neither these nor listings.
    """

    start: Callable[[], Started]
    crash: Callable[[ServerProcess], Crash]
    plan: Callable[[str], Plan]
    acknowledged: range
    directory: Path | None


def crash_rounds(scenario: Scenario, seed: str) -> Generator[list[str], None, None]:
    """Yield the faults found after each crash, for as long as the caller asks. Close it to end the server."""
    rng = random.Random(seed)
    found: dict[str, Found] = {}
    process, target = scenario.start()
    try:
        with Transport(target, CONTAINER) as transport:
            transport.create_container()
        while True:
            load = Load(target, CONTAINER, scenario.plan(f"{rng.getrandbits(32):08x}"), found)
            load.start()
            try:
                load.await_acknowledged(rng.choice(scenario.acknowledged), ACKNOWLEDGED_TIMEOUT_S)
                crash = scenario.crash(process)
            finally:
                process.kill_all()
                load.stop()
            process, target = scenario.start()
            names = {write.blob for write in load.writes} | found.keys()
            writes = [standing(name, found.get(name)) for name in names] + load.writes
            found, wrong = check(target, scenario.directory, writes, load.staged, crash)
            yield wrong
    finally:
        process.kill_all()


def check(
    target: Target, directory: Path | None, writes: list[Write], staged: StagedBlocks, crash: Crash
) -> tuple[dict[str, Found], list[str]]:
    """Observe everything and return what is there, and every fault."""
    names = {write.blob for write in writes}
    found = observe(target, CONTAINER, names, listed=directory is not None)
    wrong = faults(writes, crash, found)
    if directory is not None:
        wrong += file_faults(directory, found)
        wrong += staged_faults(target, CONTAINER, staged, crash)
    return found, wrong


def kill_everything(process: ServerProcess) -> Crash:
    """SIGKILL to the whole tree: what was acknowledged until the first signal counts."""
    began_at = time.monotonic()
    process.kill_all()
    return Crash(began_at, time.monotonic())


def cut_power(power: Disk, process: ServerProcess) -> Crash:
    """Cut the power under a server, end the server, and bring the disk back as the next boot would."""
    crash = power.cut_power()
    process.kill_all()
    power.detach()
    power.attach()
    return crash
