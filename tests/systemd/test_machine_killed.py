"""Every process of the service is killed, or stopped where it stands: it comes back, and only what has to."""

from tests.systemd.service import Service, until


def test_a_killed_worker_is_replaced_alone(service: Service) -> None:
    supervisor, workers, sidecar = service.supervisor, set(service.workers), service.sidecar
    victim = min(workers)
    service.signal("KILL", victim)
    until(lambda: len(set(service.workers) - {victim}) == len(workers), "as many workers as before")
    service.exchange("worker.txt")
    assert workers - {victim} <= set(service.workers)
    assert (service.supervisor, service.sidecar) == (supervisor, sidecar)


def test_a_killed_sidecar_is_replaced_alone(service: Service) -> None:
    supervisor, workers, sidecar = service.supervisor, service.workers, service.sidecar
    service.signal("KILL", sidecar)
    until(lambda: service.sidecar not in ("", sidecar), "a new sidecar")
    service.exchange("sidecar.txt")
    assert (service.supervisor, service.workers) == (supervisor, workers)


def test_a_killed_supervisor_is_replaced_with_all_its_children(service: Service) -> None:
    former, supervisor, restarts = service.processes, service.supervisor, int(service.shown("NRestarts"))
    service.signal("KILL", supervisor)
    until(lambda: service.supervisor not in ("0", supervisor), "a new supervisor")
    service.exchange("supervisor.txt")
    assert service.gone(*former)
    assert int(service.shown("NRestarts")) == restarts + 1


def test_a_stopped_supervisor_is_found_by_the_watchdog(service: Service) -> None:
    former, supervisor = service.processes, service.supervisor
    service.signal("STOP", supervisor)
    until(lambda: service.supervisor not in ("0", supervisor), "a new supervisor")
    service.exchange("watchdog.txt")
    assert service.gone(*former)
    assert "Watchdog timeout" in service.journal()


def test_a_stopped_worker_is_found_by_its_heartbeat(service: Service) -> None:
    supervisor, workers = service.supervisor, set(service.workers)
    victim = min(workers)
    service.signal("STOP", victim)
    until(lambda: service.gone(victim) and len(service.workers) == len(workers), "a worker in its place")
    service.exchange("heartbeat.txt")
    assert service.supervisor == supervisor
    assert f"(pid {victim}): no heartbeat for" in service.journal()
