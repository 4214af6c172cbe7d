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

Root only, and only with nft, tun and Azurite (tools/test installs them): `unavailable()` says what is missing.
Nothing can leave the machine: no namespace has a default route, which is asserted before a byte is sent and again
whenever the link is healed, as a route that is gone with its device would otherwise be replaced by the default one.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.clients.client_tools import must_be_complete
from tests.wire import azurite

# tools/ is no package: its programs put it on the path, and so does who uses their parts.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))


def need() -> None:
    """Skip the running test aloud when there can be no lab; where every program has to be there, fail it instead."""
    if reason := unavailable():
        if os.geteuid() == 0 and must_be_complete(os.environ):
            pytest.fail(reason)
        pytest.skip(reason)


def unavailable() -> str | None:
    """Return why there can be no lab on this machine, or None if there can."""
    if os.geteuid() != 0:
        return "not root: network namespaces need it"
    if shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
        return "nft is not installed: apt-get install nftables"
    if azurite.command() is None:
        return "Azurite is not installed: run tools/test, or set BLOBEDGE_AZURITE to its path"
    return None
