"""A small file that is whole or as it was before, also after a power cut: written beside, synced, renamed."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replace the file by this ASCII text; it is durable on return. Raises OSError. Blocks on the disk."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
