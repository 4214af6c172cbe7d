"""`doctor` and the sidecar's report try the way to the cloud with the credential that the uploads use."""

from pathlib import Path

import pytest

from agent.config import Cloud
from agent.doctor import cloud, cloud_advice
from tests.offload.azurite import ACCOUNT, KEY

WRONG = "d3Jvbmc="


def walked(port: int, tmp_path: Path, kind: str, text: str) -> tuple[cloud.CloudFacts, str]:
    file = tmp_path / "credential"
    file.write_text(text + "\n")
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    facts = cloud.observe(Cloud.model_validate({"endpoint": endpoint, kind: str(file)}))
    return facts, repr((facts, cloud_advice.judge(facts, 60)))


@pytest.mark.parametrize(
    ("kind", "text"),
    [("key_file", KEY), ("connection_string_file", f"AccountName={ACCOUNT};AccountKey={KEY}")],
)
def test_a_right_key_lists_and_a_wrong_one_is_a_problem(cloud_port: int, tmp_path: Path, kind: str, text: str) -> None:
    facts, said = walked(cloud_port, tmp_path, kind, text)
    assert facts.failure is None, facts
    assert facts.steps[-1].step == "list"
    assert KEY not in said
    facts, said = walked(cloud_port, tmp_path, kind, text.replace(KEY, WRONG))
    assert facts.failure is not None
    assert (facts.failure.step, facts.failure.cause) in (
        ("authorisation", "key refused"),
        ("authorisation", "AuthorizationFailure"),  # what Azurite says
    )
    assert "the account key is refused (403" in said
    assert WRONG not in said


@pytest.mark.parametrize(
    ("kind", "text"), [("key_file", "not base64!"), ("key_file", ""), ("connection_string_file", "AccountName=x")]
)
def test_a_file_that_holds_no_credential_is_told(cloud_port: int, tmp_path: Path, kind: str, text: str) -> None:
    facts, said = walked(cloud_port, tmp_path, kind, text)
    assert facts.failure is not None
    assert (facts.failure.step, facts.failure.cause) == ("authorisation", "no credential")
    assert "correct the file that [cloud] names" in said


def test_a_sas_in_a_connection_string_is_looked_at_as_in_a_file(cloud_port: int, tmp_path: Path) -> None:
    sas = "sv=2021-12-02&sp=l&se=2001-01-01&sig=c2VjcmV0"
    facts, _ = walked(cloud_port, tmp_path, "connection_string_file", f"SharedAccessSignature={sas}")
    assert facts.failure is not None
    assert facts.failure.cause == "sas expired"
