"""One recall: a sparse file that fills with a blob's bytes as its readers need them.

Each reader has a demand: from where it reads up to where its client's reading ends; one that reads the blob whole also
wants all of it, so that it can be kept. Runs are downloads that fill the file from one place on; a byte is asked for
once, for all readers. A demand whose first missing byte no run will reach soon gets a run of its own from there, and a
run that would come there later ends there. What nobody demands any more is not fetched any further.

All of it arrived, the bytes are hashed (while they arrive, as far as they come in order); only then readers of the
whole blob are told of the last ones, and the file takes the place of its stub. Wrong bytes end the recall.

Runs write from threads, through descriptors of their own; everything else happens in trio's thread. `_lock` is never
held over a call to the mount. Rejected: blocks of a fixed size with a bitmap (a range would move a block at each end),
backpressure from the readers (one that is slow would hold up the others).
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import trio

from agent.offload.failures import CloudFailed
from agent.offload.recall.extents import Extents
from agent.offload.recall.fetch import CloudCopy
from agent.offload.recall.reasons import NotComing, not_coming, of_cloud, of_mount
from agent.offload.recall.shelf import Key, Space
from agent.offload.transport import Errand
from dataplane.ipc.recalls import LAST_BYTES, Want
from dataplane.store import syscalls
from dataplane.store.errors import StoreError

log = logging.getLogger("blobedge.offload")

NEAR_BYTES: Final = 4 << 20  # behind a run's place by so much, a reader waits for it
HASH_BYTES: Final = 1 << 20  # read at a time
WRITEBACK_BYTES: Final = 8 << 20  # so that the sync at the end has little left to wait for


@dataclass(eq=False, slots=True)
class Run:
    """A download: bytes up to `at` have arrived, it goes on up to `end`."""

    at: int
    end: int
    errand: Errand = field(default_factory=Errand)


@dataclass(eq=False, slots=True)
class Reader:
    """Who reads: a connection, or somebody who wants the whole file here. `md5` and `hashed`: of the bytes that it was
    given, where nothing is kept that could be hashed in the end."""

    want: Want | None = None
    whole: bool = False
    recall: "Recall | None" = None
    failures_seen: int = 0
    md5: "hashlib._Hash" = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    hashed: int = 0


@dataclass(eq=False, slots=True)
class Works:
    """What all recalls share. `slots`: how many downloads there are at a time; `finished` is told of a recall that has
    all of its bytes, verified, and puts them in the stub's place."""

    nursery: trio.Nursery
    slots: trio.CapacityLimiter
    offline: Callable[[], bool]
    began: Callable[[], None]
    moved: Callable[[int], None]  # bytes arrived; on the downloading thread
    answered: Callable[[], None]
    failed: Callable[["Recall", NotComing], None]
    finished: Callable[["Recall"], Awaitable[None]]


class Recall:
    """Bytes of `copy` from `low` up to `high` in a file of their own. `kept`: they are the whole blob, and stay."""

    def __init__(
        self, key: Key, copy: CloudCopy, space: Space, low: int, high: int, works: Works, *, kept: bool
    ) -> None:
        self.key: Final = key
        self.remote: Final = copy.remote
        self.space: Final = space
        self.low: Final = low
        self.high: Final = high
        self.kept: Final = kept
        self.readers: set[Reader] = set()
        self.idle_since = time.monotonic()
        self.verified = False
        self.ended = trio.Event()  # it was put in the stub's place, or will never be
        self.arrived = False  # it was put there
        self.dead = False
        self.failure: NotComing | None = None
        self.failures = 0
        self._copy: Final = copy
        self._works: Final = works
        self._token: Final = trio.lowlevel.current_trio_token()
        self._news = trio.Event()
        self._lock: Final = threading.Lock()
        self._extents: Final = Extents()
        self._runs: list[Run] = []
        self._fd = os.dup(space.staged.fd)
        self._md5: Final = hashlib.md5(usedforsecurity=False)
        self._hashed = low
        self._completing = False

    # --- readers -----------------------------------------------------------------------------------------------

    def attach(self, reader: Reader, want: Want) -> None:
        """The reader wants this now, and nothing before it."""
        self.readers.add(reader)
        reader.recall, reader.want, reader.failures_seen = self, want, self.failures
        self._plan()

    def detach(self, reader: Reader) -> None:
        """The reader wants nothing any more."""
        self.readers.discard(reader)
        reader.recall = reader.want = None
        self.idle_since = time.monotonic()
        self._plan()

    async def more(self, reader: Reader, told: int, limit: int) -> int:
        """Up to where the reader may read, once that is beyond `told`; at most up to `limit`. Raises NotComing."""
        while True:
            with self._lock:
                end = min(self._extents.end_from(told), limit)
            if reader.whole and self.kept and not self.verified:
                end = min(end, max(self.high - LAST_BYTES, 0))
            if end > told and not self.dead:
                return end
            if self.failures > reader.failures_seen or self.dead:
                raise self.failure or not_coming("failed")
            await self._news.wait()

    async def prove(self, reader: Reader, start: int, end: int) -> None:
        """Hash what a reader of the whole blob is about to be given. Raises NotComing when it ends, and is wrong."""
        if reader.hashed != start:
            raise not_coming("failed", f"{self.key}: what was given cannot be verified")
        await trio.to_thread.run_sync(_hash, self.space.reading_fd, start, end, reader.md5)
        reader.hashed = end
        if end == self.remote.size and reader.md5.digest() != self.remote.md5:
            raise self._damaged()

    # --- what is fetched ---------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether something is fetched, hashed or put away now."""
        return bool(self._runs) or (self._completing and not self.ended.is_set())

    @property
    def outstanding(self) -> int:
        """Bytes that the file may still grow by."""
        with self._lock:
            return self.high - self.low - self._extents.total

    def fail(self, failure: NotComing) -> None:
        """Those who wait now wait in vain; what has arrived stays for those who come later."""
        self.failure = failure
        self.failures += 1
        self._works.failed(self, failure)
        for run in self._runs:
            run.errand.stop()
        self._runs.clear()
        self._notify()

    def link_down(self) -> None:
        """There is no way to the cloud."""
        if self._runs:
            self.fail(not_coming("offline"))

    def _demands(self) -> Iterator[tuple[int, int, bool]]:
        """From, up to, and whether somebody waits for it: first what is waited for."""
        for reader in self.readers:
            if (want := reader.want) is not None:
                end = max(want.until, want.offset + want.length) if self.kept else want.offset + want.length
                yield want.offset, min(end, self.high), True
        if self.kept and any(reader.whole for reader in self.readers):
            yield self.low, self.high, False

    def _plan(self) -> None:
        """Start and end runs so that every demand is met."""
        demands = list(self._demands())
        self._trim(demands)
        for start, stop, urgent in demands:
            with self._lock:
                missing = self._extents.end_from(start)
                gap_end = self._extents.next_start(missing, stop)
            if missing >= stop or self.dead:
                continue
            near = NEAR_BYTES if urgent else self.high
            if any(run.at <= missing < run.end and missing - run.at <= near for run in self._runs):
                continue
            if self._works.offline():
                self.fail(not_coming("offline"))
                return
            self._start(missing, gap_end)
        if not self._completing and not self.dead and self.outstanding == 0 and self.kept:
            self._completing = True
            self._works.nursery.start_soon(self._complete)

    def _trim(self, demands: list[tuple[int, int, bool]]) -> None:
        """Nothing is fetched that nobody demands."""
        for run in list(self._runs):
            ends = [stop for start, stop, _ in demands if start < run.end and stop > run.at]
            if ends:
                run.end = min(run.end, max(ends))
            else:
                run.errand.stop()
                self._runs.remove(run)

    def _start(self, start: int, end: int) -> None:
        for run in self._runs:
            if run.at <= start < run.end:
                run.end = start  # it would come there later
            elif start < run.at:
                end = min(end, run.at)
        run = Run(start, end)
        self._runs.append(run)
        self._works.nursery.start_soon(self._download, run)

    async def _download(self, run: Run) -> None:
        failure: NotComing | None = None
        try:
            await trio.to_thread.run_sync(self._fill, run, limiter=self._works.slots, abandon_on_cancel=True)
            self._works.answered()
        except CloudFailed as failed:
            failure = of_cloud(failed)
        except (OSError, StoreError) as error:
            failure = of_mount(error)
        except Exception as error:  # a bug that one recall meets must not end the others
            log.exception("recall of %s", self.key)
            failure = not_coming("failed", type(error).__name__)
        finally:
            run.errand.stop()
        if run in self._runs:
            self._runs.remove(run)
            if failure is not None:
                self.fail(failure)
        if failure is None:
            self._plan()

    def _fill(self, run: Run) -> None:
        """On a thread: fetch into the file."""
        with self._lock:
            if self._fd < 0 or run.errand.stopped:
                return
            fd = os.dup(self._fd)
        self._token.run_sync_soon(self._works.began)

        def sink(offset: int, piece: bytes) -> bool:
            _write(fd, piece, offset)
            end = offset + len(piece)
            if end // WRITEBACK_BYTES != offset // WRITEBACK_BYTES:
                syscalls.start_writeback(fd, max(0, end - WRITEBACK_BYTES), WRITEBACK_BYTES)
            if offset == self._hashed:  # one run at most is there
                self._md5.update(piece)
                self._hashed += len(piece)
            with self._lock:
                self._extents.add(offset, end)
                run.at = end
                goes_on = run.at < run.end
            self._works.moved(len(piece))
            self._token.run_sync_soon(self._notify, idempotent=True)
            return goes_on and not run.errand.stopped

        try:
            self._copy.fetch(run.at, run.end, run.errand, sink)
        finally:
            os.close(fd)

    def _notify(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- the end -----------------------------------------------------------------------------------------------

    async def _complete(self) -> None:
        """All bytes are there: are they right?"""
        try:
            await trio.to_thread.run_sync(_hash, self.space.reading_fd, self._hashed, self.high, self._md5)
        except OSError as error:
            self._end(of_mount(error))
            return
        if self._md5.digest() != self.remote.md5:
            self._damaged()
            return
        self.verified = True
        self._notify()
        try:
            await self._works.finished(self)
            await trio.to_thread.run_sync(self._end_writing)
        finally:
            self.ended.set()

    def _damaged(self) -> NotComing:
        """What arrived is not what was verified when it was sent. Nobody gets any more of it."""
        failure = not_coming("failed", f"{self.key}: damaged bytes arrived; they are dropped, and fetched again")
        self._end(failure)
        return failure

    def _end(self, failure: NotComing) -> None:
        self.dead = True
        self.fail(failure)
        self.ended.set()

    def close(self) -> None:
        """Drop the file, if it is not the blob's by now. Once; blocks on the mount."""
        self._end_writing()
        self.space.discard()

    def _end_writing(self) -> None:
        """What is open for writing cannot be evicted again."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _hash(fd: int, start: int, end: int, md5: "hashlib._Hash") -> None:
    """Add the bytes of a file to a hash. Raises OSError."""
    while start < end:
        data = os.pread(fd, min(HASH_BYTES, end - start), start)
        if not data:
            raise OSError("the file has become shorter")
        md5.update(data)
        start += len(data)
