"""Every row of every operation, against the product."""

from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

from dataplane.blobapi.operations import Operation
from tests.wire.matrix import rows_of
from tests.wire.player import Server, check, play
from tests.wire.rows import Row


def _cases() -> Iterator[ParameterSet]:
    for operation in Operation:
        for number, row in enumerate(rows_of(operation)):
            yield pytest.param(row, id=f"{operation.name}-{number}-{row.name()}".encode("ascii", "replace").decode())


@pytest.mark.parametrize("row", list(_cases()))
def test_row(product: Server, row: Row) -> None:
    answer, stage = play(product, row)
    check(row, answer, stage)
