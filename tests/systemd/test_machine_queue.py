"""Kill -9 of the supervisor: the workers finish what they answer and go; what waits in the queues is answered later.

The listening sockets are in systemd's descriptor store, so the queues outlive every process of the service.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.systemd.load import account_sas
from tests.systemd.machine import CHECKOUT
from tests.systemd.service import DATA, Service, until
from tests.systemd.waiting import COUNT, HALF

ANSWERS_SECONDS_MAX = 120.0


class Client:
    """waiting.py, which has sent and waits."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def finish(self) -> list[str]:
        """Let it go on; the statuses of its answers. AssertionError when a connection was refused or reset."""
        said, errors = self._process.communicate("go on\n", ANSWERS_SECONDS_MAX)
        assert self._process.returncode == 0, errors
        return said.split()


@contextmanager
def client(service: Service, kind: str, blob: str) -> Iterator[Client]:
    target = f"/plant7/tested/{blob}?{account_sas(service.key)}"
    program = [sys.executable, "-m", "tests.systemd.waiting", kind, "127.0.0.1", "10000", target]
    pipe = subprocess.PIPE
    command = service.machine.in_network(*program)
    with subprocess.Popen(command, cwd=CHECKOUT, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "sent\n"
            yield Client(process)
        finally:
            process.kill()


def queued(service: Service) -> int:
    """Connections that no process has accepted yet; ss(8) shows them as Recv-Q of the listening sockets."""
    lines = service.machine.says("ss", "-Hltn", "sport = :10000").splitlines()
    return sum(int(line.split()[1]) for line in lines)


def stopped(service: Service, pid: str) -> bool:
    return "State:\tT" in service.machine.path(f"/proc/{pid}/status").read_text()


def test_queued_connections_are_answered_by_the_successors(service: Service) -> None:
    service.exchange("queued.txt")
    supervisor, workers = service.supervisor, service.workers
    service.signal("STOP", *workers)  # so that nobody accepts
    until(lambda: all(stopped(service, pid) for pid in workers), "stopped workers")
    with client(service, "queue", "queued.txt") as waiting:
        assert queued(service) == COUNT
        service.signal("KILL", supervisor)
        # The kernel hangs up on stopped processes whose parent died (setpgid(2), orphaned groups): they end unheard.
        until(lambda: service.supervisor not in ("0", supervisor), "a new supervisor")
        assert waiting.finish() == ["200"] * COUNT
    assert service.gone(*workers)


def test_a_worker_finishes_its_request_and_goes(service: Service) -> None:
    service.exchange("asked.txt")
    supervisor, workers = service.supervisor, service.workers
    with client(service, "upload", "upload.bin") as upload:
        service.signal("KILL", supervisor)
        until(lambda: service.shown("SubState") == "stop-sigterm", "systemd knows of the death")
        with client(service, "queue", "asked.txt") as waiting:
            assert not service.gone(*workers)
            assert upload.finish() == ["201"]
            until(lambda: service.gone(*workers), "the old workers go")
            assert waiting.finish() == ["200"] * COUNT
    assert service.machine.path(f"{DATA}/tested/upload.bin").read_bytes() == 2 * HALF
