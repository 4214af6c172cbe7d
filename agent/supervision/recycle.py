"""Looks at the memory of each process, and has one that leaks replaced while it serves; leaks.py decides which.

A successor gets ready first, then the old process drains, so that no request is lost over it. A successor that cannot
serve changes nothing but the log. What counts is resident memory that is the process's own: pages that it shares, of
files and of the slots, are the kernel's to take back.

The figure is from /proc/PID/statm, which takes no lock of the process and therefore answers at once whatever that
does, in the event loop. Rejected: smaps_rollup and psutil's "uss" (they wait for the lock that a process holds which
maps memory or faults it in from a hung mount).
"""

import logging
import os
import time
from pathlib import Path
from typing import Final

import trio

from agent.supervision import leaks
from agent.supervision.child import Child
from agent.supervision.leaks import Ended, LeakPolicy, Look, Looked, Place, Recycle
from agent.supervision.policy import State
from agent.supervision.service import Service

log = logging.getLogger("blobedge.supervisor")

MIB: Final = 1024 * 1024
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


async def recycle_leaks(service: Service) -> None:
    """Look and recycle, until cancelled."""
    policy = LeakPolicy()
    while True:
        await trio.sleep(leaks.LOOK_SECONDS)
        for action in policy.step([looked(service)], time.monotonic()):
            problems = await service.recycle(action.place)
            policy.step([Ended()], time.monotonic())
            if not service.fleet.stopping:
                _tell(service, action, problems)


def looked(service: Service) -> Looked:
    """Look at every process that serves, and note what each holds for the snapshot."""
    draining = {child.number for child in service.fleet.draining}
    looks = []
    for child in _in_charge(service):
        if child.state is not State.RUNNING or (held := own_bytes(child.pid)) is None:
            continue
        child.memory_bytes = held
        alone = child.role == "sidecar" or child.number not in draining
        looks.append(Look(_place(child), child.pid, held, alone))
    return Looked(looks, service.config.limits.memory_mib_max * MIB, service.changing)


def own_bytes(pid: int) -> int | None:
    """The resident memory of a process that it does not share, in bytes; None when it is gone.

    proc(5), statm: the second number is the resident pages, the third those of them that are of files or shared.
    """
    try:
        fields = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:  # it ended a moment ago
        return None
    return max(0, int(fields[1]) - int(fields[2])) * PAGE_BYTES


def _in_charge(service: Service) -> list[Child]:
    """The child of every place; not those that drain, nor a successor before it takes over."""
    sidecar = service.sidecar.child
    return [*service.fleet.current, *([] if sidecar is None else [sidecar])]


def _place(child: Child) -> Place:
    return Place(child.role, child.number)


def _tell(service: Service, action: Recycle, problems: list[str]) -> None:
    """One line with the figures, in the log and for the status."""
    place = action.place
    name = f"worker {place.number}" if place.role == "worker" else place.role
    held = (
        f"pid {action.pid} held {action.memory_bytes // MIB} MiB for {action.over_seconds:.0f} s, "
        f"limits.memory_mib_max is {action.limit_bytes // MIB}"
    )
    if problems:
        text = f"{held}; it stays, as no successor serves: {problems[0]}; tried again after {action.pause_seconds:g} s"
        log.error("%s is not recycled: %s", name, text)
    else:
        text = f"{held}; pid {_pid(service, place)} serves instead, the next not within {action.pause_seconds:g} s"
        log.warning("%s is recycled: %s", name, text)
    service.note_recycle(place, not problems, text)


def _pid(service: Service, place: Place) -> int:
    """The pid of the successor; 0 if that died already."""
    return next((child.pid for child in _in_charge(service) if _place(child) == place), 0)
