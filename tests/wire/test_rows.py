"""Every row of every operation, against the product."""

import pytest

from dataplane.blobapi.operations import Operation
from tests.wire.matrix import rows_of
from tests.wire.player import Server, check, play
from tests.wire.rows import Row

CASES = [(operation, number, row) for operation in Operation for number, row in enumerate(rows_of(operation))]


def _name(operation: Operation, number: int, row: Row) -> str:
    """What a failure is called: ASCII, as pytest writes it into files."""
    return f"{operation.name}-{number}-{row.name()}".encode("ascii", "replace").decode()


@pytest.mark.parametrize("row", [row for _, _, row in CASES], ids=[_name(*case) for case in CASES])
def test_row(product: Server, row: Row) -> None:
    answer, stage = play(product, row)
    check(row, answer, stage)
