"""A mistake at the start, and the stop."""

import time

from tests.systemd.service import CONFIGURATION, UNIT, Service, until

EXIT_CONFIG = 78
DRAIN_SECONDS = 30.0  # drain_seconds by default


def test_a_mistake_at_the_start_is_told_and_not_tried_again(service: Service) -> None:
    service.machine.run("systemctl", "stop", UNIT)
    with service.configuration(lambda text: text.replace("listen = [", "listten = [", 1)):
        started = service.machine.run("systemctl", "start", UNIT, check=False)
        assert started.returncode != 0
        until(lambda: service.shown("ActiveState") == "failed", "failed")
        assert service.shown("ExecMainStatus") == str(EXIT_CONFIG)
        assert service.shown("NRestarts") == "0"
        assert service.shown("Result") == "exit-code"
        assert f"{CONFIGURATION}:" in service.journal()
        assert "did you mean listen?" in service.journal()
    service.machine.run("systemctl", "start", UNIT)
    service.exchange("mended.txt")


def test_a_stop_is_clean_and_within_the_drain(service: Service) -> None:
    service.exchange("before.txt")
    began = time.monotonic()
    service.machine.run("systemctl", "stop", UNIT)
    assert time.monotonic() - began < DRAIN_SECONDS
    assert (service.shown("ActiveState"), service.shown("Result")) == ("inactive", "success")
    assert service.shown("ExecMainStatus") == "0"
    assert service.processes == set()
    service.machine.run("systemctl", "start", UNIT)
    service.exchange("after.txt")
