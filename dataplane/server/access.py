"""The access log: one JSON line per request, with the names of Azure's resource log (table StorageBlobLogs).

queueMs, diskMs and sendMs are ours (timings.py); sendMs is the wait for the client: for its body, and for it to take
a long answer (record.py). serverLatencyMs is durationMs without it.

A line never holds a credential: of the target only the decoded path is written, never the query (it may carry a SAS),
of the headers only the user agent and the client's request id. The JSON escaper writes ASCII without control
characters, so no name can forge a second line.

Requests only append a tuple here. A thread formats and writes them every FLUSH_SECONDS, so a reader of the log that
stalls (a full pipe) stops the thread and not the event loop; what does not fit the backlog meanwhile is dropped and
counted, and the count is the next line. All processes of the service write to one pipe or socket: whole lines go out in
writes of WRITE_BYTES_MAX, which the kernel keeps together, so no line is torn by another process's.

Rejected: logging.Logger (a record object, a lock and a write per request).
"""

import json
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from typing import Final, NamedTuple

from dataplane.blobapi.dates import iso_ticks

FLUSH_SECONDS: Final = 0.25
BACKLOG_LINES_MAX: Final = 20_000
LINES_PER_TURN_MAX: Final = 512
WRITE_BYTES_MAX: Final = select.PIPE_BUF  # pipe(7); a single line that is longer goes out alone
TEXT_CHARS_MAX: Final = 1024  # of a user agent


class Entry(NamedTuple):
    """What is known of a request once it is answered. `identity` is the scheme that let it in, "" for none.

    A tuple, not a frozen dataclass: one is made for every request, and this is the cheaper of the two by far.
    """

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
    queue_ns: int
    disk_ns: int
    send_ns: int


def line(entry: Entry) -> str:
    """One line of the log, without its newline. Everything that a client can choose goes through the JSON escaper; the
    rest is ours and has nothing to escape."""
    seconds, fraction = divmod(entry.ticks, 10_000_000)
    length_in = "null" if entry.body_bytes_in is None else entry.body_bytes_in
    return (
        f'{{"time":"{_second(seconds)}.{fraction:07d}Z","category":"{_category(entry.method)}",'
        f'"operationName":"{entry.operation}","operationVersion":{_text(entry.version)},"statusCode":{entry.status},'
        f'"statusText":"{entry.code or "Success"}","durationMs":{entry.duration_ns / 1e6:.3f},'
        f'"serverLatencyMs":{(entry.duration_ns - entry.send_ns) / 1e6:.3f},"queueMs":{entry.queue_ns / 1e6:.3f},'
        f'"diskMs":{entry.disk_ns / 1e6:.3f},"sendMs":{entry.send_ns / 1e6:.3f},'
        f'"callerIpAddress":{_text(entry.peer)},"correlationId":"{entry.request_id}",'
        f'"identity":{{"type":"{entry.identity or "Anonymous"}"}},"protocol":"{"HTTPS" if entry.secure else "HTTP"}",'
        f'"method":{_text(entry.method)},"objectKey":{_text(entry.path)},'
        f'"properties":{{"accountName":{_text(entry.account)},"clientRequestId":{_text(entry.client_request_id)},'
        f'"userAgentHeader":{_text(entry.user_agent[:TEXT_CHARS_MAX])},"requestBodySize":{length_in},'
        f'"responseBodySize":{entry.body_bytes_out}}}}}'
    )


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    """An instant down to the second, which many lines share."""
    return iso_ticks(seconds * 10_000_000)[: len("2026-01-01T00:00:00")]


def _category(method: str) -> str:
    if method in ("GET", "HEAD", "OPTIONS"):
        return "StorageRead"
    return "StorageDelete" if method == "DELETE" else "StorageWrite"


class AccessLog:
    """Collects the entries of one event loop; a thread of its own hands them to `write`, whole lines as bytes, so many
    that the kernel keeps them together."""

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
        try:
            while self._entries:
                for data in self._writes(min(len(self._entries), LINES_PER_TURN_MAX)):
                    self._write(data)
        except OSError:  # nobody reads the log any more; requests go on
            return

    def _writes(self, count: int) -> Iterator[bytes]:
        """So many lines, and the one that counts what was dropped, as what is to be written at once."""
        lines = [line(self._entries.popleft()) for _ in range(count)]
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            lines.append(json.dumps({"category": "Dropped", "count": dropped}))
        data = b""
        for each in lines:
            more = f"{each}\n".encode()
            if data and len(data) + len(more) > WRITE_BYTES_MAX:
                yield data
                data = b""
            data += more
        yield data
