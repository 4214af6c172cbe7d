"""SIGHUP with real processes: under load, with good and bad configurations, more and fewer workers; SIGUSR1 and 2."""

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.test_supervisor import ANSWER_SECONDS_MAX, Supervised, ask, gone, pids, wait_until

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(workers: int = 2) -> Supervised:
        started.append(Supervised("ok", tmp_path, workers, drain_seconds=5.0))
        return started[-1]

    yield start
    for one in started:
        one.close()


def reload(supervised: Supervised, said: str, **changed: Any) -> None:
    """Ask for a reload with these changes, and wait for the line in the log."""
    (supervised.log.parent / "reload.json").write_text(json.dumps(changed))
    before = supervised.log.read_text().count(said)
    supervised.process.send_signal(signal.SIGHUP)
    wait_until(lambda: supervised.log.read_text().count(said) > before)


class Load:
    """Connections one after the other, each of which has to be answered."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.answers: set[int] = set()
        self.failures: list[str] = []
        self._address = address
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.answers.add(ask(self._address))
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))


def test_every_worker_is_replaced_and_no_connection_fails(start: Start) -> None:
    supervised = start()
    address = supervised.address()
    old = pids(address, 2)
    with Load(address) as load:
        for _ in range(3):
            reload(supervised, "done")
        wait_until(lambda: all(map(gone, old)))
    assert load.failures == []
    assert len(load.answers) >= 4
    assert not pids(address, 2) & old
    assert supervised.end() == 0


def test_a_configuration_with_a_mistake_is_refused(start: Start) -> None:
    supervised = start()
    address = supervised.address()
    old = pids(address, 2)
    reload(supervised, "reload 1 refused, the old configuration stays: port 99999", mistake="port 99999")
    assert pids(address, 2) == old
    assert supervised.end() == 0


def test_a_successor_that_cannot_boot_changes_nothing(start: Start) -> None:
    supervised = start()
    address = supervised.address()
    old = pids(address, 2)
    with Load(address) as load:
        reload(supervised, "reload 1 failed, the old configuration stays: the moon", account="refuse", workers=4)
    assert load.failures == []
    assert pids(address, 2) == old
    reload(supervised, "reload 2: done")
    wait_until(lambda: all(map(gone, old)))  # they answer what they accepted before they go
    assert not pids(address, 2) & old
    assert supervised.end() == 0


def test_more_and_fewer_workers(start: Start) -> None:
    supervised = start()
    address = supervised.address()
    with Load(address) as load:
        reload(supervised, "done", workers=4)
        assert len(pids(address, 4)) >= 4
        reload(supervised, "done", workers=1)
        wait_until(lambda: len({ask(address) for _ in range(20)}) == 1)
    assert load.failures == []
    assert supervised.end() == 0


def test_an_address_is_added_and_removed(start: Start) -> None:
    supervised = start()
    address = supervised.address()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        added = probe.getsockname()
    old = f"http://127.0.0.1:{address[1]}"
    both = ["http://127.0.0.1:0", f"http://127.0.0.1:{added[1]}"]
    reload(supervised, "done", listen=both)
    assert ask(added) > 0
    assert ask(address) > 0
    reload(supervised, "done", listen=both[1:])
    wait_until(lambda: _refused(address))
    assert ask(added) > 0
    assert old not in both
    reload(supervised, "done", listen=both[1:], workers=3)
    assert len(pids(added, 3)) >= 3
    assert supervised.end() == 0


def _refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, ANSWER_SECONDS_MAX).close()
    except OSError:
        return True
    return False


def test_a_stop_in_a_reload_stops(start: Start) -> None:
    supervised = start()
    supervised.address()
    (supervised.log.parent / "reload.json").write_text("{}")
    supervised.process.send_signal(signal.SIGHUP)
    assert supervised.end() == 0


def test_the_log_level_and_the_stacks_reach_all_processes(start: Start) -> None:
    supervised = start()
    supervised.address()
    for level in ("debug", "info"):
        supervised.process.send_signal(signal.SIGUSR1)
        for worker in range(2):
            wait_until(lambda said=f"worker {worker} logs {level}": said in supervised.log.read_text())  # type: ignore[misc]
    supervised.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: supervised.log.read_text().count("most recent call first") >= 3)
    assert supervised.end() == 0
