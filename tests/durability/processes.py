"""Start a server process, find its children, kill it as a crash would."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

READY_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 30.0
POLL_S = 0.002


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in path.read_text().split()]
    return [child for child in found if is_alive(child)]


def is_alive(pid: int) -> bool:
    """Tell whether a process still holds its files: not as a zombie, once its last thread has ended too (the
    leader of a process becomes a zombie while other threads still exit)."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if task.read_text().rpartition(")")[2].split()[0] not in "ZX":
                return True
    return False


def session(leader: int) -> list[int]:
    """Return the living processes of a session, whoever their parent is by now (proc(5): its sixth field)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and is_alive(int(entry.name)):
                    found.append(int(entry.name))
    return found


class ServerProcess:
    """A server in a session of its own that prints a line starting with `ready` when it accepts."""

    def __init__(self, argv: Sequence[str], ready: str, log: Path, cwd: Path) -> None:
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=errors, cwd=cwd, start_new_session=True, text=True
            )
        self._ready = ready
        self._line = ""
        self._heard = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The pid of the root process."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(self._ready) and not self._line:
                    self._line = line.removeprefix(self._ready).strip()
                    self._heard.set()
        self._heard.set()

    def await_ready(self) -> str:
        """Return the rest of the ready line; raises AssertionError with the log's end."""
        self._heard.wait(READY_TIMEOUT_S)
        assert self._line, f"not ready: {self.log.read_text(errors='replace')[-3000:]}"
        return self._line

    def kill_all(self) -> None:
        """SIGKILL to every process of the server; returns when none holds a file any more. Raises TimeoutError.

        The root goes first, so that nobody replaces a worker meanwhile; the rest is found by its session.
        """
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(EXIT_TIMEOUT_S)
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while alive := session(self.pid):
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {alive} outlive SIGKILL")
            time.sleep(POLL_S)  # /proc offers nothing to wait for, and these are not our children
        self._reader.join(EXIT_TIMEOUT_S)

    def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(EXIT_TIMEOUT_S)
        self._reader.join(EXIT_TIMEOUT_S)
        return code
