"""The supervisor with real processes: stub workers that answer each connection with their pid, or misbehave."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from agent.problems import EXIT_CONFIG
from agent.supervision.policy import CRASHES_COUNT_MAX, STOP_GRACE_SECONDS
from agent.supervision.supervisor import EXIT_GAVE_UP
from tests.agent.run_supervisor import HEARTBEAT_SECONDS_MAX, START_SECONDS_MAX
from tests.agent.stub_worker import MODE_FILE

CHECKOUT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS_MAX = 20.0
# A successor's whole start, with 20 answers, on a machine that runs other tests too; alone it takes 0.2 s.
BACK_SECONDS_MAX = 5.0


class Supervised:
    """A running supervisor and its stub workers."""

    def __init__(self, mode: str, root: Path, workers: int, drain_seconds: float) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.agent.run_supervisor",
            mode,
            str(root),
            str(workers),
            str(drain_seconds),
        ]
        self.log = root / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=CHECKOUT, text=True)
        assert self.process.stdout is not None
        self.stdout: IO[str] = self.process.stdout

    def address(self) -> tuple[str, int]:
        """Wait for the ready line."""
        line = self.stdout.readline()
        match = re.fullmatch(r"blobedge ready: http://(127\.0\.0\.1):(\d+)/acct\n", line)
        assert match is not None, f"{line!r}: {self.log.read_text()}"
        return match[1], int(match[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(ANSWER_SECONDS_MAX)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.stdout.close()


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(mode: str = "ok", workers: int = 2, drain_seconds: float = 5.0) -> Supervised:
        started.append(Supervised(mode, tmp_path, workers, drain_seconds))
        return started[-1]

    yield start
    for one in started:
        one.close()


def ask(address: tuple[str, int]) -> int:
    """Connect and return the pid of the worker that answered."""
    with socket.create_connection(address, ANSWER_SECONDS_MAX) as connection, connection.makefile() as answer:
        return int(answer.readline())


def pids(address: tuple[str, int], count: int) -> set[int]:
    """Ask until so many different workers have answered."""
    found: set[int] = set()
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while len(found) < count and time.monotonic() < deadline:
        found.add(ask(address))
    return found


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_every_worker_gets_connections_and_sigterm_exits_0(start: Start) -> None:
    supervised = start(workers=3)
    workers = pids(supervised.address(), 3)
    assert len(workers) == 3
    assert supervised.end() == 0
    assert all(map(gone, workers))


def test_sigint_ends_it_too(start: Start) -> None:
    supervised = start()
    supervised.address()
    assert supervised.end(signal.SIGINT) == 0


def test_a_killed_worker_is_back_at_once_and_no_connection_is_lost(start: Start) -> None:
    supervised = start(workers=1)
    address = supervised.address()
    victim = ask(address)
    for _ in range(3):
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        # These wait in the queue of the socket that the supervisor holds.
        waiting = [socket.create_connection(address, ANSWER_SECONDS_MAX) for _ in range(20)]
        answers = set()
        for connection in waiting:
            with connection, connection.makefile() as answer:
                answers.add(int(answer.readline()))
        assert time.monotonic() - killed_at < BACK_SECONDS_MAX
        assert victim not in answers
        (victim,) = answers
    assert supervised.end() == 0
    assert "SIGKILL" in supervised.log.read_text()


def test_when_the_supervisor_is_killed_the_workers_go(start: Start) -> None:
    supervised = start()
    workers = pids(supervised.address(), 2)
    supervised.process.kill()
    supervised.process.wait()
    wait_until(lambda: all(map(gone, workers)))


@pytest.mark.parametrize(("mode", "said"), [("refuse", "wrong phase"), ("silent", "did not say why")])
def test_a_boot_failure_stops_the_service_with_its_reason(start: Start, mode: str, said: str) -> None:
    supervised = start(mode)
    assert supervised.process.wait(ANSWER_SECONDS_MAX) == EXIT_CONFIG
    text = supervised.log.read_text()
    assert said in text
    assert "Traceback" not in text
    assert supervised.stdout.read() == ""


def test_a_boot_failure_of_a_worker_that_served_is_tried_again(start: Start, tmp_path: Path) -> None:
    """As when a mount is away for a moment: the service stays, says why, and serves again."""
    supervised = start(workers=1)
    address = supervised.address()
    victim = ask(address)
    (tmp_path / MODE_FILE).write_text("refuse")
    os.kill(victim, signal.SIGKILL)
    said = "worker 0 cannot serve: the moon is in the wrong phase"
    wait_until(lambda: supervised.log.read_text().count(said) >= 3)
    (tmp_path / MODE_FILE).unlink()
    assert ask(address) != victim
    assert supervised.end() == 0


def test_a_worker_that_always_crashes_stops_the_service(start: Start) -> None:
    supervised = start("crash", workers=1)
    assert supervised.process.wait(ANSWER_SECONDS_MAX) == EXIT_GAVE_UP
    text = supervised.log.read_text()
    assert f"blobedge: a worker ended {CRASHES_COUNT_MAX} times in a row at its start (exit code 17)" in text
    assert text.count("worker 0: pid") == CRASHES_COUNT_MAX


def test_a_worker_that_never_gets_ready_stops_the_service(start: Start) -> None:
    """Each start is aborted, so that its stacks could be read; the last reason is the service's."""
    supervised = start("mute", workers=1)
    assert supervised.process.wait(ANSWER_SECONDS_MAX) == EXIT_GAVE_UP
    text = supervised.log.read_text()
    assert text.count(f"not ready after {START_SECONDS_MAX:g} s; SIGABRT") == CRASHES_COUNT_MAX
    assert f"blobedge: a worker ended {CRASHES_COUNT_MAX} times in a row at its start (signal SIGABRT)" in text
    assert supervised.stdout.read() == ""


def test_a_worker_that_is_stopped_is_killed_and_replaced(start: Start) -> None:
    """A process that SIGSTOP holds does not take SIGABRT; SIGKILL it cannot refuse."""
    supervised = start(workers=1)
    address = supervised.address()
    victim = ask(address)
    os.kill(victim, signal.SIGSTOP)
    assert ask(address) != victim
    text = supervised.log.read_text()
    assert text.index("no heartbeat for 1 s; SIGABRT") < text.index("did not end at SIGABRT; SIGKILL")
    assert gone(victim)
    assert supervised.end() == 0


def test_a_worker_that_hangs_is_aborted_killed_and_replaced(start: Start) -> None:
    """The stub ignores SIGABRT, so that both steps show; the real one prints its stacks and dies at the first."""
    supervised = start("hang", workers=1)
    address = supervised.address()
    wait_until(lambda: supervised.log.read_text().count("worker 0: pid") >= 2)
    text = supervised.log.read_text()
    assert text.index("no heartbeat for 1 s; SIGABRT") < text.index("SIGKILL")
    assert supervised.process.poll() is None
    socket.create_connection(address, ANSWER_SECONDS_MAX).close()


def test_an_idle_worker_is_left_alone(start: Start) -> None:
    """Nothing happens but heartbeats for three times as long as silence is suffered."""
    supervised = start(workers=1)
    address = supervised.address()
    worker = ask(address)
    time.sleep(3 * HEARTBEAT_SECONDS_MAX)
    assert ask(address) == worker
    assert supervised.end() == 0
    assert "SIGABRT" not in supervised.log.read_text()


def test_a_stubborn_worker_is_killed_after_the_drain(start: Start) -> None:
    supervised = start("stubborn", workers=1, drain_seconds=0.2)
    worker = ask(supervised.address())
    began = time.monotonic()
    assert supervised.end() == 0
    assert time.monotonic() - began >= 0.2 + STOP_GRACE_SECONDS
    assert gone(worker)
    assert "did not drain in time" in supervised.log.read_text()


def test_a_second_signal_cuts_the_drain_short(start: Start) -> None:
    supervised = start("stubborn", workers=1, drain_seconds=3600)
    supervised.address()
    supervised.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM: stopping" in supervised.log.read_text())
    assert supervised.end() == 0


def test_a_worker_gets_no_descriptor_that_is_not_its_own(start: Start) -> None:
    """Worker i holds its own listening socket only; another's would keep that queue alive in the wrong process."""
    supervised = start(workers=2)
    address = supervised.address()
    first, second = pids(address, 2)
    for pid in (first, second):  # the listener and the control channel, once the last answer's connection is closed
        wait_until(lambda pid=pid: len(_sockets(pid)) == 2)  # type: ignore[misc]
    assert not _sockets(first) & _sockets(second)
    assert supervised.end() == 0


def _sockets(pid: int) -> set[str]:
    links = (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return {link for link in links if link.startswith("socket:")}


def test_no_secret_is_in_argv_or_the_environment(start: Start) -> None:
    supervised = start(workers=1)
    worker = ask(supervised.address())
    for name in ("cmdline", "environ"):
        assert b"c2l4dGVlbiBieXRlcyBvciBtb3Jl" not in Path(f"/proc/{worker}/{name}").read_bytes()
    assert supervised.end() == 0
