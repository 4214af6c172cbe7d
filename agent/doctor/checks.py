"""All checks over one configuration: what is observed side by side, in threads with a deadline, then judged in order.

A check that is late or fails is a finding itself, never the end of the others: a hung mount is what the doctor was
called for.
"""

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from agent.config import Account, Config
from agent.doctor import certificates, clock, cloud, cloud_advice, kernel, mounts, names, ports, stores, tcp, tuned
from agent.doctor.deadline import call_all
from agent.doctor.findings import Finding
from agent.listen import Listen, parse_admin, parse_listen

SECONDS_MAX: Final = 5.0  # of every check but the cloud's, which has a deadline for each step
SERVICE_MANAGER_PID: Final = 1
_CLOUD_SECONDS_MAX: Final = cloud.STEP_SECONDS_MAX * 6

#: What a check that was late says, by the first word of its key.
_LATE: Final[Mapping[str, str]] = {
    mounts.CHECK: "the mount hangs: docs/runbooks/hung-mount.md",
    stores.CHECK: "the mount hangs: docs/runbooks/hung-mount.md",
    names.CHECK: "the resolver does not answer: docs/runbooks/dns.md",
}
_FAILED: Final[Mapping[str, str]] = {
    stores.CHECK: "give the directory to the service's user, and run the doctor as that user",
    certificates.CHECK: "write PEM files that the service's user may read into [tls]",
}
_Key = tuple[str, str]  # check, and what of


@dataclass(frozen=True, slots=True)
class Data:
    """A directory that holds blobs."""

    path: str
    writable: bool
    records: Any  # "auto", "xattr", "sidecar"


def run(config: Config, *, seconds: float = SECONDS_MAX) -> list[Finding]:
    """Observe and judge everything. Takes `seconds`, or with an unreachable cloud a few times that."""
    table = tcp.observe()
    observers = dict(_observers(config, table))
    late = _CLOUD_SECONDS_MAX if config.cloud else seconds
    quick = {key: function for key, function in observers.items() if key[0] != cloud_advice.CHECK}
    results = _observed(quick, seconds) | _observed({k: f for k, f in observers.items() if k not in quick}, late)
    facts = {key: result for key, result in results.items() if not isinstance(result, Exception)}
    return [
        *(
            finding
            for key, result in results.items()
            if isinstance(result, Exception)
            for finding in _lost(key, result)
        ),
        *_judged(config, facts, table),
    ]


def _observed(functions: Mapping[_Key, Callable[[], Any]], seconds: float) -> dict[_Key, Any]:
    by_text = {"\0".join(key): function for key, function in functions.items()}
    results = call_all(by_text, seconds)
    return {key: results["\0".join(key)] for key in functions}


def _observers(config: Config, table: list[tcp.Connection]) -> Iterator[tuple[_Key, Callable[[], Any]]]:
    for listen in listens(config):
        yield (ports.CHECK, listen.url()), partial(ports.observe, listen, table)
    for name in names.configured(config):
        yield (names.CHECK, name.name), partial(names.observe, name.name)
    for data in directories(config):
        yield (mounts.CHECK, data.path), partial(mounts.observe, data.path)
        yield (stores.CHECK, data.path), partial(stores.observe, data.path, writable=data.writable)
    if config.tls:
        yield (certificates.CHECK, config.tls.cert), partial(certificates.observe, config.tls)
    yield (clock.CHECK, "kernel"), clock.observe
    yield (tuned.CHECK, "record"), tuned.observe
    if config.cloud:
        yield (names.CHECK, "cloud endpoint"), partial(names.observe, _cloud_host(config))
        yield (cloud_advice.CHECK, config.cloud.endpoint), partial(cloud.observe, config.cloud)


def _lost(key: _Key, error: Exception) -> Iterator[Finding]:
    check, of = key
    if isinstance(error, TimeoutError):
        yield Finding(check, "problem", f"{of}: no answer in time", _LATE.get(check, "ask again; if it stays, restart"))
    else:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        yield Finding(check, "problem", f"{of}: {reason}", _FAILED.get(check, "run the doctor as root, or look there"))


def listens(config: Config) -> list[Listen]:
    """Return every TCP address of the configuration, the admin endpoint's included."""
    admin = (parse_admin(text) for text in config.admin.listen or ())
    return [*map(parse_listen, config.listen), *(each for each in admin if isinstance(each, Listen))]


def directories(config: Config) -> list[Data]:
    """Return every directory of the configuration that holds blobs, each once."""
    found = [data for account in config.accounts for data in _of_account(account)]
    return list({data.path: data for data in found}.values())


def _of_account(account: Account) -> Iterator[Data]:
    yield Data(account.root, True, account.records)
    for container in account.containers:
        if container.path:
            yield Data(container.path, not container.read_only, account.records)


def _cloud_host(config: Config) -> str:
    return (urlsplit(config.cloud.endpoint).hostname or "") if config.cloud else ""


def _judged(config: Config, facts: Mapping[_Key, Any], table: list[tcp.Connection]) -> Iterator[Finding]:
    """The findings of everything that could be observed, in the order of the documentation."""
    yield from _ports_and_names(config, facts)
    yield from _tls(config, facts)
    found_clock = facts.get((clock.CHECK, "kernel"))
    if found_clock is not None:
        yield clock.judge(found_clock)
    for data in directories(config):
        if (mounts.CHECK, data.path) in facts:
            mount = facts[mounts.CHECK, data.path]
            vast = config.tune.profile == "vast-nfs"
            yield from mounts.judge(data.path, mount, writable=data.writable, vast=vast)
        if (stores.CHECK, data.path) in facts:
            store, least = facts[stores.CHECK, data.path], config.health.free_percent_min
            yield from stores.judge(data.path, store, records=data.records, free_percent_min=least)
    yield from _kernel_and_cloud(config, facts, table)


def _ports_and_names(config: Config, facts: Mapping[_Key, Any]) -> Iterator[Finding]:
    all_listens = listens(config)
    for listen in all_listens:
        if (ports.CHECK, listen.url()) in facts:
            yield from ports.judge(facts[ports.CHECK, listen.url()])
    served = [parse_listen(text) for text in config.listen]
    for name in names.configured(config):
        if (names.CHECK, name.name) in facts:
            yield names.judge(name, facts[names.CHECK, name.name], served, _cloud_host(config))
    if config.cloud and (names.CHECK, "cloud endpoint") in facts:
        itself = names.judge_cloud(config.cloud.endpoint, facts[names.CHECK, "cloud endpoint"], served)
        if itself:
            yield itself


def _tls(config: Config, facts: Mapping[_Key, Any]) -> Iterator[Finding]:
    if config.tls and (certificates.CHECK, config.tls.cert) in facts:
        hosts = [parse_listen(text).host for text in config.listen if text.startswith("https:")]
        wanted = [name.name for name in names.configured(config) if name.explicit]
        wanted += [host for host in hosts if host not in ("0.0.0.0", "::", "127.0.0.1", "::1")]
        found, now = facts[certificates.CHECK, config.tls.cert], datetime.datetime.now(datetime.UTC)
        yield from certificates.judge(found, wanted, config.health.certificate_days_min, now)


def service_pid(facts: Mapping[_Key, Any]) -> int:
    """A process of the running service, 0 without one. The service manager, which keeps the sockets of a service that
    is down, has limits of its own."""
    holders = [holder for (check, _), found in facts.items() if check == ports.CHECK for holder in found.holders]
    ours = (holder.pid for holder in holders if holder and ports.is_ours(holder.command))
    return max((pid for pid in ours if pid != SERVICE_MANAGER_PID), default=0)


def _kernel_and_cloud(config: Config, facts: Mapping[_Key, Any], table: list[tcp.Connection]) -> Iterator[Finding]:
    found_kernel = kernel.observe(service_pid(facts))
    bound = [listen.port for listen in listens(config) if listen.port]
    yield from kernel.judge(found_kernel, bound, config.limits.connections_count_max)
    if (tuned.CHECK, "record") in facts:
        yield tuned.judge(facts[tuned.CHECK, "record"])
    if config.cloud and (cloud_advice.CHECK, config.cloud.endpoint) in facts:
        found = facts[cloud_advice.CHECK, config.cloud.endpoint]
        parts = urlsplit(config.cloud.endpoint)
        yield from cloud_advice.judge(found, config.health.clock_seconds_max)
        yield cloud_advice.judge_snat(table, found, parts.port or (443 if parts.scheme == "https" else 80))
        keepalive = found_kernel.keepalive_seconds or 0
        yield from cloud_advice.judge_idle(keepalive, config.limits.keep_alive_seconds_max)
