"""`blobedge serve` with a configuration file: the real supervisor, workers and sidecar, and its admin endpoint."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.observability import client
from tests.observability.support import KEY, exchange_now

CHECKOUT: Final = Path(__file__).resolve().parents[2]
SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.02  # between two questions: what it adds to a measured time


@dataclass(frozen=True, slots=True)
class Answer:
    """What /health/ready said, and how long after the fault it was asked."""

    status: int
    document: Mapping[str, Any]
    seconds: float

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return {check["name"]: check for check in self.document["checks"]}

    def reason(self, name: str) -> str:
        """The check's state and reason, "ok" for one that is not there."""
        check = self.checks.get(name, {"status": "ok", "reason": ""})
        return f"{check['status']}: {check['reason']}".removesuffix(": ")


class RunningService:
    """One account `acct` at `root`, two workers, one listener. `port` is that of the listener."""

    def __init__(self, scratch: Path, root: Path, tables: str = "", scheme: str = "http", workers: int = 2) -> None:
        self.admin = f"unix:{scratch}/admin.sock"
        self.file = scratch / "blobedge.toml"
        self.log = scratch / "log"
        self.file.write_text(
            f'listen = ["{scheme}://127.0.0.1:0"]\nworkers = {workers}\ndrain_seconds = 2.0\n'
            f'[admin]\nlisten = ["{self.admin}"]\n{tables}\n'
            f'[[accounts]]\nname = "acct"\nroot = "{root}"\nkey1 = "{KEY}"\n'
        )
        self.file.chmod(0o600)
        self.start()

    def start(self) -> None:
        """Start it with its file, and wait until it is ready."""
        command = [sys.executable, "-m", "agent", "serve", "--config", str(self.file)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("blobedge ready: "), f"{line!r}: {self.log.read_text()}"
        self.port = int(line.rpartition("/")[0].rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL the supervisor; its children see that and end. The next `start` is on the same port."""
        self.file.write_text(self.file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{self.port}"))
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def close(self) -> None:
        """End it, at once if it has to be."""
        assert self.process.stdout is not None
        if self.process.stdout.closed:
            return
        self.process.terminate()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def ready(self, since: float) -> Answer:
        """Ask /health/ready; `since` is the fault's time on the monotonic clock."""
        asked_at = time.monotonic()
        status, document = client.get(self.admin, "/health/ready")
        return Answer(status, document, asked_at - since)

    def until(self, wanted: Callable[[Answer], bool], since: float | None = None) -> Answer:
        """Ask until an answer is as wanted, and return it."""
        since = time.monotonic() if since is None else since
        while True:
            answer = self.ready(since)
            if wanted(answer):
                return answer
            assert answer.seconds < SECONDS_MAX, answer
            time.sleep(POLL_SECONDS)

    def until_well(self) -> Answer:
        return self.until(lambda answer: answer.status == 200 and answer.document["status"] == "ok")

    def command(self) -> subprocess.CompletedProcess[str]:
        """Run `blobedge health`."""
        command = [sys.executable, "-m", "agent", "health", "--admin", self.admin]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=SECONDS_MAX)

    def pids(self, role: str) -> list[int]:
        """The live processes of a role, as status has them."""
        _, document = client.get(self.admin, "/status")
        return [each["pid"] for each in document["processes"] if each["role"] == role and each["pid"]]

    def signal(self, number: signal.Signals, role: str = "") -> int:
        """Signal the first process of a role, the supervisor without one. Returns its pid."""
        pid = self.pids(role)[0] if role else self.process.pid
        os.kill(pid, number)
        return pid

    def totals(self) -> dict[str, int]:
        """The requests of the metrics page, by status."""
        return totals(self.page("/metrics"))

    def page(self, path: str) -> str:
        """A page that is no JSON."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        head, _, body = exchange_now(self.admin, request.encode()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return body.decode()


def totals(page: str) -> dict[str, int]:
    """Sum blobedge_requests_total of a metrics page by status."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, int] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "blobedge_requests_total":
                status = sample.labels["status"]
                found[status] = found.get(status, 0) + int(sample.value)
    return found


@contextmanager
def running(
    scratch: Path, root: Path, tables: str = "", scheme: str = "http", workers: int = 2
) -> Iterator[RunningService]:
    """A service that answers and is well; ended whatever happens."""
    service = RunningService(scratch, root, tables, scheme, workers)
    try:
        yield service
    finally:
        service.close()
