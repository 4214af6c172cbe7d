"""What happens to the node: a plant's applications, its network, its cloud's other users, and its people.

All of it is drawn from one seeded generator. Everything is far denser than in a real year of one node: outages of
minutes and of weeks, expired credentials, a database that is lost, a folder that is deleted by mistake.
"""

import random
from dataclasses import dataclass, field
from typing import Final

from agent.offload.fuse import FAILURE as FUSE
from agent.offload.rows import Read
from tests.simulation.checks import Checks
from tests.simulation.cloud import Cloud
from tests.simulation.edge import Edge
from tests.simulation.freeing import RESERVE_PERCENT
from tests.simulation.sending import ACCOUNT
from tests.simulation.world import Clock, Disk, Name

TICK_SECONDS: Final = 600.0
KIB, MIB = 1 << 10, 1 << 20
MODELS_COUNT: Final = 120
ZIPF: Final = 1.2
VIDEO_DAYS: Final = 60  # kept by the application; then it deletes them
SENSOR_DAYS: Final = 40
SCAN_READS: Final = 60  # of a backup, in one tick
#: Events a day.
OUTAGES: Final = 0.25
EXPIRIES: Final = 1 / 60
KILLS: Final = 1 / 5
LOST_DATABASES: Final = 1 / 120
MASS_DELETES: Final = 1 / 30
SCANS: Final = 1 / 10
OTHERS: Final = 1.0


@dataclass(slots=True)
class Life:
    """The drives, a tick at a time. `now_until` are times at which something ends."""

    random: random.Random
    clock: Clock
    disk: Disk
    cloud: Cloud
    edge: Edge
    checks: Checks
    contents: int = 0
    link_back_at: float = 0.0
    credential_at: float = 0.0
    service_well_at: float = 0.0
    people_come_at: float = 0.0
    scan: list[Name] = field(default_factory=list)
    mass_deleted: set[Name] = field(default_factory=set)
    written: dict[Name, int] = field(default_factory=dict)  # the day
    log: dict[str, int] = field(default_factory=dict)

    def tick(self) -> None:
        """Ten minutes: faults begin and end, applications write, read and delete."""
        self._faults()
        busy = self.clock.workday and 6 <= self.clock.hour < 22
        for _ in range(self._some(3.0 if busy else 0.5)):
            self._write(("sensor", f"{self.clock.day:04}/{self.random.getrandbits(24):06x}"), 2 * KIB, 64 * KIB)
        for _ in range(self._some(0.7 if busy else 0.05)):
            self._write(("video", f"{self.clock.day:04}/{self.random.getrandbits(24):06x}"), 2 * MIB, 24 * MIB)
        if self._chance(0.05 if busy else 0.0):
            self._write(("models", f"m{self.random.randrange(MODELS_COUNT):03}"), 4 * MIB, 16 * MIB)
        if self._chance(0.05 if busy else 0.0):
            self._write(("shared", f"s{self.random.randrange(30):02}"), KIB, 200 * KIB)
        if self._chance(0.05):
            self._write(("scratch", f"t{self.random.randrange(20):02}"), KIB, MIB)
        with self.edge.queue.transaction():
            self._reads(self._some(2.0 if busy else 0.2))

    def _reads(self, count: int) -> None:
        """Of the working set, and of a scan that is under way."""
        for _ in range(count):
            rank = int(self.random.paretovariate(ZIPF)) - 1
            self._read(("models", f"m{rank % MODELS_COUNT:03}"), "working set")
        for name in self.scan[:SCAN_READS]:
            self._read(name, "scan")
        del self.scan[:SCAN_READS]

    def midnight(self) -> None:
        """What is done once a day."""
        day = self.clock.day
        for name in [name for name, written in self.written.items() if self._expired(name[0], day - written)]:
            self._delete(name)
        self._note("archived", self.cloud.lifecycle("video", day))
        self.edge.evict_by_age()

    def end(self) -> None:
        """No fault any more, and the people have mended everything."""
        self.cloud.weather.link_up = self.cloud.weather.credential_good = True
        self.cloud.weather.busy_share = self.cloud.weather.broken_share = 0.0
        self.edge.sender.kill_share = 0.0

    def people(self) -> None:
        """Somebody looks at the node, and mends what waits for a person."""
        if self.mass_deleted:
            self.checks.fuse_held(self.mass_deleted)
            self._note("copies that the fuse kept until a person came", len(self.mass_deleted))
            self.mass_deleted.clear()
        if self.edge.queue.failures().get(FUSE):
            self._note("deletes confirmed", self.edge.confirm_deletes())
        self._note("rows that a person let go on", self.edge.retry())

    def _faults(self) -> None:
        now, weather, each_tick = self.clock.seconds, self.cloud.weather, TICK_SECONDS / 86_400
        if weather.link_up and self._chance(OUTAGES * each_tick):
            weather.link_up = False
            self.link_back_at = now + min(self.random.lognormvariate(8.5, 1.8), 21 * 86_400)
            self._note("outages")
        weather.link_up = weather.link_up or now >= self.link_back_at
        if weather.credential_good and self._chance(EXPIRIES * each_tick):
            weather.credential_good = False
            self.credential_at = self.people_come_at = now + self.random.uniform(1, 48) * 3_600
            self._note("credentials expired")
        weather.credential_good = weather.credential_good or now >= self.credential_at
        if now >= self.service_well_at:
            weather.busy_share = self.random.choice((0.0, 0.0, 0.0, 0.02, 0.3))
            weather.broken_share = self.random.choice((0.0, 0.0, 0.01, 0.1))
            self.service_well_at = now + self.random.uniform(0.5, 12) * 3_600
        if now >= self.people_come_at:
            self.people_come_at = now + self.random.uniform(6, 72) * 3_600
            self.people()
        self._rare(each_tick)

    def _rare(self, each_tick: float) -> None:
        if self._chance(KILLS * each_tick):
            self.edge.kill()
            self._note("kills")
        if self._chance(LOST_DATABASES * each_tick):
            self.edge.lose_database()
            self.checks.everything()
            self._note("databases lost")
        if self._chance(MASS_DELETES * each_tick):
            mine = [name for name in self.disk.files if name[0] == "video" and name in self.cloud.blobs]
            gone = self.random.sample(mine, int(len(mine) * 0.7))
            for name in gone:
                self._delete(name)
            self.mass_deleted.update(gone)
            self.people_come_at = self.clock.seconds + self.random.uniform(6, 72) * 3_600
            self._note("mass deletes")
        if self._chance(SCANS * each_tick) and not self.scan:
            self.scan = sorted(name for name in self.disk.files if name[0] != "sensor")
            self._note("scans")
        if self._chance(OTHERS * each_tick):
            self._others()

    def _others(self) -> None:
        """Somebody else writes a blob of ours in the cloud; one whose bytes only the cloud has they would destroy."""
        names = sorted(
            name for name, file in self.disk.files.items()
            if name[0] in ("models", "shared", "sensor") and file.away is None and name in self.cloud.blobs
        )  # fmt: skip
        if names:
            name = self.random.choice(names)
            self.contents += 1
            self.cloud.written_by_others(name, self.contents, 10 * KIB, self.clock.day)
            self.checks.overwritten.add(name)
            self._note("versions of others")

    def _write(self, name: Name, least: int, most: int) -> None:
        """An application writes, if there is room; else it is told so before the disk is full."""
        size = self.random.randrange(least, most)
        if self.disk.use.percent >= RESERVE_PERCENT:
            self.edge.make_room()
        if self.disk.use.percent >= RESERVE_PERCENT:
            self._note("writes refused")
            self.checks.refused(self.edge)
            return
        self.contents += 1
        self.disk.write(name, self.contents, size, self.clock.ns)
        self.checks.truth[name] = self.contents
        self.written[name] = self.clock.day
        self.edge.changes.append((name, self.clock.ns))

    def _delete(self, name: Name) -> None:
        self.disk.delete(name)
        self.checks.truth.pop(name, None)
        self.checks.overwritten.discard(name)
        self.written.pop(name, None)
        self.edge.changes.append((name, self.clock.ns))

    def _read(self, name: Name, why: str) -> None:
        file = self.disk.files.get(name)
        if file is None:
            return
        here = file.away is None
        self.checks.reads[f"{why} {'hit' if here else 'missed'}"] += 1
        if here or self.edge.freer.recall(name):
            self.edge.reads.append(Read(ACCOUNT, *name, self.clock.ns))

    def _expired(self, container: str, days: int) -> bool:
        return days > {"video": VIDEO_DAYS, "sensor": SENSOR_DAYS}.get(container, 1 << 30)

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _some(self, mean: float) -> int:
        """About so many, from 0 to twice that."""
        return int(self.random.uniform(0, 2 * mean + 1))

    def _note(self, what: str, count: int = 1) -> None:
        self.log[what] = self.log.get(what, 0) + count
