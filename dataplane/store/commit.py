"""Group commit: writes of concurrent requests share their syncs, and none is acknowledged before it is durable.

A Job goes through four steps. `prepare` does what takes long (syncing a big staged file, copying) and runs on a pool
thread before the job joins a group. `stage` writes what nobody sees yet. All files that a group staged are synced
together, their fsyncs all under way at the same time, so that one journal commit and one flush of the device serve them
all (syncs.py). `publish` takes the blob's lock, checks again, and makes the change visible by one atomic call. Then the
directories are fsynced, once each, and only then do the callers hear of it.
A crash before `publish` leaves the old state, after it the new one; a job whose sync failed is answered with an error
and never retried to success, as a second fsync after a failed one proves nothing.
A Witness, where there is one, hears of a group's changes before the first is published and again when they are durable:
whatever anybody finds changed, it was told of.
Rejected: syncfs per group (one big upload elsewhere on the mount delays every small write), a thread for each request.
"""

import os
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from dataplane.store.errors import StorageUnavailable, translated
from dataplane.store.syncs import sync_together
from dataplane.store.worktime import WorkTime

T = TypeVar("T")

GROUP_JOBS_MAX: Final = 64
COMMIT_THREADS: Final = 2
PREPARE_ATTEMPTS_MAX: Final = 5


class Again(Exception):
    """Raised by `publish`: what `prepare` built on has changed; prepare and submit once more."""


class Subject(NamedTuple):
    """What a job changes: a blob, or with an empty name the container itself."""

    container: str
    name: str


class Job(ABC, Generic[T]):
    """One change. A job is used by one thread at a time; `close` is always called in the end, also after a failure."""

    mount: object = None  # what it waits for: only jobs of one mount share a group
    durable: bool = True
    needs_prepare: bool = False  # whether `prepare` does anything, that is, whether a pool thread is worth waking

    def __init__(self) -> None:
        self.staged_fds: list[int] = []  # to fsync between stage and publish
        self.directory_fds: dict[str, int] = {}  # to fsync after publish, once for each key in a group
        self.work = WorkTime()  # of its preparation and its groups
        self._opened: list[int] = []

    def prepare(self) -> None:
        """The long part, without any lock. May run several times."""
        return

    def stage(self) -> None:
        """Write what is not visible yet; note descriptors in `staged_fds`."""
        return

    @abstractmethod
    def publish(self) -> T:
        """Check under the lock and make it visible; note descriptors in `directory_fds`. Returns the result."""

    def subject(self) -> Subject | None:
        """What somebody who keeps a copy has to look at after this change; None for what no copy shows."""
        return None

    def freed(self) -> str:
        """After `publish`: the ETag of the version that was here as a stub, if that stub is nowhere any more; else "".
        Nobody here needs what the cloud has of it then."""
        return ""

    def cleanup(self) -> None:
        """After a durable success: remove what the change left over. Must not fail the job."""
        return

    def discard(self) -> None:
        """After a failure: remove what was staged."""
        return

    def own(self, fd: int) -> int:
        """Have a descriptor closed when the job ends."""
        self._opened.append(fd)
        return fd

    def close(self) -> None:
        """Close what the job opened."""
        while self._opened:
            os.close(self._opened.pop())


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What became of a job: its value, or the exception that ended it."""

    value: T | None = None
    error: BaseException | None = None


class Witness(Protocol):
    """Is told of every group, on the thread that commits it. Must not raise, nor wait for anything that the changes do
    not wait for themselves."""

    def before(self, jobs: Sequence[Job[Any]]) -> None:
        """These may be published now; none of them is yet."""

    def after(self, jobs: Sequence[Job[Any]]) -> None:
        """These are published and durable; nobody was answered yet. One that is left out may be published too."""

    def close(self) -> None:
        """No group comes any more."""


def run_group(jobs: Sequence[Job[Any]], witness: Witness | None = None) -> list[Outcome[Any]]:
    """Take prepared jobs through stage, sync, publish and sync. Outcomes are in the order of the jobs."""
    outcomes = [Outcome[Any]() for _ in jobs]
    pairs = list(zip(jobs, outcomes, strict=True))
    for job in jobs:
        job.work.begin()
    for job, outcome in pairs:
        _attempt(outcome, job.stage)
    _sync_staged(pairs)
    if witness is not None:
        witness.before([job for job, outcome in pairs if outcome.error is None])
    for job, outcome in pairs:
        if outcome.error is None:
            _attempt_value(outcome, job.publish)
    _sync_directories(pairs)
    if witness is not None:
        witness.after([job for job, outcome in pairs if outcome.error is None])
    for job, outcome in pairs:
        _finish(job, outcome)
    for job in jobs:
        job.work.end()
    return outcomes


def prepare(job: Job[Any]) -> None:
    """The long part. Raises what it raises; after Again the job may be prepared once more, else it is to be ended."""
    job.work.begin()
    try:
        with translated("prepare"):
            job.prepare()
    finally:
        job.work.end()


def run(job: Job[T]) -> T:
    """Execute one job now, prepared and durable. Raises what the job raises; StorageUnavailable when others keep
    changing what it builds on."""
    for _ in range(PREPARE_ATTEMPTS_MAX):
        try:
            prepare(job)
            (outcome,) = run_group([job])
        except Again:
            continue
        except BaseException as error:
            _finish(job, Outcome[T](error=error))
            raise
        if isinstance(outcome.error, Again):
            continue
        if outcome.error is not None:
            raise outcome.error
        return outcome.value  # type: ignore[return-value]
    busy = StorageUnavailable("prepare")
    _finish(job, Outcome[T](error=busy))
    raise busy


def _attempt(outcome: Outcome[Any], step: Callable[[], None]) -> None:
    if outcome.error is None:
        try:
            with translated(step.__name__):
                step()
        except Exception as error:  # whatever it was, it is this job's answer, not the group's
            outcome.error = error


def _attempt_value(outcome: Outcome[Any], step: Callable[[], Any]) -> None:
    try:
        with translated(step.__name__):
            outcome.value = step()
    except Exception as error:
        outcome.error = error


def _sync_staged(pairs: list[tuple[Job[Any], Outcome[Any]]]) -> None:
    waiting = [
        (outcome, fd) for job, outcome in pairs if outcome.error is None and job.durable for fd in job.staged_fds
    ]
    for (outcome, _), error in zip(waiting, sync_together([fd for _, fd in waiting]), strict=True):
        if error is not None and outcome.error is None:
            outcome.error = error


def _sync_directories(pairs: list[tuple[Job[Any], Outcome[Any]]]) -> None:
    """fsync each directory once; a failure is the failure of every job that needed it."""
    waiting = [(job, outcome) for job, outcome in pairs if outcome.error is None and job.durable]
    directories: dict[str, int] = {}
    for job, _ in waiting:
        directories |= job.directory_fds
    failed = {
        key: error
        for key, error in zip(directories, sync_together(list(directories.values())), strict=True)
        if error is not None
    }
    for job, outcome in waiting:
        for key in job.directory_fds.keys() & failed.keys():
            outcome.error = failed[key]


def _finish(job: Job[Any], outcome: Outcome[Any]) -> None:
    try:
        if outcome.error is None:
            job.cleanup()
        elif not isinstance(outcome.error, Again):
            job.discard()
    except Exception:
        pass  # leftovers are swept; the job's own outcome stands
    finally:
        job.staged_fds.clear()
        job.directory_fds.clear()
        job.close()


Done = Callable[[list[tuple[Any, Outcome[Any]]]], None]


class GroupCommitter:
    """Commits one group after another; what arrives meanwhile is the next group. Two threads take turns, so that one
    group is staged and published while the disk works on the other's syncs.

    `done` is called on such a thread once for a group with (token, outcome) pairs, so that a loop is woken once.
    """

    def __init__(self, done: Done, name: str = "commit", witness: Witness | None = None) -> None:
        self._queue: queue.SimpleQueue[tuple[Any, Job[Any]] | None] = queue.SimpleQueue()
        self._done = done
        self._witness = witness
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(COMMIT_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, token: Any, job: Job[Any]) -> None:
        """Queue a prepared job. Never blocks; the caller bounds how many it has in flight."""
        self._queue.put((token, job))

    def stop(self) -> None:
        """Finish what is queued and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            outcomes = run_group([job for _, job in group], self._witness)
            self._done([(token, outcome) for (token, _), outcome in zip(group, outcomes, strict=True)])

    def _next_group(self) -> list[tuple[Any, Job[Any]]] | None:
        """All that waits, up to a limit; None when the committer stops."""
        group: list[tuple[Any, Job[Any]]] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) >= GROUP_JOBS_MAX:
                return group
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group
        if not group:
            return None
        self._queue.put(None)  # the stop was for a thread that has nothing left to do
        return group
