"""What the supervisor is to run, decided before it starts: addresses, workers, and each worker's settings.

Key files are read here, once; the settings of a worker hold the keys themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.config import Account, Config, CopySource
from agent.config_rules import KEY_NAMES, read_key
from agent.listen import Listen, parse_listen
from agent.supervision.sockets import Bound
from dataplane.ipc import settings as ipc


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked configuration, ready to run."""

    config: Config
    listens: tuple[Listen, ...]
    workers: int
    accounts: tuple[ipc.AccountSettings, ...]
    config_file: str = ""  # for people; "" when there is none


def plan(config: Config, config_file: str = "") -> Plan:
    """Make the plan of a configuration. Raises OSError or ValueError if a key file went away since the check."""
    return Plan(
        config,
        tuple(map(parse_listen, config.listen)),
        config.worker_count(),
        tuple(map(_account, config.accounts)),
        config_file,
    )


def worker_settings(the_plan: Plan, worker: int, bounds: Sequence[Bound], slot_fd: int) -> ipc.Settings:
    """The settings of worker number `worker`, with the numbers of the descriptors that it inherits."""
    config = the_plan.config
    return ipc.Settings(
        worker=worker,
        workers=the_plan.workers,
        slot_fd=slot_fd,
        listeners=tuple(
            _listener(bound, sock.fileno(), config)
            for bound in bounds
            for sock in bound.share(worker, the_plan.workers)
        ),
        accounts=the_plan.accounts,
        host_suffixes=tuple(config.host_suffixes),
        copy_sources=tuple(map(_copy_source, config.copy_sources)),
        copy_ca_file=config.copy_ca_file or "",
        limits=ipc.LimitSettings(**config.limits.model_dump(exclude={"memory_mib_max"})),
        access_log=config.log.access,
        access_sample=config.log.access_sample,
        slow_seconds=config.log.slow_seconds,
        log_format=config.log.format,
        log_level=config.log.level,
        drain_seconds=config.drain_seconds,
        journal_directory=journal_directory(config),
        reserve_percent=reserve_percent(config),
    )


def journal_directory(config: Config) -> str:
    """Where workers note what changed and the sidecar reads it; "" while no rule sends anything to the cloud."""
    offload = config.offload
    return f"{offload.state_directory()}/journal" if offload is not None and offload.rules else ""


def reserve_percent(config: Config) -> float:
    """From which use of a mount on writes are refused; 0 (never) while no rule sends anything to the cloud."""
    offload = config.offload
    if offload is None or not offload.rules or offload.reserve_percent >= 100:
        return 0.0
    return float(offload.reserve_percent)


def ready_urls(the_plan: Plan, bounds: Sequence[Bound]) -> list[str]:
    """The path-style URL of every account on every listener."""
    return [f"{bound.listen.url(bound.port)}/{account.name}" for bound in bounds for account in the_plan.accounts]


def _listener(bound: Bound, fd: int, config: Config) -> ipc.ListenerSettings:
    listen = bound.listen
    tls = config.tls if listen.scheme == "https" else None
    return ipc.ListenerSettings(
        fd, listen.scheme, listen.host, bound.port, tls.cert if tls else "", tls.key if tls else ""
    )


def _account(account: Account) -> ipc.AccountSettings:
    keys = []
    for name in KEY_NAMES:
        file = getattr(account, f"{name}_file")
        key = read_key(file) if file is not None else getattr(account, name)
        if key is not None:
            keys.append(key)
    return ipc.AccountSettings(
        name=account.name,
        root=account.root,
        keys=tuple(keys),
        durability=account.durability,
        records=account.records,
        containers=tuple(
            ipc.MappedContainer(
                container.name,
                container.path or "",
                container.read_only,
                container.durability or account.durability,
            )
            for container in account.containers
        ),
        host_names=tuple(account.host_names),
    )


def _copy_source(source: CopySource) -> ipc.CopySource:
    return ipc.CopySource(source.host, source.port, source.private)
