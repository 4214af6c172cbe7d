"""What mends a step of the way to the cloud that failed, and what threatens a way that works."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

from agent.doctor import clock
from agent.doctor.cloud import CloudFacts, Step, Taken
from agent.doctor.findings import Finding
from agent.doctor.tcp import Connection

CHECK: Final = "cloud"
IDLE_SECONDS_MAX: Final = 240  # Azure's load balancers and NAT gateways forget an idle connection, unless told later
SNAT_PORTS_MIN: Final = 1024  # what a load balancer gives a machine by default, to each destination

_MENDS: Final[Mapping[tuple[Step, str], str]] = {
    ("dns", "no address"): "correct [cloud] endpoint, or the resolver: getent hosts NAME, resolvectl status",
    ("dns", "timeout"): "the resolver does not answer: resolvectl status, /etc/resolv.conf",
    ("tcp", "refused"): "correct the port of [cloud] endpoint; if it is right, a firewall refuses it",
    ("tcp", "timeout"): "open outgoing TCP to this address and port in the firewall or network security group",
    ("tcp", "unreachable"): "add a route to it: ip route get ADDRESS",
    ("tls", "wrong name"): "use the account's public name in [cloud] endpoint, with a private endpoint too",
    ("tls", "expired"): "correct this machine's clock (date -u), or have the server's certificate renewed",
    ("tls", "not yet valid"): "correct this machine's clock (date -u)",
    (
        "tls",
        "untrusted",
    ): "something on the way re-signs TLS: name its authority in [cloud] ca_file, or exempt the host",
    ("tls", "not tls"): "the port speaks no TLS, or a firewall cuts it: check scheme and port of [cloud] endpoint",
    ("tls", "ca file"): "correct [cloud] ca_file: a PEM file of certificates that the service's user may read",
    ("http", "busy"): "wait; if it stays, look at the account's throttling and Azure's status page",
    ("http", "not blob"): "something else answers (a portal, a proxy): check [cloud] endpoint and the way to it",
    ("authorisation", "no sas"): "write a SAS into [cloud] sas_file: sv=...&sig=..., without a URL before it",
    ("authorisation", "no credential"): "correct the file that [cloud] names: one line, the service's user may read it",
    (
        "authorisation",
        "key refused",
    ): "write the account's present key into the file: this one was rotated, or is another's",
    ("authorisation", "sas expired"): "write a new SAS into [cloud] sas_file (docs/runbooks/cloud-credential.md)",
    ("authorisation", "sas not yet valid"): "check the clock (date -u); make the SAS without st",
    ("authorisation", "AuthenticationFailed"): "make a new SAS: its key was rotated, or the text was cut or changed",
    (
        "authorisation",
        "AuthorizationFailure",
    ): "add this node's address to the account's firewall, or a private endpoint",
    ("authorisation", "AuthorizationSourceIPMismatch"): "make the SAS without sip, or with this node's public address",
    ("authorisation", "KeyBasedAuthenticationNotPermitted"): "allow key access in the account, or use a delegation SAS",
    ("authorisation", "AccountIsDisabled"): "enable the account or its subscription in the portal",
    ("list", "permission"): "make an account SAS with ss=b, srt=sco and l among sp",
    ("list", "busy"): "wait; if it stays, look at the account's throttling and Azure's status page",
}
_ANY: Final = "ask again: blobedge doctor; if it stays: docs/runbooks/auth-failures.md and dns.md"


def judge(facts: CloudFacts, clock_seconds_max: float) -> list[Finding]:
    """Return one finding for each step that was taken, and one for the clock if the cloud told its time."""
    findings = [_step(taken) for taken in facts.steps]
    if facts.clock_skew_seconds is not None:
        findings.append(clock.judge_skew(facts.clock_skew_seconds, clock_seconds_max))
    return findings


def _step(taken: Taken) -> Finding:
    what = f"{taken.step}: {taken.detail} ({taken.milliseconds:.0f} ms)"
    if taken.failed:
        return Finding(CHECK, "problem", what, _MENDS.get((taken.step, taken.cause), _ANY))
    return Finding(CHECK, "ok", what)


def judge_idle(keepalive_seconds: int, keep_alive_seconds_max: float) -> list[Finding]:
    """Compare what keeps a connection known to Azure's load balancers, and ours to clients, with their idle limit.

    `keepalive_seconds`: net.ipv4.tcp_keepalive_time; `keep_alive_seconds_max`: how long clients of ours may idle.
    """
    findings = []
    if keepalive_seconds >= IDLE_SECONDS_MAX:
        what = (
            f"the first keepalive comes after {keepalive_seconds} s, the way to Azure forgets an idle connection after "
            f"{IDLE_SECONDS_MAX} s"
        )
        mend = "sysctl -w net.ipv4.tcp_keepalive_time=120, and the same line in /etc/sysctl.d"
        findings.append(Finding("idle", "warning", what, mend))
    if keep_alive_seconds_max > IDLE_SECONDS_MAX:
        what = f"clients may idle {keep_alive_seconds_max:g} s; behind an Azure load balancer their next request hangs"
        mend = f"[limits] keep_alive_seconds_max = {IDLE_SECONDS_MAX}"
        findings.append(Finding("idle", "note", what, mend))
    return findings or [Finding("idle", "ok", f"connections are kept known within Azure's {IDLE_SECONDS_MAX} s")]


def judge_snat(table: Sequence[Connection], facts: CloudFacts, port: int) -> Finding:
    """Count the connections that need a port of the network's address translation: one each, to a public address."""
    public = [each for each in facts.addresses if ipaddress.ip_address(each.partition("%")[0]).is_global]
    if not public:
        return Finding("snat", "ok", "the cloud's address is not public: no address translation in Azure")
    count = sum(str(each.remote) in public and each.remote_port == port for each in table)
    what = f"{count} connections to the cloud; a load balancer translates {SNAT_PORTS_MIN} at once by default"
    if count >= SNAT_PORTS_MIN // 2:
        return Finding("snat", "warning", what, "use a NAT gateway or a private endpoint for the way out")
    return Finding("snat", "ok", what)
