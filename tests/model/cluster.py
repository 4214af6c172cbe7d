"""A running node with two workers, and a connection to each of them.

The kernel decides which worker a connection reaches, so connections are opened until both were; which one serves a
connection is told by x-ms-request-id, whose first part every worker draws for itself. Each answer is checked for it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from dataplane.store.store import Store
from tests.durability.processes import ServerProcess
from tests.support import KEY, Answer, WireClient

WORKERS: Final = 2
CHECKOUT: Final = Path(__file__).resolve().parents[2]
ACCOUNT: Final = "modelaccount"
_CONNECTIONS_MAX: Final = 64  # all of them at one worker: a chance of 2^-63
_REQUEST_ID_PREFIX_CHARS: Final = 23


class Cluster:
    """The product as an operator starts it."""

    def __init__(self, root: Path, log: Path, durability: str) -> None:
        root.mkdir()
        self.durability = durability
        command = [sys.executable, "-m", "agent", "serve", "--root", str(root), "--listen", "http://127.0.0.1:0"]
        command += ["--workers", str(WORKERS), "--durability", durability, "--account", ACCOUNT, "--key", KEY]
        self._process = ServerProcess(command, "blobedge ready: ", log, CHECKOUT)
        try:
            self.port = urlsplit(self._process.await_ready()).port or 0
            self._clients: list[tuple[str, WireClient]] = list(self.connect_to_each().items())
        except BaseException:
            self._process.kill_all()
            raise
        self._served = [0] * WORKERS
        self.store = Store(str(root), durable=durability == "strict")  # a third process on the same tree

    def connect(self) -> WireClient:
        """A connection to whichever worker the kernel picks."""
        return WireClient(self.port, ACCOUNT)

    def connect_to_each(self) -> dict[str, WireClient]:
        """One connection to each worker, by the worker's part of request ids."""
        found: dict[str, WireClient] = {}
        for _ in range(_CONNECTIONS_MAX):
            client = self.connect()
            if found.setdefault(worker_of(client), client) is not client:
                client.close()
            if len(found) == WORKERS:
                return found
        raise AssertionError(f"{_CONNECTIONS_MAX} connections reached {len(found)} of {WORKERS} workers")

    def request(
        self, worker: int, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Send one request to a worker."""
        prefix, client = self._clients[worker]
        answer = client.request(method, path, query, headers, body)
        assert request_prefix(answer) == prefix
        self._served[worker] += 1
        if answer.headers.get("connection") == "close":  # a refusal before the whole body was read
            client.close()
            fresh = self.connect_to_each()
            self._clients[worker] = prefix, fresh.pop(prefix)
            for other in fresh.values():
                other.close()
        return answer

    def served(self) -> list[int]:
        """How many requests each worker answered."""
        return list(self._served)

    def stop(self) -> None:
        """SIGTERM has to drain and exit 0, and nothing may have gone wrong on the way."""
        for _, client in self._clients:
            client.close()
        self.store.close()
        try:
            assert self._process.terminate() == 0
            text = self._process.log.read_text(errors="replace")
            for trouble in ("Traceback", " ended: signal "):
                _, found, what = text.partition(trouble)
                assert not found, what[:4000]
        finally:
            self._process.kill_all()

    def url(self, path: str) -> str:
        """The URL of a path, for copy sources."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}{path}"


def path_of(container: str, name: str = "") -> str:
    """The path of a blob or of a container."""
    return f"/{container}/{quote(name)}" if name else f"/{container}"


def request_prefix(answer: Answer) -> str:
    """The part of x-ms-request-id that all requests to a worker have."""
    return answer.headers["x-ms-request-id"][:_REQUEST_ID_PREFIX_CHARS]


def worker_of(client: WireClient) -> str:
    """Which worker serves a connection."""
    return request_prefix(client.request("GET", "/", {"comp": "list", "maxresults": "1"}))
