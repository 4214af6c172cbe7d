"""A file system whose power can be cut.

The shutdown ioctl of XFS and ext4 with the flag NOLOGFLUSH stops the file system at once: nothing that is
still in memory, the log included, reaches the image. After umount and mount the journal is replayed, and
what is there is what a power cut would have left. (xfsprogs, xfs_io(8) "shutdown"; ext4 has the same
ioctl under the name EXT4_IOC_SHUTDOWN.)

Rejected: killing a virtual machine (a minute a cut instead of 50 ms), dm-log-writes (not in every kernel).
Root only.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from .history import Crash

SHUTDOWN_IOCTL = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = 2
IMAGE_BYTES = 1 << 30  # mkfs.xfs refuses less than 300 MB; sparse, so only what is written costs
# mkfs.ext4 picks 1 KiB blocks for a small image, and then only 968 bytes of xattrs fit.
MKFS = {"xfs": ("mkfs.xfs", "-q"), "ext4": ("mkfs.ext4", "-q", "-b", "4096")}
FILE_SYSTEMS = tuple(MKFS)


def unavailable() -> str | None:
    """Return why this machine cannot cut a loop mount's power, or None if it can."""
    if os.geteuid() != 0:
        return "not root: loop mounts and the shutdown ioctl need it"
    if not Path("/dev/loop-control").exists():
        return "no /dev/loop-control"
    missing = [command[0] for command in MKFS.values() if shutil.which(command[0]) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class Disk:
    """A loop-mounted image at `mount`."""

    def __init__(self, kind: str, where: Path) -> None:
        self.kind = kind
        self.image = where / f"{kind}.img"
        self.mount = where / kind

    def make(self) -> None:
        """Make the file system and mount it."""
        self.mount.mkdir()
        with self.image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        run(*MKFS[self.kind], str(self.image))
        self.attach()

    def attach(self) -> None:
        """Mount; after a cut this replays the journal. The kernel frees the loop device at umount."""
        run("mount", "-o", "loop", str(self.image), str(self.mount))

    def cut_power(self) -> Crash:
        """Stop the file system now; processes that use it get EIO from here on."""
        directory = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            began_at = time.monotonic()
            fcntl.ioctl(directory, SHUTDOWN_IOCTL, struct.pack("I", NOLOGFLUSH))
            return Crash(began_at, time.monotonic())
        finally:
            os.close(directory)

    def detach(self) -> None:
        """Unmount; every process that used the mount must have ended."""
        run("umount", str(self.mount))

    def is_mounted(self) -> bool:
        """Tell whether it is mounted. os.path.ismount says no after a cut, because stat(2) answers EIO then."""
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return any(line.split()[1] == str(self.mount) for line in mounts)

    def discard(self) -> None:
        """Unmount if mounted, by force if need be, and delete the image."""
        if self.is_mounted():
            with contextlib.suppress(subprocess.CalledProcessError):
                self.detach()
        if self.is_mounted():
            run("umount", "--lazy", str(self.mount))
        self.image.unlink(missing_ok=True)


@contextlib.contextmanager
def disk(kind: str, where: Path) -> Iterator[Disk]:
    """Yield a fresh mounted disk under `where`; unmount and delete it whatever happens."""
    made = Disk(kind, where)
    try:
        made.make()
        yield made
    finally:
        made.discard()


def run(*command: str) -> None:
    """Run a command; its stderr is part of the exception's text."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
