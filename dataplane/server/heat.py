"""What was read, written to the journal every few seconds: by a thread of its own, as a disk may hold up its write.

The loop only notes (Journal.read), and most reads note nothing. Rejected: the event loop's own timer (a write that
hangs would stop all requests), the commit threads (a node that only reads has no commits).
"""

import threading
from typing import Final

from dataplane.journal.writer import Journal

FLUSH_SECONDS: Final = 5.0


class HeatFlusher:
    """Flushes one journal until it is stopped."""

    def __init__(self, journal: Journal, seconds: float | None = None) -> None:
        self._journal = journal
        self._seconds = FLUSH_SECONDS if seconds is None else seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heat", daemon=True)
        self._thread.start()

    def stop(self, seconds_max: float) -> None:
        """Before the journal is closed, which writes what is left. Waits for a write under way, no longer than so."""
        self._stopping.set()
        self._thread.join(seconds_max)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._journal.flush()
