"""What has to be true at every moment, and what in the end. A break of it raises Broken, which names the moment."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.offload.link import Link
from agent.offload.queries import Filter
from agent.offload.rows import Row
from agent.offload.states import Hold, Residency
from tests.simulation.cloud import NODE, Cloud
from tests.simulation.edge import BUDGET_BYTES, Edge
from tests.simulation.freeing import Evicted
from tests.simulation.world import Clock, Disk, Name

ORDER_EVERY: Final = 200  # takes between two comparisons with all that is due
#: Reads of the working set that are answered from the disk while everything is read once by somebody else.
HIT_SHARE_MIN: Final = 0.6
READS_MIN: Final = 500  # less say nothing of a share


class Broken(AssertionError):
    """A guarantee does not hold."""


@dataclass(slots=True)
class Checks:
    """What the applications wrote, compared with what is there. `truth` is the content that each name has to have."""

    clock: Clock
    disk: Disk
    cloud: Cloud
    truth: dict[Name, int] = field(default_factory=dict)
    overwritten: set[Name] = field(default_factory=set)  # somebody else's is in the cloud where ours was verified
    reads: Counter[str] = field(default_factory=Counter)
    takes: int = 0
    seen_evictions: int = 0

    def took_over(self, name: Name, content: int | None) -> None:
        """cloud-wins: theirs is the blob now."""
        if content is None:
            self.truth.pop(name, None)
        else:
            self.truth[name] = content
        self.overwritten.discard(name)

    def taken(self, row: Row, edge: Edge) -> None:
        """What is taken is due, and nothing of a lower priority is due with it."""
        self.takes += 1
        self._true(row.due_at <= self.clock.ns or row.hold is not Hold.WAITING, f"{row} was taken before its time")
        if self.takes % ORDER_EVERY:
            return
        active = Filter(residencies=frozenset({Residency.QUEUED, Residency.GOING}), holds=frozenset({Hold.NONE}))
        due = edge.queue.rows(active, None, 50_000).rows
        least = min((each.priority for each in due), default=row.priority)
        self._true(row.priority <= least, f"priority {row.priority} was taken, and {least} is due")

    def after_step(self, edge: Edge) -> None:
        """Cheap enough for every step."""
        for each in edge.freed.evicted[self.seen_evictions :]:
            self._eviction(each)
        self.seen_evictions = len(edge.freed.evicted)
        day = edge.sender.pacer.day
        lives = 1 + edge.rebuilds.count(day)  # the day's sum goes with the database
        most = BUDGET_BYTES * lives + edge.told.forgotten[day]
        self._true(edge.told.sent_by_day[day] <= most, f"{edge.told.sent_by_day[day]} bytes were sent on {day}")

    def _eviction(self, each: Evicted) -> None:
        """No byte goes that the cloud does not have; offline, on the strength of what was verified."""
        if each.copy is None or each.copy.content != each.content:
            self._true(not each.asked and each.name in self.overwritten, f"{each} went, and the cloud lacks it")

    def refused(self, edge: Edge) -> None:
        """A write was: then nothing may leave the disk, or the cloud cannot be asked."""
        weather = self.cloud.weather
        faults = weather.busy_share + weather.broken_share
        if edge.sender.link.link is not Link.OFFLINE and weather.link_up and weather.credential_good and not faults:
            may_go = [each for each in edge.queue.evictable() if each.container != "shared" and each.bytes]
            self._true(not may_go, f"a write was refused, and {may_go} may be evicted")

    def fuse_held(self, names: set[Name]) -> None:
        """A mass delete: until a person has confirmed it, all copies are there."""
        gone = sum(name not in self.cloud.blobs for name in names)
        self._true(not gone, f"{gone} copies of {len(names)} that were deleted at once are gone")

    def everything(self) -> None:
        """Every blob of every application is here or, verified, in the cloud; nothing else is here."""
        self._true(self.disk.files.keys() == self.truth.keys(), "the mount has other names than were written")
        used = 0
        for name, file in self.disk.files.items():
            self._true(file.content == self.truth[name], f"{name} is another version than was written last")
            used += file.size if file.away is None else 0
            if file.away is not None and name not in self.overwritten:
                copy = self.cloud.blobs.get((name[0], file.away.name))
                self._true(copy is not None and copy.content == file.content, f"{name}: a stub without its copy")
        self._true(used == self.disk.used, "the disk's use does not add up")

    def converged(self, edge: Edge) -> None:
        """The end, after a time without faults: nothing waits, and the cloud is as the policies say."""
        self.everything()
        left = [each for each in edge.queue.counts() if each.residency in (Residency.QUEUED, Residency.GOING)]
        self._true(not left, f"the queue does not drain: {left}")
        for name, content in self.truth.items():
            if name[0] == "scratch" or name in self.overwritten:
                continue
            copy = self.cloud.blobs.get(name)
            self._true(copy is not None and copy.content == content, f"{name} in the cloud is {copy}")
        for name, content in edge.told.kept_beside.items():
            kept = self.cloud.blobs.get(name)
            self._true(kept is not None and kept.content == content, f"{name}: the loser of a conflict is gone")
        if not edge.rebuilds:  # a delete that only a lost database knew of is not propagated
            ours = {name for name, copy in self.cloud.blobs.items() if name[0] == "video" and copy.writer == NODE}
            self._true(ours <= self.truth.keys(), "a delete was not propagated")
        self._hits()

    def _hits(self) -> None:
        reads = self.reads["working set hit"] + self.reads["working set missed"]
        share = self.reads["working set hit"] / reads if reads else 1.0
        self._true(reads < READS_MIN or share >= HIT_SHARE_MIN, f"{share:.2f} of the working set's reads were hits")

    def _true(self, holds: bool, what: str) -> None:
        if not holds:
            raise Broken(f"day {self.clock.day}, {self.clock.hour:.2f} h: {what}")
