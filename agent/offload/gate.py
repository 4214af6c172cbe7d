"""What is asked before the cloud is: may anything go to this container, is there memory for it, does the fuse hold.

A fault that is true for every blob of a container (a refused credential, a container that is not there) blocks it: the
blobs after the first get the same answer without a request, until an operator retries or the credential's file changes.
An upload that does not get on, as its mount hangs, has its memory taken back (`give_back`): it holds what nobody has
filled yet, and the others must not wait for it.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import trio

from agent.offload import blocks, fuse
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.failures import CloudFailed, Fault
from agent.offload.fuse import Fuse
from agent.offload.queries import Total
from agent.offload.rows import Row
from agent.offload.states import Residency
from agent.offload.templates import Target
from agent.offload.transport import Errand

MEMORY_BYTES_MAX: Final = 24 << 20  # of contents in memory at one time: a small blob whole, a large one in pieces
LARGE_BYTES: Final = 1 << 20  # what a large one costs
COUNTS_SECONDS: Final = 2.0  # how old the totals may be that the fuse looks at
#: What the cloud says of a container, the account or the credential: true for every blob that goes there.
_OF_ALL: Final = frozenset(
    {"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation", "AuthorizationFailure",
     "AuthorizationSourceIPMismatch", "AuthorizationProtocolMismatch", "AuthorizationResourceTypeMismatch",
     "AuthorizationServiceMismatch", "KeyBasedAuthenticationNotPermitted", "ContainerNotFound", "ContainerDisabled",
     "AccountIsDisabled", "ResourceNotFound", "CredentialUnreadable", "SSLCertVerificationError",
     "ClientAuthenticationError", "CredentialUnavailableError", "AzureSigningError"}
)  # fmt: skip
_COPIES: Final = (Residency.COPIED, Residency.REMOTE)


class FuseBlown(Exception):
    """A delete has to wait for an operator; the text is for him."""


class Gate:
    """One cloud's gate. `under_way` counts what it let through and has not ended."""

    def __init__(self, queue: AsyncQueue) -> None:
        self._queue: Final = queue
        self._memory: dict[Errand, int] = {}  # what each upload may hold
        self._freed = trio.lowlevel.ParkingLot()
        self._fuses: dict[tuple[str, str], Fuse] = {}
        self._totals: list[Total] = []
        self._waiting: dict[tuple[str, str], int] = {}
        self._totals_at = float("-inf")
        self.blocked: dict[str, Fault] = {}
        self.under_way = 0

    @contextlib.asynccontextmanager
    async def upload(self, target: Target, size: int, errand: Errand) -> AsyncIterator[None]:
        """Around an upload of `size` bytes. Raises CloudFailed when nothing may go to the container."""
        cost = size if size <= blocks.SMALL_BYTES_MAX else LARGE_BYTES
        self.check(target)
        while (held := sum(self._memory.values())) and held + cost > MEMORY_BYTES_MAX:
            await self._freed.park()
            self.check(target)
        self._memory[errand] = cost
        self.under_way += 1
        try:
            yield
        except CloudFailed as failed:
            self._block(target, failed.fault)
            raise
        finally:
            self.under_way -= 1
            self.give_back(errand)

    @contextlib.asynccontextmanager
    async def delete(self, row: Row, target: Target, percent_max: float) -> AsyncIterator[None]:
        """Around a delete in the cloud. Raises CloudFailed, FuseBlown, QueueError."""
        self.check(target)
        confirmed = row.changed_at == fuse.CONFIRMED
        if not confirmed:
            await self._ask_fuse(row, percent_max)
        self.under_way += 1
        try:
            yield
        except CloudFailed as failed:
            self._block(target, failed.fault)
            raise
        finally:
            self.under_way -= 1
        if not confirmed:
            self._fuses[row.account, row.container].done(time.monotonic())

    def give_back(self, errand: Errand) -> None:
        """Count its memory as free: it ended, or it hangs."""
        if self._memory.pop(errand, 0):
            self._freed.unpark_all()

    def check(self, target: Target) -> None:
        """Raises CloudFailed when nothing may go to the container."""
        if (fault := self.blocked.get(target.container)) is not None:
            raise CloudFailed(fault)

    def _block(self, target: Target, fault: Fault) -> None:
        if fault.code in _OF_ALL:
            self.blocked.setdefault(target.container, fault)

    async def _ask_fuse(self, row: Row, percent_max: float) -> None:
        now = time.monotonic()
        if now - self._totals_at > COUNTS_SECONDS:
            self._totals, self._waiting = await self._queue(lambda queue: (queue.counts(), queue.unconfirmed()))
            self._totals_at = now
        container = row.account, row.container
        mine = (each for each in self._totals if (each.account, each.container) == container)
        copies = sum(each.blobs for each in mine if each.residency in _COPIES)
        found = self._fuses.setdefault(container, Fuse())
        if reason := found.blows(self._waiting.get(container, 0), copies, percent_max, now):
            raise FuseBlown(reason)
