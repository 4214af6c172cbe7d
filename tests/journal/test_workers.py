"""Workers that are killed under load, again and again: nothing is on the mount that the journal does not tell of.

Two real workers over one root, a reader that follows their journals and removes what it has, clients that put new blobs
and overwrite a few, and a SIGKILL at a moment that chance chooses. A put gives its file the mtime before the INTENT is
written, and the INTENT before the file gets its name: so for every blob there has to be an INTENT that is not older
than its file. And each answer 201 has a DONE of its own. Without syncs most of a worker's time is publishing, so that
most kills fall into it; with them most fall between.
"""

import http.client
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from dataplane.ipc.settings import Durability
from dataplane.journal import unclean
from dataplane.journal.reader import segments
from dataplane.journal.record import Kind, Record
from tests.journal.support import read_all
from tests.journal.workers import Follower, WorkerProcess, times, two_workers
from tests.support import ACCOUNT, ANSWER_SECONDS_MAX, WireClient

KILLS = 8
CLIENTS = 6
OVERWRITTEN = 4  # every fourth put is to a blob that was put before; a new one shows also what a later put would hide
CONTAINER = "load"


class Client(threading.Thread):
    """Puts its own blobs through one worker, over and over. `acknowledged` has the 201s of each."""

    def __init__(self, number: int, port: int) -> None:
        super().__init__(daemon=True)
        self.number, self.acknowledged = number, Counter[str]()
        self._port = port
        self._end = threading.Event()

    def run(self) -> None:
        number = 0
        client = WireClient(self._port)
        while not self._end.is_set():
            number += 1
            name = f"client-{self.number}/{number if number % OVERWRITTEN else 'again'}"
            try:
                answer = client.request(
                    "PUT", f"/{CONTAINER}/{name}", None, {"x-ms-blob-type": "BlockBlob"}, b"%d" % number
                )
                self.acknowledged[name] += answer.status == 201
            except (OSError, http.client.HTTPException):  # its worker was killed; the next one has the same socket
                client.close()
                client = WireClient(self._port)
        client.close()

    def end(self) -> None:
        self._end.set()
        self.join(ANSWER_SECONDS_MAX)
        assert not self.is_alive()


def acknowledged(clients: list[Client]) -> int:
    return sum(client.acknowledged.total() for client in clients)


def load_and_kill(workers: list[WorkerProcess], chance: random.Random) -> Counter[str]:
    """Clients on both workers, kills at random moments; what was acknowledged."""
    clients = [Client(number, workers[number % 2].port) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    moment = threading.Event()
    for _ in range(KILLS):
        before = acknowledged(clients)
        while acknowledged(clients) < before + 20:
            moment.wait(0.005)
        moment.wait(chance.uniform(0.0, 0.03))  # anywhere in a commit
        victim = chance.choice(workers)
        victim.kill()
        victim.start()
    for client in clients:
        client.end()
    return sum((client.acknowledged for client in clients), Counter[str]())


def files_of(root: Path) -> dict[str, int]:
    """The blobs on the mount, with their mtimes."""
    paths = (path for path in (root / CONTAINER).rglob("*") if path.is_file())
    return {str(path.relative_to(root / CONTAINER)): path.stat().st_mtime_ns for path in paths}


def unannounced(files: dict[str, int], records: list[Record]) -> list[str]:
    """Blobs whose last change has no INTENT."""
    intents = times(records, Kind.INTENT)
    return [name for name, mtime in files.items() if max(intents.get(f"{ACCOUNT}/{CONTAINER}/{name}", [0])) < mtime]


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_nothing_is_published_without_a_record(tmp_path: Path, durability: Durability) -> None:
    journal, root = tmp_path / "journal", tmp_path / "root"
    chance = random.Random()
    with two_workers(root, journal, durability) as workers:
        client = WireClient(workers[0].port)
        assert client.request("PUT", f"/{CONTAINER}", {"restype": "container"}).status == 201
        client.close()
        follower = Follower(journal)
        answered = load_and_kill(workers, chance)
        assert [worker.stop() for worker in workers] == [0, 0]
        follower.end()
    dones, prefix, files = times(follower.records, Kind.DONE), f"{ACCOUNT}/{CONTAINER}/", files_of(root)
    print(f"{answered.total()} puts acknowledged, {len(follower.records)} records, {len(follower.removed)} segments")
    assert answered.keys() <= files.keys()
    assert unannounced(files, follower.records) == []
    assert [name for name, count in answered.items() if len(dones.get(prefix + name, [])) < count] == []
    assert times(follower.records, Kind.CONTAINER).keys() == {prefix}
    assert len({(name.worker, name.start_ns) for name in follower.removed}) == KILLS + 2  # those of the dead went too
    assert any(name.sequence for name in follower.removed)  # and they rotated
    assert (segments(journal), os.listdir(journal)) == ([], [])
    assert not unclean.is_due(journal)


def test_what_the_journal_cannot_take_costs_no_request_and_is_counted(tmp_path: Path) -> None:
    in_the_way, root = tmp_path / "file", tmp_path / "root"
    in_the_way.touch()
    with two_workers(root, in_the_way / "journal") as workers:
        client = WireClient(workers[0].port)
        assert client.request("PUT", f"/{CONTAINER}", {"restype": "container"}).status == 201
        client.close()
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while workers[0].lost() != 2:  # before and after; the slot is brought up to date with each heartbeat
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [worker.stop() for worker in workers] == [0, 0]


def test_a_kill_right_after_a_publish_leaves_its_intent(tmp_path: Path) -> None:
    journal, root = tmp_path / "journal", tmp_path / "root"
    with two_workers(root, journal) as (worker, other):
        client = WireClient(other.port)
        assert client.request("PUT", f"/{CONTAINER}", {"restype": "container"}).status == 201
        client.close()
        for dies_after in (1, 2, 5, 13):
            worker.kill()
            worker.start(dies_after)
            clients = [Client(dies_after * CLIENTS + number, worker.port) for number in range(CLIENTS)]
            for each in clients:
                each.start()
            worker.await_death()
            files = files_of(root)
            assert files
            assert unannounced(files, read_all(journal)) == []
            worker.start()  # the clients wait for an answer
            for each in clients:
                each.end()
