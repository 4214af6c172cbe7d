"""Real workers that are over a limit are recycled again and again under a load of writes and reads that all succeed."""

import http.client
import threading
from pathlib import Path

import pytest

from agent.supervision import leaks
from agent.supervision.service import Service
from agent.supervision.supervisor import WORKER_COMMAND
from tests.agent.in_process import KEY, make_plan, run, until
from tests.support import WireClient

LIMIT_MIB = 16  # less than the interpreter with its modules holds
RECYCLES = 4
BODY = b"0123456789abcdef" * 4096


class _Load:
    """Writes a blob and reads it back, all the time, over connections that are kept; every answer has to be right.

    The server may close a kept connection between two requests, and says so where it can; a client that finds it closed
    before any byte of an answer asks once more on a new one (RFC 9112, section 9.3.1), as every SDK does.
    """

    def __init__(self, port: int, name: str) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._port, self._name = port, name
        self._client = WireClient(port, "acct", KEY)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "_Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._end.is_set():
            for method, body, expected in (("PUT", BODY, 201), ("GET", b"", 200)):
                try:
                    status, got = self._ask(method, body)
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(f"{method}: {error!r}")
                    self._client.close()
                    continue
                if status != expected or (method == "GET" and got != BODY):
                    self.failures.append(f"{method}: {status}")
                self.done += 1

    def _ask(self, method: str, body: bytes) -> tuple[int, bytes]:
        headers = {"x-ms-blob-type": "BlockBlob"} if method == "PUT" else {}
        for last in (False, True):
            try:
                answer = self._client.request(method, f"/con/{self._name}", headers=headers, body=body)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if last:
                    raise
                self._client.close()
            else:
                return answer.status, answer.body
        raise AssertionError


def test_no_request_fails_while_real_workers_are_recycled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LOOK_SECONDS", 0.1), ("LOOKS_COUNT", 3), ("PAUSE_SECONDS", 0.5), ("PAUSE_SECONDS_MAX", 1.0)):
        monkeypatch.setattr(leaks, name, value)
    (tmp_path / "con").mkdir()

    async def scenario(service: Service) -> None:
        port = service.bounds[0].port
        old = {child.pid for child in service.fleet.current}
        with _Load(port, "a") as first, _Load(port, "b") as second:
            await until(lambda: sum(each.done_count for each in service.snapshot().recycles) >= RECYCLES)
            before = first.done, second.done
            await until(lambda: first.done > before[0] and second.done > before[1])
        assert first.failures + second.failures == []
        assert not {child.pid for child in service.fleet.current} & old

    plan = make_plan(tmp_path, 2, memory_mib_max=LIMIT_MIB)
    assert run(scenario, plan, "", command=WORKER_COMMAND) == 0
