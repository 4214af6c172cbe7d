"""write(2) and fsync(2) whose failures are StoreErrors, and which do all or say so."""

import os

from dataplane.store.errors import translated


def write_all(fd: int, data: bytes) -> None:
    """All of it: a single write on a nearly full disk may stop in the middle without an error."""
    view = memoryview(data)
    with translated("write"):
        while view:
            view = view[os.write(fd, view) :]


def fsync(fd: int) -> None:
    """Durable, or a StoreError. A failed one is never repeated: the kernel forgets the pages (fsync(2), NOTES)."""
    with translated("fsync"):
        os.fsync(fd)
