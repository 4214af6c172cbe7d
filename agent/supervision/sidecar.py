"""The sidecar as the supervisor holds it: one child with the policy of a worker, and the newest of its reports.

One that is hopeless is given up and the service goes on without it: a node that cannot say how its cloud is still
serves.
"""

import logging
import sys
import time
from types import MappingProxyType
from typing import Final

import trio

from agent.config import Config
from agent.problems import OperatorError
from agent.sidecar.life import settings
from agent.supervision import policy
from agent.supervision.child import Child, Launch
from agent.supervision.slotpool import SlotPool
from agent.supervision.snapshot import ReportSnapshot
from dataplane.ipc import control

log = logging.getLogger("blobedge.supervisor")

COMMAND: Final = (sys.executable, "-P", "-m", "agent.sidecar")
STOP_SECONDS: Final = 1.0  # it has nothing to finish
#: For glibc (mallopt(3)): it holds on to what a thread has freed, in a heap for each, and after the first few megabytes
#: takes buffers out of those too. Sixteen uploads of 8 MiB left a sidecar at 141 MiB; so they leave it as it was.
MEMORY: Final = MappingProxyType(
    {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(256 << 10), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
)


class Sidecar:
    """Keeps one sidecar running in `nursery`, with the configuration of the last `begin`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.child: Child | None = None
        self._successor: Child | None = None
        self._stopping = False
        self._nursery = nursery
        self._slots = SlotPool("blobedge-sidecar")
        self._reports: dict[str, ReportSnapshot] = {}

    def begin(self, config: Config) -> None:
        """Start one; one that runs already is stopped. Reports stay until there are newer ones."""
        try:
            child = self._start(config)
        except OperatorError as error:
            log.error("sidecar: %s", error)
            return
        if self.child is not None:
            self.child.stop(STOP_SECONDS)
        self.child = child

    async def replace(self, config: Config) -> list[str]:
        """Start another one, and stop the old one when it is ready. Returns why not; then the old one goes on."""
        try:
            self._successor = child = self._start(config)
        except OperatorError as error:
            return [str(problem) for problem in error.problems]
        with trio.move_on_after(policy.START_SECONDS_MAX):
            await child.wait_serving()
        self._successor = None
        if self._stopping:
            return ["the service was stopped"]
        leaving = child
        if child.ready.is_set() and self.child is not None:
            leaving, self.child = self.child, child
        leaving.stop(STOP_SECONDS)
        return [] if self.child is child else [f"the new sidecar did not get ready ({child.last_exit or 'in time'})"]

    def _start(self, config: Config) -> Child:
        def launch(slot_fd: int) -> Launch:
            return Launch(COMMAND, settings(config, slot_fd), (), MEMORY)

        child = Child("sidecar", 0, self._slots.take(), launch, self._gave_up, self._take)
        self._nursery.start_soon(self._run, child)
        return child

    def stop(self) -> None:
        """No sidecar any more."""
        self._stopping = True
        for child in (self.child, self._successor):
            if child is not None:
                child.stop(STOP_SECONDS)

    def reports(self) -> tuple[ReportSnapshot, ...]:
        return tuple(self._reports.values())

    def close(self) -> None:
        """Let go of the slots; no sidecar runs."""
        self._slots.close()

    async def _run(self, child: Child) -> None:
        try:
            await child.run()
        finally:
            self._slots.give_back(child.slot)

    def _take(self, report: control.Report) -> None:
        self._reports[report.topic] = ReportSnapshot(report.topic, time.time(), report.document)

    def _gave_up(self, child: Child, action: policy.GiveUp) -> None:
        if child is self._successor:
            log.warning("%s: a successor cannot take over: %s", child.name, action.reason)
        else:
            log.error("%s is given up, the service goes on without it: %s", child.name, action.reason)
