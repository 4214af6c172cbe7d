"""Queueing disciplines and rings of network devices, by netlink.

A device's qdisc is one word, or `mq` and the word of its queues' children. What an administrator attached has a
handle: that is part of its value here (`htb 1:`), so the planner sees that it is not the kernel's default and leaves
it. Ours has a handle of its own. Taking ours off brings the kernel's default back; nothing else can, as a default
has no handle that could be asked for.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.ethtool import Ethtool
from pyroute2.ethtool.ioctl import NotSupportedError
from pyroute2.netlink.exceptions import NetlinkError

from agent.tuning.settings import KERNEL_QDISCS

OUR_HANDLE: Final = 0xB10B_0000
TC_ROOT: Final = 0xFFFF_FFFF  # TC_H_ROOT of linux/pkt_sched.h

Qdisc = tuple[str, int, int]  # kind, handle, parent


def refused() -> bool:
    """Whether this process may not ask at all (EAFNOSUPPORT), as in the sandbox of blobedge.service."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
    except OSError as error:
        return error.errno == errno.EAFNOSUPPORT
    return False


def names() -> frozenset[str]:
    """The devices of this network namespace; sysfs may be another's, if nobody mounted it anew."""
    with _netlink() as ip:
        return frozenset(str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links())


def default_route_device() -> str | None:
    """The device of the default route with the lowest metric, IPv4 before IPv6; None without one."""
    with _netlink() as ip:
        for family in (2, 10):  # AF_INET, AF_INET6
            routes = [route for route in ip.get_default_routes(family=family) if route.get_attr("RTA_OIF")]
            if routes:
                best = min(routes, key=lambda route: route.get_attr("RTA_PRIORITY") or 0)
                return str(ip.get_links(best.get_attr("RTA_OIF"))[0].get_attr("IFLA_IFNAME"))
    return None


def qdisc(device: str) -> str | None:
    """The root qdisc of a device in the form that the module's head describes; None without such a device."""
    with _netlink() as ip:
        found = _qdiscs(ip, device)
    roots = [entry for entry in found if entry[2] == TC_ROOT]
    if not roots:
        return None
    kind, handle, _ = roots[0]
    children = sorted({entry[0] for entry in found if entry[2] >> 16 == handle >> 16})
    name = " ".join([kind, *children]) if kind == "mq" else kind
    return name if handle in (0, OUR_HANDLE) else f"{name} {handle >> 16:x}:"


def set_qdisc(device: str, value: str) -> None:
    """Attach a qdisc as ours, or bring the kernel's default of today back, whichever of them that is. What somebody
    attached stays then. Raises OSError."""
    with _netlink() as ip:
        index = _index(ip, device)
        if value not in KERNEL_QDISCS:
            _attach(ip, index, value)
            return
        (handle,) = [entry[1] for entry in _qdiscs(ip, device) if entry[2] == TC_ROOT] or (0,)
        if handle == 0:  # a default, but of the day when the device came up: the kernel only picks anew after another
            _attach(ip, index, "pfifo")
        if handle in (0, OUR_HANDLE):
            ip.tc("del", index=index, handle=OUR_HANDLE, parent=TC_ROOT)


def rings(device: str) -> str | None:
    """`RX TX` descriptors of a device's rings; None if its driver does not tell."""
    found = _rings(device)
    return f"{found.rx} {found.tx}" if found else None


def rings_max(device: str) -> str | None:
    """The most that the hardware has, `RX TX`; None if its driver does not tell."""
    found = _rings(device)
    return f"{found.rx_max} {found.tx_max}" if found else None


def set_rings(device: str, value: str) -> None:
    """Set `RX TX`. Many drivers take the link down for a moment for it. Raises OSError."""
    receive, send = map(int, value.split())
    try:
        with Ethtool() as tool:
            tool.set_rings(device, rx=receive, tx=send)
    except NotSupportedError:
        raise OSError(errno.EOPNOTSUPP, "the driver does not set rings", device) from None


def _rings(device: str) -> Any:
    try:
        with Ethtool() as tool:
            found = tool.get_rings(device)
    except (NotSupportedError, NetlinkError, OSError):
        return None
    return found if found.rx and found.tx and found.rx_max and found.tx_max else None


def _attach(ip: IPRoute, index: int, value: str) -> None:
    kind, *child = value.split()
    ip.tc("replace", kind, index, handle=OUR_HANDLE, parent=TC_ROOT)
    if child:
        queues = [entry for entry in _classes(ip, index) if entry & 0xFFFF_0000 == OUR_HANDLE]
        for queue in queues:
            ip.tc("replace", child[0], index, handle=0, parent=queue)


def _classes(ip: IPRoute, index: int) -> list[int]:
    return [int(entry["handle"]) for entry in ip.get_classes(index)]


def _index(ip: IPRoute, device: str) -> int:
    found = ip.link_lookup(ifname=device)
    if not found:
        raise OSError(errno.ENODEV, "no such network device", device)
    return int(found[0])


def _qdiscs(ip: IPRoute, device: str) -> list[Qdisc]:
    index = _index(ip, device)
    return [
        (str(entry.get_attr("TCA_KIND")), int(entry["handle"]), int(entry["parent"])) for entry in ip.get_qdiscs(index)
    ]


@contextmanager
def _netlink() -> Iterator[IPRoute]:
    """A socket of its own for each use; a refusal of the kernel becomes the OSError that it is."""
    try:
        with IPRoute() as ip:
            yield ip
    except NetlinkError as error:
        raise OSError(error.code, str(error.args[1])) from None
