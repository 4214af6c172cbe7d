"""Upgrade and roll back under the load of three clients: no request fails, configuration and data stay."""

import os
import re
from pathlib import Path

from tests.systemd.conftest import NEXT_BUNDLE
from tests.systemd.load import load
from tests.systemd.service import CONFIGURATION, INSTALL, Service


def release(service: Service) -> str:
    """The version that /opt/blobedge/current leads to."""
    return os.readlink(service.machine.path("/opt/blobedge/current")).removeprefix("versions/")


def running_release(service: Service) -> str:
    """The version whose libraries the supervisor has loaded, whatever the link says."""
    loaded = service.machine.path(f"/proc/{service.supervisor}/maps").read_text()
    (name,) = set(re.findall(r"/opt/blobedge/versions/([^/]+)/", loaded))
    return str(name)


def test_upgrade_and_rollback_under_load(service: Service, tmp_path: Path) -> None:
    first, key, before = release(service), service.key, service.supervisor
    service.exchange("kept.txt")
    with service.configuration(lambda text: text + "\n# an operator's own line\n"):
        with load(service, tmp_path) as running:
            with running.through():
                service.machine.run(INSTALL, "--bundle", f"/mnt/shared/{NEXT_BUNDLE}")
                assert release(service) == running_release(service) == f"next-{first}"
            upgraded = service.supervisor
            with running.through():
                service.machine.run(INSTALL, "--rollback")
                assert release(service) == running_release(service) == first
        assert len({before, upgraded, service.supervisor}) == 3
        for expected in (f"next-{first}", first):  # to the newer one and back: the last rollback is undone by another
            service.machine.run(INSTALL, "--rollback")
            assert running_release(service) == expected
        assert "# an operator's own line" in service.machine.path(CONFIGURATION).read_text()
    assert service.key == key
    assert service.machine.path("/srv/blobedge/plant7/tested/kept.txt").read_text() == "content of kept.txt"


def test_a_release_that_refuses_the_configuration_changes_nothing(service: Service) -> None:
    before = release(service), service.supervisor
    with service.configuration(lambda text: text.replace("listen = [", "listten = [")):
        done = service.machine.run(INSTALL, "--bundle", f"/mnt/shared/{NEXT_BUNDLE}", check=False)
    assert done.returncode == 78
    assert "did you mean listen?" in done.stderr
    assert (release(service), service.supervisor) == before
