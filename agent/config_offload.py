"""The [offload] table: what of this node's data goes to the [cloud], when, how fast and under which name.

The models check what one value alone can tell; what needs several is in config_offload_rules.py. No rule: nothing is
sent, and nothing is written down to be sent.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from agent.config_types import AbsolutePath, Table, text
from agent.offload import amounts, globs, templates
from agent.offload import schedule as weeks

#: Priorities by name. Lower ones go first.
PRIORITIES: Final = {"high": 100, "normal": 500, "low": 900}
PRIORITY_MAX: Final = 999
#: An NFS client writes what a program wrote within 35 s (Linux: vm.dirty_expire_centisecs, and the flusher's interval)
#: and shows other clients' changes within 60 s (nfs(5), acregmax). A file that rests for less may be half a file.
IDLE_SECONDS: Final = 60.0

Upload = Literal["now", "idle", "age", "never"]
Order = Literal["oldest", "newest", "smallest"]
Delete = Literal["keep", "propagate"]
Conflict = Literal["edge-wins", "cloud-wins", "keep-both"]
Evict = Literal["never", "age", "space"]
Tier = Literal["Hot", "Cool", "Cold", "Archive"]


def _node(name: str) -> str:
    if not templates.NODE.match(name) or len(name) > templates.NODE_CHARACTERS_MAX:
        raise ValueError(f"a node's name is 1 to {templates.NODE_CHARACTERS_MAX} of a-z, 0-9 and single dashes")
    return name


def _priority(value: Any) -> Any:
    if isinstance(value, str) and value not in PRIORITIES:
        raise ValueError(f"{value!r} is no priority: write {', '.join(PRIORITIES)}, or 0 to {PRIORITY_MAX}")
    return PRIORITIES[value] if isinstance(value, str) else value


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """A check that keeps the text as it was written."""

    def checked(value: str) -> str:
        check(value)
        return value

    return checked


Glob = Annotated[str, text(globs.check_glob)]
Size = Annotated[str, text(amounts.check_size)]
Percent = Annotated[float, Field(gt=0, le=100)]
TimeOfDay = Annotated[str, text(_checked(weeks.minute_of_day))]


class Window(Table):
    """A part of each week with a speed of its own. The first that is open counts."""

    days: Annotated[str, text(_checked(weeks.days))] = Field(
        default="daily", description='Days on which it starts: "mon-fri", "sat,sun" or "daily".'
    )
    start: TimeOfDay = Field(default="00:00", description="When it starts, on the wall clock of `time_zone`.")
    end: TimeOfDay = Field(default="24:00", description="When it ends; on the next day if that is not after its start.")
    mbits: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        description="Most that uploads send meanwhile, in Mbit/s. 0: none starts."
    )


class Rule(Table):
    """Which blobs go to the cloud, and how. The first rule that matches a blob counts; without one it stays here."""

    accounts: list[str] = Field(default_factory=list, description="Accounts that it is for. Without it: all.")
    containers: list[Glob] = Field(
        default_factory=list, description="Containers that it is for; `*` is any text. Without it: all."
    )
    prefix: str = Field(default="", description="How the blob's name begins.")
    glob: Glob | None = Field(
        default=None,
        description="What the whole name looks like: `*` is any text without a slash, `**` any text, `?` a character, "
        "`[a-z]` one of these.",
    )
    size_min: Size | None = Field(default=None, description='Least size, such as "64 KiB".')
    size_max: Size | None = Field(default=None, description="Greatest size; a blob of this size matches.")
    upload: Upload = Field(
        default="idle",
        description='"now": as soon as it was written; "idle": when it rested for `idle_seconds`; "age": `age_days` '
        'after its Last-Modified; "never": not at all.',
    )
    idle_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = Field(
        default=IDLE_SECONDS,
        description="Without a change. Less than a minute may send half a file that a program writes over NFS; what "
        "comes through this service is always whole.",
    )
    age_days: Annotated[float, Field(gt=0, le=36_500)] | None = Field(
        default=None, description='Needed by `upload = "age"`; 0.5 is twelve hours.'
    )
    order: Order = Field(default="oldest", description="Which of this rule's blobs goes first.")
    priority: Annotated[int, BeforeValidator(_priority), Field(ge=0, le=PRIORITY_MAX)] = Field(
        default=PRIORITIES["normal"],
        description='Lower ones go before all others: 0 to 999, or "high" (100), "normal" (500), "low" (900).',
    )
    container: Annotated[str, text(templates.check_container)] = Field(
        default="{container}", description="The container in the cloud: text, {node}, {account}, {container}."
    )
    name: Annotated[str, text(templates.check_name)] = Field(
        default="{name}",
        description="The name in the cloud: text, {node}, {account}/, {container}/, {date:%Y/%m/%d}, and {name} at its "
        "end.",
    )
    tier: Tier | None = Field(default=None, description="Its access tier there. Without it: the account's default.")
    delete: Delete = Field(
        default="keep", description='When it is deleted here: "keep" the copy in the cloud, or "propagate".'
    )
    delete_fuse_percent: Annotated[float, Field(gt=0, le=100)] = Field(
        default=20.0,
        description="Share of a container's copies that may be deleted at once; a greater one waits for an operator.",
    )
    conflict: Conflict = Field(
        default="edge-wins",
        description='When somebody else changed it in the cloud: "edge-wins" replaces that, "keep-both" keeps it under '
        'another name first, "cloud-wins" takes it over here.',
    )
    evict: Evict = Field(
        default="never",
        description='When only the cloud keeps its bytes: "age": `evict_days` after its last read or change, sooner '
        'when the disk fills up; "space": when the disk fills up, what was not used for longest first; "never": only '
        "by `blobedge evict`. A read brings them back.",
    )
    evict_days: Annotated[float, Field(gt=0, le=36_500)] | None = Field(
        default=None, description='Needed by `evict = "age"`; 0.5 is twelve hours.'
    )
    pin: bool = Field(default=False, description="It stays here whatever else is said, `blobedge evict` included.")
    delete_after_upload: bool = Field(
        default=False, description="It is deleted here as soon as the cloud was verified to have it; the copy stays."
    )
    ttl_days: Annotated[float, Field(gt=0, le=36_500)] | None = Field(
        default=None,
        description="It is deleted here so long after its Last-Modified, if the rule uploads it not before the cloud "
        "has it; the copy stays.",
    )

    def route(self, node: str, accounts: Sequence[str]) -> templates.Route:
        """The way of its blobs to the cloud. `accounts`: all of this node. Raises ValueError when blobs could meet."""
        return templates.Route(self.container, self.name, node, self.accounts or accounts, self.containers)


class Offload(Table):
    """What of this node's data goes to the [cloud], when and how fast. Without a rule nothing does."""

    directory: AbsolutePath | None = Field(
        default=None,
        description="Where the journals and the queue are kept, on a local disk. Without it: $STATE_DIRECTORY, which "
        "systemd sets, else blobedge in $XDG_STATE_HOME or ~/.local/state.",
    )
    node: Annotated[str, text(_node)] | None = Field(
        default=None, description="What {node} stands for. Without it: the host name up to its first dot."
    )
    scan_seconds: Annotated[float, Field(ge=10, le=31_536_000)] = Field(
        default=3_600.0,
        description="From one look at everything to the next: what other programs write on a mount is found by it.",
    )
    uploads_count_max: int = Field(default=16, ge=1, le=256, description="Uploads at one time.")
    bandwidth_mbits_max: Annotated[float, Field(gt=0, le=1_000_000)] | None = Field(
        default=None, description="Most that uploads send, in Mbit/s, where `schedule` says nothing else."
    )
    daily_gib_max: Annotated[float, Field(gt=0, le=1_000_000)] | None = Field(
        default=None, description="GiB that uploads may send on a day of `time_zone`. Without it: any amount."
    )
    time_zone: Annotated[str, text(_checked(weeks.zone))] = Field(
        default=weeks.LOCAL, description='Of the schedule: "local" is this machine\'s, or a name: "Europe/Berlin".'
    )
    schedule: list[Window] = Field(default_factory=list, description="Parts of each week with a speed of their own.")
    space_high_percent: Percent = Field(
        default=85.0, description="Use of a mount from which on blobs are evicted that may be, coldest first."
    )
    space_low_percent: Percent = Field(default=75.0, description="Use down to which they are.")
    low_space_percent: Percent = Field(
        default=92.0,
        description="Use from which on blobs that may be evicted are sent at once, are evicted offline too, and what a "
        "read brings back is not kept.",
    )
    reserve_percent: Percent = Field(
        default=97.0,
        description="Use from which on requests that write wait for room, 10 s at most, and are refused with 503 if "
        "none was made; 100: never.",
    )
    rules: list[Rule] = Field(default_factory=list, description="Which blobs go to the cloud, and how.")

    def state_directory(self, environ: Mapping[str, str] = os.environ) -> str:
        """Where journals and queue are kept (systemd.exec(5) StateDirectory=, XDG Base Directory Specification)."""
        if self.directory is not None:
            return self.directory
        if named := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
            return named
        home = environ.get("XDG_STATE_HOME", "")
        return f"{home if home.startswith('/') else os.path.expanduser('~/.local/state')}/blobedge"

    def node_name(self, host_name: str | None = None) -> str:
        """What {node} stands for: as configured, or the host name with what a node's name has not left out."""
        first = (socket.gethostname() if host_name is None else host_name).partition(".")[0].lower()
        plain = "-".join(part for part in "".join(c if _plain(c) else "-" for c in first).split("-") if part)
        return self.node or plain[: templates.NODE_CHARACTERS_MAX].strip("-") or "node"

    def weekly(self) -> weeks.Weekly:
        """The speed of uploads over the week."""
        windows = [
            weeks.Window(
                weeks.days(each.days),
                weeks.minute_of_day(each.start),
                weeks.minute_of_day(each.end),
                each.mbits,
            )
            for each in self.schedule
        ]
        return weeks.Weekly(windows, self.bandwidth_mbits_max, weeks.zone(self.time_zone))


def _plain(character: str) -> bool:
    return character.isascii() and character.isalnum()
