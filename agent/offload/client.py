"""Asking the sidecar about the queue, from another process. The service's status says where the sidecar listens.

A sidecar is away for some seconds after a reload, and after it died. While its supervisor lives and has not given it
up, it is waited for, RESTART_SECONDS_MAX at most. What was sent when it went away is sent again only if it changes
nothing. Rejected: failing at once (the pin that fails in a script is the one that the next eviction needed).
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from agent.observability import client
from agent.problems import OperatorError

ASK_SECONDS_MAX: Final = 30.0
ANSWER_BYTES_MAX: Final = 64 << 20
RESTART_SECONDS_MAX: Final = 10.0  # a new sidecar answers two seconds after the old one died
RESTART_POLL_SECONDS: Final = 0.1
_FAILED: Final = "failed"  # of a process: given up (agent/supervision/policy.py)
_WAITS: Final = "waits"  # how the state begins of a queue that is about to open (agent/offload/service.py)

T = TypeVar("T")


class NotThere(Exception):
    """The service, its sidecar or its offload does not run; the text says which, and what to do."""


class _Starts(NotThere):
    """It may be there in a moment."""


class QueueClient:
    """The queue of one running service. `waits` is called when its sidecar is being started and is waited for."""

    def __init__(self, address: str, token_file: str | None, waits: Callable[[], None]) -> None:
        self._address: Final = address
        self._token_file: Final = token_file
        self._waits: Final = waits
        self._path = ""  # of the sidecar's socket; "" while it is not known

    @classmethod
    def find(
        cls, admin: str | None, token_file: str | None = None, waits: Callable[[], None] = lambda: None
    ) -> "QueueClient":
        """Ask the service at the admin address, or the one that runs here, where its queue is.

        Raises NotThere, and OperatorError when several services run or the address is none.
        """
        try:
            found = cls(client.find(admin), token_file, waits)
        except client.Unreachable as error:
            raise NotThere(str(error)) from None
        found._patiently(found._locate)
        return found

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Ask for a page. Raises NotThere, OperatorError for what the service refuses."""
        return self._ask("GET", path, query or {})

    def post(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Change something. Raises as `get`."""
        return self._ask("POST", path, query or {})

    def rows(self, query: Mapping[str, str], limit: int) -> Iterator[dict[str, Any]]:
        """The first rows of a listing, 0: all of them, a page at a time."""
        asked, left = dict(query), limit or None
        while True:
            page = self.get("/queue/rows", {**asked, "limit": str(min(left or 1_000, 1_000))})
            yield from page["rows"]
            left = None if left is None else left - len(page["rows"])
            if page["after"] is None or left == 0:
                return
            asked["after"] = page["after"]

    def entries(self, query: Mapping[str, str], limit: int) -> Iterator[dict[str, Any]]:
        """The first entries of what is on a mount (agent/offload/residency.py), 0: all of them, a page at a time."""
        asked, left = dict(query), limit or None
        while True:
            page = self.get("/residency/ls", {**asked, "limit": str(min(left or 1_000, 1_000))})
            found = page["entries"] if left is None else page["entries"][:left]
            yield from found
            left = None if left is None else left - len(found)
            if page["after"] is None or left == 0:
                return
            asked["start"] = page["after"]

    def act(self, act: str, query: Mapping[str, str], progress: Callable[[int], None]) -> int:
        """Do it to all rows that the filter lets through, a slice at a time. Returns how many were changed."""
        asked = dict(query)
        total = 0
        while True:
            done = self.post("/queue/act", {**asked, "act": act})
            total += int(done["rows"])
            progress(total)
            if done["after"] is None:
                return total
            asked["after"] = done["after"]

    def _ask(self, method: str, path: str, query: Mapping[str, str]) -> Any:
        return self._patiently(lambda: self._asked(method, path, query))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Have it done, again and again while the sidecar is being started. Raises as `ask`."""
        end: float | None = None
        while True:
            try:
                return ask()
            except _Starts:
                now = time.monotonic()
                if end is None:
                    end = now + RESTART_SECONDS_MAX
                    self._waits()
                if now >= end:
                    raise
            time.sleep(RESTART_POLL_SECONDS)

    def _locate(self) -> None:
        """Ask where the sidecar listens. Raises NotThere."""
        try:
            _, status = client.get(self._address, "/status", self._token_file)
        except client.Unreachable as error:
            raise NotThere(str(error)) from None
        sidecars = [each["state"] for each in status.get("processes", []) if each.get("role") == "sidecar"]
        if sidecars and all(state == _FAILED for state in sidecars):
            raise NotThere("the sidecar was given up: the log of the service says why; restart the service then")
        report = next((each for each in status.get("reports", []) if each.get("kind") == "offload"), None)
        if report is None:
            raise _Starts("the service has not said anything of its offload yet: its sidecar starts")
        if not report.get("configured"):
            raise NotThere("offload is off: the configuration has no [[offload.rules]] (docs/configuration.md)")
        if not report.get("socket"):
            state = str(report.get("state") or f"{_WAITS} for its sidecar")
            raise (_Starts if state.startswith(_WAITS) else NotThere)(f"the queue is not open: {state}")
        self._path = str(report["socket"])

    def _asked(self, method: str, path: str, query: Mapping[str, str]) -> Any:
        if not self._path:
            self._locate()
        connection = client.UnixConnection(self._path, ASK_SECONDS_MAX)
        try:
            connection.request(method, f"{path}?{urlencode(query, quote_via=quote)}" if query else path)
            answer = connection.getresponse()
            body = answer.read(ANSWER_BYTES_MAX)
        except PermissionError:
            raise NotThere(f"this user may not use {self._path}: use sudo, or the service's own user") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(method, error) from None
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise OperatorError(body[:500].decode(errors="replace").strip())
        return json.loads(body)

    def _no_answer(self, method: str, error: Exception) -> NotThere:
        """What to raise of a sidecar that went away: nobody heard a request that found nobody."""
        unheard = isinstance(error, ConnectionRefusedError | FileNotFoundError)
        broken = isinstance(error, ConnectionError | http.client.HTTPException) and method == "GET"
        text = f"the sidecar does not answer on {self._path} ({error}): try again in a moment"
        self._path = ""
        return (_Starts if unheard or broken else NotThere)(text)
