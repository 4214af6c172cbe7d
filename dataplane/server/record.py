"""What remains of a request once it is answered: its counts in the slot, its line in the access log, a line if slow.

All three are written before the answer goes out, so a worker that is killed has not answered what it did not count.
The time that the client takes to receive the answer is therefore in none of them.
"""

import sys
import time
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi.authorization import Caller
from dataplane.blobapi.message import FileBody, Request, Response
from dataplane.blobapi.operations import OperationSpec
from dataplane.ipc.series import series_key
from dataplane.server import access, refusals
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


class Recorder:
    """Records the requests of one worker. An access line is always written for a fault of ours and a slow request."""

    def __init__(self, node: Node) -> None:
        settings = node.settings
        self._node = node
        self._sample = Sample(settings.access_sample)
        self._slow_ns = round(settings.slow_seconds * 1e9) or _NEVER_NS
        self._slow = SlowLog(self._slow_ns)

    def record(self, trace: Trace, response: Response | None, body: Body) -> None:
        """Count and log a request. Without a response the client went away first."""
        node = self._node
        if trace.waiting is not None:
            trace.settle()
        taken_ns = time.perf_counter_ns() - trace.started_ns
        status = response.status if response is not None else _CLIENT_WENT_AWAY
        observe = node.observe
        if observe is not None:
            caller = trace.caller
            key = series_key(
                trace.spec.operation if trace.spec else None, status, trace.code, caller.kind._value_ if caller else ""
            )
            observe(
                key, taken_ns, body.length or 0, _body_bytes(response), trace.queue_ns, trace.disk_ns, body.waited_ns
            )
        slow = taken_ns >= self._slow_ns
        if slow:
            operation = trace.spec.operation.name if trace.spec else ""
            spent = Spent(taken_ns, trace.queue_ns, trace.disk_ns, body.waited_ns)
            self._slow.tell(trace.request_id, operation, status, trace.code, spent)
        log = node.access_log
        if log is not None and (self._sample.chosen() or status >= _SERVER_FAULT or slow):
            log.add(self._entry(trace, status, response, body, taken_ns))

    def _entry(self, trace: Trace, status: int, response: Response | None, body: Body, taken_ns: int) -> access.Entry:
        raw, resource = trace.raw, trace.request.resource if trace.request else None
        return access.Entry(
            self._node.clock() // 100,
            trace.request_id,
            refusals.echoed_client_id(raw.headers.get("x-ms-client-request-id")) or "",
            raw.peer,
            raw.secure,
            raw.method,
            trace.spec.operation.name if trace.spec else "",
            resource.account if resource else "",
            f"/{resource.account}/{resource.container}/{resource.blob}".rstrip("/") if resource else "",
            trace.request.version if trace.request else "",
            status,
            trace.code,
            trace.caller.kind.value if trace.caller else "",
            raw.headers.get("user-agent", ""),
            body.length,
            _body_bytes(response),
            taken_ns,
            trace.queue_ns,
            trace.disk_ns,
            body.waited_ns,
        )


def _body_bytes(response: Response | None) -> int:
    if response is None:
        return 0
    return response.body.length if isinstance(response.body, FileBody) else len(response.body)
