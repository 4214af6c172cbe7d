"""The table of everything that blobedge may change in a kernel, and of what it never does.

One row is one kind of setting. A row's goal is a constant here, or computed by planner.py from what was observed where
`goal` is empty. How a goal is combined with the present value is `combine`:

- `at-least`: each component is a number; the greater of present and goal, component by component
- `default-only`: a word; taken only while the present one is a kernel's default; any other is somebody's choice
- `below`: the keepalive triple, the one place where less is better; lowered only while it exceeds the limit
- `widen`: a range `LOW HIGH`; it never gets narrower
- `union`: a list of ports; only added to

`tcp_mem` is never set: it counts pages, and published values of it that mean bytes are wrong by 4096. Neither are
`rmem_default` and `wmem_default` (they change every socket of every program) nor `busy_poll` and `busy_read` (they burn
processor time). Nothing is ever turned down to make room.
"""

from dataclasses import dataclass
from typing import Final, Literal

Combine = Literal["at-least", "default-only", "below", "widen", "union"]
OnlyIf = Literal["always", "wan", "nfs", "conntrack", "rings"]

ESNET: Final = "ESnet host tuning, fasterdata.es.net/host-tuning/linux"
AZURE_BANDWIDTH: Final = "Azure docs, virtual-network-optimize-network-bandwidth"
AZURE_IDLE: Final = "Azure docs, load-balancer-tcp-idle-timeout: 4 minutes by default"
AZURE_SNAT: Final = "Azure docs, load-balancer-outbound-connections"
CONNTRACK: Final = "Linux Documentation/networking/nf_conntrack-sysctl.rst"
IP_SYSCTL: Final = "Linux Documentation/networking/ip-sysctl.rst"
SCALING: Final = "Linux Documentation/networking/scaling.rst"
NFS_CLIENTS: Final = "Azure NetApp Files and Google NetApp Volumes, Linux NFS client tuning"


@dataclass(frozen=True, slots=True)
class Setting:
    """A row. `key` of a device's setting is its kind (`qdisc`), which each device makes a key (`qdisc:eth0`)."""

    key: str
    unit: str
    combine: Combine
    goal: str
    only_if: OnlyIf
    reason: str
    source: str


# In the order of application; a rollback goes backwards. Devices come first, so that default_qdisc is back before ours
# is taken off a device and the kernel picks its default anew. Ports are reserved before the range that could hit them
# grows.
TABLE: Final = (
    Setting("qdisc", "", "default-only", "", "wan", "paces what bbr sends; see net.core.default_qdisc", ESNET),
    Setting("rings", "descriptors", "at-least", "1024 1024", "rings",
            "bursts are not dropped by the NIC", AZURE_BANDWIDTH),
    Setting("rps", "mask of cores", "default-only", "", "always",
            "fewer receive queues than cores: spreads them", SCALING),
    Setting("xps", "mask of cores", "default-only", "", "always", "each sending core keeps to its own queue", SCALING),
    Setting("read-ahead", "KiB", "at-least", "4096", "nfs",
            "sequential reads of a blob keep the mount busy", NFS_CLIENTS),
    Setting("net.ipv4.ip_local_reserved_ports", "ports", "union", "", "always",
            "no outgoing connection takes a port that blobedge listens on", IP_SYSCTL),
    Setting("net.ipv4.ip_local_port_range", "ports", "widen", "2000 65535", "wan",
            "thousands of connections to one Azure address need as many local ports", AZURE_BANDWIDTH),
    Setting("net.core.somaxconn", "connections", "at-least", "32768", "always",
            "clients open a thousand connections at once; none is refused for want of a queue", AZURE_BANDWIDTH),
    Setting("net.ipv4.tcp_max_syn_backlog", "connections", "at-least", "16384", "always",
            "the same burst, before its handshakes are done", IP_SYSCTL),
    Setting("net.core.netdev_max_backlog", "packets", "at-least", "32768", "always",
            "bursts wait between NIC and stack, and are not dropped", AZURE_BANDWIDTH),
    Setting("net.core.rmem_max", "bytes", "at-least", "", "always",
            "a socket may ask for a window of twice bandwidth x delay", ESNET),
    Setting("net.core.wmem_max", "bytes", "at-least", "", "always",
            "a socket may ask for a window of twice bandwidth x delay", ESNET),
    Setting("net.ipv4.tcp_rmem", "bytes: least, at first, most", "at-least", "", "always",
            "autotuning may reach twice bandwidth x delay; the first two stay", ESNET),
    Setting("net.ipv4.tcp_wmem", "bytes: least, at first, most", "at-least", "", "always",
            "autotuning may reach twice bandwidth x delay; the first two stay", ESNET),
    Setting("net.ipv4.tcp_window_scaling", "switch", "at-least", "1", "always",
            "without it no window exceeds 64 KiB", IP_SYSCTL),
    Setting("net.ipv4.tcp_sack", "switch", "at-least", "1", "always",
            "without it one loss costs the whole window", IP_SYSCTL),
    Setting("net.ipv4.tcp_timestamps", "switch", "at-least", "1", "always",
            "wide windows need it against old duplicates", IP_SYSCTL),
    Setting("net.ipv4.tcp_mtu_probing", "switch", "at-least", "1", "wan",
            "a VPN that swallows ICMP makes large packets vanish; probing finds the size that passes", ESNET),
    Setting("net.core.default_qdisc", "", "default-only", "fq", "wan",
            "devices that come later are paced too", ESNET),
    Setting("net.ipv4.tcp_congestion_control", "", "default-only", "bbr", "wan",
            "a few lost packets on a long way do not halve the rate", AZURE_BANDWIDTH),
    Setting("net.ipv4.tcp_keepalive_time", "s", "below", "120", "wan",
            "an idle connection is heard of before Azure's load balancers and NAT forget it", AZURE_IDLE),
    Setting("net.ipv4.tcp_keepalive_intvl", "s", "below", "20", "wan",
            "a dead peer is noticed within the same limit", AZURE_IDLE),
    Setting("net.ipv4.tcp_keepalive_probes", "probes", "below", "5", "wan",
            "a dead peer is noticed within the same limit", AZURE_IDLE),
    Setting("net.netfilter.nf_conntrack_max", "connections", "at-least", "", "conntrack",
            "a full table drops packets of new connections", CONNTRACK),
    Setting("sunrpc.tcp_slot_table_entries", "requests", "at-least", "128", "nfs",
            "requests under way to one NFS server; it counts from the next mount on", NFS_CLIENTS),
    Setting("sunrpc.tcp_max_slot_table_entries", "requests", "at-least", "128", "nfs",
            "the ceiling of the same", NFS_CLIENTS),
)  # fmt: skip

KEEPALIVE: Final = tuple(row.key for row in TABLE if row.combine == "below")
KEEPALIVE_SECONDS_MAX: Final = 240  # exclusive: what Azure's load balancers and NAT forget after
KERNEL_QDISCS: Final = ("pfifo_fast", "fq_codel", "mq pfifo_fast", "mq fq_codel")
KERNEL_CONGESTION: Final = ("cubic", "reno")
UNSET_MASK: Final = "0"  # of rps and xps
DEVICE_KINDS: Final = frozenset(row.key for row in TABLE if "." not in row.key)


def setting_of(key: str) -> Setting | None:
    """The row of a key, a device's or a sysctl's; None for what is not ours."""
    kind = key.partition(":")[0]
    return next((row for row in TABLE if row.key == kind), None)


def order_of(key: str) -> int:
    """The place of a key's row in the table. Raises ValueError for what is not ours."""
    row = setting_of(key)
    if row is None:
        raise ValueError(f"{key} is not in the table")
    return TABLE.index(row)
