"""Real worker processes with a journal, and a reader that follows them as the sidecar does."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from dataplane.ipc import control, slots
from dataplane.ipc.settings import AccountSettings, Durability, ListenerSettings, Settings, to_json
from dataplane.journal import unclean
from dataplane.journal.layout import SegmentName, parse_segment
from dataplane.journal.reader import segments
from dataplane.journal.record import Kind, Record
from tests.journal.support import CHECKOUT
from tests.support import ACCOUNT, ANSWER_SECONDS_MAX, KEY

# The worker as it is, but with small segments, so that they rotate under the load of a test. And one that a SIGKILL
# ends at the worst moment there is: right after it published something, for the so many-th time.
PROGRAM = """
import os, signal, sys
from functools import partial
from dataplane.journal.writer import Journal
from dataplane.server import build, worker
from dataplane.store import commit
build.Journal = partial(Journal, segment_bytes_max=1024)
publish, published, dies_after = commit._attempt_value, [], int(sys.argv[2])

def publish_and_die(*arguments):
    publish(*arguments)
    published.append(None)
    if len(published) == dies_after:
        os.kill(os.getpid(), signal.SIGKILL)

commit._attempt_value = publish_and_die
sys.exit(worker.run(int(sys.argv[1])))
"""


class WorkerProcess:
    """One worker over `root`, on a port that it keeps over its deaths. `start` returns when it is ready."""

    def __init__(self, root: Path, journal: Path, number: int, durability: Durability) -> None:
        self._journal, self._number = journal, number
        self._account = AccountSettings(ACCOUNT, str(root), (KEY,), durability)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._slot_fd = slots.create("test-worker")
        self.port: int = self._listening.getsockname()[1]
        self.start()

    def start(self, dies_after: int = 0) -> None:
        listener = ListenerSettings(self._listening.fileno(), "http", "127.0.0.1", self.port)
        settings = Settings(
            self._number, 2, self._slot_fd, (listener,), (self._account,), journal_directory=str(self._journal)
        )
        self._channel, theirs = control.pair()
        self._channel.send(control.Start(to_json(settings)))
        fds = [theirs.fileno(), self._slot_fd, self._listening.fileno()]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(theirs.fileno()), str(dies_after)], pass_fds=fds, cwd=CHECKOUT
        )
        theirs.close()
        assert isinstance(self._channel.receive(), control.Ready)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(ANSWER_SECONDS_MAX)
        self._channel.close()

    def await_death(self) -> None:
        """Of one that was started to die."""
        assert self._process.wait(ANSWER_SECONDS_MAX) == -signal.SIGKILL
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
        self.removed: list[SegmentName] = []
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
            name = parse_segment(segment.name)
            if segment.remove(after) and name is not None:
                self.removed.append(name)
        return news


def times(records: list[Record], kind: Kind) -> dict[str, list[int]]:
    """The times of all records of a kind, by their blobs."""
    found: dict[str, list[int]] = {}
    for record in records:
        if record.kind is kind:
            found.setdefault(f"{record.account}/{record.container}/{record.name}", []).append(record.when_ns)
    return found


@contextlib.contextmanager
def two_workers(root: Path, journal: Path, durability: Durability = "strict") -> Iterator[list[WorkerProcess]]:
    """Two workers over one root, ended whatever happens."""
    root.mkdir()
    with contextlib.ExitStack() as stack:
        workers = []
        for number in range(2):
            workers.append(WorkerProcess(root, journal, number, durability))
            stack.callback(workers[-1].close)
        yield workers
