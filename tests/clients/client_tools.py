"""Find the clients under test, and decide what a missing one means.

Rule: where the run must be complete (CI, or BLOBEDGE_REQUIRE_CLIENTS=1) a missing client fails its tests;
elsewhere it skips them and the reason says how to get it. A silent skip would turn the suite green on a
machine that tested nothing.
"""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NODE_MODULES = Path(os.environ.get("BLOBEDGE_NODE_MODULES", CHECKOUT / ".cache" / "npm" / "node_modules"))
AZCOPY_IN_NODE_MODULES = Path("@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64")

# What a client process may see of our environment: enough to start, nothing that could change how it
# connects.
INHERITED_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")


def must_be_complete(environment: Mapping[str, str]) -> bool:
    """Whether a missing client is a failure rather than a skip."""
    return bool(environment.get("CI")) or environment.get("BLOBEDGE_REQUIRE_CLIENTS") == "1"


def missing(what: str, remedy: str) -> NoReturn:
    """Fail or skip the current test because a client is not installed."""
    message = f"{what} is not installed; {remedy}"
    if must_be_complete(os.environ):
        pytest.fail(message)
    pytest.skip(message)


def python_client(module: str) -> Any:
    """Import a client library of the `clients` extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing(error.name or module, "pip install -e '.[clients]' or run tools/test")


def azcopy_path() -> Path:
    """AzCopy 10, from BLOBEDGE_AZCOPY, PATH or the npm package that carries Microsoft's binary."""
    named = os.environ.get("BLOBEDGE_AZCOPY") or shutil.which("azcopy")
    path = Path(named) if named else NODE_MODULES / AZCOPY_IN_NODE_MODULES
    if not path.is_file():
        missing("AzCopy", "run tools/test, or set BLOBEDGE_AZCOPY to its path")
    if not os.access(path, os.X_OK):
        path.chmod(0o755)  # the npm package unpacks its binary without the execute bit
    if not _starts(path):
        missing("a library AzCopy needs", "apt-get install libsecret-1-0")
    return path


@functools.cache
def _starts(path: Path) -> bool:
    """AzCopy is linked against libsecret and does not start without it, whatever it is asked to do."""
    return subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0


def node_path(package: str) -> str:
    """The node executable, once `package` is known to be installed."""
    node = shutil.which("node")
    if node is None:
        missing("node", "apt-get install nodejs")
    if not (NODE_MODULES / package / "package.json").is_file():
        missing(package, "run tools/test, or set BLOBEDGE_NODE_MODULES to a node_modules directory that has it")
    return node


def rclone_path() -> str:
    """rclone, as Debian packages it."""
    rclone = shutil.which("rclone")
    if rclone is None:
        missing("rclone", "apt-get install rclone")
    return rclone


def client_environment(home: Path, **extra: str) -> dict[str, str]:
    """An environment in which a client finds no configuration, proxy or credential but ours."""
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    return {**inherited, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), **extra}
