"""Azurite beside the product: the same row to both, and how their answers differ.

Compared are status, error code and the names of the headers. Azurite is no judge (the recordings and the REST reference
are); what it is good for is to show every place where a client that was tested against it sees something else here.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataplane.blobapi.operations import Operation
from tests.durability.processes import ServerProcess
from tests.support import Answer
from tests.wire.player import SceneFailed, Server, play
from tests.wire.product import ACCOUNT, CHECKOUT, KEY
from tests.wire.rows import Row

_INSTALLED: Final = CHECKOUT / ".cache" / "npm" / "node_modules" / ".bin" / "azurite-blob"
_READY: Final = "Azurite Blob service successfully listens on "
_FLAGS: Final = ("--loose", "--skipApiVersionCheck", "--inMemoryPersistence", "--silent", "--disableTelemetry")
#: Headers of the connection, which say nothing about the Blob API.
_TRANSPORT: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "vary"})


def command() -> Path | None:
    """Azurite's command: BLOBEDGE_AZURITE, or what tools/test installs. None when there is none."""
    path = Path(os.environ.get("BLOBEDGE_AZURITE") or _INSTALLED)
    return path if path.exists() else None


@contextmanager
def running(azurite: Path, scratch: Path) -> Iterator[Server]:
    """Azurite on a port of the kernel's choice, in memory, for the length of the block."""
    argv = [str(azurite), *_FLAGS, "--blobHost", "127.0.0.1", "--blobPort", "0"]
    process = ServerProcess(argv, _READY, scratch / "azurite.log", scratch)
    try:
        yield Server("azurite", int(process.await_ready().rpartition(":")[2]), ACCOUNT, KEY)
    finally:
        process.kill_all()


@dataclass(frozen=True, slots=True)
class Difference:
    """How the answers to one row differ. `what` is `status`, or the name of a header that one of them lacks."""

    operation: Operation
    row: str
    what: str
    ours: str
    theirs: str

    def line(self) -> str:
        """For people, and for the patterns of accepted differences."""
        return f"{self.operation.name}: {self.what}: {self.ours} / {self.theirs} [{self.row}]"


def compare(operation: Operation, row: Row, ours: Server, theirs: Server) -> list[Difference]:
    """The differences for one row. A status that differs hides the headers, which follow from it."""
    here, _ = play(ours, row)
    try:
        there, _ = play(theirs, row)
    except SceneFailed as failed:
        return [Difference(operation, row.name(), "scene", "made", re.sub(r"row-\d+", "row", str(failed))[:120])]
    if _result(here) != _result(there):
        return [Difference(operation, row.name(), "status", _result(here), _result(there))]
    differences = []
    for name in sorted(set(here.headers) ^ set(there.headers)):
        if name not in _TRANSPORT:
            sent, absent = ("sent", "absent") if name in here.headers else ("absent", "sent")
            differences.append(Difference(operation, row.name(), name, sent, absent))
    return differences


def _result(answer: Answer) -> str:
    return f"{answer.status} {answer.code}".strip()
