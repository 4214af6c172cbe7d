"""NFS mounts as the kernel lists them, in mountinfo of proc(5)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_OCTAL: Final = re.compile(r"\\([0-7]{3})")  # space, tab, newline and backslash in a path


@dataclass(frozen=True, slots=True)
class NfsMount:
    """One NFS mount. `device` is MAJOR:MINOR, which is also the name of its backing device in sysfs."""

    path: str
    source: str
    options: str
    device: str


def nfs_mounts(proc: Path) -> tuple[NfsMount, ...]:
    """Every NFS mount of this process' mount namespace, in the order of mounting."""
    lines = (proc / "self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return tuple(mount for line in lines if (mount := _parse(line)) is not None)


def _parse(line: str) -> NfsMount | None:
    """`36 35 0:45 / /mnt/vast rw,noatime shared:1 - nfs4 vip:/export rw,vers=4.2,...`."""
    before, _, after = line.partition(" - ")
    head, tail = before.split(" "), after.split(" ")
    if len(head) < 6 or len(tail) < 3 or tail[0] not in ("nfs", "nfs4"):
        return None
    return NfsMount(path=_plain(head[4]), source=_plain(tail[1]), options=tail[2], device=head[2])


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
