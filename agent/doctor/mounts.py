"""The mounts that hold the data, against what VAST and nfs(5) advise.

/proc/self/mountinfo is read, not `mount`: it shows what the kernel does, which is not always what fstab asked for, and
reading it touches no mount, so it works while one hangs.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.doctor.findings import Finding, Status

CHECK: Final = "mounts"
NFS_TYPES: Final = frozenset({"nfs", "nfs4"})
NCONNECT_MIN: Final = 8  # VAST: 8 TCP connections for each 100 Gb/s; one alone carries about 2 GB/s
TRANSFER_BYTES_MIN: Final = 1 << 20  # rsize and wsize; Linux and VAST both negotiate 1 MiB unless told less
REMOUNT: Final = "change the options in /etc/fstab, then umount and mount: these do not change by remount"

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo. `options`: the mount's and the file system's together, "" for a bare word."""

    point: str
    root: str
    file_system: str
    source: str
    options: Mapping[str, str]


def parse_mountinfo(text: str) -> list[MountEntry]:
    """Read /proc/PID/mountinfo (proc_pid_mountinfo(5)). A line that does not read is left out."""
    entries = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if separator and len(before) >= 6 and len(after) >= 3:
            options = _options(after[2]) | _options(before[5])
            entries.append(
                MountEntry(_unescape(before[4]), _unescape(before[3]), after[0], _unescape(after[1]), options)
            )
    return entries


def _options(text: str) -> dict[str, str]:
    pairs = (option.partition("=") for option in text.split(","))
    return {name: value for name, _, value in pairs}


def _unescape(text: str) -> str:
    r"""Undo the octal escapes of space, tab, newline and backslash (\040 and the like)."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def mount_of(path: str, entries: Sequence[MountEntry]) -> MountEntry | None:
    """Return the mount that an absolute path without symbolic links is on: the longest point, the last of equals."""
    best = None
    for entry in entries:
        prefix = entry.point.rstrip("/")
        covers = path == prefix or path.startswith(prefix + "/") or entry.point == "/"
        if covers and (best is None or len(entry.point) >= len(best.point)):
            best = entry
    return best


def observe(path: str) -> MountEntry | None:
    """Return the mount of a configured directory. Follows symbolic links, so it hangs on a hung mount."""
    entries = parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    return mount_of(os.path.realpath(path), entries)


def judge(path: str, mount: MountEntry | None, *, writable: bool, vast: bool) -> list[Finding]:
    """Compare one mount with the advice. `vast`: the profile says that it is a VAST cluster's."""
    if mount is None:
        return [Finding(CHECK, "warning", f"{path}: not in mountinfo", "look at it: findmnt -T " + path)]
    findings = [
        Finding(CHECK, status, f"{path} ({mount.file_system} at {mount.point}): {what}", mend)
        for status, what, mend in _rules(mount, writable=writable, vast=vast)
    ]
    summary = f"{path}: {mount.file_system} at {mount.point} from {mount.source}, options as advised"
    return findings or [Finding(CHECK, "ok", summary)]


_Said = tuple[Status, str, str]


def _rules(mount: MountEntry, *, writable: bool, vast: bool) -> Iterator[_Said]:
    options = mount.options
    if writable and "ro" in options:
        yield (
            "problem",
            "mounted read-only",
            f"mount -o remount,rw {mount.point}; if it went read-only by itself: dmesg",
        )
    if "strictatime" in options:
        yield (
            "warning",
            "every read writes an access time",
            f"mount -o remount,noatime {mount.point}, and in /etc/fstab",
        )
    if mount.file_system in NFS_TYPES:
        for rule in (_nfs_safety, _nfs_locks, _nfs_caches, _nfs_sizes):
            yield from rule(options)
        yield from _nfs_connections(options, vast)
    else:
        yield from _local(mount)


def _nfs_safety(options: Mapping[str, str]) -> Iterator[_Said]:
    if options.keys() & {"soft", "softerr"}:
        yield "problem", "a soft mount loses writes when the server is slow (nfs(5))", f"use hard; {REMOUNT}"
    version = options.get("vers", "")
    if version in ("2", "4", "4.0"):
        yield "warning", f"NFS version {version}; VAST offers 3 and 4.1", f"use vers=3 or vers=4.1; {REMOUNT}"
    if options.get("proto", "").startswith("udp"):
        yield "problem", "NFS over UDP corrupts data at high rates (nfs(5))", f"use proto=tcp; {REMOUNT}"


def _nfs_locks(options: Mapping[str, str]) -> Iterator[_Said]:
    # mountinfo shows nolock as local_lock=all, beside the word itself on version 3.
    local = options.get("local_lock", "none")
    if "nolock" in options or local in ("all", "posix"):
        yield (
            "warning",
            "locks are this client's own: two nodes that write to this export can lose changes",
            f"leave out nolock and local_lock, unless no other node writes here; {REMOUNT}",
        )


def _nfs_caches(options: Mapping[str, str]) -> Iterator[_Said]:
    lookups = options.get("lookupcache", "all")
    if lookups == "all":
        yield (
            "warning",
            "names found missing are remembered: a blob that another node wrote is not found for up to a minute",
            f"use lookupcache=pos; {REMOUNT}",
        )
    if lookups == "none" or "noac" in options:
        yield (
            "note",
            "no attribute or name is cached: every open asks the server several times",
            f"use lookupcache=pos without noac; {REMOUNT}",
        )


def _nfs_sizes(options: Mapping[str, str]) -> Iterator[_Said]:
    for name in ("rsize", "wsize"):
        value = options.get(name, "")
        if value.isdigit() and int(value) < TRANSFER_BYTES_MIN:
            yield (
                "warning",
                f"{name}={value}: {TRANSFER_BYTES_MIN} bytes need fewer calls",
                f"leave {name} out, or use {name}={TRANSFER_BYTES_MIN}; {REMOUNT}",
            )


def _nfs_connections(options: Mapping[str, str], vast: bool) -> Iterator[_Said]:
    value = options.get("nconnect", "1")
    count = int(value) if value.isdigit() else 1
    if count < NCONNECT_MIN and not options.get("proto", "tcp").startswith("rdma"):
        yield (
            "warning" if vast else "note",
            f"{count} connection{'s' * (count > 1)} to the server; one carries about 2 GB/s",
            f"use nconnect={NCONNECT_MIN} for each 100 Gb/s of the way to it; {REMOUNT}",
        )


_LOCAL_NOTES: Final[Mapping[str, _Said]] = {
    "tmpfs": ("warning", "its content is gone after a reboot", "put the root on a disk or an NFS mount"),
    "ramfs": ("warning", "its content is gone after a reboot", "put the root on a disk or an NFS mount"),
    "overlay": (
        "warning",
        "its content goes with the container that it belongs to",
        "give the container a volume (-v /srv/blobs:/srv/blobs) and put the root there",
    ),
    "cifs": (
        "warning",
        "SMB mounts have neither the locks nor the renames that several nodes need",
        "mount the same data by NFS",
    ),
}


def _local(mount: MountEntry) -> Iterator[_Said]:
    if mount.file_system in _LOCAL_NOTES:
        yield _LOCAL_NOTES[mount.file_system]
    if "nobarrier" in mount.options or mount.options.get("barrier") == "0":
        yield (
            "problem",
            "write barriers are off: a power cut loses answered writes",
            f"leave out nobarrier and barrier=0 in /etc/fstab, then mount -o remount,barrier {mount.point}",
        )
