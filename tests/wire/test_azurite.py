"""The rows of every operation that Azurite has, sent to both; every difference is one of accepted.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.blobapi.operations import Operation
from tests.clients.client_tools import missing
from tests.wire import azurite
from tests.wire.accepted import ACCEPTED, NOT_IN_AZURITE, Accepted
from tests.wire.azurite import Difference, compare
from tests.wire.matrix import rows_of
from tests.wire.player import Server
from tests.wire.rows import Row

COMPARED = [operation for operation in Operation if operation not in NOT_IN_AZURITE]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Azurite."""
    command = azurite.command()
    if command is None:
        missing("Azurite", "NOT COMPARED WITH AZURITE: run tools/test, or set BLOBEDGE_AZURITE to its azurite-blob")
    with azurite.running(command, tmp_path_factory.mktemp("azurite")) as started:
        yield started


@pytest.fixture(scope="module")
def needed() -> set[Accepted]:
    """The entries of the table that some difference needed."""
    return set()


def comparable(row: Row) -> bool:
    """Azurite reads from no source with a certificate of the test's own."""
    return "pending" not in row.given.split() and "{outside}" not in row.headers.get("x-ms-copy-source", "")


def reason_of(difference: Difference) -> Accepted | None:
    """The first entry that accepts a difference."""
    line = difference.line()
    return next((entry for entry in ACCEPTED if entry.pattern.search(line)), None)


@pytest.mark.parametrize("operation", COMPARED, ids=lambda operation: operation.name)
def test_every_difference_has_a_reason(
    operation: Operation, product: Server, peer: Server, needed: set[Accepted]
) -> None:
    unexplained = []
    for row in filter(comparable, rows_of(operation)):
        for difference in compare(operation, row, product, peer):
            entry = reason_of(difference)
            if entry is None:
                unexplained.append(difference.line())
            else:
                needed.add(entry)
    assert unexplained == []


def test_every_reason_is_needed(peer: Server, needed: set[Accepted], request: pytest.FixtureRequest) -> None:
    """Stands behind the others; when some of them were not selected, nothing can be said."""
    selected = [item for item in request.session.items if item.path == Path(__file__)]
    if len(selected) != len(COMPARED) + 1:
        pytest.skip("only with all operations compared in the same run")
    assert [entry.here for entry in ACCEPTED if entry not in needed] == []
