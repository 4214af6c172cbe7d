"""What remains of a request once it is answered: its counts in the slot, its line in the access log, a line if slow.

Counts are stored before the answer goes out, so a worker that is killed has not answered what it did not count; the
time that a client takes to receive an answer is therefore not in them. Lines are written at once for answers of one
write, and when all is sent for long files, as most of their time goes there: reading the file is queue and disk as
anywhere, the rest is the client's.
"""

import sys
import time
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.authorization import Caller
from dataplane.blobapi.message import FileBody, RecallBody, Request, Response
from dataplane.blobapi.operations import OperationSpec, api_name
from dataplane.ipc.series import series_key
from dataplane.server import access, refusals
from dataplane.server.answer import body_length
from dataplane.server.call import Body
from dataplane.server.head import RawRequest
from dataplane.server.node import Account, Node
from dataplane.server.sampling import Sample
from dataplane.server.slow import SlowLog, Spent
from dataplane.server.timings import Timings

_CLIENT_WENT_AWAY: Final = 499  # as Azure's log has it
_NEVER_NS: Final = sys.maxsize
_SERVER_FAULT: Final = 500


@dataclass(slots=True)
class Trace(Timings):
    """What becomes known of a request on its way, for its answer's headers, its counts and its log line. The times are
    filled by its call."""

    raw: RawRequest
    request_id: str
    started_ns: int
    request: Request | None = None
    spec: OperationSpec | None = None
    caller: Caller | None = None
    account: Account | None = None
    secondary: bool = False
    code: str = ""


class _Sending(Timings):
    """A long answer on its way; its request is logged when it is over."""

    __slots__ = ("_body", "_recorder", "_response", "_since_ns", "_trace")

    def __init__(self, recorder: "Recorder", trace: Trace, response: Response, body: Body, now_ns: int) -> None:
        Timings.__init__(self)
        self._recorder, self._trace, self._response, self._body = recorder, trace, response, body
        self._since_ns = now_ns

    def over(self) -> None:
        """All is with the kernel, or will never be."""
        self.settle()
        now_ns, trace = time.perf_counter_ns(), self._trace
        trace.queue_ns += self.queue_ns
        trace.disk_ns += self.disk_ns
        sent = self._response.body
        cloud_ns = sent.waited_ns if isinstance(sent, RecallBody) else 0
        taken_by_client_ns = now_ns - self._since_ns - self.queue_ns - self.disk_ns - cloud_ns
        spent = Spent(
            now_ns - trace.started_ns, trace.queue_ns, trace.disk_ns, self._body.waited_ns + taken_by_client_ns
        )
        self._recorder.tell(trace, self._response.status, self._response, self._body, spent)


class Recorder:
    """Records the requests of one worker. An access line is always written for a fault of ours and a slow request."""

    def __init__(self, node: Node) -> None:
        settings = node.settings
        self._node = node
        self._sample = Sample(settings.access_sample)
        self._slow_ns = round(settings.slow_seconds * 1e9) or _NEVER_NS
        self._slow = SlowLog(self._slow_ns)

    def record(self, trace: Trace, response: Response | None, body: Body) -> None:
        """Count a request that is answered, and log it, now or when a long answer is sent. Without a response the
        client went away first."""
        if trace.waiting is not None:
            trace.settle()
        now_ns = time.perf_counter_ns()
        taken_ns = now_ns - trace.started_ns
        status = response.status if response is not None else _CLIENT_WENT_AWAY
        length = _body_bytes(response)
        observe = self._node.observe
        if observe is not None:
            caller = trace.caller
            key = series_key(
                trace.spec.operation if trace.spec else None, status, trace.code, caller.kind._value_ if caller else ""
            )
            observe(key, taken_ns, body.length or 0, length, trace.queue_ns, trace.disk_ns, body.waited_ns)
        sent = response.body if response is not None else b""
        if isinstance(sent, RecallBody) or (length > limits.file_inline_bytes_max and isinstance(sent, FileBody)):
            assert response is not None
            sent.sending = _Sending(self, trace, response, body, now_ns)
        elif taken_ns >= self._slow_ns or self._node.access_log is not None:
            spent = Spent(taken_ns, trace.queue_ns, trace.disk_ns, body.waited_ns)
            self.tell(trace, status, response, body, spent)

    def tell(self, trace: Trace, status: int, response: Response | None, body: Body, spent: Spent) -> None:
        """The lines of a request that is over."""
        slow = spent.total_ns >= self._slow_ns
        if slow:
            operation = api_name(trace.spec.operation.name) if trace.spec else ""
            self._slow.tell(trace.request_id, operation, status, trace.code, spent)
        log = self._node.access_log
        if log is not None and (self._sample.chosen() or status >= _SERVER_FAULT or slow):
            log.add(self._entry(trace, status, response, body, spent))

    def _entry(self, trace: Trace, status: int, response: Response | None, body: Body, spent: Spent) -> access.Entry:
        raw, resource = trace.raw, trace.request.resource if trace.request else None
        return access.Entry(
            self._node.clock() // 100,
            trace.request_id,
            refusals.echoed_client_id(raw.headers.get("x-ms-client-request-id")) or "",
            raw.peer,
            raw.secure,
            raw.method,
            api_name(trace.spec.operation.name) if trace.spec else "",
            resource.account if resource else "",
            f"/{resource.account}/{resource.container}/{resource.blob}".rstrip("/") if resource else "",
            trace.request.version if trace.request else "",
            status,
            trace.code,
            trace.caller.kind.value if trace.caller else "",
            raw.headers.get("user-agent", ""),
            body.length,
            _body_bytes(response),
            *spent,
        )


def _body_bytes(response: Response | None) -> int:
    if response is None:
        return 0
    return body_length(response)
