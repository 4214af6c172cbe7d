"""The configuration file: what an operator may say, one pydantic model per table.

The models are the reference: docs/configuration.md and config/blobedge.toml are generated from their fields
(config_reference.py), and a test compares. They check what one value alone can tell; what needs two values, or a look
at the file system, is in config_rules.py. Strict everywhere: TOML has types, and a port written as "10000" is a
mistake that the operator wants to hear of.
"""

import base64
import binascii
import ipaddress
import os
import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field

from agent.config_offload import Offload
from agent.config_types import AbsolutePath, Seconds, Table, text
from agent.listen import parse_admin, parse_listen
from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.uri import check_container_name

DEFAULT_LISTEN: Final = "http://127.0.0.1:10000"
DEFAULT_HOST_SUFFIX: Final = "blob.core.windows.net"
WORKERS_MAX: Final = 256
KEYS_BYTES_MIN: Final = 16
MAKE_KEY: Final = "head -c 64 /dev/urandom | base64 -w 0"

_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}\Z")
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\Z"
)


def check_account_name(name: str) -> str:
    """REST page "Naming and referencing containers", storage account names: 3 to 24 of a-z and 0-9."""
    if not _ACCOUNT.match(name):
        raise ValueError("an account name is 3 to 24 lower-case letters and digits")
    return name


def check_key(key: str) -> str:
    """An account key is base64; Azure's decode to 64 bytes, shorter ones are accepted down to 128 bits."""
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("the key is not base64: copy it whole, with the = at its end") from None
    if size < KEYS_BYTES_MIN:
        raise ValueError(f"the key has {size} bytes, at least {KEYS_BYTES_MIN} are needed: {MAKE_KEY}")
    return key


def _container_name(name: str) -> str:
    try:
        check_container_name(name)
    except BlobError:
        raise ValueError("a container name is 3 to 63 of a-z, 0-9 and single dashes, or $root, $web") from None
    return name


def _listen(url: str) -> str:
    parse_listen(url)
    return url


def _admin_listen(url: str) -> str:
    parse_admin(url)
    return url


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in url:
        raise ValueError(f"{url!r} is not a Blob service: write https://ACCOUNT.blob.core.windows.net")
    return url.rstrip("/")


def _host(name: str) -> str:
    if not _HOST.match(name):
        raise ValueError(f"{name!r} is not a host name: lower case, no scheme, no port, no leading dot")
    return name


def _copy_host(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        _host(name.removeprefix("*."))
    return name


HostName = Annotated[str, text(_host)]
Key = Annotated[str, text(check_key)]
Durability = Literal["strict", "relaxed"]


class Container(Table):
    """A container that is elsewhere, is read-only, or has its own durability."""

    name: Annotated[str, text(_container_name)] = Field(description="Name of the container, as clients see it.")
    path: AbsolutePath | None = Field(
        default=None,
        description="An existing directory, on any mount, that is this container. Without it: the usual place, "
        "a directory of this name in the account's root.",
    )
    read_only: bool = Field(default=False, description="Refuse every write to this container.")
    durability: Durability | None = Field(default=None, description="As for the account, for this container alone.")


class Account(Table):
    """A storage account and where its data is."""

    name: Annotated[str, text(check_account_name)] = Field(description="Name of the account, as clients see it.")
    root: AbsolutePath = Field(
        description="The existing directory that holds the account: one directory for each container. Each account "
        "needs its own; it may be a mount."
    )
    key1: Key | None = Field(default=None, description=f"First account key, base64. Make one: `{MAKE_KEY}`.")
    key1_file: AbsolutePath | None = Field(default=None, description="A file with the first key, instead of `key1`.")
    key2: Key | None = Field(default=None, description="Second key, so that keys can be changed without an outage.")
    key2_file: AbsolutePath | None = Field(default=None, description="A file with the second key, instead of `key2`.")
    durability: Durability = Field(
        default="strict",
        description='"strict": an answered write survives a power cut. "relaxed": it survives a crash of blobedge, '
        "not of the machine; several times faster, for scratch data.",
    )
    records: Literal["auto", "xattr", "sidecar"] = Field(
        default="auto",
        description='Where ETag, metadata and the like are kept: extended attributes of the files ("xattr"), files '
        'under ROOT/.blobedge ("sidecar"), or what the mount can do ("auto").',
    )
    host_names: list[HostName] = Field(
        default_factory=list, description="Whole host names that mean this account, besides NAME.SUFFIX."
    )
    containers: list[Container] = Field(
        default_factory=list, description="Containers with settings of their own; the others need no entry."
    )


class Tls(Table):
    """The certificate of the https listeners."""

    cert: AbsolutePath = Field(description="PEM file with the certificate and its chain, the certificate first.")
    key: AbsolutePath = Field(description="PEM file with the private key, without a passphrase.")


class CopySource(Table):
    """An https host that copies may read from, besides this node's own accounts."""

    host: Annotated[str, text(_copy_host)] = Field(
        description='A host name, an IP address, or "*." and a suffix, which stands for every name under it.'
    )
    port: int = Field(default=443, ge=1, le=65_535, description="Port of the host.")
    private: bool = Field(
        default=False, description="Allow the name to mean a loopback, link-local or private address of your network."
    )


class Log(Table):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is written."
    )
    format: Literal["text", "json"] = Field(
        default="text",
        description='"text": lines for people; "json": an object per line. In the journal both have their priority.',
    )
    access: bool = Field(
        default=False,
        description="One line of JSON for each request; never a key or a signature. It costs about a fifth of a small "
        "read.",
    )
    access_sample: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0,
        description="Share of the requests that get such a line: 0.01 is one in a hundred. Faults of this node (status "
        "500 and above) and slow requests always do.",
    )
    slow_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=10.0,
        description="A request that takes longer is told, with where its time went. 0: none is.",
    )


class Admin(Table):
    """Where health, metrics and status are asked for. It changes nothing, whoever asks."""

    listen: list[Annotated[str, text(_admin_listen)]] | None = Field(
        default=None,
        description="`unix:/PATH` or `http://HOST:PORT`; an address other than loopback needs `token_file`. Without "
        "it: a Unix socket that `blobedge status` finds by itself. `[]`: none.",
    )
    token_file: AbsolutePath | None = Field(
        default=None,
        description="A file with a token that http callers have to send as `Authorization: Bearer TOKEN`.",
    )


class Health(Table):
    """When the node calls itself degraded."""

    interval_seconds: Seconds = Field(default=0.4, description="How often each mount is asked for its space.")
    mount_seconds_max: Seconds = Field(default=1.5, description="A mount that answers later than this counts as hung.")
    free_percent_min: Annotated[float, Field(ge=0, le=100)] = Field(
        default=5.0, description="Least share of a mount's space, and of its inodes, that is free."
    )
    certificate_days_min: int = Field(
        default=14, ge=0, le=3650, description="Least number of days that the TLS certificate is still valid."
    )
    clock_seconds_max: Seconds = Field(
        default=60.0, description="Most that this clock may differ from the cloud's. Azure refuses 15 minutes."
    )


class Cloud(Table):
    """The Azure storage account behind this node, and one way to be let in; its file is read again when it changes."""

    endpoint: Annotated[str, text(_endpoint)] = Field(
        description="Its Blob service: `https://ACCOUNT.blob.core.windows.net`."
    )
    sas_file: AbsolutePath | None = Field(
        default=None, description="A file with a SAS for it. Without a SAS or a key doctor looks no further than HTTP."
    )
    connection_string_file: AbsolutePath | None = Field(
        default=None, description="A file with a connection string, of which the key or the SAS is used."
    )
    key_file: AbsolutePath | None = Field(default=None, description="A file with a key of the account, base64.")
    credential: Literal["managed-identity", "workload-identity", "client-secret"] | None = Field(
        default=None, description="A token of Microsoft Entra ID, got in this way."
    )
    tenant_id: str | None = Field(
        default=None, description="For a client secret; for a workload identity without AZURE_TENANT_ID."
    )
    client_id: str | None = Field(
        default=None, description="For a client secret; for a managed or workload identity that is not the default one."
    )
    client_secret_file: AbsolutePath | None = Field(default=None, description="A file with the client secret.")
    ca_file: AbsolutePath | None = Field(
        default=None, description="PEM file with the authorities to trust for it. Without it: the system's."
    )


class Tune(Table):
    """What `blobedge tune` plans for."""

    profile: Literal["lan", "wan-azure", "vast-nfs"] = Field(
        default="lan",
        description='"lan": clients nearby; "wan-azure": also a long way to Azure; "vast-nfs": also a mount of a VAST '
        "cluster.",
    )
    bandwidth_mbits: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Bandwidth of the way to Azure. Without it: the fastest NIC's."
    )
    rtt_milliseconds: Annotated[float, Field(gt=0, le=10_000)] | None = Field(
        default=None, description="Round-trip time to Azure. Without it: measured at the [cloud] endpoint."
    )


class Limits(Table):
    """What one worker may hold. The Blob protocol's own limits are Azure's and not configurable."""

    memory_mib_max: int = Field(
        default=2048,
        ge=16,
        le=1_048_576,
        description="MiB of RAM of its own, without what it shares; an upload needs two. A worker, or the sidecar, "
        "that holds more for half a minute is replaced by a new one, without an interruption.",
    )
    connections_count_max: int = Field(
        default=limits.connections_count_max, ge=1, le=1_000_000, description="Open connections."
    )
    data_threads_count: int = Field(
        default=limits.data_threads_count,
        ge=1,
        le=256,
        description="Threads that read and write content, for each file system.",
    )
    metadata_threads_count: int = Field(
        default=limits.metadata_threads_count, ge=1, le=256, description="Threads that open, stat and list, for each."
    )
    pool_queue_count_max: int = Field(
        default=limits.pool_queue_count_max,
        ge=1,
        le=100_000,
        description="Calls that wait for such a thread; one more is answered 503 ServerBusy.",
    )
    storage_seconds_max: Seconds = Field(
        default=limits.storage_seconds_max,
        description="For one call of a mount that is not local; then its request is answered 500 OperationTimedOut.",
    )
    head_read_seconds_max: Seconds = Field(
        default=limits.head_read_seconds_max, description="To send a request's head."
    )
    body_idle_seconds_max: Seconds = Field(
        default=limits.body_idle_seconds_max, description="Without a byte of a request's body."
    )
    send_idle_seconds_max: Seconds = Field(
        default=limits.send_idle_seconds_max, description="Without the client taking a byte of an answer."
    )
    keep_alive_seconds_max: Seconds = Field(
        default=limits.keep_alive_seconds_max, description="Idle between requests. AzCopy keeps connections for 180 s."
    )


class Config(Table):
    """The whole file."""

    listen: list[Annotated[str, text(_listen)]] = Field(
        default_factory=lambda: [DEFAULT_LISTEN],
        min_length=1,
        description="Addresses to serve: `http://HOST:PORT` or `https://HOST:PORT`; an IPv6 address in brackets.",
    )
    workers: int | None = Field(
        default=None, ge=1, le=WORKERS_MAX, description="Worker processes. Without it: one for each core."
    )
    drain_seconds: Seconds = Field(default=30.0, description="How long running requests may take to finish at a stop.")
    host_suffixes: list[HostName] = Field(
        default_factory=lambda: [DEFAULT_HOST_SUFFIX],
        description="What follows `ACCOUNT.` in host-style addresses, for DNS names that lead to this node.",
    )
    copy_ca_file: AbsolutePath | None = Field(
        default=None, description="PEM file with the authorities to trust for copy sources. Without it: the system's."
    )
    tls: Tls | None = Field(default=None, description="Needed by every https listener.")
    log: Log = Field(default=Log(), description="What is written to standard error.")
    limits: Limits = Field(default=Limits(), description="What one worker may hold.")
    admin: Admin = Field(default=Admin(), description="Where health, metrics and status are asked for.")
    health: Health = Field(default=Health(), description="When the node calls itself degraded.")
    cloud: Cloud | None = Field(default=None, description="The Azure storage account behind this node.")
    offload: Offload | None = Field(
        default=None, description="What of this node's data goes to the [cloud], when and how fast."
    )
    tune: Tune = Field(default=Tune(), description="What `blobedge tune` plans for.")
    accounts: list[Account] = Field(min_length=1, description="The storage accounts of this node.")
    copy_sources: list[CopySource] = Field(
        default_factory=list, description="Hosts that Copy Blob and Put From URL may read from."
    )

    def worker_count(self) -> int:
        """The number of worker processes: as configured, or one per core that this process may use."""
        return self.workers or min(len(os.sched_getaffinity(0)), WORKERS_MAX)
