"""docs/api-coverage.md says what the wire tests know, and says it of every operation."""

import pytest

from dataplane.blobapi.operations import Operation
from tests.wire.coverage_page import PAGE, title, written


def test_the_tables_are_those_of_the_tests() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run: python -m tests.wire.coverage_page"


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.name)
def test_every_operation_is_described(operation: Operation) -> None:
    described, _, _ = PAGE.read_text().partition("## Error codes")
    assert f"| {title(operation)} |" in described
