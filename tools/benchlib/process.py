"""Start a server as a child on one core, wait until it says that it accepts, stop it with its children."""

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class PeerUnavailable(Exception):
    """A server could not be started; the text says why, for the report."""


class ServerProcess:
    """A server in a session of its own, its output copied to `log`.

    Readiness is a line on the server's stdout or stderr that matches `ready`; `url` is its first group.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        core: int | None,
        ready: str,
        log: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        pinned = ["taskset", "--cpu-list", str(core), *argv] if core is not None else list(argv)
        self._ready = re.compile(ready)
        self._seen = threading.Event()
        self._log = log
        self.url = ""
        try:
            self._process = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                cwd=cwd,
                env={**os.environ, **(env or {})},
            )
        except OSError as error:
            raise PeerUnavailable(f"{argv[0]}: {error.strerror}") from error
        self._drain = threading.Thread(target=self._copy_output, daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        """The root of the server's process tree (taskset replaces itself by the server)."""
        return self._process.pid

    def _copy_output(self) -> None:
        assert self._process.stdout is not None
        with self._log.open("w") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                match = self._ready.search(line)
                if match and not self.url:
                    self.url = match.group(1)
                    self._seen.set()
        self._seen.set()  # end of output: whoever waits must look at the exit code

    def wait_ready(self) -> str:
        """Return the URL the server announced. Raises PeerUnavailable if it ended or stayed silent."""
        self._seen.wait(READY_TIMEOUT_S)
        if not self.url:
            self.stop()
            last = self._log.read_text().strip().splitlines()[-1:] or ["no output"]
            raise PeerUnavailable(f"did not become ready: {last[0]}")
        return self.url

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to the session that this object started; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drain.join(STOP_TIMEOUT_S)
