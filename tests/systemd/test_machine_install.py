"""Install from a bundle, on a machine with systemd as PID 1 and no network."""

from tests.systemd.service import DATA, UNIT, Service

ACTIVE_SECONDS_MAX = 3.0  # issue 3: from the start of the unit to its being active, as systemd measures it
STARTS_COUNT = 3


def test_a_bundle_installs_without_a_network_and_serves(service: Service) -> None:
    machine = service.machine
    assert machine.says("ip", "route") == ""
    assert machine.says("systemctl", "is-enabled", UNIT) == "enabled"
    service.exchange("first.txt")
    assert machine.path(f"{DATA}/tested/first.txt").read_text() == "content of first.txt"
    assert machine.path("/etc/blobedge/secrets/plant7.key1").stat().st_mode & 0o777 == 0o600


def start_seconds(service: Service) -> float:
    """Start the unit anew; from the start to its being active by systemd's own clock."""
    service.machine.run("systemctl", "stop", UNIT)
    service.machine.run("systemctl", "start", UNIT)
    began, active = (
        int(service.shown(f"{moment}TimestampMonotonic")) / 1e6 for moment in ("InactiveExit", "ActiveEnter")
    )
    return active - began


def test_active_within_three_seconds(service: Service) -> None:
    # The best of a few: whatever else keeps the host's cores busy is not the service's.
    starts = [start_seconds(service) for _ in range(STARTS_COUNT)]
    print("active after", ", ".join(f"{seconds:.2f} s" for seconds in starts))
    assert 0 < min(starts) <= ACTIVE_SECONDS_MAX


def test_the_processes_have_no_privilege_and_show_no_key(service: Service) -> None:
    processes, key = service.processes, service.key.encode()
    assert len(processes) >= len(["supervisor", "sidecar", "worker"])
    for pid in processes:
        process = service.machine.path(f"/proc/{pid}")
        status = process.joinpath("status").read_text()
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
            assert line in status
        for file in ("cmdline", "environ"):
            assert key not in process.joinpath(file).read_bytes()
