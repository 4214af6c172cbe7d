"""Azure Monitor's names for what we count: the ResponseType of a request, and its metrics as PromQL.

Sources: REST page "Storage Analytics logged operations and status messages" (which status message means what, which
of them is billable, and which counts for the availability), Azure Monitor's reference of Microsoft.Storage's metrics.
Rejected: counters named like Azure's metrics beside ours. They would be the same numbers twice, and Azure's averages
and percentages cannot be added over nodes; a rate of counters can.
"""

from dataclasses import dataclass
from typing import Final

SUCCESS: Final = "Success"
SERVER_FAULTS: Final = ("ServerTimeoutError", "ServerOtherError")
BUSY: Final = "ServerBusyError"
RESPONSE_TYPES: Final = (
    SUCCESS, "AuthorizationError", "ClientOtherError", "ClientTimeoutError", "NetworkError", BUSY, *SERVER_FAULTS,
)  # fmt: skip
UNKNOWN_RESPONSE: Final = "Unknown"  # of the overflow row, which has no status

_CLIENT_CLOSED: Final = 499


def response_type(status: int, error_code: str) -> str:
    """Return the ResponseType of an answer: one of RESPONSE_TYPES, or UNKNOWN_RESPONSE without a status.

    304 and 412 are ClientOtherError there, as every expected refusal is. A client that went away (499) is a
    NetworkError. InsufficientStorage is ours: a full disk is no throttling, and has to lower the availability.
    """
    if status < 100:
        return UNKNOWN_RESPONSE
    if status < 300:
        return SUCCESS
    if status == _CLIENT_CLOSED:
        return "NetworkError"
    if status in (401, 403):
        return "AuthorizationError"
    if status == 408:
        return "ClientTimeoutError"
    if status < 500 or status == 501:  # 501: the client asked for what is not served
        return "ClientOtherError"
    if error_code == "OperationTimedOut":
        return "ServerTimeoutError"
    return BUSY if status == 503 and error_code != "InsufficientStorage" else "ServerOtherError"


@dataclass(frozen=True, slots=True)
class Derived:
    """A metric of Azure Monitor, and the PromQL that gives it from ours, over `WINDOW`."""

    name: str
    unit: str
    promql: str
    remark: str


WINDOW: Final = "5m"
_FAULTS: Final = "|".join(SERVER_FAULTS)

DERIVED: Final = (
    Derived(
        "Transactions",
        "count",
        f"sum by (operation, auth, response_type) (increase(blobedge_requests_total[{WINDOW}]))",
        "operation is Azure's ApiName, auth its Authentication, response_type its ResponseType.",
    ),
    Derived(
        "Ingress",
        "bytes",
        f"sum(increase(blobedge_received_bytes_total[{WINDOW}]))",
        "Bodies only; Azure counts heads too.",
    ),
    Derived(
        "Egress",
        "bytes",
        f"sum(increase(blobedge_sent_bytes_total[{WINDOW}]))",
        "Bodies only; Azure counts heads too.",
    ),
    Derived(
        "SuccessE2ELatency",
        "milliseconds",
        f'1000 * sum(rate(blobedge_request_seconds_total{{response_type="{SUCCESS}"}}[{WINDOW}]))'
        f' / sum(rate(blobedge_requests_total{{response_type="{SUCCESS}"}}[{WINDOW}]))',
        "From the end of the head until the answer is made: sending it is not in it, which Azure's includes.",
    ),
    Derived(
        "SuccessServerLatency",
        "milliseconds",
        f'1000 * (sum(rate(blobedge_request_seconds_total{{response_type="{SUCCESS}"}}[{WINDOW}]))'
        f' - sum(rate(blobedge_request_phase_seconds_total{{response_type="{SUCCESS}",phase="send"}}[{WINDOW}])))'
        f' / sum(rate(blobedge_requests_total{{response_type="{SUCCESS}"}}[{WINDOW}]))',
        "The same without waiting for the client.",
    ),
    Derived(
        "Availability",
        "percent",
        f'100 * (1 - (sum(rate(blobedge_requests_total{{response_type=~"{_FAULTS}"}}[{WINDOW}])) or vector(0))'
        f' / sum(rate(blobedge_requests_total{{response_type!="{BUSY}"}}[{WINDOW}])))',
        f"Only {' and '.join(SERVER_FAULTS)} lower it; {BUSY} is left out, as throttling is there.",
    ),
)
