"""Real worker processes with a journal, and a reader that follows them as the sidecar does."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from dataplane.ipc import control, slots
from dataplane.ipc.settings import AccountSettings, ListenerSettings, Settings, to_json
from dataplane.journal import unclean
from dataplane.journal.reader import segments
from dataplane.journal.record import Kind, Record
from tests.journal.support import CHECKOUT, SEGMENT_BYTES
from tests.support import ACCOUNT, ANSWER_SECONDS_MAX, KEY

# The worker as it is, but with small segments, so that they rotate under the load of a test.
PROGRAM = f"""
import sys
from functools import partial
from dataplane.journal.writer import Journal
from dataplane.server import build, worker
build.Journal = partial(Journal, segment_bytes_max={4 * SEGMENT_BYTES})
sys.exit(worker.run(int(sys.argv[1])))
"""


class WorkerProcess:
    """One worker over `root`, on a port that it keeps over its deaths. `start` returns when it is ready."""

    def __init__(self, root: Path, journal: Path, number: int) -> None:
        self._root, self._journal, self._number = root, journal, number
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._slot_fd = slots.create("test-worker")
        self.port: int = self._listening.getsockname()[1]
        self.start()

    def start(self) -> None:
        account = AccountSettings(ACCOUNT, str(self._root), (KEY,))
        listener = ListenerSettings(self._listening.fileno(), "http", "127.0.0.1", self.port)
        settings = Settings(
            self._number, 2, self._slot_fd, (listener,), (account,), journal_directory=str(self._journal)
        )
        self._channel, theirs = control.pair()
        self._channel.send(control.Start(to_json(settings)))
        fds = [theirs.fileno(), self._slot_fd, self._listening.fileno()]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(theirs.fileno())], pass_fds=fds, cwd=CHECKOUT
        )
        theirs.close()
        assert isinstance(self._channel.receive(), control.Ready)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(ANSWER_SECONDS_MAX)
        self._channel.close()

    def stop(self) -> int:
        """As the supervisor stops it; returns its exit code."""
        self._channel.send(control.Stop(10.0))
        return self._process.wait(ANSWER_SECONDS_MAX)

    def lost(self) -> int:
        """What it counted in its slot."""
        slot = slots.Slot(self._slot_fd)
        try:
            return slot.get(slots.Counter.JOURNAL_LOST)
        finally:
            slot.close()

    def close(self) -> None:
        self.kill()
        self._listening.close()
        os.close(self._slot_fd)


class Follower:
    """Reads a journal while it is written, and removes what it has, in a thread. `records` are complete after `end`."""

    def __init__(self, directory: Path) -> None:
        self.records: list[Record] = []
        self.removed = 0
        self.error: BaseException | None = None
        self._directory = directory
        self._offsets: dict[str, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Read what is there, to its end. Raises what went wrong."""
        self._end.set()
        self._thread.join(ANSWER_SECONDS_MAX)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        while self._round():
            pass

    def of(self, kind: Kind) -> dict[str, list[int]]:
        """The times of all records of a kind, by their blobs."""
        found: dict[str, list[int]] = {}
        for record in self.records:
            if record.kind is kind:
                found.setdefault(f"{record.account}/{record.container}/{record.name}", []).append(record.when_ns)
        return found

    def _run(self) -> None:
        try:
            while not self._end.wait(0.01):
                self._round()
        except BaseException as error:
            self.error = error

    def _round(self) -> bool:
        """One look at all segments; whether there was anything new."""
        news = False
        unclean.judge(self._directory)
        for segment in segments(self._directory):
            offset = self._offsets.get(segment.name, 0)
            records, after = segment.read(offset)
            self.records += records
            self._offsets[segment.name] = after
            news = news or after != offset
            self.removed += segment.remove(after)
        return news


@contextlib.contextmanager
def two_workers(root: Path, journal: Path) -> Iterator[list[WorkerProcess]]:
    """Two workers over one root, ended whatever happens."""
    root.mkdir()
    with contextlib.ExitStack() as stack:
        workers = []
        for number in range(2):
            workers.append(WorkerProcess(root, journal, number))
            stack.callback(workers[-1].close)
        yield workers
