"""The metrics page against what clients saw, while their workers are killed again and again.

A worker counts a request before it answers, so of the answers that arrived none may be missing; and each client has one
request under way, so at most one more per lost connection may be counted. With `answered[s]` the whole answers of
status s that arrived, and `lost` the connections that broke before one did:

    counted[s] >= answered[s] for each s,    sum(counted) - sum(answered) <= lost
"""

import http.client
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.observability.service import RunningService, running
from tests.observability.support import KEY
from tests.support import WireClient

CLIENTS: Final = 8
KILLS: Final = 8
ANSWERS_BETWEEN_KILLS: Final = 150
SCRAPE_SECONDS: Final = 0.1
LARGE_BYTES: Final = 2 << 20


class Load:
    """Clients that ask for all kinds of answers, and what became of each request."""

    def __init__(self, service: RunningService) -> None:
        self.answered: Counter[str] = Counter()
        self.lost = 0
        self._service = service
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(CLIENTS)]

    def client(self) -> WireClient:
        return WireClient(self._service.port, "acct", KEY)

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def count(self) -> int:
        with self._lock:
            return self.answered.total()

    def ask(self, client: WireClient, method: str, path: str, body: bytes = b"") -> None:
        """One request; the outcome is counted when the whole answer is here."""
        headers = {"x-ms-blob-type": "BlockBlob"} if method == "PUT" else {}
        try:
            status = client.request(method, path, headers=headers, body=body).status
        except (OSError, http.client.HTTPException):
            client.close()
            with self._lock:
                self.lost += 1
        else:
            with self._lock:
                self.answered[str(status)] += 1

    def _ask_on(self, number: int) -> None:
        client = self.client()
        while not self._end.is_set():
            for method, path, body in (
                ("GET", "/box/small", b""),
                ("HEAD", "/box/small", b""),
                ("GET", "/box/none", b""),
                ("PUT", f"/box/new-{number}", b"x" * 100),
                ("GET", "/box/large", b""),
                ("DELETE", f"/box/new-{number}", b""),
            ):
                self.ask(client, method, path, body)
        client.close()


def make_blobs(load: Load) -> None:
    """A container with a small and a large blob; the requests count like any other."""
    client = load.client()
    answer = client.request("PUT", "/box", {"restype": "container"})
    load.answered[str(answer.status)] += 1
    load.ask(client, "PUT", "/box/small", b"s" * 1000)
    load.ask(client, "PUT", "/box/large", b"l" * LARGE_BYTES)
    client.close()
    assert load.answered == {"201": 3}


def test_every_answer_is_counted_once_over_the_deaths_of_workers(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with running(tmp_path, tmp_path / "root") as service:
        load = Load(service)
        make_blobs(load)
        assert service.totals() == load.answered
        load.begin()
        try:
            deaths = kill_workers(service, load)
        finally:
            load.end()
        counted = Counter(service.totals())
    print(f"{deaths} deaths, {load.lost} lost, answered {load.answered}, counted {counted}")
    assert deaths == KILLS
    assert load.lost > 0
    assert not load.answered - counted  # none of those that arrived is missing
    assert counted.total() - load.answered.total() <= load.lost


def kill_workers(service: RunningService, load: Load) -> int:
    """Kill one after the other, while the load goes on; totals never fall from page to page. Returns how many."""
    last: dict[str, int] = {}
    deaths = 0
    for _ in range(KILLS):
        wanted = load.count() + ANSWERS_BETWEEN_KILLS
        deadline = time.monotonic() + 60.0
        while load.count() < wanted:
            assert time.monotonic() < deadline, "the load stands still"
            now = service.totals()
            assert all(now[status] >= count for status, count in last.items())
            last = now
            time.sleep(SCRAPE_SECONDS)  # else the scrapes would be the load
        pids = service.pids("worker")
        os.kill(pids[deaths % len(pids)], signal.SIGKILL)
        deaths += 1
    return deaths
