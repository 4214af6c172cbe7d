"""What happens inside a network namespace of its own; test_namespace.py starts each scene there as a program.

The namespace has devices without a way out: one with a queue, one with four, and the default route by the first. sysfs
is mounted anew, as a mount shows the devices of the namespace that made it.
"""

import ctypes
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from agent.problems import OperatorError
from agent.tuning import apply, knobs, links, record
from agent.tuning.knobs import Roots
from agent.tuning.observe import Observed, observe
from agent.tuning.planner import Change, Options, Plan, plan
from agent.tuning.report import report

OPTIONS = Options("wan-azure", 10_000, frozenset({10000, 10001, 12000}))
SOMAXCONN = "net.core.somaxconn"
QDISC = "qdisc:ours0"
RESERVED = "net.ipv4.ip_local_reserved_ports"
WMEM = "net.ipv4.tcp_wmem"


def devices() -> None:
    with IPRoute() as ip:
        for name, queues in (("ours0", 1), ("ours1", 4)):
            ip.link("add", ifname=name, kind="ifb", num_tx_queues=queues, num_rx_queues=queues)
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        index = ip.link_lookup(ifname="ours0")[0]
        ip.addr("add", index=index, address="192.0.2.1", prefixlen=24)
        ip.route("add", dst="0.0.0.0/0", gateway="192.0.2.2", family=socket.AF_INET)


def roots(directory: Path) -> Roots:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None) == 0, os.strerror(ctypes.get_errno())
    return Roots(etc=directory / "etc", state=directory / "state")


def dump(where: Roots) -> dict[str, object]:
    """Every network sysctl of the namespace that has a steady value, every qdisc, every mask of cores."""
    unsteady = ("netdev_rss_key", "tcp_fastopen_key", "random", "route/flush")
    found: dict[str, object] = {}
    for path in sorted(Path("/proc/sys/net").rglob("*")):
        if path.is_file() and path.stat().st_mode & 0o444 and not any(word in str(path) for word in unsteady):
            try:
                found[str(path)] = path.read_bytes()
            except OSError as error:
                found[str(path)] = error.errno
    for path in sorted((where.sys / "class/net").glob("*/queues/*/*ps_cpus")):
        found[str(path)] = knobs.read(where, f"{path.name[:3]}:{path.parts[-4]}/{path.parts[-2]}")
    with IPRoute() as ip:
        found["qdiscs"] = sorted(
            (entry["index"], entry["handle"], entry["parent"], entry.get_attr("TCA_KIND")) for entry in ip.get_qdiscs()
        )
    return found


def look(where: Roots) -> Observed:
    """The namespace, with more cores than the first device has queues wherever the test runs.

    Without fq, which not every test machine's kernel has: `with_qdisc` stands for it.
    """
    return replace(observe(where, 0.04), cores=2, fq=False)


def with_qdisc(made: Plan) -> Plan:
    """The plan with a qdisc that every kernel has, on the device of the default route."""
    old = links.qdisc("ours0") or ""
    extra = () if old == "pfifo" else (Change(QDISC, "", old, "pfifo", "for the test", "this test"),)
    return replace(made, changes=(*extra, *made.changes))


def whole(where: Roots) -> None:
    """Plan, apply, verify, drift, apply again, roll back: twice; exact each time."""
    knobs.write(where, "net.ipv4.tcp_congestion_control", "reno")
    before = dump(where)
    for _ in range(2):
        made = with_qdisc(plan(look(where), OPTIONS))
        keys = {change.key for change in made.changes}
        assert {SOMAXCONN, "net.ipv4.tcp_congestion_control", QDISC, "rps:ours0/rx-0"} <= keys, keys
        assert not apply.verify(where)
        apply.apply(where, made)
        assert not apply.verify(where)
        assert plan(look(where), OPTIONS).changes == ()
        assert links.qdisc("ours0") == "pfifo"
        assert where.drop_in.read_text().splitlines()[0] == record.HEADER
        assert f"{SOMAXCONN} = 32768" in where.drop_in.read_text().splitlines()

        knobs.write(where, SOMAXCONN, "1000")
        links.set_qdisc("ours0", "fq_codel")
        assert {item["key"] for item in report(where)["drift"]} == {SOMAXCONN, QDISC}
        assert apply.apply_recorded(where) == []
        assert report(where) == {"applied": True, "profile": "wan-azure", "drift": []}

        knobs.write(where, SOMAXCONN, "2000")
        apply.apply(where, plan(look(where), OPTIONS))
        assert knobs.read(where, SOMAXCONN) == "32768"
        assert apply.rollback(where) == []
        assert apply.rollback(where) == []
        assert dump(where) == before
        assert not where.drop_in.exists()
        assert list(where.state.iterdir()) == []
        assert report(where)["applied"] is False


def higher_later(where: Roots) -> None:
    """What somebody raised since is lowered neither by the next apply nor by the next boot; the rollback is exact."""
    before = dump(where)
    apply.apply(where, plan(look(where), OPTIONS))
    knobs.write(where, SOMAXCONN, "60000")
    apply.apply(where, plan(look(where), OPTIONS))
    assert not apply.verify(where)
    assert f"{SOMAXCONN} = 60000" in where.drop_in.read_text()
    apply.rollback(where)
    assert dump(where) == before


def refused_midway(where: Roots) -> None:
    """A value that the kernel refuses undoes what was set before it, and leaves no record; a good record stays."""
    before = dump(where)
    good = with_qdisc(plan(look(where), OPTIONS))
    present = knobs.read(where, "net.ipv4.tcp_congestion_control") or ""
    bad = Change("net.ipv4.tcp_congestion_control", "", present, "no-such-control", "to be refused", "this test")
    broken = Plan(good.profile, good.basis, (*good.changes, bad), ())
    refused(lambda: apply.apply(where, broken), "net.ipv4.tcp_congestion_control")
    assert dump(where) == before
    assert record.load(where) is None
    assert not where.drop_in.exists()
    apply.apply(where, good)
    kept = record.load(where)
    applied = dump(where)
    refused(lambda: apply.apply(where, Plan(good.profile, good.basis, (bad,), ())), "net.ipv4.tcp_congestion_control")
    assert record.load(where) == kept
    assert dump(where) == applied


def killed(where: Roots) -> None:
    """A record without its changes, as a kill between the two leaves it, rolls back to what was."""
    before = dump(where)
    made = plan(look(where), OPTIONS)
    entries = {change.key: record.Entry(change.old, change.new, change.reason) for change in made.changes}
    record.save(where, record.Record(made.profile, entries))
    knobs.write(where, SOMAXCONN, "32768")
    apply.rollback(where)
    assert dump(where) == before


def many_queues(where: Roots) -> None:
    """A device with several queues gets ours below mq, and its default back; a qdisc by hand is not touched."""
    before = dump(where)
    assert (links.qdisc("ours1") or "").startswith("mq "), links.qdisc("ours1")
    links.set_qdisc("ours1", "mq pfifo")
    assert links.qdisc("ours1") == "mq pfifo"
    links.set_qdisc("ours1", "mq pfifo_fast")
    assert dump(where) == before
    with IPRoute() as ip:
        ip.tc("replace", "pfifo", ip.link_lookup(ifname="ours0")[0], handle=0x10000)
    by_hand = links.qdisc("ours0")
    assert by_hand == "pfifo 1:"
    apply.apply(where, plan(look(where), OPTIONS))
    assert links.qdisc("ours0") == by_hand


def unprivileged(where: Roots) -> None:
    """One line, before anything changed."""
    made = plan(look(where), OPTIONS)
    os.setgid(65534)
    os.setuid(65534)
    refused(lambda: apply.apply(where, made), "needs root")
    refused(lambda: apply.rollback(where), "needs root")
    assert plan(look(where), OPTIONS) == made


def not_ours(where: Roots) -> None:
    """A drop-in by another hand is neither overwritten nor removed."""
    before = dump(where)
    where.drop_in.parent.mkdir(parents=True)
    where.drop_in.write_text("# by hand\n")
    refused(lambda: apply.apply(where, plan(look(where), OPTIONS)), "not written by blobedge")
    assert where.drop_in.read_text() == "# by hand\n"
    assert dump(where) == before


def booted_higher(where: Roots) -> None:
    """A later file of the administrator has won at boot: ours brings back what is less, and leaves what is more."""
    apply.apply(where, plan(look(where), OPTIONS))
    theirs = {SOMAXCONN: "60000", "net.ipv4.tcp_keepalive_time": "60", RESERVED: "20000", WMEM: "8192 16384 1048576"}
    applied = {key: knobs.read(where, key) or "" for key in theirs}
    for key, value in theirs.items():
        knobs.write(where, key, value)
    assert apply.apply_recorded(where) == []
    assert knobs.read(where, SOMAXCONN) == "60000"
    assert knobs.read(where, "net.ipv4.tcp_keepalive_time") == "60"
    assert knobs.read(where, RESERVED) == "10000-10001,12000,20000"
    assert knobs.read(where, WMEM) == f"8192 16384 {applied[WMEM].split()[-1]}"
    assert {drift.key for drift in apply.verify(where)} == set(theirs)


def booted_with_a_refusal(where: Roots) -> None:
    """One value that the kernel refuses keeps none of the others from being set."""
    entries = {
        QDISC: record.Entry("pfifo_fast", "no-such-qdisc", "to be refused"),
        SOMAXCONN: record.Entry("4096", "32768", "to be set"),
    }
    record.save(where, record.Record("wan-azure", entries))
    refused(lambda: apply.apply_recorded(where), QDISC)
    assert knobs.read(where, SOMAXCONN) == "32768"


def defaults_changed(where: Roots) -> None:
    """A device that came up with another default than it had at the first apply gets today's default back.

    After a boot the drop-in's default_qdisc made every device's own; here a queue of no length stands for that.
    """
    default = links.qdisc("ours0")
    with IPRoute() as ip:
        index = ip.link_lookup(ifname="ours0")[0]
        ip.link("set", index=index, txqlen=0)
        links.set_qdisc("ours0", "pfifo")
        links.set_qdisc("ours0", "pfifo_fast")
        assert links.qdisc("ours0") == "noqueue"
        ip.link("set", index=index, txqlen=1000)
    record.save(where, record.Record("wan-azure", {QDISC: record.Entry("fq_codel", "noqueue", "this test")}))
    assert apply.rollback(where) == []
    assert links.qdisc("ours0") == default


def taken_over(where: Roots) -> None:
    """What somebody attached to a device after our apply is theirs: no apply, boot or rollback touches it."""
    apply.apply(where, with_qdisc(plan(look(where), OPTIONS)))
    with IPRoute() as ip:
        index = ip.link_lookup(ifname="ours0")[0]
        ip.tc("del", index=index, handle=links.OUR_HANDLE, parent=links.TC_ROOT)
        ip.tc("add", "pfifo", index, handle=0x10000)
    apply.apply(where, plan(look(where), OPTIONS))
    recorded = record.load(where)
    assert recorded is not None
    assert recorded.entries[QDISC].new == "pfifo"
    apply.apply_recorded(where)
    assert links.qdisc("ours0") == "pfifo 1:"
    assert [drift.key for drift in apply.verify(where)] == [QDISC]
    assert apply.rollback(where) == [QDISC]
    assert links.qdisc("ours0") == "pfifo 1:"
    assert record.load(where) is None


def side_by_side(where: Roots) -> None:
    """Many at once: each is whole, and the last rollback leaves nothing."""
    before = dump(where)
    made = plan(look(where), OPTIONS)
    with ThreadPoolExecutor(8) as threads:
        acts: list[Future[object]] = [threads.submit(apply.apply, where, made) for _ in range(8)]
        acts += [threads.submit(apply.rollback, where) for _ in range(8)]
        for act in acts:
            act.result()
    apply.rollback(where)
    assert dump(where) == before
    assert list(where.state.iterdir()) == []


def drop_in_gone(where: Roots) -> None:
    """The next boot would start without our values: that is drift, and an apply mends it; a boot writes no file."""
    apply.apply(where, plan(look(where), OPTIONS))
    text = where.drop_in.read_text()
    for spoil in (lambda: where.drop_in.unlink(), lambda: where.drop_in.write_text(f"{record.HEADER}\n")):
        spoil()
        assert [drift.key for drift in apply.verify(where)] == [str(where.drop_in)]
        assert apply.apply_recorded(where) == []
        assert not where.drop_in.exists() or where.drop_in.read_text() != text
        apply.apply(where, plan(look(where), OPTIONS))
        assert where.drop_in.read_text() == text
        assert not apply.verify(where)


def refused(act: Callable[[], object], says: str) -> None:
    with pytest.raises(OperatorError) as caught:
        act()
    (problem,) = caught.value.problems
    assert says in problem.text
    assert "\n" not in problem.text


SCENES = {
    scene.__name__: scene
    for scene in (
        whole,
        higher_later,
        refused_midway,
        killed,
        many_queues,
        unprivileged,
        not_ours,
        booted_higher,
        booted_with_a_refusal,
        defaults_changed,
        taken_over,
        drop_in_gone,
        side_by_side,
    )
}

if __name__ == "__main__":
    devices()
    SCENES[sys.argv[1]](roots(Path(sys.argv[2])))
