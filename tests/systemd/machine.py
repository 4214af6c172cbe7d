"""A machine of its own for a test: a small Debian with systemd as PID 1, in fresh namespaces, on a throw-away overlay.

Guarantees: nothing that happens in it reaches the host's files, processes or network (it has a loopback and nothing
else), and leaving the context ends all of it, as the kernel kills a PID namespace with its first process. The Debian
tree is made once with mmdebstrap and kept in .cache.

Rejected: systemd-nspawn, which wants to register with the host's own systemd; containers, which need a daemon; a
virtual machine, which takes a minute to boot.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = CHECKOUT / ".cache" / "systemd"
TREE: Final = CACHE / "root"
PACKAGES: Final = "systemd,systemd-sysv,dbus,python3,iproute2,procps"
SUITE: Final = "bookworm"
PYTHON: Final = (3, 11)  # the suite's; a bundle is for the Python that made it
CGROUPS: Final = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
NAMESPACES: Final = (
    *("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"),
    *("--fork", "--kill-child", "--propagation", "private"),
)
BOOT_SECONDS_MAX: Final = 30.0
COMMAND_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.02


def why_not() -> str | None:
    """The reason why no machine can be had here, None if one can."""
    if os.geteuid() != 0:
        return "systemd as PID 1 in a namespace needs root"
    if sys.version_info[:2] != PYTHON:
        return f"the machine has Python {PYTHON[0]}.{PYTHON[1]}, and a bundle made here is for another"
    cgroup = _cgroup()
    if cgroup is None or not os.access(cgroup, os.W_OK):
        return "there is no cgroup2 hierarchy that can be written, to boot systemd in"
    tried = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"no namespaces can be made here: {tried.stderr.strip()}"
    if not TREE.is_dir() and shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed: apt-get install mmdebstrap"
    return None


def make_tree() -> None:
    """Make the Debian tree, unless it is there. Raises CalledProcessError when Debian's archive cannot be reached."""
    if TREE.is_dir():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        unfinished = Path(place) / "root"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(unfinished)]
        subprocess.run(command, check=True, timeout=600)
        unfinished.rename(TREE)


def _cgroup() -> Path | None:
    return next((path for path in CGROUPS if (path / "cgroup.procs").exists()), None)


class Machine:
    """A booted machine. `pid` is its PID 1 as the host sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside; AssertionError with what it said when it fails and `check` is set."""
        inside = ["nsenter", "--all", f"--target={self.pid}", "--root", "--wdns=/", "env", "-i"]
        inside += ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def says(self, *command: str) -> str:
        """What a command prints on standard output, whether it succeeds or not."""
        return self.run(*command, check=False).stdout.strip()

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.says("systemctl", "show", "--value", f"--property={name}", unit)

    def in_network(self, *command: str) -> list[str]:
        """The command line that runs a program of the host with this machine's network."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def path(self, inside: str) -> Path:
        """A file of the machine, as the host reaches it."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")


@contextmanager
def booted(shared: Path) -> Iterator[Machine]:
    """A machine that is up; sees `shared` as /mnt/shared. Raises AssertionError when it does not come up."""
    parent = _cgroup()
    assert parent is not None
    cgroup = Path(tempfile.mkdtemp(prefix="blobedge-test-", dir=parent))
    with tempfile.TemporaryDirectory(prefix="blobedge-machine-") as scratch:
        script = ["sh", str(CHECKOUT / "tests/systemd/boot.sh"), str(TREE), scratch, str(shared)]
        # A shell moves itself into the cgroup first: the cgroup namespace begins where its maker is.
        enter = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup)]
        unshare = subprocess.Popen([*enter, "unshare", *NAMESPACES, *script])
        try:
            yield Machine(_wait_up(unshare))
        finally:
            unshare.kill()
            unshare.wait()
            _remove(cgroup)


def _wait_up(unshare: subprocess.Popen[bytes]) -> int:
    """The machine's PID 1, once systemd says that it has started everything."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    state = ""
    for _ in _polls(BOOT_SECONDS_MAX):
        assert unshare.poll() is None, "the machine's first process ended"
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                state = Machine(int(child)).says("systemctl", "is-system-running")
                if state in ("running", "degraded"):
                    return int(child)
    raise AssertionError(f"systemd did not come up within {BOOT_SECONDS_MAX} s: {state!r}")


def _polls(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(POLL_SECONDS)


def _remove(cgroup: Path) -> None:
    """Remove the cgroups that the machine made, leaves first; the kernel empties them a moment after the kill."""
    for _ in _polls(5.0):
        try:
            for directory, _, _ in os.walk(cgroup, topdown=False):
                os.rmdir(directory)
        except OSError:
            continue
        return
