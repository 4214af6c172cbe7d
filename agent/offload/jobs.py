"""Long work that an operator asked for, done in the sidecar: begun by one request, looked at and stopped by others.

A request to the queue's socket is answered within seconds, and bringing a terabyte back takes days. So the work is a
job with a number. Who asked may go away: the job goes on. A sidecar that ends takes its jobs with it, and nothing of
what they did: whoever asks again goes on with what is left.

Rejected: a request that stays open (the time limit of all other requests would have to go), jobs in the database (what
a person asked for, that person asks for again).
"""

import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

import trio

from agent.offload.opening import QueueError

log = logging.getLogger("blobedge.offload")

KEPT_COUNT: Final = 64  # jobs that ended and are remembered
RUNNING_COUNT_MAX: Final = 8


class JobState(StrEnum):
    """How a job is."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


class TooManyJobs(Exception):
    """RUNNING_COUNT_MAX are under way."""


@dataclass(slots=True)
class Job:
    """One piece of work. Totals are None where they are not known. `kept` counts by reason what was left as it is, with
    the name of one such blob in `examples`. `error` is why it FAILED."""

    id: str
    what: str
    state: JobState = JobState.RUNNING
    blobs: int = 0
    bytes: int = 0
    blobs_total: int | None = None
    bytes_total: int | None = None
    kept: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def keep(self, reason: str, name: str) -> None:
        """A blob was left as it is."""
        self.kept[reason] = self.kept.get(reason, 0) + 1
        self.examples.setdefault(reason, name)

    def document(self) -> dict[str, Any]:
        """The job as JSON has it."""
        return asdict(self)


Work = Callable[[Job], Awaitable[None]]


class Jobs:
    """The jobs of a sidecar; they end with its nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery: Final = nursery
        self._jobs: dict[str, Job] = {}
        self._scopes: dict[str, trio.CancelScope] = {}  # of those that run
        self._numbers: Final = itertools.count(1)
        self._life: Final = f"{time.time_ns():x}"  # so that a job of the sidecar before is not taken for one of this

    def start(self, what: str, work: Work) -> Job:
        """Begin it; `work` tells the job how far it is. Raises TooManyJobs."""
        if len(self._scopes) >= RUNNING_COUNT_MAX:
            raise TooManyJobs(f"{RUNNING_COUNT_MAX} of these are under way already: wait for one to end")
        ended = [each for each in self._jobs if each not in self._scopes]
        for old in ended[: max(0, len(ended) + 1 - KEPT_COUNT)]:
            del self._jobs[old]
        job = Job(f"{self._life}-{next(self._numbers)}", what)
        self._jobs[job.id] = job
        self._scopes[job.id] = trio.CancelScope()
        self._nursery.start_soon(self._run, job, work)
        return job

    def find(self, job_id: str) -> Job | None:
        """The job of a number, if it is known."""
        return self._jobs.get(job_id)

    def stop(self, job_id: str) -> None:
        """End it as soon as may be; what it did stays done. Nothing happens to one that has ended."""
        if (scope := self._scopes.get(job_id)) is not None:
            scope.cancel()

    async def _run(self, job: Job, work: Work) -> None:
        """Carry it out, whatever happens to it. Raises QueueError only."""
        try:
            with self._scopes[job.id] as scope:
                await work(job)
            job.state = JobState.STOPPED if scope.cancelled_caught else JobState.DONE
        except Exception as group:
            error = _first(group)
            if isinstance(error, QueueError):
                raise error from None
            log.error("%s", job.what, exc_info=group)
            job.state, job.error = JobState.FAILED, f"{type(error).__name__}: {error}"
        finally:
            del self._scopes[job.id]


def _first(error: BaseException) -> BaseException:
    """The first error in a group of groups: tasks of the work raise in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
