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
    """Tell whether a process still holds its files: a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def tree(pid: int) -> list[int]:
    """Return a process and all its living descendants."""
    pids = [pid]
    for parent in pids:
        pids += children(parent)
    return pids


def await_gone(pids: Sequence[int]) -> None:
    """Wait until no process of the list lives; raises TimeoutError."""
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while alive := [pid for pid in pids if is_alive(pid)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {alive} outlive SIGKILL")
        time.sleep(POLL_S)  # /proc offers nothing to wait for, and these are not our children


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
        """SIGKILL to every process of the tree at once; returns when none holds a file any more. Does nothing
        when the server has ended."""
        if self._process.poll() is not None:
            return
        pids = tree(self.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(EXIT_TIMEOUT_S)
        await_gone(pids)
        self._reader.join(EXIT_TIMEOUT_S)

    def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(EXIT_TIMEOUT_S)
        self._reader.join(EXIT_TIMEOUT_S)
        return code
