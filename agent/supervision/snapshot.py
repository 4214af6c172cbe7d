"""What the supervisor knows of the service at one moment, as values; health, metrics and status are made of it alone.

Taking a snapshot does no I/O and never waits, so the admin endpoint answers while mounts hang and workers die.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agent.config import Config

ServiceState = Literal["starting", "ready", "reloading", "stopping"]


@dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """One child process, or the place where one is to be."""

    role: Literal["worker", "sidecar"]
    number: int  # of the worker, from 0; 0 for the sidecar
    pid: int  # 0: no process now
    state: str  # a value of supervision.policy.State
    draining: bool  # replaced, and finishing what it has
    starts_count: int
    last_exit: str  # in words, "" if it never ended
    heartbeat_age_seconds: float | None  # None before the first
    uptime_seconds: float | None  # since it was ready; None before
    memory_bytes: int | None = None  # resident and its own, at the last look of recycle.py; None before


@dataclass(frozen=True, slots=True)
class RecycleSnapshot:
    """What was done at one place about processes that held more memory than limits.memory_mib_max."""

    role: Literal["worker", "sidecar"]
    number: int
    done_count: int  # since the supervisor started; it falls never
    failed_count: int  # no successor served, the old process went on
    at: float  # Unix time of the last one
    last: str  # how that went, with its figures


@dataclass(frozen=True, slots=True)
class ReloadSnapshot:
    """The last reload that was asked for."""

    number: int  # counts the reloads of this supervisor, from 1
    state: Literal["running", "done", "refused", "failed"]
    at: float  # Unix time of its end, or of its start while it runs
    problems: tuple[str, ...]  # why it was refused or failed, a line each


@dataclass(frozen=True, slots=True)
class MountSnapshot:
    """A mount as worker 0 probed it at its start."""

    account: str
    container: str  # "" for the account's root
    path: str
    read_only: bool
    capabilities: Mapping[str, Any]  # what store.probe found: file system, backend of the records, reflink, locks, ...


@dataclass(frozen=True, slots=True)
class ReportSnapshot:
    """The newest report of one kind that the sidecar sent."""

    kind: str  # "tuning", "cloud"
    at: float  # Unix time
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """Everything at once."""

    version: str
    pid: int
    state: ServiceState
    started_at: float  # Unix time
    config_file: str  # "" when there is none
    urls: tuple[str, ...]  # as the ready lines give them
    processes: tuple[ProcessSnapshot, ...]
    mounts: tuple[MountSnapshot, ...]
    reports: tuple[ReportSnapshot, ...]
    last_reload: ReloadSnapshot | None
    recycles: tuple[RecycleSnapshot, ...] = ()  # of the places that had one


class Service(Protocol):
    """The running service as the admin endpoint sees it."""

    @property
    def config(self) -> Config:
        """The configuration in force."""
        ...

    def snapshot(self) -> ServiceSnapshot:
        """Return the present state."""
        ...

    def slot_fds(self) -> tuple[int, ...]:
        """Return the descriptors of the slots of the live workers, draining ones included."""
        ...

    def retired_slot_fds(self) -> tuple[int, ...]:
        """Return those of the slots that no process has now. A slot moves between the two without an await, so read
        both in one step for totals that never fall."""
        ...
