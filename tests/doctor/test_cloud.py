"""The way to the cloud, against real servers on loopback: which step fails, what is said, and that no secret is."""

import socket
from pathlib import Path

import pytest

from agent.config import Cloud
from agent.doctor import cloud, cloud_advice
from agent.doctor.cloud import CloudFacts, Taken
from tests.doctor.cloudserver import SAS, SIGNATURE, certificate, serving


def sas_file(directory: Path, text: str = SAS) -> str:
    path = directory / "sas"
    path.write_text(text + "\n")
    return str(path)


def failed(facts: CloudFacts) -> tuple[str, str]:
    assert facts.failure, facts
    findings = cloud_advice.judge(facts, 60)
    assert [each.mend != "" for each in findings if each.status == "problem"] == [True]
    assert SIGNATURE not in repr((facts, findings))
    return facts.failure.step, facts.failure.cause


def test_all_steps_work_and_are_timed(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "localhost")
    with serving(pem=pem) as port:
        the_cloud = Cloud(endpoint=f"https://localhost:{port}", sas_file=sas_file(tmp_path), ca_file=str(pem))
        facts = cloud.observe(the_cloud)
        report = cloud.report(the_cloud, clock=lambda: 1e9)
    assert [each.step for each in facts.steps] == ["dns", "tcp", "tls", "http", "authorisation", "list"]
    assert facts.failure is None
    assert all(each.milliseconds > 0 for each in facts.steps)
    assert facts.clock_skew_seconds == pytest.approx(0, abs=2)
    assert {each.status for each in cloud_advice.judge(facts, 60)} == {"ok"}
    assert report["configured"]
    assert report["reachable"]
    assert report["rtt_milliseconds"] > 0
    assert (report["step"], report["reason"], report["at"]) == ("", "", 1e9)


def test_a_connection_that_the_cloud_ends_is_opened_again_with_tls(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "localhost")
    with serving(pem=pem, close=True) as port:
        the_cloud = Cloud(endpoint=f"https://localhost:{port}", sas_file=sas_file(tmp_path), ca_file=str(pem))
        assert cloud.observe(the_cloud).failure is None


def test_a_refused_port() -> None:
    with socket.socket() as sock:  # bound and not listening: nobody else can take the port
        sock.bind(("127.0.0.1", 0))
        facts = cloud.observe(Cloud(endpoint=f"http://127.0.0.1:{sock.getsockname()[1]}"))
        report = cloud.report(Cloud(endpoint=f"http://127.0.0.1:{sock.getsockname()[1]}"))
    assert failed(facts) == ("tcp", "refused")
    assert (report["reachable"], report["step"]) == (False, "tcp")


def test_a_name_without_an_address() -> None:
    assert failed(cloud.observe(Cloud(endpoint="http://nothing.invalid")))[0] == "dns"


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        facts = cloud.observe(Cloud(endpoint=f"http://127.0.0.1:{sock.getsockname()[1]}"), seconds=0.2)
    assert failed(facts) == ("http", "timeout")


@pytest.mark.parametrize(
    ("name", "days", "trusted", "cause"),
    [
        ("elsewhere.example", 30, True, "wrong name"),
        ("localhost", -2, True, "expired"),
        ("localhost", 30, False, "untrusted"),
    ],
)
def test_a_certificate_that_is_refused(tmp_path: Path, name: str, days: int, trusted: bool, cause: str) -> None:
    pem = certificate(tmp_path, name, days=days)
    with serving(pem=pem) as port:
        the_cloud = Cloud(endpoint=f"https://localhost:{port}", ca_file=str(pem) if trusted else None)
        assert failed(cloud.observe(the_cloud)) == ("tls", cause)


def test_tls_to_a_port_without_it() -> None:
    with serving() as port:
        assert failed(cloud.observe(Cloud(endpoint=f"https://localhost:{port}")))[0] == "tls"


@pytest.mark.parametrize(
    ("status", "code", "step", "cause"),
    [
        (403, "AuthenticationFailed", "authorisation", "AuthenticationFailed"),
        (403, "AuthorizationFailure", "authorisation", "AuthorizationFailure"),
        (403, "AuthorizationPermissionMismatch", "list", "permission"),
        (503, "ServerBusy", "list", "busy"),
        (404, "ResourceNotFound", "list", "no list"),
    ],
)
def test_a_refusal(tmp_path: Path, status: int, code: str, step: str, cause: str) -> None:
    with serving(status=status, code=code) as port:
        facts = cloud.observe(Cloud(endpoint=f"http://127.0.0.1:{port}", sas_file=sas_file(tmp_path)))
    assert failed(facts) == (step, cause)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("sv=2021-12-02&sp=l&se=2001-01-01&sig=c2VjcmV0", "sas expired"),
        ("sv=2021-12-02&sp=l&st=2098-01-01T00:00Z&se=2099-01-01&sig=c2VjcmV0", "sas not yet valid"),
        ("nothing of the kind", "no sas"),
        ("sv=2021-12-02&sp=l&se=tomorrow&sig=c2VjcmV0", "no sas"),
        ("sv=2021-12-02&sp=l&se=2099-01-01&sig=c2VjcmV0\nanother line", "no sas"),
    ],
)
def test_a_token_that_cannot_work_is_not_sent(tmp_path: Path, text: str, cause: str) -> None:
    with serving() as port:
        facts = cloud.observe(Cloud(endpoint=f"http://127.0.0.1:{port}", sas_file=sas_file(tmp_path, text)))
    assert failed(facts) == ("authorisation", cause)


@pytest.mark.parametrize(("ahead", "status"), [(0, "ok"), (-300, "warning"), (3600, "problem")])
def test_a_clock_that_differs(ahead: float, status: str) -> None:
    with serving(ahead_seconds=ahead) as port:
        facts = cloud.observe(Cloud(endpoint=f"http://127.0.0.1:{port}"))
    assert facts.clock_skew_seconds == pytest.approx(-ahead, abs=2)
    assert [each.status for each in cloud_advice.judge(facts, 60) if each.check == "clock"] == [status]


def test_nothing_configured() -> None:
    report = cloud.report(None, clock=lambda: 5.0)
    assert (report["configured"], report["reachable"], report["at"]) == (False, False, 5.0)


def test_every_cause_has_a_mend() -> None:
    """Also one that nobody thought of."""
    facts = CloudFacts((Taken("http", 1.0, "something new", "said so"),))
    assert cloud_advice.judge(facts, 60)[0].mend


@pytest.mark.parametrize(
    ("keepalive", "idle", "statuses"),
    [(120, 240, ["ok"]), (7200, 240, ["warning"]), (240, 300, ["warning", "note"]), (60, 241, ["note"])],
)
def test_idle_limits(keepalive: int, idle: float, statuses: list[str]) -> None:
    assert [each.status for each in cloud_advice.judge_idle(keepalive, idle)] == statuses
