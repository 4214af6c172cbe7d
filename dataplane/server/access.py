"""The access log: one JSON line per request, with the names of Azure's resource log (table StorageBlobLogs).

A line never holds a credential: of the target only the decoded path is written, never the query (it may carry a SAS),
of the headers only the user agent and the client's request id. json.dumps escapes control characters, so no name can
forge a second line.

Requests only append a tuple here. A thread formats and writes them every FLUSH_SECONDS, so a reader of the log that
stalls (a full pipe) stops the thread and not the event loop; what does not fit the backlog meanwhile is dropped and
counted, and the count is the next line. Rejected: logging.Logger (a record object, a lock and a write per request).
"""

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi.dates import iso_ticks

FLUSH_SECONDS: Final = 0.25
BACKLOG_LINES_MAX: Final = 20_000
LINES_PER_WRITE_MAX: Final = 512
TEXT_CHARS_MAX: Final = 1024  # of a user agent


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a request once it is answered. `identity` is the scheme that let it in, "" for none."""

    ticks: int
    request_id: str
    client_request_id: str
    peer: str
    secure: bool
    method: str
    operation: str
    account: str
    path: str
    version: str
    status: int
    code: str
    identity: str
    user_agent: str
    body_bytes_in: int | None
    body_bytes_out: int
    duration_ns: int


def line(entry: Entry) -> str:
    """One line of the log, without its newline."""
    return json.dumps(
        {
            "time": iso_ticks(entry.ticks),
            "category": _category(entry.method),
            "operationName": entry.operation,
            "operationVersion": entry.version,
            "statusCode": entry.status,
            "statusText": entry.code or "Success",
            "durationMs": round(entry.duration_ns / 1e6, 3),
            "callerIpAddress": entry.peer,
            "correlationId": entry.request_id,
            "identity": {"type": entry.identity or "Anonymous"},
            "protocol": "HTTPS" if entry.secure else "HTTP",
            "method": entry.method,
            "objectKey": entry.path,
            "properties": {
                "accountName": entry.account,
                "clientRequestId": entry.client_request_id,
                "userAgentHeader": entry.user_agent[:TEXT_CHARS_MAX],
                "requestBodySize": entry.body_bytes_in,
                "responseBodySize": entry.body_bytes_out,
            },
        },
        separators=(",", ":"),
    )


def _category(method: str) -> str:
    if method in ("GET", "HEAD", "OPTIONS"):
        return "StorageRead"
    return "StorageDelete" if method == "DELETE" else "StorageWrite"


class AccessLog:
    """Collects the entries of one event loop; a thread of its own hands them to `write`, whole lines as bytes."""

    def __init__(self, write: Callable[[bytes], object], flush_seconds: float = FLUSH_SECONDS) -> None:
        self._write = write
        self._flush_seconds = flush_seconds
        self._entries: deque[Entry] = deque()
        self._dropped = 0
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> None:
        """Take an entry; never blocks. Dropped, and counted, when BACKLOG_LINES_MAX wait already."""
        if len(self._entries) >= BACKLOG_LINES_MAX:
            self._dropped += 1
            return
        self._entries.append(entry)

    def flush(self) -> None:
        """Write what waits now, on the caller's thread."""
        with self._writing:
            self._flush()

    def close(self, timeout_seconds: float) -> None:
        """Write what waits and end the thread; gives up after timeout_seconds."""
        self._stopped.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopped.wait(self._flush_seconds):
            self.flush()
        self.flush()

    def _flush(self) -> None:
        while self._entries:
            count = min(len(self._entries), LINES_PER_WRITE_MAX)
            lines = [line(self._entries.popleft()) for _ in range(count)]
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                lines.append(json.dumps({"category": "Dropped", "count": dropped}))
            try:
                self._write("\n".join([*lines, ""]).encode())
            except OSError:  # nobody reads the log any more; requests go on
                return
