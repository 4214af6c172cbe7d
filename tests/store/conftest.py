"""Stores on the file systems at hand, with both record backends: one contract."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.store.mount import RecordsOption
from dataplane.store.store import Store


@pytest.fixture(params=["xattr", "sidecar"])
def records(request: pytest.FixtureRequest) -> RecordsOption:
    """The record backend under test."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty directory for a store."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def store(root: Path, records: RecordsOption) -> Iterator[Store]:
    """An empty store."""
    before = set(os.listdir("/proc/self/fd"))
    store = Store(str(root), records=records)
    if records == "xattr" and not store.mount.capabilities.xattr:
        pytest.skip("no user xattrs on the file system of the temporary directory")

    yield store
    store.close()
    left = len(set(os.listdir("/proc/self/fd")) - before)
    assert left == 0, "a job or a read left descriptors open"
