"""`blobedge serve` with the real workers: killed, hung, orphaned, and started from a directory full of traps."""

import http.client
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
SECONDS_MAX = 60.0
KILLS = 4


class Service:
    """One worker, one http listener on a port of the kernel's choice."""

    def __init__(self, scratch: Path) -> None:
        (scratch / "root").mkdir()
        command = [sys.executable, "-m", "agent", "serve", "--root", str(scratch / "root"), "--workers", "1"]
        command += ["--listen", "http://127.0.0.1:0", "--account", "acct", "--key", KEY]
        self.log = scratch / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(r"blobedge ready: http://127\.0\.0\.1:(\d+)/acct\n", line)
        assert match is not None, f"{line!r}: {self.log.read_text()}"
        self.port = int(match[1])

    def worker(self) -> int:
        """The pid of the one worker, from the kernel."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()  # any of them may have spawned it
        children = [pid for thread in threads for pid in (thread / "children").read_text().split()]
        (pid,) = [pid for pid in children if b"dataplane" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return int(pid)

    def ask(self) -> int:
        """An anonymous request: the status says that a worker parsed it and looked into the store."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        connection.request("GET", "/acct/container/blob")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    started = Service(tmp_path)
    yield started
    started.close()


def test_a_killed_worker_answers_again_within_a_second(service: Service) -> None:
    """The request is sent into the dead worker's queue; the best of a few, as other tests share the machine."""
    status = service.ask()
    seconds = []
    for _ in range(KILLS):
        victim = service.worker()
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        assert service.ask() == status
        seconds.append(time.monotonic() - killed)
        assert service.worker() != victim
    assert min(seconds) < 1.0, seconds
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(SECONDS_MAX) == 0


def test_an_aborted_worker_leaves_its_stacks_in_the_log(service: Service) -> None:
    os.kill(service.worker(), signal.SIGABRT)
    service.ask()
    assert "most recent call first" in service.log.read_text()


def test_workers_end_when_the_supervisor_is_killed(service: Service) -> None:
    descriptor = os.pidfd_open(service.worker())
    service.process.kill()
    service.process.wait()
    assert select.select([descriptor], [], [], SECONDS_MAX)[0], "it is still there"
    os.close(descriptor)


def test_the_working_directory_lends_no_code(tmp_path: Path) -> None:
    """A worker runs the supervisor's own code, whatever lies around where it was started."""
    trap = tmp_path / "cwd"
    for name in ("dataplane", "asyncio"):
        (trap / name).mkdir(parents=True)
        (trap / name / "__init__.py").write_text("raise SystemExit('the trap is sprung')")
    command = [
        sys.executable,
        "-P",
        "-c",
        "import agent.supervision.child as w; print(w._environment()['PYTHONPATH'])",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    place = subprocess.run(command, cwd=trap, env=environment, capture_output=True, text=True, check=True).stdout
    assert place.split(os.pathsep)[0] == str(CHECKOUT)
    worker = [sys.executable, "-P", "-m", "dataplane", "--help"]
    done = subprocess.run(worker, cwd=trap, env=environment, capture_output=True, text=True)
    assert (done.returncode, "control-fd" in done.stdout) == (0, True), done.stderr
