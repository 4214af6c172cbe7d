"""What workers that a test killed leave in memory goes with the test's directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.journal import promise


@pytest.fixture(autouse=True)
def no_promises_left(tmp_path: Path) -> Iterator[None]:
    yield
    for directory in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())):
        for path in promise.MEMORY.glob(f"{promise._prefix(directory)}*"):
            path.unlink(missing_ok=True)
