"""Kernel values by name: one way to read and one way to write each, whatever the kernel's interface is.

A key is a sysctl's dotted name, or names a device's value: `qdisc:eth0`, `rings:eth0`, `rps:eth0/rx-0`,
`xps:eth0/tx-0`, `read-ahead:/mnt/vast`. Device keys say the name that outlives a reboot (the mount point), never the
number that does not.
Values are text in one normal form, so that equal means equal. No program is started: files and netlink only.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.tuning import links
from agent.tuning.mounts import nfs_mounts
from agent.tuning.settings import KERNEL_QDISCS

_MASK_GROUP_DIGITS: Final = 8  # the kernel's bitmaps are written in groups of 32 bits


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the kernel's file systems and this node's files are; tests give directories of their own."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    modules: Path = Path("/lib/modules")
    state: Path = Path("/var/lib/blobedge-tune")

    @property
    def drop_in(self) -> Path:
        """The one file of sysctls that is ours; systemd-sysctl reads it at boot."""
        return self.etc / "sysctl.d" / "60-blobedge.conf"


def is_sysctl(key: str) -> bool:
    """Whether the key can stand in a file of sysctl.d(5)."""
    return ":" not in key


def read(roots: Roots, key: str) -> str | None:
    """The present value in its normal form; None if this machine has no such thing, or hides it."""
    try:
        kind, _, name = key.partition(":")
        if kind == "qdisc":
            return links.qdisc(name)
        if kind == "rings":
            return links.rings(name)
        path = _path(roots, key)
        text = path.read_text() if path is not None else None
    except OSError:
        return None
    if text is None:
        return None
    return _mask(text) if kind in ("rps", "xps") else " ".join(text.split())


def hidden(key: str) -> bool:
    """Whether a sandbox keeps this process from looking: then `read` has None, and that says nothing."""
    return key.partition(":")[0] in ("qdisc", "rings") and links.refused()


def write(roots: Roots, key: str, value: str) -> None:
    """Set a value, given in its normal form. Raises OSError with the kernel's refusal."""
    kind, _, name = key.partition(":")
    if kind == "qdisc":
        links.set_qdisc(name, value)
        return
    if kind == "rings":
        links.set_rings(name, value)
        return
    path = _path(roots, key)
    if path is None:
        raise FileNotFoundError(2, "not there any more", name)
    text = _groups(value) if kind in ("rps", "xps") else value
    # One write(2), as the kernel takes each for the whole value; the newline is what empties a list of ports.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def is_foreign(key: str, found: str) -> bool:
    """Whether somebody attached it to a device by hand: it has a handle then, and cannot be set from here."""
    return key.startswith("qdisc:") and ":" in found


def holds(key: str, found: str | None, value: str) -> bool:
    """Whether a value that was set is there. A kernel's default qdisc is whichever the kernel has by now."""
    if found is not None and key.startswith("qdisc:") and value in KERNEL_QDISCS:
        return not is_foreign(key, found)
    return found == value


def writable(roots: Roots, key: str) -> bool:
    """Whether root may write it here: some sysctls are the first network namespace's and read-only in others."""
    if not is_sysctl(key):
        return True
    try:
        return bool(_sysctl(roots, key).stat().st_mode & 0o222)
    except OSError:
        return False


def _path(roots: Roots, key: str) -> Path | None:
    kind, _, name = key.partition(":")
    if kind in ("rps", "xps"):
        nic, _, queue = name.partition("/")
        return roots.sys / "class/net" / nic / "queues" / queue / f"{kind}_cpus"
    if kind == "read-ahead":
        devices = [mount.device for mount in nfs_mounts(roots.proc) if mount.path == name]
        return roots.sys / "class/bdi" / devices[-1] / "read_ahead_kb" if devices else None
    return _sysctl(roots, key)


def _sysctl(roots: Roots, key: str) -> Path:
    return roots.proc / "sys" / key.replace(".", "/")


def _mask(text: str) -> str:
    return f"{int(text.strip().replace(',', '') or '0', 16):x}"


def _groups(mask: str) -> str:
    width = -(-len(mask) // _MASK_GROUP_DIGITS) * _MASK_GROUP_DIGITS
    digits = mask.zfill(width)
    return ",".join(digits[at : at + _MASK_GROUP_DIGITS] for at in range(0, width, _MASK_GROUP_DIGITS))
