"""The service properties of an account, as requests need them: read from the store every time, decoded once.

Two workers serve an account, and a change by one counts for the other at once, so nothing is remembered but the decoded
form of a document that is byte for byte the same; the store knows how to notice a change cheaply.
"""

import logging
from functools import lru_cache
from typing import Final

from dataplane.blobapi import serviceproperties
from dataplane.blobapi.serviceproperties import ServiceProperties
from dataplane.server.node import Account

DECODED_ENTRIES_MAX: Final = 64

_log = logging.getLogger(__name__)


@lru_cache(maxsize=DECODED_ENTRIES_MAX)
def _decoded(document: bytes | None) -> ServiceProperties:
    """A damaged document counts as none, which allows least (no CORS rule), and is told once."""
    try:
        return serviceproperties.load(document)
    except ValueError:
        _log.error("the service properties on the mount are damaged: defaults count until they are set again")
        return ServiceProperties()


async def service_properties(account: Account) -> ServiceProperties:
    """The properties as they are now. Raises StoreError; BlobError ServerBusy, OperationTimedOut."""
    if account.store.local():
        return local_service_properties(account)
    return _decoded(await account.pools("").metadata_in_time(account.store.service_properties))


def local_service_properties(account: Account) -> ServiceProperties:
    """The same where the store is quick enough for the event loop. Raises StoreError."""
    return _decoded(account.store.service_properties())
