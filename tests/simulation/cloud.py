"""A Blob service in memory: ETags, conditions, staged blocks, tiers; and everything that goes wrong with it.

Each request may find no way, an expired credential, a service that is busy, or a connection that breaks after the
service has done what was asked. The faults are judged by the real table.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent.offload.failures import CloudFailed, Observation, Request, judge
from tests.simulation.world import Name

NODE: Final = "ours"
RETRY_AFTER_SECONDS: Final = 20.0
ARCHIVE_DAYS: Final = 150


@dataclass(slots=True)
class Copy:
    """A blob of the service. `version` is the node's ETag of what it sent; `writer` is who wrote it."""

    etag: str
    content: int
    size: int
    writer: str
    version: str = ""
    written_day: int = 0
    archived: bool = False


@dataclass(slots=True)
class Weather:
    """How the way to the service and the service itself are. Shares are of requests."""

    link_up: bool = True
    credential_good: bool = True
    busy_share: float = 0.0
    broken_share: float = 0.0


@dataclass(slots=True)
class Cloud:
    """All containers together."""

    random: random.Random
    weather: Weather = field(default_factory=Weather)
    blobs: dict[Name, Copy] = field(default_factory=dict)
    staged: dict[tuple[Name, str], int] = field(default_factory=dict)  # bytes of a version that has not been committed
    requests: int = 0
    commits: int = 0
    _made: int = 0

    def ask(self, action: str, name: Name) -> Callable[[], None]:
        """A request begins. Returns what is called when the service has done it: the answer may get lost. Raises
        CloudFailed."""
        self.requests += 1
        request = Request(action, "rw", "cloud", name[0], name[1])
        if not self.weather.link_up:
            raise CloudFailed(judge(request, Observation(exception="ServiceRequestError")))
        if not self.weather.credential_good:
            raise CloudFailed(judge(request, Observation(403, "AuthenticationFailed")))
        if self.random.random() < self.weather.busy_share:
            wait = RETRY_AFTER_SECONDS if self.random.random() < 0.5 else None
            raise CloudFailed(judge(request, Observation(503, "ServerBusy", retry_after_seconds=wait)))
        lost = self.random.random() < self.weather.broken_share

        def answered() -> None:
            if lost:
                raise CloudFailed(judge(request, Observation(exception="ServiceResponseError")), maybe_done=True)

        return answered

    def head(self, name: Name) -> Copy | None:
        """Get Blob Properties. Raises CloudFailed."""
        self.ask("Get Blob Properties", name)()
        return self.blobs.get(name)

    def put(self, name: Name, condition: str, copy: Copy) -> str:
        """Commit a blob, if the service has the version `condition`, or none for "". Returns the ETag of the commit.
        Raises CloudFailed."""
        answered = self.ask("Put Blob", name)
        present = self.blobs.get(name)
        if (present.etag if present else "") != condition:
            request = Request("Put Blob", "w", "cloud", *name)
            raise CloudFailed(judge(request, Observation(412, "ConditionNotMet")))
        copy.etag = self.etag()
        self.blobs[name] = copy
        self.commits += 1
        answered()
        return copy.etag

    def delete(self, name: Name, condition: str) -> None:
        """Delete it, if it still is that version; somebody else's stays. Raises CloudFailed."""
        answered = self.ask("Delete Blob", name)
        present = self.blobs.get(name)
        if present is not None and (present.etag == condition or present.writer == NODE):
            del self.blobs[name]
        answered()

    def written_by_others(self, name: Name, content: int, size: int, day: int) -> None:
        """Somebody else writes a blob."""
        self.blobs[name] = Copy(self.etag(), content, size, "theirs", written_day=day)

    def lifecycle(self, container: str, day: int) -> int:
        """A management rule of the account moves what is old to the archive. Returns how many."""
        old = [each for name, each in self.blobs.items() if name[0] == container and not each.archived]
        moved = [each for each in old if day - each.written_day >= ARCHIVE_DAYS]
        for each in moved:
            each.archived = True
        return len(moved)

    def etag(self) -> str:
        """A new one."""
        self._made += 1
        return f"0x8D{self._made:08X}"
