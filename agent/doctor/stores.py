"""What the file systems of the data can do, and how much room they have."""

import errno
import os
from dataclasses import dataclass
from typing import Final, Literal

from agent.doctor.findings import Finding
from dataplane.store.mount import DIRECTORY, PRIVATE
from dataplane.store.probe import Capabilities, probe, unprobed

CHECK: Final = "store"


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """One directory of data."""

    capabilities: Capabilities
    probed: bool  # False: read-only, full, or not a store yet; what is said of attributes and clones is then a guess
    free_percent: float
    free_inodes_percent: float  # 100 where the file system does not count them


def observe(path: str, *, writable: bool) -> StoreFacts:
    """Look at a directory; hangs on a hung mount. Writes a probe below `.blobedge/staging` for a moment, where nobody
    takes it for a blob, and nothing at all where that is not there yet. Raises OSError."""
    root_fd = os.open(path, DIRECTORY)
    try:
        room = os.fstatvfs(root_fd)
        staging = f"{PRIVATE}/staging"
        probed = writable and os.path.isdir(os.path.join(path, staging))
        found = _probe(root_fd, staging) if probed else None
        capabilities = found or unprobed(root_fd)
    finally:
        os.close(root_fd)
    inodes = 100 * room.f_favail / room.f_files if room.f_files else 100.0
    return StoreFacts(capabilities, found is not None, 100 * room.f_bavail / max(room.f_blocks, 1), inodes)


def _probe(root_fd: int, staging: str) -> Capabilities | None:
    """What the mount can do; None when it is too full to try, which its free space tells better."""
    fd = os.open(staging, DIRECTORY, dir_fd=root_fd)
    try:
        return probe(fd)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return None
        raise
    finally:
        os.close(fd)


def judge(
    path: str, facts: StoreFacts, *, records: Literal["auto", "xattr", "sidecar"], free_percent_min: float
) -> list[Finding]:
    """Say what the mount cannot do, and whether it fills up."""
    found = facts.capabilities
    findings = [*_room(path, facts, free_percent_min)]
    if not facts.probed:
        what = f"{path}: {found.file_system or 'unknown file system'}, not probed: read-only, full, or never served yet"
        return [*findings, Finding(CHECK, "ok", what)]
    if not found.xattr and records == "xattr":
        mend = 'records = "auto" for this account, or mount with user_xattr'
        findings.append(Finding(CHECK, "problem", f"{path}: no extended attributes, but records = xattr", mend))
    if found.refused_characters:
        what = f"{path}: the mount refuses {' '.join(found.refused_characters)} in names; they are kept escaped"
        findings.append(Finding(CHECK, "note", what, "on VAST: the view policy's NPL character set takes them"))
    abilities = (
        f"attributes {'yes' if found.xattr else 'no'}, clones {'yes' if found.reflink else 'no'}, "
        f"time stamps to {found.mtime_granularity_ns} ns"
    )
    return [*findings, Finding(CHECK, "ok", f"{path}: {found.file_system}, {abilities}")]


def _room(path: str, facts: StoreFacts, free_percent_min: float) -> list[Finding]:
    findings = []
    for what, percent, show in (
        ("space", facts.free_percent, "du -xh --max-depth=1"),
        ("inodes", facts.free_inodes_percent, "du -x --inodes --max-depth=1"),
    ):
        if percent < free_percent_min:
            said = f"{path}: {percent:.1f} % of the {what} free, {free_percent_min:g} % wanted"
            mend = f"delete blobs or enlarge the file system: {show} {path} (docs/runbooks/full-disk.md)"
            findings.append(Finding(CHECK, "problem" if percent < 1 else "warning", said, mend))
    return findings
