"""The node: its sidecar's lives one after another, each with a new Sender and Freer over the same queue's file.

What changes on the mount is written to the journal, which outlives the sidecar; a lost database is made again from the
mount and the cloud, as the reconciliation does it.
"""

import contextlib
import random
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Final

from agent.config_offload import Offload, Rule, Window
from agent.offload.acts import Act
from agent.offload.database import Queue
from agent.offload.evict.space import Mode
from agent.offload.pace import Pacer
from agent.offload.queries import Filter
from agent.offload.rows import Adopted, Change, Copy, Read, Row, Seen
from agent.offload.rules import Rules, first_turn
from agent.offload.states import Hold, Residency
from tests.simulation.cloud import NODE, Cloud
from tests.simulation.freeing import Freed, Freer
from tests.simulation.sending import ACCOUNT, Killed, Sender, Told
from tests.simulation.world import Clock, Disk, Name

BUDGET_BYTES: Final = 1 << 30
EVICT_DAYS: Final = 21.0
KILL_SHARE: Final = 0.0005
OFFLOAD: Final = Offload(
    node="edge",
    time_zone="UTC",
    bandwidth_mbits_max=40.0,
    daily_gib_max=BUDGET_BYTES / (1 << 30),
    schedule=[
        Window(days="mon-fri", start="07:00", end="18:00", mbits=8.0),
        Window(days="sun", start="02:00", end="05:00", mbits=0.0),
    ],
    rules=[
        Rule(containers=["sensor"], upload="now", priority=100, evict="age", evict_days=EVICT_DAYS),
        Rule(containers=["models"], upload="now", priority=300, conflict="keep-both", evict="space"),
        Rule(containers=["shared"], upload="now", priority=300, conflict="cloud-wins"),
        Rule(containers=["video"], upload="idle", idle_seconds=600, priority=500, order="oldest", delete="propagate",
             delete_fuse_percent=30, evict="space"),
        Rule(containers=["scratch"], upload="never"),
    ],
)  # fmt: skip


class Edge:
    """The node of a simulation."""

    def __init__(
        self, directory: Path, clock: Clock, disk: Disk, cloud: Cloud, chance: random.Random,
        taken: Callable[[Row], None], took_over: Callable[[Name, int | None], None],
    ) -> None:  # fmt: skip
        self._path: Final = directory / "queue.db"
        self._clock: Final = clock
        self._disk: Final = disk
        self._cloud: Final = cloud
        self._random: Final = chance
        self._taken: Final = taken
        self._took_over: Final = took_over
        self.rules: Final = Rules(OFFLOAD, [ACCOUNT])
        self.rules.low_space = lambda account, container: self.freer.mode is Mode.LOW_SPACE
        self.told: Final = Told()
        self.changes: list[tuple[Name, int]] = []  # the journal
        self.reads: list[Read] = []
        self.kills = 0
        self.rebuilds: list[str] = []  # days on which the database was lost
        self.freed: Final = Freed()
        self.queue = Queue(self._path)
        self._begin()

    def _begin(self) -> None:
        """A sidecar starts over the queue that is open."""
        pacer = Pacer(OFFLOAD.weekly(), BUDGET_BYTES, UTC)
        pacer.ask(0, self._clock.seconds, self._clock.ns)
        pacer.spent = self.queue.spend(pacer.day, 0)
        self.sender = Sender(
            self._clock, self._disk, self._cloud, self.queue, self.rules, pacer, self._random, self.told,
            self._taken, self._took_over, KILL_SHARE,
        )  # fmt: skip
        self.freer = Freer(self.sender, self.freed)

    def close(self) -> None:
        """The end."""
        self.queue.close()

    def step(self, until: float) -> None:
        """The sidecar's turn until a time: journal, disk, queue. One transaction, which a kill ends early."""
        killed = False
        with self.queue.transaction(), contextlib.suppress(Killed):
            killed = True
            self._ingest()
            self.freer.look()
            self.sender.work(until)
            killed = False
        if killed:
            self.kill()

    def kill(self) -> None:
        """The sidecar ends, and another one starts."""
        self.kills += 1
        self.told.forgotten[self.sender.pacer.day] += self.sender.unspent
        self.queue.close()
        self.queue = Queue(self._path)
        self._begin()

    def lose_database(self) -> None:
        """The file of the queue is gone: another one is made from the mount and the cloud."""
        self.rebuilds.append(self.sender.pacer.day)
        self.queue.close()
        for file in self._path.parent.glob("queue.db*"):
            file.unlink()
        self.queue = Queue(self._path)
        self._begin()
        self.reconcile()

    def reconcile(self) -> None:
        """Adopt what both sides say, and have the rest looked at. With a row, what was noted counts."""
        adopted: list[Adopted] = []
        noted: list[Change] = []
        for name, file in self._disk.files.items():
            there = self._cloud.blobs.get(name)
            seen, now = Seen(file.etag, file.size, file.modified_ns), self._clock.ns
            copy = Copy(file.etag, there.etag if there else "", *name, now)
            if file.away is not None:
                adopted.append(Adopted(ACCOUNT, *name, Residency.REMOTE, seen, copy))
            elif there is not None and (there.version, there.writer) == (file.etag, NODE):
                adopted.append(Adopted(ACCOUNT, *name, Residency.COPIED, seen, copy))
            elif (turn := first_turn(self.rules, ACCOUNT, *name, file.modified_ns)) is not None:
                noted.append(Change(ACCOUNT, *name, file.modified_ns, *turn))
        with self.queue.transaction():
            self.queue.adopt(adopted)
            self.queue.note(noted)

    def make_room(self) -> None:
        """What goes on all the time: the disk is looked at, and what has to go goes."""
        with self.queue.transaction():
            self._ingest()
            self.freer.look()

    def evict_by_age(self) -> None:
        """The rule's turn that comes with time."""
        with self.queue.transaction():
            self.freer.by_age(EVICT_DAYS)

    def _ingest(self) -> None:
        changes = [
            Change(ACCOUNT, *name, when, *turn)
            for name, when in self.changes
            if (turn := first_turn(self.rules, ACCOUNT, *name, when)) is not None
        ]
        self.queue.ingest("w0-journal", self._clock.ns, changes, self.reads)
        self.changes.clear()
        self.reads.clear()

    # What people do.

    def retry(self) -> int:
        """The operator has mended something. Returns how many rows it let go on."""
        return self._act(Act.RETRY, Filter(holds=frozenset({Hold.OPERATOR, Hold.POISON})))

    def confirm_deletes(self) -> int:
        """A mass delete was meant."""
        return self._act(Act.CONFIRM, Filter(residencies=frozenset({Residency.GOING})))

    def _act(self, act: Act, wanted: Filter) -> int:
        count, after = 0, None
        while True:
            done = self.queue.act(act, wanted, after)
            count += done.rows
            if (after := done.after) is None:
                return count
