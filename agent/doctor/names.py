"""Split-horizon DNS: which address each host-style name has, here and by this machine's resolver.

Clients reach an account as ACCOUNT.SUFFIX only where DNS gives that name this node's address; the same name gives
Azure's address elsewhere. Both answers can be right, so only a name that the operator configured is a warning, and the
one sure mistake is a cloud endpoint that leads back to this node: it would be its own backup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from agent.config import DEFAULT_HOST_SUFFIX, Config
from agent.doctor import addresses
from agent.doctor.findings import Finding, Status
from agent.listen import Listen

CHECK: Final = "dns"


@dataclass(frozen=True, slots=True)
class Name:
    """A name that means an account here."""

    name: str
    account: str
    explicit: bool  # written by the operator, not made of the default suffix


@dataclass(frozen=True, slots=True)
class NameFacts:
    """What the system's resolver says of a name."""

    addresses: tuple[str, ...]
    own: tuple[str, ...]  # those that are this machine's
    error: str  # of the resolver, "" if it answered


def configured(config: Config) -> list[Name]:
    """Return every host-style name of the configuration."""
    return [
        *(
            Name(f"{account.name}.{suffix}", account.name, suffix != DEFAULT_HOST_SUFFIX)
            for account in config.accounts
            for suffix in config.host_suffixes
        ),
        *(Name(name, account.name, True) for account in config.accounts for name in account.host_names),
    ]


def observe(name: str) -> NameFacts:
    """Ask the system's resolver. May take as long as its timeouts."""
    try:
        found = tuple(addresses.resolve(name))
    except OSError as error:
        return NameFacts((), (), error.strerror or str(error))
    return NameFacts(found, tuple(filter(addresses.is_own, found)), "")


def judge(name: Name, facts: NameFacts, listens: Sequence[Listen], cloud_host: str) -> Finding:
    """Say whether clients that share this machine's resolver reach this node by the name."""
    status: Status = "warning" if name.explicit else "note"
    record = f"give clients a record {name.name} with this node's address, in DNS or /etc/hosts; or path-style URLs"
    if facts.error:
        return Finding(CHECK, status, f"{name.name}: no address ({facts.error})", record)
    said = ", ".join(facts.addresses)
    if not facts.own and name.name == cloud_host:
        return Finding(
            CHECK, "ok", f"{name.name} is {said}: the cloud, for this node; clients need a view of their own"
        )
    if not facts.own:
        return Finding(CHECK, status, f"{name.name} is {said}: not this machine", record)
    deaf = [each for each in facts.own if not any(addresses.covers(listen.host, each) for listen in listens)]
    if deaf:
        what = f"{name.name} is {deaf[0]}, where nothing listens"
        return Finding(
            CHECK, "problem", what, f"add http://{_bracketed(deaf[0])}:PORT to listen, or correct the record"
        )
    return Finding(CHECK, "ok", f"{name.name} is {said}, this machine")


def judge_cloud(endpoint: str, facts: NameFacts, listens: Sequence[Listen]) -> Finding | None:
    """Find a cloud endpoint that is one of our own listeners; None when it is not."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for address in facts.own:
        if any(listen.port == port and addresses.covers(listen.host, address) for listen in listens):
            mend = "give this node a resolver with Azure's answer (resolvectl dns), or /etc/hosts without the name"
            return Finding(CHECK, "problem", f"cloud endpoint {endpoint} is {address}: this node itself", mend)
    return None


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
