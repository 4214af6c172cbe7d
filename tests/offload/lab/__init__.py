"""A cloud behind a bad link, and the judge of what came through.

    edge namespace                    link                  cloud namespace
    blobedge, its clients   eth0 ---- veth or delay ---- eth0   proxy ---- lo ---- Azurite

    link       the two namespaces, and what can be wrong with the way between them
    faults     what the proxy may do to a request: pure, decided from a seed
    traffic    what went through the proxy: bytes and commits per blob
    exchange   one connection of the proxy; proxy accepts them
    cloud      Azurite and the proxy before it, ready to be used
    edge       the node: the product, started in the edge namespace
    oracle     node against cloud, blob by blob
    faces      what clients see of blobs without reading them
    freeing    eviction, and what it freed
    training   processes that read everything

Root only, and only with nft and Azurite (tools/test installs them): `need()` says what is missing.
Nothing can leave the machine: no namespace has a default route, which is asserted before a byte is sent and again
whenever the link is healed, as a route that is gone with its device would otherwise be replaced by the default one.
"""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.client_tools import must_be_complete
from tests.wire import azurite

# tools/ is no package: its programs put it on the path, and so does who uses their parts.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))


def need() -> None:
    """Skip the running test aloud where there can be no lab; a program that is missing where all have to be there fails
    it instead."""
    if reason := impossible():
        pytest.skip(f"NO LAB OF OFFLOAD ON THIS MACHINE: {reason}")
    if reason := unavailable():
        if must_be_complete(os.environ):
            pytest.fail(reason)
        pytest.skip(f"NO LAB OF OFFLOAD: {reason}")


@functools.cache
def impossible() -> str | None:
    """Return why this machine, or who runs the test, cannot make namespaces; None if it can."""
    if os.geteuid() != 0:
        return "not root: network namespaces need it"
    # In a process of its own: whoever may not enter a namespace may not come back either.
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    return f"{done.stderr.strip()} (unshare: {done.returncode})" if done.returncode else None


def unavailable() -> str | None:
    """Return which program is missing, or None."""
    if shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
        return "nft is not installed: apt-get install nftables"
    if azurite.command() is None:
        return "Azurite is not installed: run tools/test, or set BLOBEDGE_AZURITE to its path"
    return None
