"""Properties of every plan, whatever was observed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tuning import ports
from agent.tuning.mounts import NfsMount
from agent.tuning.observe import Nic, Observed
from agent.tuning.planner import RAM_SHARE, Options, Plan, Profile, plan
from agent.tuning.settings import KEEPALIVE, KEEPALIVE_SECONDS_MAX, TABLE, setting_of

NEVER = (
    "net.ipv4.tcp_mem",
    "net.core.rmem_default",
    "net.core.wmem_default",
    "net.core.busy_poll",
    "net.core.busy_read",
)

COUNTS = st.integers(1, 1 << 31)
PORTS = st.integers(1, 65_535)
PORT_SETS = st.frozensets(PORTS, max_size=40)
BANDWIDTHS = st.none() | st.integers(1, 1_000_000)
CONGESTION = ("reno", "cubic", "bbr", "htcp", "dctcp")
QDISCS = ("pfifo_fast", "fq_codel", "fq", "noqueue", "mq pfifo_fast", "mq fq_codel", "mq fq", "htb 1:", "fq 8001:")


@st.composite
def nics(draw: st.DrawFn) -> Nic:
    most = draw(st.none() | st.integers(64, 8192))
    return Nic(
        name="eth0",
        mtu=1500,
        speed_mbits=draw(st.none() | st.sampled_from([100, 1000, 10_000, 100_000])),
        rx_queues=draw(st.integers(1, 4)),
        tx_queues=draw(st.integers(1, 4)),
        rings_max=f"{most} {most}" if most else None,
    )


@st.composite
def machines(draw: st.DrawFn) -> Observed:
    nic = draw(nics())
    values = {row.key: str(draw(COUNTS)) for row in TABLE if row.combine in ("at-least", "below") and "." in row.key}
    for key in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
        values[key] = " ".join(str(draw(COUNTS)) for _ in range(3))
    low, high = sorted((draw(PORTS), draw(PORTS)))
    values |= {
        "net.ipv4.ip_local_port_range": f"{low} {high}",
        "net.ipv4.ip_local_reserved_ports": ports.text(draw(PORT_SETS)),
        "net.ipv4.tcp_congestion_control": draw(st.sampled_from(CONGESTION)),
        "net.core.default_qdisc": draw(st.sampled_from(["pfifo_fast", "fq_codel", "fq", "cake"])),
        "qdisc:eth0": draw(st.sampled_from(QDISCS)),
        "read-ahead:/mnt/v": str(draw(COUNTS)),
    }
    if nic.rings_max:
        values["rings:eth0"] = " ".join(str(draw(st.integers(1, int(nic.rings_max.split()[0])))) for _ in range(2))
    values |= {f"rps:eth0/rx-{queue}": draw(st.sampled_from(["0", "1", "3"])) for queue in range(nic.rx_queues)}
    values |= {f"xps:eth0/tx-{queue}": draw(st.sampled_from(["0", "1", "3"])) for queue in range(nic.tx_queues)}
    gone = draw(st.sets(st.sampled_from(sorted(values))))
    kept = {key: value for key, value in values.items() if key not in gone}
    return Observed(
        kernel="6.1.0",
        cores=draw(st.integers(1, 8)),
        ram_bytes=draw(st.integers(128 << 20, 1 << 40)),
        nics=(nic,),
        default_nic="eth0",
        rtt_seconds=draw(st.none() | st.floats(1e-6, 2)),
        mounts=(NfsMount("/mnt/v", "vip:/e", "rw", "0:45"),),
        fq=draw(st.booleans()),
        congestion=tuple(draw(st.lists(st.sampled_from(CONGESTION), unique=True))),
        values=kept,
        read_only=frozenset(draw(st.sets(st.sampled_from(sorted(kept) or ["none"]), max_size=3))),
    )


OPTIONS = st.builds(
    Options,
    profile=st.sampled_from(["lan", "wan-azure", "vast-nfs"]),
    bandwidth_mbits=BANDWIDTHS,
    listen_ports=PORT_SETS,
    rings=st.booleans(),
)


def after(observed: Observed, made: Plan) -> Observed:
    return replace(observed, values={**observed.values, **{change.key: change.new for change in made.changes}})


@given(machines(), OPTIONS)
def test_no_number_gets_smaller(observed: Observed, options: Options) -> None:
    for change in plan(observed, options).changes:
        row = setting_of(change.key)
        assert row is not None
        if row.combine == "at-least":
            pairs = list(zip(map(int, change.old.split()), map(int, change.new.split()), strict=True))
            assert all(new >= old for old, new in pairs)
        elif row.combine == "widen":
            (old_low, old_high), (low, high) = (map(int, text.split()) for text in (change.old, change.new))
            assert low <= old_low <= old_high <= high
        elif row.combine == "union":
            assert ports.parse(change.new) > ports.parse(change.old)


@given(machines(), OPTIONS)
def test_a_buffer_is_raised_within_the_share_of_memory_only(observed: Observed, options: Options) -> None:
    buffers = ("net.core.rmem_max", "net.core.wmem_max", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")
    for change in plan(observed, options).changes:
        if change.key in buffers:
            old, new = int(change.old.split()[-1]), int(change.new.split()[-1])
            assert change.new.split()[:-1] == change.old.split()[:-1]
            assert old < new <= observed.ram_bytes // RAM_SHARE


@given(machines(), OPTIONS)
def test_keepalive_ends_below_the_idle_limit_and_is_never_raised(observed: Observed, options: Options) -> None:
    values = after(observed, plan(observed, options)).values
    present = [key for key in KEEPALIVE if key in observed.values]
    assert all(int(values[key]) <= int(observed.values[key]) for key in present)
    if options.wan and len(present) == 3 and not observed.read_only & set(KEEPALIVE):
        idle, interval, probes = (int(values[key]) for key in KEEPALIVE)
        assert idle + interval * probes < KEEPALIVE_SECONDS_MAX


@given(machines(), OPTIONS)
def test_keepalive_below_the_limit_is_left(observed: Observed, options: Options) -> None:
    short = replace(observed, values={**observed.values, **dict(zip(KEEPALIVE, ("200", "10", "3"), strict=True))})
    assert not {change.key for change in plan(short, options).changes} & set(KEEPALIVE)


@given(machines(), OPTIONS)
def test_our_ports_are_reserved_wherever_that_exists(observed: Observed, options: Options) -> None:
    key = "net.ipv4.ip_local_reserved_ports"
    if key in observed.values and key not in observed.read_only:
        reserved = ports.parse(after(observed, plan(observed, options)).values[key])
        assert reserved == ports.parse(observed.values[key]) | options.listen_ports


@given(machines(), OPTIONS)
def test_a_plan_for_the_planned_state_is_empty(observed: Observed, options: Options) -> None:
    assert plan(after(observed, plan(observed, options)), options).changes == ()


@given(machines(), OPTIONS)
def test_every_key_is_decided_once_and_only_what_exists_is_changed(observed: Observed, options: Options) -> None:
    made = plan(observed, options)
    keys = [*(change.key for change in made.changes), *(skipped.key for skipped in made.skipped)]
    assert len(keys) == len(set(keys))
    assert set(observed.values) <= set(keys)
    assert all(change.old == observed.values[change.key] for change in made.changes)
    assert not {change.key for change in made.changes} & observed.read_only
    assert all(skipped.why for skipped in made.skipped)


@given(machines(), OPTIONS)
def test_bbr_and_fq_only_for_long_ways_when_available_and_unchosen(observed: Observed, options: Options) -> None:
    for change in plan(observed, options).changes:
        if change.key == "net.ipv4.tcp_congestion_control":
            assert options.wan
            assert "bbr" in observed.congestion
            assert change.old in ("cubic", "reno")
        if change.key == "qdisc:eth0":
            assert options.wan
            assert observed.fq
            assert ":" not in change.old
            assert change.old != "noqueue"


def test_the_table_has_nothing_that_is_never_set() -> None:
    assert not {row.key for row in TABLE} & set(NEVER)
    assert len({row.key for row in TABLE}) == len(TABLE)
    assert all(row.reason and row.source for row in TABLE)


@pytest.mark.parametrize(
    ("profile", "mbits", "milliseconds", "ram_gib", "bytes_wanted"),
    [
        ("wan-azure", 1000, 40, 16, 16 << 20),  # 2 x 5 MB, to the next power of two
        ("wan-azure", 10_000, 40, 16, 128 << 20),  # 2 x 50 MB
        ("wan-azure", 10_000, 100, 16, 128 << 20),  # 2 x 125 MB is more than anyone advises
        ("wan-azure", 10_000, 40, 2, 32 << 20),  # the share of a small node
        ("lan", 1000, 1, 16, 4 << 20),
    ],
)
def test_buffers(profile: Profile, mbits: int, milliseconds: int, ram_gib: int, bytes_wanted: int) -> None:
    observed = Observed(
        kernel="6.1.0",
        cores=4,
        ram_bytes=ram_gib << 30,
        nics=(),
        default_nic=None,
        rtt_seconds=milliseconds / 1000,
        mounts=(),
        congestion=(),
        fq=True,
        values={"net.core.rmem_max": "212992"},
        read_only=frozenset(),
    )
    (change,) = plan(observed, Options(profile, mbits, frozenset())).changes
    assert change.new == str(bytes_wanted)


@given(PORT_SETS)
def test_port_lists_are_read_as_they_are_written(wanted: frozenset[int]) -> None:
    assert ports.parse(ports.text(wanted)) == wanted


def test_port_lists_are_in_the_kernels_form() -> None:
    assert ports.text(frozenset({9002, 9000, 9001, 80})) == "80,9000-9002"
    assert ports.text(frozenset()) == ""
