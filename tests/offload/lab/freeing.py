"""Eviction as an operator asks for it, and what is gone from the node's disk because of it.

What was freed is read off the disk: a stub is an empty file with the sticky bit, which nothing else sets. `when` is
the moment at which the stub was made, from its ctime: everything that makes a copy safe has to have begun by then. The
moment before the command would be too strict: the node may rely on what it asks the cloud during the command.
"""

import stat
import subprocess
import sys
import time
from typing import Final

from .edge import ACCOUNT, CHECKOUT, Edge
from .oracle import Freed, versions
from .traffic import Blob

EVICT_SECONDS_MAX: Final = 120.0
_BLOCK_BYTES: Final = 512  # stat(2)
_DONE: Final = (0, 1)  # 1: some had to stay, and it said why
_TICK_SECONDS: Final = 0.01  # a ctime is of the kernel's last tick, so it may be early by one


def stubs(node: Edge, container: str) -> set[Blob]:
    """The blobs whose bytes are not on the node's disk."""
    top = node.root / container
    found = ((path, path.lstat()) for path in top.rglob("*"))
    return {
        (container, str(path.relative_to(top)))
        for path, status in found
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_size == 0
    }


def evict(node: Edge, container: str, prefix: str = "") -> list[Freed]:
    """Have what may go evicted, while nobody writes; what was freed by that. Raises AssertionError when the command
    fails."""
    before = stubs(node, container)
    command = [
        sys.executable, "-m", "agent", "evict", f"{ACCOUNT}/{container}/{prefix}", "--admin",
        f"unix:{node.scratch}/admin.sock",
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=EVICT_SECONDS_MAX, check=False)
    assert ran.returncode in _DONE, f"exit {ran.returncode}: {ran.stdout}{ran.stderr}{node.tail()}"
    with node.service() as service:
        now = versions(service, container)
    return [Freed(blob, now[blob].etag, _made(node, blob)) for blob in sorted(stubs(node, container) - before)]


def _made(node: Edge, stub: Blob) -> float:
    """When a stub was made, in seconds of time.monotonic()."""
    made = (node.root / "/".join(stub)).lstat().st_ctime
    return made - (time.time() - time.monotonic()) + _TICK_SECONDS


def allocated(node: Edge) -> int:
    """Return the bytes of disk blocks that all files of the account have, its staging included."""
    found = (path.lstat() for path in node.root.rglob("*"))
    return sum(status.st_blocks for status in found if stat.S_ISREG(status.st_mode)) * _BLOCK_BYTES
