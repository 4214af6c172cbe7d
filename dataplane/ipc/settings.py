"""What one worker is told before it serves: accounts, listeners, limits, as JSON over the control channel.

The contract between the supervisor, which builds it from the operator's TOML, and a worker, which trusts it: the
supervisor has validated everything that needs no file access, and paths are absolute. It carries account keys, which
is why it never travels in argv or the environment (both are readable in /proc), and why `repr` hides the keys.

Both ends come from one installation, yet a rolling upgrade starts new workers under an old supervisor: the document
has a version, and a worker refuses one that it does not know instead of guessing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, cast

from dataplane.blobapi import limits

SETTINGS_VERSION: Final = 1

Scheme = Literal["http", "https"]
Durability = Literal["strict", "relaxed"]
RecordsBackend = Literal["auto", "xattr", "sidecar"]
LogFormat = Literal["text", "json"]


class SettingsError(ValueError):
    """A settings document that this version cannot read; the supervisor and the worker do not match."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One socket that the worker inherited, bound and listening.

    `host` and `port` are the bound address. `tls_cert` and `tls_key` are absolute paths of PEM files, "" for http.
    """

    fd: int
    scheme: Scheme
    host: str
    port: int
    tls_cert: str = ""
    tls_key: str = ""


@dataclass(frozen=True, slots=True)
class MappedContainer:
    """A container with settings of its own.

    `path` is the absolute directory that it is mapped onto, "" for its usual place below the account's root.
    """

    name: str
    path: str = ""
    read_only: bool = False
    durability: Durability = "strict"


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """One storage account: one or two base64 keys (key1 first), and where its containers are.

    `host_names` are whole host names that mean this account, beside ACCOUNT.SUFFIX for every Settings.host_suffixes.
    """

    name: str
    root: str
    keys: tuple[str, ...] = field(repr=False)
    durability: Durability = "strict"
    records: RecordsBackend = "auto"
    containers: tuple[MappedContainer, ...] = ()
    host_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CopySource:
    """An https host that a copy may read from, besides the accounts of this node.

    `host` is a host name, an IP address, or `*.` and a suffix. `private` lets the name resolve to loopback,
    link-local and private addresses, which are refused otherwise.
    """

    host: str
    port: int = 443
    private: bool = False


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The limits that an operator may change, each for one worker; names and units as in blobapi/limits.py."""

    connections_count_max: int = limits.connections_count_max
    data_threads_count: int = limits.data_threads_count
    metadata_threads_count: int = limits.metadata_threads_count
    pool_queue_count_max: int = limits.pool_queue_count_max
    storage_seconds_max: float = limits.storage_seconds_max
    head_read_seconds_max: float = limits.head_read_seconds_max
    body_idle_seconds_max: float = limits.body_idle_seconds_max
    send_idle_seconds_max: float = limits.send_idle_seconds_max
    keep_alive_seconds_max: float = limits.keep_alive_seconds_max


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker is told. `slot_fd` is its shared-memory slot (slots.py), already sized.

    `worker` counts from 0 to `workers` - 1. `drain_seconds` is for the drain without a Stop message, when the
    supervisor died. `host_suffixes` are what follows `ACCOUNT.` in host-style names, without a leading dot.
    """

    worker: int
    workers: int
    slot_fd: int
    listeners: tuple[ListenerSettings, ...]
    accounts: tuple[AccountSettings, ...]
    host_suffixes: tuple[str, ...] = ("blob.core.windows.net",)
    copy_sources: tuple[CopySource, ...] = ()
    copy_ca_file: str = ""  # PEM bundle to trust for copy sources; "" for the system's
    limits: LimitSettings = LimitSettings()
    access_log: bool = False
    access_sample: float = 1.0  # share of the requests that the access log has, 0 to 1
    slow_seconds: float = 0.0  # a request that took longer is told; 0: none is
    log_format: LogFormat = "text"
    log_level: str = "info"  # debug, info, warning, error
    drain_seconds: float = 30.0
    journal_directory: str = ""  # absolute; where changes are noted for the sidecar; "": nowhere
    reserve_percent: float = 0.0  # of a mount in use: from there on writes that need space are refused; 0: never


def to_json(settings: Settings) -> dict[str, Any]:
    """Return the document for from_json, made of dict, list, str, int, float and bool only."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return {"version": SETTINGS_VERSION, **document}


def from_json(document: Mapping[str, Any]) -> Settings:
    """Read what to_json made. Raises SettingsError for another version or a document that is not one."""
    version = document.get("version")
    if version != SETTINGS_VERSION:
        raise SettingsError(f"settings version {version!r}, this worker reads {SETTINGS_VERSION}")
    fields = {name: value for name, value in document.items() if name != "version"}
    try:
        fields["listeners"] = tuple(ListenerSettings(**item) for item in fields["listeners"])
        fields["accounts"] = tuple(_account(item) for item in fields["accounts"])
        fields["copy_sources"] = tuple(CopySource(**item) for item in fields["copy_sources"])
        fields["host_suffixes"] = tuple(fields["host_suffixes"])
        fields["limits"] = LimitSettings(**fields["limits"])
        return Settings(**cast(Any, fields))
    except (KeyError, TypeError) as error:
        raise SettingsError(f"not a settings document: {error}") from error


def _account(item: Mapping[str, Any]) -> AccountSettings:
    fields = dict(item)
    fields["keys"] = tuple(fields["keys"])
    fields["host_names"] = tuple(fields["host_names"])
    fields["containers"] = tuple(MappedContainer(**container) for container in fields["containers"])
    return AccountSettings(**fields)
