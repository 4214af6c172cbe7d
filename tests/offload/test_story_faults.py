"""Fault cycles: trouble begins, applications work on, it ends; then the cloud has all that the node has, once. In
between all that may go is evicted: applications then meet stubs, and the judge reads everything back.

BLOBEDGE_FAULT_CYCLES sets how many (the promise is shown with 300), BLOBEDGE_FAULT_SEED changes the run.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.durability.disk import Disk, disk, unavailable
from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.cycles import LINK_TROUBLES, PROXY_TROUBLES, Trouble, deck
from tests.offload.lab.edge import Edge, edge
from tests.offload.lab.freeing import evict
from tests.offload.lab.oracle import Finding, Freed, freed_too_early
from tests.offload.lab.settling import EVERYTHING_AT_ONCE, judge, resumed, settle
from tests.offload.lab.work import Work

CONTAINER = "faults"
CYCLES = int(os.environ.get("BLOBEDGE_FAULT_CYCLES", "24"))
ACTS = 6
TROUBLE_SECONDS = 0.5  # how long each lasts at least: the time in which the node meets it
RESUME_SECONDS_MAX = 5.0
JUDGE_EVERY_CYCLES = 10
EVICT_EVERY_CYCLES = 3
CYCLE_SECONDS_MAX = 30

#: These two are of the node itself, and are dealt with below.
KILL = Trouble("sidecar SIGKILL", lambda lab: None)
POWER_CUT = Trouble("power cut", lambda lab: None)


@dataclass(slots=True)
class Site:
    """The node on its disk, what is done there, and the slowest resumption by the kind of trouble."""

    node: Edge
    disk: Disk
    work: Work
    slowest: dict[str, float]
    freed: list[Freed] = field(default_factory=list)

    def cycle(self, trouble: Trouble) -> None:
        """One trouble from its beginning to the end of what it held up."""
        trouble.begin(self.node.lab)
        until = time.monotonic() + TROUBLE_SECONDS
        with self.node.service() as service:
            self.work.some(service, ACTS)
        if trouble is KILL:
            self.node.kill_sidecar()
        elif trouble is POWER_CUT:
            self.lose_power()
        time.sleep(max(0.0, until - time.monotonic()))
        self.node.lab.heal()
        if trouble.name.startswith("403"):
            self.node.renew_key()  # what an operator does
        healed = time.monotonic()
        settled = settle(self.node, CONTAINER, self.work.unseen, deletes=False)  # they wait for the fuse
        seconds = resumed(self.node, healed)
        print(f"{trouble.name}: resumed after {seconds} s, settled after {settled:.1f} s")
        if seconds is not None:
            self.slowest[trouble.name] = max(seconds, self.slowest.get(trouble.name, 0.0))

    def evict(self) -> None:
        """Free what may go."""
        freed = evict(self.node, CONTAINER)
        self.freed += freed
        print(f"{len(freed)} evicted")

    def judge(self) -> list[Finding]:
        """All that is wrong. Reads all blobs, so that none is a stub afterwards."""
        traffic = self.node.lab.proxy.traffic
        return [*judge(self.node, CONTAINER, self.work.ledger), *freed_too_early(self.freed, traffic)]

    def lose_power(self) -> None:
        """What the disk had not got is gone, and with it every process; then the machine starts again."""
        self.disk.cut_power()
        self.node.kill()
        self.disk.detach()
        self.disk.attach()
        self.node.boot_anew()
        self.node.start()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    need()
    if reason := unavailable():
        pytest.skip(f"NO POWER CUTS ON THIS MACHINE: {reason}")
    seed = int(os.environ.get("BLOBEDGE_FAULT_SEED", "4"))
    print(f"BLOBEDGE_FAULT_SEED={seed}")
    with (
        disk("ext4", tmp_path) as power,
        lab(tmp_path, seed) as made,
        edge(made, tmp_path, EVERYTHING_AT_ONCE, power.mount) as node,
    ):
        node.make_container(CONTAINER)
        yield Site(node, power, Work(random.Random(seed), CONTAINER, node.root), {})
        made.proxy.traffic.write(tmp_path / "traffic.jsonl")


@pytest.mark.timeout(120 + CYCLES * CYCLE_SECONDS_MAX)
def test_everything_arrives_once_whatever_fails(site: Site) -> None:
    troubles = (*LINK_TROUBLES, *PROXY_TROUBLES, KILL, POWER_CUT)
    for number, trouble in enumerate(deck(site.node.lab.proxy.seed, CYCLES, troubles)):
        site.cycle(trouble)
        if number % JUDGE_EVERY_CYCLES == 0:
            site.work.copy_file(f"cp/{number}.txt")
            settle(site.node, CONTAINER)
            assert site.judge() == [], f"after cycle {number}, {trouble.name}"
        if number % EVICT_EVERY_CYCLES == 0:
            site.evict()
    settle(site.node, CONTAINER)
    assert site.judge() == []
    # What had to start again first is told above, and not asserted: how long a start takes is this machine's affair.
    healed = {name: each for name, each in site.slowest.items() if name not in (KILL.name, POWER_CUT.name)}
    assert max(healed.values(), default=0.0) <= RESUME_SECONDS_MAX, healed
