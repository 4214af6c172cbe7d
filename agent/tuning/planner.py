"""From what was observed to what to change: pure, so that a plan can be read, tested and repeated.

Guaranteed, whatever was observed: no number of a value gets smaller, except the keepalive triple while it exceeds
Azure's idle limit, and the low end of a port range, as a range only widens; no socket buffer is raised beyond RAM_SHARE
of the memory; a plan for the planned state is empty. Every row of the table that changes nothing says why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agent.tuning import combine, ports
from agent.tuning.observe import Nic, Observed
from agent.tuning.settings import (
    DEVICE_KINDS,
    KEEPALIVE,
    KEEPALIVE_SECONDS_MAX,
    KERNEL_CONGESTION,
    KERNEL_QDISCS,
    TABLE,
    UNSET_MASK,
    Setting,
)

Profile = Literal["lan", "wan-azure", "vast-nfs"]

RAM_SHARE: Final = 64  # one socket's buffer is raised to at most 1/64 of the memory
BUFFER_BYTES_MIN: Final = 4 << 20  # below this the kernel's own defaults are as good
BUFFER_BYTES_MAX: Final = 128 << 20  # the most that ESnet and Azure advise, for 100 Gb/s too
PAGE_BYTES: Final = 4096
BANDWIDTH_MBITS_ASSUMED: Final = 1000
RTT_SECONDS_ASSUMED: Final = {"lan": 0.001, "wan-azure": 0.040, "vast-nfs": 0.040}
CONNTRACK_RAM_BYTES: Final = 32768  # one entry for so much memory: the kernel's rule for 64 bits
CONNTRACK_COUNT_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator says. `rings`: a NIC's rings may be changed, which can interrupt its link for a moment."""

    profile: Profile
    bandwidth_mbits: int | None
    listen_ports: frozenset[int]
    rings: bool = False

    @property
    def wan(self) -> bool:
        """Whether traffic goes a long way; a node with a VAST mount is taken to write to Azure as well."""
        return self.profile != "lan"


@dataclass(frozen=True, slots=True)
class Change:
    """One value to set: its key and unit, the present value, the new one, and why."""

    key: str
    unit: str
    old: str
    new: str
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A key that stays as it is, and why."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order of application. `basis` says in words what the buffers were computed from."""

    profile: Profile
    basis: str
    changes: tuple[Change, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a rule wants a key to be, or why it wants nothing."""

    value: str | None
    why: str = ""


def plan(observed: Observed, options: Options) -> Plan:
    """Decide every key of the table for this machine."""
    buffer_bytes, basis = _buffer(observed, options)
    changes: list[Change] = []
    skipped: list[Skipped] = []
    for row in TABLE:
        for key in _keys(row, observed):
            goal = _decide(row, key, observed, options, buffer_bytes)
            old = observed.values.get(key, "")
            if goal.value is None:
                skipped.append(Skipped(key, goal.why))
            elif goal.value == old:
                skipped.append(Skipped(key, f"{old} is good already"))
            else:
                changes.append(Change(key, row.unit, old, goal.value, row.reason, row.source))
    return Plan(options.profile, basis, tuple(changes), tuple(skipped))


def _keys(row: Setting, observed: Observed) -> list[str]:
    if row.key not in DEVICE_KINDS:
        return [row.key]
    return [key for key in observed.values if key.startswith(f"{row.key}:")]


def _decide(row: Setting, key: str, observed: Observed, options: Options, buffer_bytes: int) -> _Goal:
    why = _left_out(row, key, observed, options)
    if why:
        return _Goal(None, why)
    present = observed.values[key]
    if row.combine == "at-least":
        return _Goal(combine.at_least(present, _number_goal(row, key, observed, buffer_bytes, present)))
    if row.combine == "below":
        return _keepalive(row, observed.values)
    if row.combine == "widen":
        return _Goal(combine.widened(present, row.goal))
    if row.combine == "union":
        return _Goal(combine.union(present, ports.text(options.listen_ports)))
    return _word(row, key, observed, present)


def _left_out(row: Setting, key: str, observed: Observed, options: Options) -> str:
    """Why a row is not for this machine and profile; "" if it is."""
    if row.only_if == "wan" and not options.wan:
        return "only with profile wan-azure or vast-nfs"
    if row.only_if == "nfs" and options.profile != "vast-nfs":
        return "only with profile vast-nfs"
    if row.only_if == "conntrack" and not observed.conntrack:
        return "connection tracking is not loaded"
    if key not in observed.values:
        return "not in this kernel, or not in this network namespace"
    if key in observed.read_only:
        return "belongs to another network namespace and is read-only here"
    if row.only_if == "rings" and not options.rings:
        return "may interrupt the link for a moment; ask for it with --rings"
    return ""


def _buffer(observed: Observed, options: Options) -> tuple[int, str]:
    """Bytes of the largest socket buffer: twice bandwidth x delay as a power of two, within bounds; and its basis.

    A power of two, so that the next measurement of the delay does not make another plan.
    """
    speed = max((nic.speed_mbits or 0 for nic in observed.nics), default=0)
    mbits = options.bandwidth_mbits or speed or BANDWIDTH_MBITS_ASSUMED
    seconds = observed.rtt_seconds or RTT_SECONDS_ASSUMED[options.profile]
    need = max(int(2 * mbits * 1e6 / 8 * seconds), BUFFER_BYTES_MIN)
    share = observed.ram_bytes // RAM_SHARE // PAGE_BYTES * PAGE_BYTES
    size = min(1 << (need - 1).bit_length(), BUFFER_BYTES_MAX, share)
    known = "given" if options.bandwidth_mbits else "fastest NIC" if speed else "assumed"
    delay = "known" if observed.rtt_seconds else "assumed"
    return size, (
        f"{mbits} Mbit/s ({known}) x {seconds * 1000:.3g} ms ({delay}) x 2, at most 1/{RAM_SHARE} of "
        f"{observed.ram_bytes >> 20} MiB memory: buffers to {size} bytes"
    )


def _number_goal(row: Setting, key: str, observed: Observed, buffer_bytes: int, present: str) -> str:
    """The wanted numbers, as many as the value has."""
    if row.key == "rings":
        most = {f"rings:{nic.name}": nic.rings_max for nic in observed.nics}[key] or present
        pairs = zip(combine.numbers(row.goal), combine.numbers(most), strict=True)
        return " ".join(str(min(pair)) for pair in pairs)
    if row.key == "net.netfilter.nf_conntrack_max":
        return str(min(observed.ram_bytes // CONNTRACK_RAM_BYTES, CONNTRACK_COUNT_MAX))
    if row.goal:
        return row.goal
    return " ".join([*present.split()[:-1], str(buffer_bytes)])


def _keepalive(row: Setting, values: Mapping[str, str]) -> _Goal:
    """The exception to never lowering: here less is better, and only while the limit is exceeded."""
    if any(key not in values for key in KEEPALIVE):
        return _Goal(None, "the kernel shows only a part of the keepalive settings")
    idle, interval, probes = (int(values[key]) for key in KEEPALIVE)
    if idle + interval * probes < KEEPALIVE_SECONDS_MAX:
        return _Goal(None, f"{idle} + {interval} x {probes} s is below {KEEPALIVE_SECONDS_MAX} s already")
    return _Goal(str(min(int(values[row.key]), int(row.goal))))


def _word(row: Setting, key: str, observed: Observed, present: str) -> _Goal:
    """What is one choice of several: taken only from a kernel's default."""
    if row.key in ("rps", "xps"):
        return _queue(row.key, key, observed, present)
    if row.key == "net.ipv4.tcp_congestion_control":
        if row.goal not in observed.congestion:
            return _Goal(None, f"{row.goal} cannot be chosen here: modprobe tcp_{row.goal} on the host")
        return _unless_chosen(present, row.goal, KERNEL_CONGESTION)
    if not observed.fq:
        return _Goal(None, "this kernel has no fq; bbr paces by a timer of its own then")
    if row.key == "qdisc":
        if present == "noqueue":
            return _Goal(None, "a device without a queue of its own")
        goal = "mq fq" if present.startswith("mq ") else "fq"
        return _unless_chosen(present, goal, KERNEL_QDISCS)
    return _unless_chosen(present, row.goal, KERNEL_QDISCS)


def _unless_chosen(present: str, goal: str, defaults: Iterable[str]) -> _Goal:
    if present in (goal, *defaults):
        return _Goal(goal)
    return _Goal(None, f"{present} is not a kernel's default: somebody chose it")


def _queue(kind: str, key: str, observed: Observed, present: str) -> _Goal:
    """Masks of cores. RPS: every core for every queue. XPS: the cores dealt out to the queues in turn."""
    nic_name, _, queue = key.partition(":")[2].partition("/")
    nic = next(nic for nic in observed.nics if nic.name == nic_name)
    if observed.cores == 1:
        return _Goal(None, "one core")
    if kind == "rps" and nic.rx_queues >= observed.cores:
        return _Goal(None, "as many receive queues as cores")
    if kind == "xps" and nic.tx_queues == 1:
        return _Goal(None, "one send queue")
    mask = _mask(kind, nic, int(queue.partition("-")[2]), observed.cores)
    if mask == UNSET_MASK:
        return _Goal(None, "more send queues than cores")
    if present not in (UNSET_MASK, mask):
        return _Goal(None, f"mask {present} was set by the driver or by somebody")
    return _Goal(mask)


def _mask(kind: str, nic: Nic, queue: int, cores: int) -> str:
    chosen = range(cores) if kind == "rps" else range(queue, cores, nic.tx_queues)
    return f"{sum(1 << core for core in chosen):x}"
