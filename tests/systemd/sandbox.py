"""Run acts in the sandbox of a unit: the same unit under another name, with another program."""

import json
import shutil
from typing import Final

from tests.systemd import acts
from tests.systemd.machine import CHECKOUT, Machine

UNITS: Final = "/etc/systemd/system"
PLACE: Final = "/usr/local/lib/probe"
SAID: Final = "/run/probe.json"
_FILES: Final = (
    "tests/__init__.py",
    "tests/systemd/__init__.py",
    "tests/systemd/acts.py",
    "tests/systemd/forbidden_acts.py",
    "tests/systemd/needed_acts.py",
)
# What makes a program a daemon goes, what confines it stays; the runtime directory is the running service's too.
_DROP_IN: Final = f"""\
[Service]
Type=oneshot
WatchdogSec=0
Restart=no
RemainAfterExit=no
RuntimeDirectoryPreserve=yes
WorkingDirectory={PLACE}
StandardOutput=truncate:{SAID}
ExecStart=
ExecStart=/usr/bin/python3 -B -m tests.systemd.acts """
# Prefixes of the names of systemd's properties.
_CONFINING: Final = (
    "Ambient", "Bind", "Capability", "Device", "ExecPaths", "Group", "IPAddress", "Inaccessible", "Keyring",
    "LoadCredential", "LockPersonality", "MemoryDeny", "NoExec", "NoNew", "Private", "ProcSubset", "Protect",
    "ReadOnly", "ReadWrite", "RemoveIPC", "Restrict", "Root", "SecureBits", "StateDirectory", "Supplementary",
    "SystemCall", "Temporary", "UMask", "User",
)  # fmt: skip
_SCENE: Final = f"""
mkdir -p {acts.OTHER_HOME} {acts.ELSEWHERE}
chmod 777 {acts.ELSEWHERE}
echo private >{acts.OTHER_HOME}/note
echo private >{acts.OTHER_TEMPORARY}
mknod {acts.DEVICE} c 1 3
ip addr add {acts.OUTER_ADDRESS}/32 dev lo
"""


def prepare(machine: Machine) -> None:
    """Put the acts, and what they go for, on a machine that has blobedge."""
    for name in _FILES:
        target = machine.path(f"{PLACE}/{name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, target)
    machine.run("sh", "-euc", _SCENE)


def confinement(machine: Machine, unit: str) -> dict[str, str]:
    """Every property of a unit that confines its processes, as systemd has loaded it."""
    lines = machine.run("systemctl", "show", unit).stdout.splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    return {name: properties[name] for name in sorted(properties) if name.startswith(_CONFINING)}


def outcomes_inside(machine: Machine, unit: str, module: str) -> dict[str, str]:
    """What each act of a module comes to in the sandbox of `unit`."""
    name = f"probe-{unit}"
    units = machine.path(UNITS)
    shutil.copy(units / unit, units / name)
    drop_ins = units / f"{name}.d"
    drop_ins.mkdir(exist_ok=True)
    for drop_in in (units / f"{unit}.d").glob("*.conf"):
        shutil.copy(drop_in, drop_ins)
    (drop_ins / "99-probe.conf").write_text(f"{_DROP_IN}{module}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", name)
    said: dict[str, str] = json.loads(machine.path(SAID).read_text())
    return said


def outcomes_outside(machine: Machine, module: str) -> dict[str, str]:
    """What each act of a module comes to for root."""
    done = machine.run("env", "-C", PLACE, "python3", "-B", "-m", "tests.systemd.acts", module)
    said: dict[str, str] = json.loads(done.stdout)
    return said
