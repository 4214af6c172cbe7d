"""SIGKILL under load: of one worker, and of everything at once."""

import contextlib
import os
import selectors
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from .history import Crash, standing
from .load import Load, Plan
from .processes import POLL_S, ServerProcess, children
from .rounds import ACKNOWLEDGED_TIMEOUT_S, CONTAINER, Scenario, check, crash_rounds, kill_everything
from .server import Options, product
from .transport import ConnectionLost, Target, Transport

NEW_WORKER_S = 1.0
SERVING_TIMEOUT_S = 30.0
KILLS = 3
WRITES_BETWEEN_KILLS = 150
PROBES = 16  # fresh connections: with two workers, one in 65,536 runs has none for the dead one's socket
NO_CRASH = Crash(began_at=float("inf"), over_at=float("inf"))


def workers_of(process: ServerProcess) -> set[int]:
    """Return the pids of the supervisor's workers."""
    found = set()
    for pid in children(process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"dataplane" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def replacement_s(process: ServerProcess, before: set[int], killed_at: float) -> float:
    """Return how long after the kill a new worker process exists; raises AssertionError after a while."""
    while not workers_of(process) - before:
        assert time.monotonic() < killed_at + SERVING_TIMEOUT_S, "no new worker"
        time.sleep(POLL_S)  # the process table has nothing to wait for
    return time.monotonic() - killed_at


def serving_s(target: Target, killed_at: float) -> float:
    """Open fresh connections, ask something on each, return how long after the kill the last answer came."""
    request = f"GET {target.base}/{CONTAINER}?restype=container&{target.sas} HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for _ in range(PROBES):
            probe = stack.enter_context(socket.create_connection((target.host, target.port)))
            probe.sendall(request.encode())
            waiting.register(probe, selectors.EVENT_READ)
        for _ in range(PROBES):
            events = waiting.select(SERVING_TIMEOUT_S)
            assert events, "a connection opened after the kill is not answered"
            for key, _ in events:
                assert isinstance(key.fileobj, socket.socket)
                assert key.fileobj.recv(12).startswith(b"HTTP/1.1 200"), "not answered with success"
                waiting.unregister(key.fileobj)
            if not waiting.get_map():
                break
    return time.monotonic() - killed_at


def was_under_way(lost: ConnectionLost, kills: list[float]) -> bool:
    """Tell whether a lost connection was one that a kill cut: older than the kill, lost after it."""
    return any(lost.opened_at < killed_at < lost.lost_at for killed_at in kills)


def test_killed_worker_is_replaced_and_nothing_is_lost(tmp_path: Path, seed: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    process, target = product(root, Options(workers=2), tmp_path / "log")
    try:
        with Transport(target, CONTAINER) as transport:
            transport.create_container()
        load = Load(target, CONTAINER, Plan(seed, clients=8, retry=True), {})
        load.start()
        kills, replaced, served = [], [], []
        for _ in range(KILLS):
            load.await_acknowledged(load.acknowledged_count() + WRITES_BETWEEN_KILLS, ACKNOWLEDGED_TIMEOUT_S)
            before = workers_of(process)
            assert len(before) == 2
            kills.append(time.monotonic())
            os.kill(min(before), signal.SIGKILL)
            replaced.append(replacement_s(process, before, kills[-1]))
            served.append(serving_s(target, kills[-1]))
        load.await_acknowledged(load.acknowledged_count() + WRITES_BETWEEN_KILLS, ACKNOWLEDGED_TIMEOUT_S)
        load.stop()
        print(f"new worker after {replaced} s, all fresh connections served after {served} s")
        print(f"slowest request {max(client.slowest_s for client in load.clients):.3f} s")
        assert load.failures == []
        assert sum(client.refused_count for client in load.clients) == 0
        assert all(was_under_way(lost, kills) for client in load.clients for lost in client.lost)
        names = {write.blob for write in load.writes}
        writes = [standing(name, None) for name in names] + load.writes
        _, wrong = check(target, root / CONTAINER, writes, load.staged, NO_CRASH)
        assert wrong == []
        # The new process must be there each time. To serve, it has to import itself first, which is 0.3 s of
        # CPU time and takes as long as the machine's other work lets it: the best of the kills counts.
        assert max(replaced) < NEW_WORKER_S
        assert min(served) < NEW_WORKER_S
        assert process.terminate() == 0
    finally:
        process.kill_all()


@pytest.mark.parametrize("records", ["xattr", "sidecar"])
def test_everything_killed_at_once_loses_nothing(records: str, tmp_path: Path, seed: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    scenario = Scenario(
        start=partial(product, root, Options(records=records), tmp_path / "log"),
        crash=kill_everything,
        plan=Plan,
        acknowledged=range(50, 400),
        directory=root / CONTAINER,
    )
    with contextlib.closing(crash_rounds(scenario, seed)) as rounds:
        assert [next(rounds) for _ in range(KILLS)] == [[]] * KILLS
