"""Asking the sidecar about the queue, from another process. The service's status says where the sidecar listens."""

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from agent.observability import client
from agent.problems import OperatorError

ASK_SECONDS_MAX: Final = 30.0
ANSWER_BYTES_MAX: Final = 64 << 20


class NotThere(Exception):
    """The service, its sidecar or its offload does not run; the text says which, and what to do."""


class QueueClient:
    """The queue of one running service."""

    def __init__(self, path: str) -> None:
        self._path: Final = path

    @classmethod
    def find(cls, admin: str | None, token_file: str | None = None) -> "QueueClient":
        """Ask the service at the admin address, or the one that runs here, where its queue is.

        Raises NotThere, and OperatorError when several services run or the address is none.
        """
        try:
            _, status = client.get(client.find(admin), "/status", token_file)
        except client.Unreachable as error:
            raise NotThere(str(error)) from None
        report = next((each for each in status.get("reports", []) if each.get("kind") == "offload"), None)
        if report is None:
            raise NotThere("the service has not said anything of its offload yet: its sidecar starts, or was given up")
        if not report.get("configured"):
            raise NotThere("offload is off: the configuration has no [[offload.rules]] (docs/configuration.md)")
        if not report.get("socket"):
            raise NotThere(f"the queue is not open: {report.get('state') or 'it starts'}")
        return cls(str(report["socket"]))

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
        connection = client.UnixConnection(self._path, ASK_SECONDS_MAX)
        try:
            connection.request(method, f"{path}?{urlencode(query, quote_via=quote)}" if query else path)
            answer = connection.getresponse()
            body = answer.read(ANSWER_BYTES_MAX)
        except PermissionError:
            raise NotThere(f"this user may not use {self._path}: use sudo, or the service's own user") from None
        except (OSError, http.client.HTTPException) as error:
            raise NotThere(f"the sidecar does not answer on {self._path} ({error}): try again in a moment") from None
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise OperatorError(body[:500].decode(errors="replace").strip())
        return json.loads(body)
