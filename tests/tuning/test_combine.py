"""A boot brings back what was applied, and takes nothing that is better or chosen."""

import pytest

from agent.tuning.combine import at_boot


@pytest.mark.parametrize(
    ("key", "found", "recorded", "wanted"),
    [
        ("net.core.somaxconn", "4096", "32768", "32768"),
        ("net.core.somaxconn", "65535", "32768", "65535"),
        ("net.ipv4.tcp_wmem", "4096 65536 4194304", "4096 16384 16777216", "4096 65536 16777216"),
        ("net.ipv4.tcp_keepalive_time", "7200", "120", "120"),
        ("net.ipv4.tcp_keepalive_time", "60", "120", "60"),
        ("net.ipv4.ip_local_port_range", "1024 60999", "2000 65535", "1024 65535"),
        ("net.ipv4.ip_local_reserved_ports", "", "10000-10002", "10000-10002"),
        ("net.ipv4.ip_local_reserved_ports", "9000", "10000", "9000,10000"),
        ("net.ipv4.tcp_congestion_control", "cubic", "bbr", "bbr"),
        ("net.ipv4.tcp_congestion_control", "htcp", "bbr", "htcp"),
        ("qdisc:eth0", "mq fq_codel", "mq fq", "mq fq"),
        ("qdisc:eth0", "htb 1:", "fq", "htb 1:"),
        ("rps:eth0/rx-0", "0", "f", "f"),
        ("rps:eth0/rx-0", "3", "f", "3"),
        ("rings:eth0", "256 4096", "1024 1024", "1024 4096"),
    ],
)
def test_a_boot(key: str, found: str, recorded: str, wanted: str) -> None:
    assert at_boot(key, found, recorded) == wanted
