"""The shared-memory slots of the workers. A slot whose process is gone waits for the next one and keeps its totals.

Two live processes never share a slot: a worker that drains and its successor count in different ones. As a free slot is
handed out again and counts on, there are never more than there were processes at once, totals are exact over every
death, and nothing has to be added up when a process ends. Rejected: a slot for each process that ever was (leaks).
"""

import os
from dataclasses import dataclass

from agent.problems import OperatorError
from dataplane.ipc import slots
from dataplane.ipc.slots import Slot


@dataclass(frozen=True, slots=True)
class OwnedSlot:
    """A slot, and the supervisor's descriptor of it."""

    fd: int
    slot: Slot


class SlotPool:
    """Slots that are in use, and free ones with the totals of the dead."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._live: list[OwnedSlot] = []
        self._free: list[OwnedSlot] = []

    def take(self) -> OwnedSlot:
        """A slot for a process that is to be started. Raises OperatorError when the machine has no room for one."""
        owned = self._free.pop() if self._free else self._made()
        self._live.append(owned)
        return owned

    def _made(self) -> OwnedSlot:
        try:
            fd = slots.create(f"{self._name}-{len(self._live)}")
        except OSError as error:
            raise OperatorError(f"cannot start another process: {error.strerror}") from None
        return OwnedSlot(fd, Slot(fd))

    def give_back(self, owned: OwnedSlot) -> None:
        """Its process is gone for good."""
        owned.slot.begin(0)
        self._live.remove(owned)
        self._free.append(owned)

    def live_fds(self) -> tuple[int, ...]:
        return tuple(owned.fd for owned in self._live)

    def retired_fds(self) -> tuple[int, ...]:
        return tuple(owned.fd for owned in self._free)

    def close(self) -> None:
        for owned in (*self._live, *self._free):
            owned.slot.close()
            os.close(owned.fd)
