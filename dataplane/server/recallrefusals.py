"""What a client is told when the bytes of a stub do not come, and what the log is told besides.

503 wherever trying again later may help; nothing of the cloud is named, as the sidecar's log does that.
"""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties
from dataplane.ipc.recalls import Failed

RETRY_AFTER_SECONDS: Final = 10  # the sidecar is started again within seconds

_log = logging.getLogger(__name__)


def refusal(failed: Failed) -> BlobError:
    """What a client is told when bytes do not come. 503 wherever trying again later may help."""
    make = _REFUSALS.get(failed.why)
    return make(failed) if make is not None else busy_with(failed.text, failed.retry_seconds)


def check_known(properties: BlobProperties) -> None:
    """Raises BlobError ServerBusy for a stub that has lost its record: nobody knows what it stands for."""
    if properties.remote is not None and not properties.remote.container:
        raise busy_with(
            "The blob's bytes are in the cloud, but the record of it is gone: blobedge reconcile --repair mends it."
        )


def _archived(failed: Failed) -> BlobError:
    return BlobError(ErrorCode.BLOB_ARCHIVED)


def _missing(failed: Failed) -> BlobError:
    _log.error("recall: a blob's bytes are neither here nor in the cloud: %s", failed.text)
    return BlobError(ErrorCode.INTERNAL_ERROR, message=failed.text)


_REFUSALS: Final[Mapping[str, Callable[[Failed], BlobError]]] = MappingProxyType(
    {"archived": _archived, "missing": _missing}
)


def no_sidecar() -> BlobError:
    """Nobody listens at the socket, or went away."""
    return busy_with("The blob is in the cloud, and the part of this node that brings it back does not answer now.")


def broken(reason: str) -> BlobError:
    """The sidecar broke the protocol."""
    _log.error("recall: the sidecar broke the protocol: %s", reason)
    return no_sidecar()


def busy_with(text: str, seconds: int = RETRY_AFTER_SECONDS) -> BlobError:
    """503 ServerBusy with a sentence."""
    return BlobError(ErrorCode.SERVER_BUSY, message=text, headers=(("Retry-After", str(seconds)),))
