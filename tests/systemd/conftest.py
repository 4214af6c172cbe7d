"""One bundle of this checkout for all tests; one machine with the service for those that leave it as they found it.

Every test that gets `service` finds the service up and whole, whatever the test before did to it: it waits until
systemd calls it active again. Tests that install or remove get a fresh machine.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import CHECKOUT, Machine, booted, make_tree, why_not
from tests.systemd.service import INSTALL, Service

BUNDLE = "bundle.tar.gz"
NEXT_BUNDLE = "next.tar.gz"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with tools/install, a bundle, and the same bundle under the name of a later release."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    make_tree()
    place = tmp_path_factory.mktemp("shared")
    subprocess.run([CHECKOUT / "tools/bundle", "--output", place / BUNDLE], check=True, capture_output=True)
    shutil.copytree(CHECKOUT / "tools", place / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    unpacked = place / "unpacked"
    with tarfile.open(place / BUNDLE) as bundle:
        bundle.extractall(unpacked)  # our own; `filter` came with Python 3.11.4
    (top,) = unpacked.iterdir()
    manifest = top / "MANIFEST"
    manifest.write_text(manifest.read_text().replace("release=", "release=next-", 1))
    with tarfile.open(place / NEXT_BUNDLE, "w:gz") as bundle:
        bundle.add(top, arcname=top.name)
    return place


@pytest.fixture
def machine(shared: Path) -> Iterator[Machine]:
    """A machine that is up and has nothing of blobedge."""
    with booted(shared) as machine:
        yield machine


@pytest.fixture(scope="session")
def installed(shared: Path) -> Iterator[Service]:
    """The machine that tests share, with blobedge installed from the bundle and started."""
    with booted(shared) as machine:
        machine.run(INSTALL, "--bundle", f"/mnt/shared/{BUNDLE}")
        yield Service(machine)


@pytest.fixture
def service(installed: Service) -> Service:
    """The service of the shared machine, up and whole."""
    installed.settle()
    return installed
