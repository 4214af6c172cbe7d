"""A worker's side of the journal: what its commit threads note, in one write(2) for each append.

Guarantees: `append` returns with the entries in the kernel's hands, so a SIGKILL loses none of them; or, when the disk
is full, broken or silent, it returns all the same, having counted them as lost and left word that the mount has to be
looked at as a whole: in memory at once (promise.py), so that not even a SIGKILL while the disk hangs makes it unknown,
and on the disk when it can (unclean.py). It never raises, and it waits for nothing but one write: nothing is synced for
an append, since a power cut is told by a marker. Segments that nobody reads do not fill the disk: beyond `bytes_max`,
of all workers together, nothing more is written.

A disk that does not answer holds the one thread that is in its write; from then on the others go on without the journal
at once. One that does not answer at the start holds a thread of the journal's own.

Rejected: a thread of its own that writes (each group would wait for two switches of threads), a queue in memory (a
SIGKILL would lose what was published).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from dataplane.journal import promise, unclean
from dataplane.journal.heat import Heat
from dataplane.journal.layout import SegmentName, sync_segments
from dataplane.journal.localdisk import why_network
from dataplane.journal.record import Encoder, Entry, Kind
from dataplane.journal.segmentfile import SEGMENT_BYTES_MAX, SegmentFile, bytes_unread

JOURNAL_BYTES_MAX: Final = 1 << 30
RETRY_SECONDS: Final = 1.0  # between two attempts on a disk that failed
LOG_SECONDS: Final = 60.0  # between two lines of the log about it
#: To wait, once, for another thread's write, or for the disk at the start: a busy one stalls for a second or two.
LOCK_SECONDS_MAX: Final = 5.0

_log = logging.getLogger(__name__)


class _Refused(Exception):
    """Nothing is written now, and why."""


class Journal:
    """The journal of one worker; any thread may append. `clock` is the wall clock in ns since 1970, `monotonic` is in
    seconds. A directory that is not there is made; one that cannot be, or is of another machine, is tried again later.
    Made within LOCK_SECONDS_MAX: until the disk has answered, every entry is lost."""

    def __init__(
        self,
        directory: Path,
        worker: int,
        clock: Callable[[], int] = time.time_ns,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        bytes_max: int = JOURNAL_BYTES_MAX,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        self._directory: Final = directory
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._bytes_max: Final = bytes_max
        self._segment_bytes_max: Final = segment_bytes_max
        self._encoder: Final = Encoder()
        self._heat: Final = Heat()
        self._reads: list[Entry] = []
        self._lock = threading.Lock()  # of all that follows, but for the counts
        self._marker: unclean.Marker | None = None
        self._segment: SegmentFile | None = None
        self._next = SegmentName(clock(), worker, 0)
        self._promise = _promised(directory, worker, self._next.start_ns)
        self._retry_at = 0.0
        self._reason = ""
        self._silent = False
        self._counts = threading.Lock()
        self._lost = 0  # entries, since the start
        self._told = 0  # of them, those that the flag stands for
        self._log_at = 0.0
        self._lock.acquire()  # `_begin` lets go of it
        beginning = threading.Thread(target=self._begin, name="journal", daemon=True)
        beginning.start()
        beginning.join(LOCK_SECONDS_MAX)
        self._silent = beginning.is_alive()

    @property
    def lost(self) -> int:
        """Entries that could not be written since the start."""
        return self._lost

    def append(self, entries: Sequence[Entry]) -> None:
        """Note (kind, account, container, name), all in one write. Never raises."""
        if not entries:
            return
        if not self._lock.acquire(False) and (self._silent or not self._lock.acquire(timeout=LOCK_SECONDS_MAX)):
            self._silent = True
            self._lose(len(entries), "the disk does not answer")
            return
        try:
            self._silent = False
            self._write(self._encoder.frames(entries, self._clock()))
        except Exception as error:  # whatever it is, the change itself goes on
            self._fail(len(entries), error)
        finally:
            self._lock.release()

    def read(self, account: str, container: str, name: str) -> None:
        """Note that a blob was read, for the next `flush`; most reads say nothing new. Waits for nothing. From one
        thread only, the event loop's."""
        if self._heat.counts((account, container, name), time.monotonic_ns()):
            self._reads.append((Kind.READ, account, container, name))

    def flush(self) -> None:
        """Write what `read` noted. Never raises."""
        reads, self._reads = self._reads, []
        self.append(reads)

    def close(self) -> None:
        """After the last append. Waits for the disk; what it then has needs no marker. Never raises."""
        self.flush()
        if not self._lock.acquire(timeout=LOCK_SECONDS_MAX):
            return  # the marker stays, as after a kill
        try:
            self._end()
        except OSError as error:
            _log.warning("journal: not closed: %s", error)
        finally:
            self._lock.release()

    def _begin(self) -> None:
        try:
            self._segment = self._new_segment()
        except Exception as error:
            self._fail(0, error)
        finally:
            self._lock.release()

    # --- under the lock ----------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        """Raises OSError, _Refused."""
        if self._monotonic() < self._retry_at:
            raise _Refused(self._reason)
        segment = self._segment
        if segment is None or segment.size + len(data) > self._segment_bytes_max:
            self._give_up_segment()
            segment = self._segment = self._new_segment()
        segment.write(data)
        if self._told != self._lost:
            self._tell()

    def _new_segment(self) -> SegmentFile:
        """Raises OSError, _Refused."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._marker is None:
            if reason := why_network(self._directory.stat().st_dev):
                raise _Refused(reason)
            promised = self._promise.name if self._promise is not None else promise.NONE
            self._marker = unclean.Marker(self._directory, self._next.worker, self._next.start_ns, promised)
            self._next = self._next._replace(start_ns=self._marker.start_ns)
        if bytes_unread(self._directory) + self._segment_bytes_max > self._bytes_max:
            raise _Refused(f"nobody reads it, and it has {self._bytes_max >> 20} MiB")
        segment = SegmentFile(self._directory, self._next)
        self._next = segment.name._replace(sequence=segment.name.sequence + 1)
        return segment

    def _fail(self, count: int, error: Exception) -> None:
        if isinstance(error, OSError):
            self._give_up_segment()
        now = self._monotonic()
        if now >= self._retry_at and not isinstance(error, ValueError):
            self._retry_at = now + RETRY_SECONDS
            self._reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        self._lose(count, str(error) if isinstance(error, ValueError) else self._reason)
        self._tell()

    def _tell(self) -> None:
        """Leave word of what is missing; what cannot be told now is told with the next append."""
        lost = self._lost
        if lost == self._told:
            return
        with suppress(OSError):
            unclean.mark(self._directory)
            self._told = lost

    def _give_up_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            with suppress(OSError):
                segment.close()

    def _end(self) -> None:
        """Raises OSError; the marker and the promise then stay, to be judged."""
        self._give_up_segment()
        marker, self._marker = self._marker, None
        promised, self._promise = self._promise, None
        self._tell()
        told = False
        try:
            if marker is not None:
                sync_segments(self._directory, self._next.worker, self._next.start_ns)
            told = self._told == self._lost
            if marker is not None and told:
                marker.unlink()
        finally:
            if marker is not None:
                marker.close()
            if promised is not None:
                promised.close(told=told)

    # --- any thread --------------------------------------------------------------------------------------------

    def _lose(self, count: int, reason: str) -> None:
        with self._counts:
            if count and self._promise is not None:
                self._promise.take_back()
            self._lost += count
            now = self._monotonic()
            if now < self._log_at:
                return
            self._log_at = now + LOG_SECONDS
        _log.warning("journal: %s; %d entries are missing so far, changes go on", reason, self._lost)


def _promised(directory: Path, worker: int, start_ns: int) -> promise.Promise | None:
    """None without such memory: every kill of this worker then has everything looked at."""
    try:
        return promise.Promise(directory, worker, start_ns)
    except OSError as error:
        _log.warning("journal: %s: %s; after a kill everything is looked at", promise.MEMORY, error.strerror or error)
        return None
