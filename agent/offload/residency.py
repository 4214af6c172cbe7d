"""What the queue's socket answers about where bytes are: listings, and what operators evict and recall.

    GET  /residency/ls       a page of account, container, prefix; recursive=1, start, limit; without a container: those
    GET  /residency/job      how far the job of an id is
    POST /residency/evict    begin a job: put stubs in the place of what may go (account, container, prefix)
    POST /residency/recall   begin a job: bring back what is remote (the same)
    POST /residency/stop     end the job of an id; what it did stays done

Pins are acts on rows: /queue/act.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.observability.http import Handler, Refused, Response, Routes, json_response
from agent.offload import listing
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.jobs import Jobs, TooManyJobs, Work
from agent.offload.look import Stores
from agent.offload.queries import Filter
from agent.offload.rules import Rules
from dataplane.blobapi.errors import BlobError
from dataplane.store.errors import FormatTooNew, StoreError

ROWS_DEFAULT: Final = 100
ROWS_MAX: Final = 1_000

#: A piece of work for the blobs that a filter lets through.
Plan = Callable[[Filter], Work]


@dataclass(frozen=True, slots=True)
class Residency:
    """What the answers are made of. `plans`: by the last word of their page."""

    stores: Stores
    rules: Rules
    queue: AsyncQueue
    jobs: Jobs
    plans: Mapping[str, Plan]

    def routes(self) -> tuple[Routes, Routes]:
        """The pages that change nothing, and those that do."""
        begin = {f"/residency/{word}": self._begin(word, plan) for word, plan in self.plans.items()}
        return {"/residency/ls": self._ls, "/residency/job": self._job}, {**begin, "/residency/stop": self._stop}

    async def _ls(self, query: Mapping[str, str]) -> Response:
        account, container = query.get("account", ""), query.get("container", "")
        if account not in self.stores.names():
            raise Refused(404, f"this node has no account {account!r}")
        try:
            if not container:
                found = await listing.containers(self.stores, self.queue, account)
                return json_response({"entries": found, "after": None})
            place = listing.Place(account, container, query.get("prefix", ""), query.get("recursive") == "1")
            start, limit = query.get("start", ""), read_limit(query)
            page = await listing.blobs(self.stores, self.rules, self.queue, place, start, limit, time.time_ns())
        except BlobError as error:
            raise Refused(404, f"{account}/{container}: {error.message}") from None
        except (StoreError, OSError, FormatTooNew) as error:
            raise Refused(503, f"the mount of {account}/{container} fails: {error}") from None
        return json_response({"entries": page.entries, "after": page.after})

    async def _job(self, query: Mapping[str, str]) -> Response:
        job = self.jobs.find(query.get("id", ""))
        if job is None:
            raise Refused(404, "the sidecar was replaced meanwhile, and what it did stays done: run this again")
        return json_response(job.document())

    async def _stop(self, query: Mapping[str, str]) -> Response:
        self.jobs.stop(query.get("id", ""))
        return json_response({"asked": True})

    def _begin(self, word: str, plan: Plan) -> Handler:
        async def begin(query: Mapping[str, str]) -> Response:
            account, container, prefix = (query.get(each, "") for each in ("account", "container", "prefix"))
            if account not in self.stores.names():
                raise Refused(404, f"this node has no account {account!r}")
            wanted = Filter(account=account, container=container or None, prefix=prefix)
            try:
                job = self.jobs.start(f"{word} {account}/{container}/{prefix}", plan(wanted))
            except TooManyJobs as error:
                raise Refused(503, str(error)) from None
            return json_response(job.document())

        return begin


def read_limit(query: Mapping[str, str]) -> int:
    """Entries of a page. Raises Refused."""
    text = query.get("limit", str(ROWS_DEFAULT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= ROWS_MAX:
        raise Refused(400, f"limit is a number from 1 to {ROWS_MAX}")
    return int(text)
