"""What the proxy may do to a request, and to which ones: pure, decided from a seed.

A decision depends on the seed, the operation, the blob, the block and how many times this very request was made
before, and on nothing else: not on the clock, and not on what else is on its way. So a run replays from its seed
although its requests are concurrent.
"""

import fnmatch
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

UPLOADS: Final = frozenset({"PutBlob", "PutBlock", "PutBlockList"})


class Act(StrEnum):
    """What is done. The second line says what the cloud and the edge then know."""

    REFUSE = "refuse"  # an error answer; the cloud never hears of the request
    REFUSE_LATE = "refuse-late"  # the cloud did it; the edge gets an error answer
    LIE = "lie"  # a success answer, as true as it gets; the cloud never hears of the upload
    RESET_BEFORE = "reset-before"  # the connection is reset before the cloud hears of the request
    RESET_MIDDLE = "reset-middle"  # the connection is reset after half the content; the cloud got that half, or none
    RESET_AFTER = "reset-after"  # the cloud did it; the connection is reset instead of an answer
    TRUNCATE = "truncate"  # the cloud did it; the answer ends half way through its content, else after the status line
    WRONG_MD5 = "wrong-md5"  # the cloud did it; the answer names another MD5
    WRONG_ETAG = "wrong-etag"  # the cloud did it; the answer names another ETag
    SPOIL = "spoil"  # one byte of the upload is another one when it reaches the cloud


#: Acts that make no sense without content on its way up.
_UPLOADS_ONLY: Final = frozenset({Act.LIE, Act.RESET_MIDDLE, Act.SPOIL})


@dataclass(frozen=True, slots=True)
class Request:
    """What a decision is about. `part`: the block id, "" for other operations; `attempt` counts from 0."""

    operation: str
    container: str
    blob: str
    part: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Fault:
    """An act and the requests that it befalls.

    `share`: of the requests that match; `operations`: empty for all; `blobs`: a glob of names; `lasting`: the share is
    one of blobs, and such a blob meets the fault each time. `status`, `code`, `retry_after_seconds` and `detail` are
    the answer of the two REFUSE acts.
    """

    act: Act
    share: float = 1.0
    operations: frozenset[str] = frozenset()
    blobs: str = "*"
    lasting: bool = False
    status: int = 500
    code: str = "InternalError"
    retry_after_seconds: int | None = None
    detail: str = ""

    def matches(self, request: Request) -> bool:
        """Whether the fault could befall this request."""
        if self.operations and request.operation not in self.operations:
            return False
        if self.act in _UPLOADS_ONLY and request.operation not in UPLOADS:
            return False
        return fnmatch.fnmatchcase(request.blob, self.blobs)

    def only(self, share: float, *operations: str) -> "Fault":
        """The same for a share of the requests, of these operations if any are named."""
        return replace(self, share=share, operations=frozenset(operations))


INTERNAL_ERROR: Final = Fault(Act.REFUSE)
BUSY: Final = Fault(Act.REFUSE, status=503, code="ServerBusy", retry_after_seconds=1)
THROTTLED: Final = Fault(Act.REFUSE, status=429, code="TooManyRequests", retry_after_seconds=1)
DONE_BUT_500: Final = Fault(Act.REFUSE_LATE)
# As Azure words it (REST reference, "Status and error codes": AuthenticationFailed; the detail names the times).
EXPIRED_SAS: Final = Fault(
    Act.REFUSE,
    status=403,
    code="AuthenticationFailed",
    detail="Signature not valid in the specified time frame: Start [Sat, 01 Jan 2022 00:00:00 GMT] - Expiry "
    "[Sun, 02 Jan 2022 00:00:00 GMT] - Current [Mon, 03 Jan 2022 00:00:00 GMT]",
)


def decide(seed: int, faults: Sequence[Fault], request: Request) -> Fault | None:
    """Return the fault that befalls a request: the first of those that match whose dice fall so."""
    for number, fault in enumerate(faults):
        if fault.matches(request) and _dice(seed, number, fault, request) < fault.share:
            return fault
    return None


def _dice(seed: int, number: int, fault: Fault, request: Request) -> float:
    about: tuple[object, ...] = (seed, number, fault.act, request.container, request.blob)
    if not fault.lasting:
        about += (request.operation, request.part, request.attempt)
    return random.Random(repr(about)).random()
