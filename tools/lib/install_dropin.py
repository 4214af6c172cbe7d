"""Print the systemd drop-in that follows from a configuration: `install_dropin.py [--data] CONFIG`.

The unit alone lets the service write nowhere but to its state, talk to this machine only, and use no port below
1024; what the configuration needs beyond that is opened here, and nothing else. It runs in the environment of the
release that will read the configuration, so that both understand it alike; mistakes in it are told with their lines,
exit code 78. With --data: one data directory a line instead.

Rejected: a systemd generator, which runs at each boot before any mount, in a language that must not fail.
"""

import sys
from collections.abc import Iterator
from typing import Final

from agent.config import Config
from agent.config_load import load
from agent.listen import UnixListen, is_loopback, parse_admin, parse_listen
from agent.problems import EXIT_CONFIG, OperatorError

STOP_MARGIN_SECONDS: Final = 15.0  # from the end of the drain to the processes being gone
PRIVILEGED_PORTS_END: Final = 1024  # net.ipv4.ip_unprivileged_port_start as the kernel sets it


def data_directories(config: Config) -> list[str]:
    """Every directory that the service writes blobs to, each once, in the order of the configuration."""
    found = [account.root for account in config.accounts]
    for account in config.accounts:
        found += [c.path for c in account.containers if c.path is not None and not c.read_only]
    return list(dict.fromkeys(found))


def mounts(config: Config) -> list[str]:
    """Every directory that has to be mounted before the service starts."""
    read_only = [c.path for account in config.accounts for c in account.containers if c.path is not None]
    return list(dict.fromkeys([*data_directories(config), *read_only]))


def dropin(config: Config) -> Iterator[str]:
    """The lines of the drop-in."""
    yield "# Written by tools/install from the configuration; settings of your own belong into another file here."
    yield "[Unit]"
    yield from (f"RequiresMountsFor={quoted(path)}" for path in mounts(config))
    yield "[Service]"
    yield from (f"ReadWritePaths={quoted(path)}" for path in data_directories(config))
    yield f"TimeoutStopSec={config.drain_seconds + STOP_MARGIN_SECONDS:g}"
    local = all(is_loopback(parse_listen(text).host) for text in config.listen)
    admin = [parse_admin(text) for text in config.admin.listen or []]
    local = local and all(isinstance(listen, UnixListen) or is_loopback(listen.host) for listen in admin)
    if config.copy_sources or config.cloud is not None or not local:
        yield "# Who the clients are is not in the configuration: docs/hardening.md has how to name their networks."
        yield "IPAddressAllow=any"
    if any(0 < parse_listen(text).port < PRIVILEGED_PORTS_END for text in config.listen):
        # A capability counts in its own user namespace only, and the port belongs to the machine's.
        yield "PrivateUsers=no"
        yield "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"
        yield "AmbientCapabilities=CAP_NET_BIND_SERVICE"


def quoted(path: str) -> str:
    """A path as systemd.syntax(7) reads it: in quotes, specifiers and escapes taken literally."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def main(arguments: list[str]) -> int:
    """Exit code 0, or 78 with every mistake of the configuration on standard error."""
    only_data, path = arguments[0] == "--data", arguments[-1]
    try:
        config = load(path, files=False)
    except OperatorError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_CONFIG
    print("\n".join(data_directories(config) if only_data else dropin(config)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
