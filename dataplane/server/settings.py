"""What a worker is told when it starts: one frozen value, handed over by the supervisor as JSON, never as arguments.

The JSON carries a format number, and a worker refuses one it does not know (exit code "cannot boot"): during an upgrade
an old supervisor may start a new worker. Unknown and missing names are refused as well: a setting that is silently
ignored is worse than a worker that does not start. The operator's file is TOML and has its own reader in the agent,
which checks it with better messages; this module only guards the hand-over.

Account keys are in here, so nothing of it may be logged: the fields that hold them have no repr.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

from dataplane.blobapi import limits

E = TypeVar("E", bound=Enum)

FORMAT: Final = 1
DEFAULT_HOST_SUFFIX: Final = "blob.core.windows.net"
KEYS_PER_ACCOUNT_MAX: Final = 2


class SettingsError(ValueError):
    """The hand-over is not one that this worker understands; the message names the setting, never its value."""


class Durability(Enum):
    """Whether an acknowledged write survives a power cut (strict), or only a crash of the process (relaxed)."""

    STRICT = "strict"
    RELAXED = "relaxed"


class Records(Enum):
    """Where the store keeps its records: probed (auto), or one backend whatever the probe says."""

    AUTO = "auto"
    XATTR = "xattr"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """A container with a setting of its own.

    `path` maps it onto that directory (absolute), "" leaves it under the account's root; None for `durability` takes
    the account's.
    """

    name: str
    path: str = ""
    read_only: bool = False
    durability: Durability | None = None


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """One storage account: its name, one or two keys (decoded), and the directory that is its root.

    `host_names` are whole host names that mean this account (`data.plant7.example`), beside ACCOUNT.SUFFIX for every
    suffix of Settings.host_suffixes.
    """

    name: str
    keys: tuple[bytes, ...] = field(repr=False)
    root: str
    containers: tuple[ContainerSettings, ...] = ()
    host_names: tuple[str, ...] = ()
    durability: Durability = Durability.STRICT


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Threads for the calls that may block on a disk. `queued_max` jobs may wait; beyond it requests get ServerBusy."""

    data_threads: int = 8
    metadata_threads: int = 4
    queued_max: int = 512


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker needs to know.

    `copy_sources`: hosts (host or host:port) that a copy may read from besides this node's own accounts; empty allows
    none. `limits`: other values for the limits of dataplane.blobapi.limits that are this server's, not Azure's.
    """

    accounts: tuple[AccountSettings, ...]
    host_suffixes: tuple[str, ...] = (DEFAULT_HOST_SUFFIX,)
    copy_sources: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    pools: PoolSettings = PoolSettings()
    records: Records = Records.AUTO
    log_level: str = "INFO"
    access_log: bool = True
    journal: str = ""  # directory of the journal segments on the node's own disk; "" keeps no journal


#: What `limits` may change. Azure's own limits are the contract with clients and stay as they are.
ADJUSTABLE_LIMITS: Final = frozenset(
    {
        "request_target_bytes_max", "request_header_bytes_max", "request_header_count_max", "head_read_seconds_max",
        "body_idle_seconds_max", "send_idle_seconds_max", "keep_alive_seconds_max", "pipelined_requests_max",
    }
)  # fmt: skip


def to_json(settings: Settings) -> str:
    """The hand-over of these settings."""
    return json.dumps(
        {
            "format": FORMAT,
            "accounts": [_account_out(account) for account in settings.accounts],
            "host_suffixes": list(settings.host_suffixes),
            "copy_sources": list(settings.copy_sources),
            "limits": dict(settings.limits),
            "pools": {
                "data_threads": settings.pools.data_threads,
                "metadata_threads": settings.pools.metadata_threads,
                "queued_max": settings.pools.queued_max,
            },
            "records": settings.records.value,
            "log_level": settings.log_level,
            "access_log": settings.access_log,
            "journal": settings.journal,
        }
    )


def from_json(text: str | bytes) -> Settings:
    """The settings of a hand-over. Raises SettingsError."""
    try:
        data = json.loads(text)
    except ValueError:
        raise SettingsError("settings are not JSON") from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise SettingsError(f"settings are not of format {FORMAT}")
    reader = _Reader("settings", data)
    settings = Settings(
        accounts=tuple(_account_in(reader.sub(item, "accounts")) for item in reader.items("accounts")),
        host_suffixes=reader.strings("host_suffixes"),
        copy_sources=reader.strings("copy_sources"),
        limits=_limits_in(reader.sub(reader.take("limits", dict), "limits").rest()),
        pools=_pools_in(reader.sub(reader.take("pools", dict), "pools")),
        records=reader.choice("records", Records),
        log_level=reader.take("log_level", str),
        access_log=reader.take("access_log", bool),
        journal=reader.take("journal", str),
    )
    reader.end()
    names = [account.name for account in settings.accounts]
    if not names or len(set(names)) != len(names):
        raise SettingsError("settings.accounts: at least one account, and no name twice")
    return settings


def _account_out(account: AccountSettings) -> dict[str, Any]:
    return {
        "name": account.name,
        "keys": [base64.b64encode(key).decode() for key in account.keys],
        "root": account.root,
        "host_names": list(account.host_names),
        "durability": account.durability.value,
        "containers": [
            {
                "name": container.name,
                "path": container.path,
                "read_only": container.read_only,
                "durability": container.durability.value if container.durability else "",
            }
            for container in account.containers
        ],
    }


def _account_in(reader: "_Reader") -> AccountSettings:
    try:
        keys = tuple(base64.b64decode(key, validate=True) for key in reader.strings("keys"))
    except binascii.Error:
        raise SettingsError(f"{reader.where}.keys: not base64") from None
    if not 1 <= len(keys) <= KEYS_PER_ACCOUNT_MAX or not all(keys):
        raise SettingsError(f"{reader.where}.keys: one or two keys")
    account = AccountSettings(
        name=reader.take("name", str),
        keys=keys,
        root=reader.take("root", str),
        containers=tuple(_container_in(reader.sub(item, "containers")) for item in reader.items("containers")),
        host_names=reader.strings("host_names"),
        durability=reader.choice("durability", Durability),
    )
    reader.end()
    return account


def _container_in(reader: "_Reader") -> ContainerSettings:
    durability = reader.take("durability", str)
    try:
        chosen = Durability(durability) if durability else None
    except ValueError:
        raise SettingsError(f"{reader.where}.durability: not a known value") from None
    container = ContainerSettings(
        name=reader.take("name", str),
        path=reader.take("path", str),
        read_only=reader.take("read_only", bool),
        durability=chosen,
    )
    reader.end()
    return container


def _pools_in(reader: "_Reader") -> PoolSettings:
    pools = PoolSettings(
        data_threads=reader.take("data_threads", int),
        metadata_threads=reader.take("metadata_threads", int),
        queued_max=reader.take("queued_max", int),
    )
    reader.end()
    if min(pools.data_threads, pools.metadata_threads, pools.queued_max) < 1:
        raise SettingsError("settings.pools: every number is at least 1")
    return pools


def _limits_in(values: Mapping[str, Any]) -> dict[str, float]:
    for name, value in values.items():
        if name not in ADJUSTABLE_LIMITS:
            raise SettingsError(f"settings.limits.{name}: not an adjustable limit")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise SettingsError(f"settings.limits.{name}: not a positive number")
    return dict(values)


class _Reader:
    """Takes the fields of one JSON object, each once and of its type; what is left at the end is an error."""

    def __init__(self, where: str, data: object) -> None:
        self.where = where
        if not isinstance(data, dict):
            raise SettingsError(f"{where}: not an object")
        self._data = dict(data)

    def take(self, name: str, kind: type) -> Any:
        value = self._data.pop(name, None)
        if type(value) is not kind:  # not isinstance: True is no number here
            raise SettingsError(f"{self.where}.{name}: missing or of another type")
        return value

    def items(self, name: str) -> list[Any]:
        return list(self.take(name, list))

    def strings(self, name: str) -> tuple[str, ...]:
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            raise SettingsError(f"{self.where}.{name}: not a list of strings")
        return tuple(values)

    def choice(self, name: str, kind: type[E]) -> E:
        try:
            return kind(self.take(name, str))
        except ValueError as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"{self.where}.{name}: not a known value") from None

    def sub(self, data: object, name: str) -> "_Reader":
        return _Reader(f"{self.where}.{name}", data)

    def rest(self) -> dict[str, Any]:
        rest, self._data = self._data, {}
        return rest

    def end(self) -> None:
        if self._data:
            raise SettingsError(f"{self.where}: unknown {', '.join(sorted(self._data))}")


assert all(hasattr(limits, name) for name in ADJUSTABLE_LIMITS)
