"""One handler for each operation. Every module of this package has a `HANDLERS` table; this one joins them.

The join is checked, not trusted: an operation that two modules claim stops the worker at start, and a test asserts that
none is missing, so a route without a handler cannot exist. `SYNC_HANDLERS` are second handlers for reads that can be
answered without waiting.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from dataplane.blobapi.operations import Operation
from dataplane.server.call import Handler, SyncHandler


def _join(attribute: str) -> Mapping[Operation, Any]:
    joined: dict[Operation, Any] = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        table: Mapping[Operation, Any] = getattr(module, attribute, {})
        twice = joined.keys() & table.keys()
        if twice:
            raise RuntimeError(f"{found.name}: {', '.join(sorted(op.name for op in twice))} has a handler already")
        joined |= table
    return MappingProxyType(joined)


HANDLERS: Final[Mapping[Operation, Handler]] = _join("HANDLERS")
SYNC_HANDLERS: Final[Mapping[Operation, SyncHandler]] = _join("SYNC_HANDLERS")
