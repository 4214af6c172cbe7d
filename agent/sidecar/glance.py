"""Is what was last said of the cloud still true? A TCP connection, instead of the whole way with its billed request.

The whole way (agent.doctor.cloud) is walked twice a minute; a cloud that goes away has to be known within two seconds.
A connection that is closed at once by a reset costs the cloud nothing, and a NAT on the way frees the port of a reset
connection in seconds, that of one with an orderly end only after minutes. Rejected: one idle connection that is kept
(a cut line says nothing on it), walking the whole way every second (a DNS query, a handshake and a listing each time).
"""

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from agent.config import Config
from agent.doctor.cloud import report

CONNECT_SECONDS_MAX: Final = 1.0
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, for no time; socket(7)


def cloud(config: Config, last: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a new document if the last one (agent.doctor.cloud.report) is true no more, else None.

    Blocks for CONNECT_SECONDS_MAX, and when the cloud is back for as long as the whole way takes. It connects where the
    last walk found the cloud: a change of its name's addresses is for the next walk to see.
    """
    if config.cloud is None or not last.get("addresses"):
        return None
    parts = urlsplit(config.cloud.endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reason = _unreachable(last["addresses"], port, CONNECT_SECONDS_MAX)
    if reason and last["reachable"]:
        gone = {"reachable": False, "step": "tcp", "reason": reason, "rtt_milliseconds": None, "at": time.time()}
        return {**last, **gone}
    if not reason and last["step"] == "tcp":
        return report(config.cloud)
    return None


def _unreachable(addresses: list[str], port: int, seconds: float) -> str:
    """Why none of the addresses accepts, "" if one does."""
    reason = ""
    end = time.monotonic() + seconds
    for address in addresses:
        try:
            with socket.create_connection((address, port), timeout=max(end - time.monotonic(), 0.001)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            return ""
        except TimeoutError:
            reason = f"{address} port {port} gave no answer within {seconds:g} s"
        except OSError as error:
            reason = f"{address} port {port}: {error.strerror or error}"
    return reason
