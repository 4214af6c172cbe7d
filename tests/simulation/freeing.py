"""How the node frees its disk and brings bytes back: what evict/ and recall/ do, step by step.

The modes, the order of coldness and the verdict on each blob are the real ones.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.offload.cold import Place, place_of
from agent.offload.evict.space import Marks, Mode, bytes_to_free, next_mode
from agent.offload.evict.verdict import Heat, Way, verdict
from agent.offload.failures import CloudFailed
from agent.offload.link import Link
from agent.offload.rows import Row
from agent.offload.rules import Subject, decide
from tests.simulation.cloud import Copy
from tests.simulation.sending import ACCOUNT, LINK_BYTES_A_SECOND, REQUEST_SECONDS, Sender
from tests.simulation.world import Away, Name

MARKS: Final = Marks(low=75.0, high=85.0, low_space=92.0)
RESERVE_PERCENT: Final = 97.0
BATCH_ROWS: Final = 64


@dataclass(slots=True)
class Evicted:
    """A blob whose bytes went: what the checks look at, at that moment. `asked`: the cloud was asked just before."""

    name: Name
    content: int
    copy: Copy | None
    asked: bool


@dataclass(slots=True)
class Freed:
    """What the checks want to know, over all lives of the sidecar."""

    evicted: list[Evicted] = field(default_factory=list)
    stays: Counter[str] = field(default_factory=Counter)
    recalled: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Freer:
    """Evictions and recalls of one sidecar's life."""

    sender: Sender
    told: Freed
    mode: Mode = Mode.NORMAL

    def look(self) -> None:
        """See how full the mount is, and free what has to go."""
        self.mode = next_mode(self.mode, self.sender.disk.use, MARKS)
        wanted = bytes_to_free(self.mode, self.sender.disk.use, MARKS)
        waits = self.sender.link.link is Link.OFFLINE and self.mode is not Mode.LOW_SPACE
        if wanted and not waits:
            self._free(wanted)
            self.mode = next_mode(self.mode, self.sender.disk.use, MARKS)

    def by_age(self, unused_days: float) -> None:
        """Evict what was not used for so long, whatever room there is."""
        unused_since = self.sender.clock.ns - int(unused_days * 86_400e9)
        after: Place | None = None
        while rows := self.sender.queue.candidates(BATCH_ROWS, unused_since=unused_since, after=after):
            after = place_of(rows[-1])
            for row in rows:
                self._let_go(row)

    def _free(self, wanted: int) -> int:
        """Coldest first until so many bytes went. Returns how many did."""
        freed, after = 0, None
        while freed < wanted and (rows := self.sender.queue.candidates(BATCH_ROWS, after=after)):
            after = place_of(rows[-1])
            for row in rows:
                if freed >= wanted:
                    break
                freed += self._let_go(row)
        return freed

    def _let_go(self, row: Row) -> int:
        """Evict a row's blob, if it may be. Returns the bytes that went."""
        name = row.container, row.name
        file, now = self.sender.disk.files.get(name), self.sender.clock.ns
        if file is None or file.etag != row.copied_etag:
            return self._stay("it has changed")
        if file.away is not None:
            self.sender.queue.evicted(row)
            return 0
        subject = Subject(ACCOUNT, row.container, row.name, file.size, file.modified_ns, row.modified_ns, True)
        leaving = decide(self.sender.rules, subject, now).leaving
        heat = Heat(row.modified_ns, row.read_at, row.copied_at)
        said = verdict(leaving, heat, now, self.mode, pinned=row.pinned)
        if said.way is not Way.EVICT:
            return self._stay(said.why)
        at = row.cloud_container, row.cloud_name
        asked = self.sender.link.link is not Link.OFFLINE
        if asked:
            try:
                there = self.sender.cloud.head(at)
            except CloudFailed:
                return self._stay("the cloud was not to be asked")
            if there is None or (there.etag != row.cloud_etag and there.version != row.copied_etag):
                self.sender.queue.lost(row)
                return self._stay("the cloud does not have it as it was sent")
        elif self.mode is not Mode.LOW_SPACE:
            return self._stay("the link is down")
        self.sender.disk.evict(name, file.etag, Away(row.cloud_etag, row.cloud_name))
        self.told.evicted.append(Evicted(name, file.content, self.sender.cloud.blobs.get(at), asked))
        self.sender.queue.evicted(row)
        return file.size

    def _stay(self, why: str) -> int:
        self.told.stays[why] += 1
        return 0

    def recall(self, name: Name) -> bool:
        """A read of a stub: its bytes come, and are kept while there is room. False: 503, or another error."""
        file = self.sender.disk.files[name]
        assert file.away is not None
        if self.sender.link.link is Link.OFFLINE:
            self.told.refused["offline"] += 1
            return False
        try:
            there = self.sender.cloud.head((name[0], file.away.name))
        except CloudFailed as failed:
            self.told.refused[failed.fault.code] += 1
            return False
        if there is None or there.content != file.content:
            self.told.refused["missing"] += 1
            return False
        if there.archived:
            self.told.refused["archived"] += 1
            return False
        clock = self.sender.clock
        clock.on(clock.seconds + REQUEST_SECONDS + file.size / LINK_BYTES_A_SECOND / 10)  # others share the time
        self.told.recalled += 1
        self.mode = next_mode(self.mode, self.sender.disk.use, MARKS)
        room = self.sender.disk.used + file.size < self.sender.disk.all_bytes * RESERVE_PERCENT / 100
        if self.mode is not Mode.LOW_SPACE and room:
            self.sender.disk.bring_back(name)
            self.sender.queue.arrived(ACCOUNT, *name, file.etag)
        return True
