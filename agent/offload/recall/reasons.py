"""Why bytes do not come, as the reader is told: one place for the sentences, and for what a failure becomes. Pure.

The sentences go to clients of the endpoint, so they name nothing of the cloud: the sidecar's log does.
"""

import errno
import math
from types import MappingProxyType
from typing import Final

from agent.offload.failures import CloudFailed, Kind
from agent.offload.recall.fetch import OtherContent
from dataplane.blobapi.errors import BlobError
from dataplane.ipc.recalls import Failed, Why
from dataplane.store.errors import FormatTooNew, NameNotStorable, NoSpace, NotEvictable, StoreError

_TEXTS: Final = MappingProxyType({
    "offline": "The bytes of this blob are in the cloud, and there is no way to the cloud now.",
    "archived": "The bytes of this blob are in the archive tier of the cloud: it has to be rehydrated there first.",
    "missing": "The bytes of this blob were moved to the cloud, and are not there any more as they were.",
    "space": "The bytes of this blob are in the cloud, and there is no room for them here now.",
    "changed": "The blob was changed meanwhile.",
    "failed": "The bytes of this blob are in the cloud, and cannot be had from there now.",
})  # fmt: skip
_RETRY_SECONDS: Final = MappingProxyType({"offline": 5, "changed": 1})  # probes are 3 s apart; others: RETRY_SECONDS
RETRY_SECONDS: Final = 30
_ARCHIVED: Final = frozenset({"BlobArchived", "BlobBeingRehydrated"})
_GONE: Final = frozenset({"BlobNotFound", "ContainerNotFound", "ContainerBeingDeleted"})
#: What a mount, a stub that somebody else made on it, or a configuration that has changed, may raise.
MOUNT_ERRORS: Final = (StoreError, BlobError, OSError, KeyError, FormatTooNew, NameNotStorable, NotEvictable)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class NotComing(Exception):
    """The bytes do not come. `message` is for the reader; the text is for the log; `gist`, if there is one, says to an
    operator why, in words that many blobs share."""

    def __init__(self, message: Failed, text: str = "", gist: str = "") -> None:
        super().__init__(text or message.text)
        self.message: Final = message
        self.gist: Final = gist


def not_coming(why: Why, text: str = "", retry_seconds: int = 0, gist: str = "") -> NotComing:
    """The exception of a reason. `text`: what the log says besides; `gist`: as NotComing."""
    seconds = retry_seconds or _RETRY_SECONDS.get(why, RETRY_SECONDS)
    return NotComing(Failed(why, _TEXTS[why], seconds), text, gist)


def of_cloud(failure: CloudFailed) -> NotComing:
    """What a failed download is to its readers."""
    fault = failure.fault
    if fault.code in _ARCHIVED:
        return not_coming("archived", fault.text)
    if isinstance(failure, OtherContent) or fault.code in _GONE:
        return not_coming("missing", fault.text)
    if fault.kind is Kind.LINK:
        return not_coming("offline", fault.text)
    return not_coming("failed", fault.text, math.ceil(fault.wait_seconds_min), fault.gist)


def of_mount(error: Exception) -> NotComing:
    """What a mount that does not take the bytes is to their readers."""
    full = isinstance(error, NoSpace) or (isinstance(error, OSError) and error.errno in _FULL)
    return not_coming(
        "space" if full else "failed", f"the mount: {error}", gist=f"the mount refused: {type(error).__name__}"
    )
