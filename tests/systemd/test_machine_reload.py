"""`systemctl reload` under load: a good configuration takes effect, a bad one is refused, and no request fails."""

from pathlib import Path

from tests.systemd.load import load
from tests.systemd.service import UNIT, Service, until

SECOND_PORT = "10001"


def serves(service: Service, port: str) -> bool:
    """Whether anything listens on a port of the machine."""
    return bool(service.machine.says("ss", "-Hltn", f"sport = :{port}"))


def with_second_port(text: str) -> str:
    return text.replace("10000", f'10000", "http://127.0.0.1:{SECOND_PORT}', 1)


def with_mistake(text: str) -> str:
    return text.replace("listen = [", "listten = [", 1)


def good_takes_effect(service: Service) -> None:
    supervisor, workers = service.supervisor, service.workers
    assert not serves(service, SECOND_PORT)
    with service.configuration(with_second_port):
        service.machine.run("systemctl", "reload", UNIT)
        until(lambda: service.gone(*workers), "the old workers drain")
    assert serves(service, SECOND_PORT)
    assert service.supervisor == supervisor


def bad_is_refused(service: Service) -> None:
    before = service.supervisor, service.workers, service.shown("NRestarts")
    with service.configuration(with_mistake):
        service.machine.run("systemctl", "reload", UNIT)
        until(lambda: "reload refused" in service.shown("StatusText"), "the refusal in the unit's status")
    assert "did you mean listen?" in service.shown("StatusText")
    assert service.shown("ActiveState") == "active"
    assert (service.supervisor, service.workers, service.shown("NRestarts")) == before
    assert serves(service, SECOND_PORT)


def former_comes_back(service: Service) -> None:
    service.machine.run("systemctl", "reload", UNIT)
    until(lambda: not serves(service, SECOND_PORT), "the second address is given up")
    assert "refused" not in service.shown("StatusText")


def test_reloads_under_load(service: Service, tmp_path: Path) -> None:
    with load(service, tmp_path) as running:
        for reload in (good_takes_effect, bad_is_refused, former_comes_back):
            with running.through():
                reload(service)
