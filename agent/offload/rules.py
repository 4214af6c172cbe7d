"""What happens to a blob: the first rule that matches it decides, and no rule means that it stays here. Pure.

All times are whole nanoseconds since 1970 UTC, all sizes bytes. Two times of a blob matter:

    modified   of its present version: Last-Modified, or the file's mtime. Not believed when it is in the future (a
               camera whose clock is wrong), as such a blob would wait for years
    noticed    when this node saw the change. A file that was copied with its old times is old, and was just changed.
               If this is in the future too, the node's own clock was wrong, and the blob is due: to count from now at
               each look would put it off for ever

A rule's blob is due when it was noticed ("now"), `idle_seconds` after the later of the two ("idle"), or `age_days`
after it was modified ("age"). While its mount is in low space (Rules.low_space), a blob that may leave the node is due
sooner and goes before all others: at once when it is `whole`, else after a minute's rest at most, as it may be half a
file that another program writes.

`first_turn` is for the journal, which knows names and no sizes: it never says later than `decide` would of a blob that
was modified when it was noticed, so a look at the blob is never too late. Rejected: to ask the mount for each record of
the journal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.config_offload import IDLE_SECONDS, Conflict, Delete, Evict, Offload, Order, Rule, Upload
from agent.offload import amounts
from agent.offload.amounts import NANOSECONDS
from agent.offload.globs import Glob
from agent.offload.rows import Turn
from agent.offload.templates import Target

_DAY_SECONDS: Final = 86_400
_IDLE_NS: Final = int(IDLE_SECONDS * NANOSECONDS)
_HURRIED: Final = 0  # the priority of what makes room
_INT64: Final = 2**63 - 1  # what a column of the queue holds
_REMEMBERED_MAX: Final = 4096  # containers


class Subject(NamedTuple):
    """A blob, as far as it matters here. `size` is None where only its name is known; `whole`: it came through this
    service, which shows no half of a blob."""

    account: str
    container: str
    name: str
    size: int | None
    modified_ns: int
    noticed_ns: int
    whole: bool = False


class Leaving(NamedTuple):
    """How a blob's bytes may leave this node; agent/offload/evict/verdict.py says when."""

    evict: Evict = "never"
    evict_after_ns: int = 0  # since its last use, with "age"
    pinned: bool = False
    delete_after_upload: bool = False
    ttl_ns: int | None = None  # since it was modified

    @property
    def makes_room(self) -> bool:
        """Whether its mount has more room once the cloud has it."""
        return self.evict != "never" or self.delete_after_upload

    @property
    def leaves(self) -> bool:
        """Whether it ever does without being asked to."""
        return self.makes_room or self.ttl_ns is not None


STAYING: Final = Leaving()


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to a blob. Where `upload` is False nothing but `rule` and `leaving` is said."""

    upload: bool
    rule: int | None = None  # counted from 0; None: none matched
    due_at: int = 0
    priority: int = 0
    order_key: int = 0
    target: Target | None = None
    delete: Delete = "keep"
    delete_fuse_percent: float = 0.0
    conflict: Conflict = "edge-wins"
    leaving: Leaving = STAYING

    @property
    def turn(self) -> Turn:
        """The same as the queue takes it."""
        return Turn(self.due_at, self.priority, self.order_key)


STAYS: Final = Decision(upload=False)


class _Compiled:
    """A rule, with what can be worked out before there is a blob."""

    def __init__(self, number: int, rule: Rule, offload: Offload, accounts: list[str]) -> None:
        self.number: Final = number
        self.rule: Final = rule
        self.upload: Final[Upload] = rule.upload
        self.order: Final[Order] = rule.order
        self.containers: Final = [Glob(pattern) for pattern in rule.containers]
        self.glob: Final = Glob(rule.glob) if rule.glob is not None else None
        self.size_min: Final = amounts.size(rule.size_min) if rule.size_min else 0
        self.size_max: Final = amounts.size(rule.size_max) if rule.size_max else None
        self.sized: Final = rule.size_min is not None or rule.size_max is not None
        seconds = {"idle": rule.idle_seconds, "age": (rule.age_days or 0) * _DAY_SECONDS}.get(rule.upload, 0)
        self.delay_ns: Final = int(seconds * NANOSECONDS)
        after, ttl = rule.evict_days or 0, rule.ttl_days
        self.leaving: Final = Leaving(
            rule.evict,
            int(after * _DAY_SECONDS * NANOSECONDS),
            rule.pin,
            rule.delete_after_upload,
            None if ttl is None else int(ttl * _DAY_SECONDS * NANOSECONDS),
        )
        self.route: Final = None if rule.upload == "never" else rule.route(offload.node_name(), accounts)

    def is_for(self, account: str, container: str) -> bool:
        """Whether the rule is for a container at all."""
        return (not self.rule.accounts or account in self.rule.accounts) and (
            not self.containers or any(glob.matches(container) for glob in self.containers)
        )

    def takes(self, name: str) -> bool:
        """Whether the rule is for a name, in a container that it is for."""
        return name.startswith(self.rule.prefix) and (self.glob is None or self.glob.matches(name))

    def fits(self, size: int) -> bool:
        """Whether the rule is for a size."""
        return size >= self.size_min and (self.size_max is None or size <= self.size_max)

    def due_at(self, modified: int, noticed: int, *, hurried: bool = False, whole: bool = False) -> int:
        """When its blob is due; `hurried`: its mount needs the room."""
        if hurried:
            return noticed if whole else max(modified, noticed) + min(self.delay_ns, _IDLE_NS)
        if self.upload == "age":
            return modified + self.delay_ns
        return max(modified, noticed) + self.delay_ns if self.upload == "idle" else noticed

    def order_key(self, modified: int, size: int) -> int:
        """What orders its blobs among themselves; lower goes first."""
        return {"oldest": modified, "newest": -modified, "smallest": size}[self.order]


class Rules:
    """The rules of a configuration, ready to be asked."""

    def __init__(self, offload: Offload, accounts: Sequence[str]) -> None:
        """`accounts`: all accounts of this node. The configuration is one that was checked."""
        self._compiled: Final = [
            _Compiled(number, rule, offload, list(accounts)) for number, rule in enumerate(offload.rules)
        ]
        self._of_container: dict[tuple[str, str], list[_Compiled]] = {}
        #: Whether the mount of (account, container) is in low space now. Set by who watches the mounts.
        self.low_space: Callable[[str, str], bool] = lambda account, container: False

    def __len__(self) -> int:
        return len(self._compiled)

    def candidates(self, account: str, container: str) -> list[_Compiled]:
        """The rules for a container, in order."""
        found = self._of_container.get((account, container))
        if found is None:
            if len(self._of_container) >= _REMEMBERED_MAX:
                self._of_container.clear()
            found = [each for each in self._compiled if each.is_for(account, container)]
            self._of_container[account, container] = found
        return found

    def senders(self, container: str, name: str) -> set[tuple[str, str, str]]:
        """The (account, container, name) of the blobs that go to a place in the cloud, as far as it can be read."""
        routes = (each.route for each in self._compiled if each.route is not None)
        return {found for route in routes if (found := route.origin(container, name)) is not None}

    def others(self, blob: tuple[str, str, str], container: str, name: str) -> set[tuple[str, str, str]]:
        """The blobs but this one that go to a place in the cloud: none if it goes there itself. A stub that says so was
        made of one of them, and moved."""
        senders = self.senders(container, name)
        return set() if blob in senders else senders

    def mismatches(self, subject: Subject) -> list[str]:
        """For each rule the first condition that the blob does not meet, "" for one that matches. For people."""
        return [_mismatch(each, subject) for each in self._compiled]


def decide(rules: Rules, subject: Subject, now: int) -> Decision:
    """What happens to a blob whose size is known. Raises ValueError if it is not."""
    if subject.size is None:
        raise ValueError("a decision needs the size of the blob")
    for each in rules.candidates(subject.account, subject.container):
        if each.takes(subject.name) and each.fits(subject.size):
            hurried = each.leaving.makes_room and rules.low_space(subject.account, subject.container)
            return _decided(each, subject, subject.size, now, hurried)
    return STAYS


def _decided(each: _Compiled, subject: Subject, size: int, now: int, hurried: bool) -> Decision:
    rule = each.rule
    if each.route is None:
        return Decision(upload=False, rule=each.number, leaving=each.leaving)
    noticed = min(subject.noticed_ns, now)
    modified = subject.modified_ns if subject.modified_ns <= now else noticed
    timeless = min(subject.modified_ns, subject.noticed_ns) > now
    return Decision(
        upload=True,
        rule=each.number,
        due_at=now if timeless else _int64(each.due_at(modified, noticed, hurried=hurried, whole=subject.whole)),
        priority=_HURRIED if hurried else rule.priority,
        order_key=_int64(each.order_key(modified, size)),
        target=each.route.target(subject.account, subject.container, subject.name, modified, rule.tier or ""),
        delete=rule.delete,
        delete_fuse_percent=rule.delete_fuse_percent,
        conflict=rule.conflict,
        leaving=each.leaving,
    )


def first_turn(rules: Rules, account: str, container: str, name: str, when: int) -> Turn | None:
    """When to look at a blob of which is known that it changed at `when`. None: no rule sends it, whatever it is.

    The earliest turn of all rules that may turn out to be its own: up to the first that matches for any size.
    """
    first: Turn | None = None
    for each in rules.candidates(account, container):
        if not each.takes(name):
            continue
        if each.route is not None:
            hurried = each.leaving.makes_room and rules.low_space(account, container)
            due_at = each.due_at(when, when, hurried=hurried, whole=True)
            priority = _HURRIED if hurried else each.rule.priority
            turn = Turn(_int64(due_at), priority, _int64(each.order_key(when, 0)))
            first = turn if first is None else min(first, turn)
        if not each.sized:
            break
    return first


def _int64(value: int) -> int:
    return max(-_INT64, min(value, _INT64))


def _mismatch(each: _Compiled, subject: Subject) -> str:
    rule, size = each.rule, subject.size
    if rule.accounts and subject.account not in rule.accounts:
        return f"account {subject.account} is none of {', '.join(rule.accounts)}"
    if not each.is_for(subject.account, subject.container):
        return f"container {subject.container} is none of {', '.join(rule.containers)}"
    if not subject.name.startswith(rule.prefix):
        return f"the name does not begin with {rule.prefix}"
    if each.glob is not None and not each.glob.matches(subject.name):
        return f"the name does not look like {rule.glob}"
    if size is not None and size < each.size_min:
        return f"{amounts.size_text(size)} is less than {rule.size_min}"
    if size is not None and each.size_max is not None and size > each.size_max:
        return f"{amounts.size_text(size)} is more than {rule.size_max}"
    return ""
