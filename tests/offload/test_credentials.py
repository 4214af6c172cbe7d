"""Credentials: read, read again when their file changes, and what is wrong with them said without repeating them."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from agent.offload.cloud import Cloud
from agent.offload.credentials import CloudSettings, CredentialKind, Credentials
from agent.offload.failures import CloudFailed, Kind
from agent.offload.transport import Errand
from agent.offload.upload import Guard, Policy, upload
from agent.problems import OperatorError
from tests.offload.azurite import ACCOUNT, KEY, Exchange
from tests.offload.upload_support import MIB, NODE, To, World, answered, source

HOST = "https://edgestore.blob.core.windows.net"
SAS = "sv=2024-11-04&ss=b&srt=co&sp=rwdt&se=2026-12-01T00:00:00Z&sig=c2VjcmV0"


def made(path: Path, text: str, kind: CredentialKind = "sas_file", endpoint: str = HOST) -> Credentials:
    path.write_text(text)
    return Credentials(CloudSettings(endpoint, kind, path))


@pytest.mark.parametrize(
    ("endpoint", "account"),
    [
        (HOST, "edgestore"),
        ("https://edgestore.privatelink.blob.core.windows.net/", "edgestore"),
        ("http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1"),
    ],
)
def test_the_account_is_in_the_endpoint(endpoint: str, account: str) -> None:
    assert CloudSettings(endpoint, "sas_file").account_name() == account


def test_a_sas_tells_when_it_expires(tmp_path: Path) -> None:
    credential = made(tmp_path / "sas", f"?{SAS}\n").current()
    assert isinstance(credential.signer, AzureSasCredential)
    assert credential.sas == SAS
    assert credential.expires == datetime(2026, 12, 1, tzinfo=UTC)
    assert credential.expired(datetime(2026, 12, 1, tzinfo=UTC))
    assert not credential.expired(datetime(2026, 11, 30, tzinfo=UTC))


def test_a_file_that_was_replaced_is_read_again_and_only_then(tmp_path: Path) -> None:
    credentials = made(tmp_path / "sas", SAS)
    first = credentials.current()
    assert credentials.current() is first
    (tmp_path / "new").write_text(SAS.replace("2026", "2027"))
    os.replace(tmp_path / "new", tmp_path / "sas")
    second = credentials.current()
    assert second.serial == first.serial + 1
    assert second.expires == datetime(2027, 12, 1, tzinfo=UTC)


def test_connection_strings_and_keys(tmp_path: Path) -> None:
    key = made(tmp_path / "key", f"{KEY}\n", "key_file").current().signer
    assert isinstance(key, AzureNamedKeyCredential)
    assert key.named_key == ("edgestore", KEY)
    text = f"DefaultEndpointsProtocol=https;AccountName=other;AccountKey={KEY};EndpointSuffix=core.windows.net"
    named = made(tmp_path / "cs", text, "connection_string_file").current().signer
    assert isinstance(named, AzureNamedKeyCredential)
    assert named.named_key == ("other", KEY)
    shared = made(tmp_path / "cs", f"BlobEndpoint={HOST};SharedAccessSignature={SAS}", "connection_string_file")
    assert shared.current().sas == SAS


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("sas_file", ""),
        ("sas_file", "sv=2024&sp=r"),
        ("sas_file", f"{SAS}\n{SAS}"),
        ("connection_string_file", "AccountName=edgestore"),
        ("key_file", "schl\u00fcssel"),
    ],
)
def test_what_is_wrong_is_told_without_repeating_it(tmp_path: Path, kind: CredentialKind, text: str) -> None:
    with pytest.raises(OperatorError) as raised:
        made(tmp_path / "file", text, kind)
    assert f"[cloud] {kind}: " in str(raised.value)
    assert not text or text not in str(raised.value)


def test_a_missing_file_is_told_at_once_and_one_that_goes_later_too(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="does not read"):
        Credentials(CloudSettings(HOST, "sas_file", tmp_path / "none"))
    credentials = made(tmp_path / "sas", SAS)
    (tmp_path / "sas").unlink()
    with pytest.raises(OperatorError, match="does not read"):
        credentials.current()
    (tmp_path / "sas").write_text(SAS)
    assert credentials.current().sas == SAS


def test_identities_are_made_without_a_request_and_want_https(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    settings = CloudSettings(HOST, "client_secret", tmp_path / "secret", client_id="c" * 8, tenant_id="t" * 8)
    assert hasattr(Credentials(settings).current().signer, "get_token")
    assert hasattr(Credentials(CloudSettings(HOST, "managed_identity")).current().signer, "get_token")
    for bad in (
        CloudSettings("http://127.0.0.1:10000/a", "managed_identity"),
        CloudSettings(HOST, "client_secret"),
        CloudSettings(HOST, "client_secret", tmp_path / "secret"),
    ):
        with pytest.raises(OperatorError):
            Credentials(bad)


def sas(permission: str, end: datetime) -> str:
    names = {"r": "read", "w": "write", "d": "delete", "t": "tag", "c": "create", "l": "list"}
    permissions = AccountSasPermissions(**{names[letter]: True for letter in permission})
    return generate_account_sas(ACCOUNT, KEY, ResourceTypes(container=True, object=True), permissions, end)


def test_a_rotated_sas_counts_from_the_next_request_on(world: World, tmp_path: Path) -> None:
    path = tmp_path / "sas"
    endpoint = f"http://127.0.0.1:{world.proxy.port}/{ACCOUNT}"
    expired, fresh = datetime(2026, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
    path.write_text(sas("rwdtc", expired))
    cloud = Cloud(CloudSettings(endpoint, "sas_file", path))

    def send() -> None:
        with source(tmp_path / "f", b"data") as version:
            upload(cloud, version, To(world.name, "b"), Guard(), Errand(), node=NODE)

    try:
        with pytest.raises(CloudFailed) as raised:
            send()
        assert raised.value.fault.kind is Kind.OPERATOR
        assert "expired at 2026-01-01" in raised.value.fault.text
        path.write_text(sas("rl", fresh))
        with pytest.raises(CloudFailed) as raised:
            send()
        assert raised.value.fault.code == "AuthorizationPermissionMismatch"
        assert "w (write)" in raised.value.fault.text
        path.unlink()
        with pytest.raises(CloudFailed) as raised:
            send()
        assert (raised.value.fault.kind, raised.value.fault.code) == (Kind.OPERATOR, "CredentialUnreadable")
        path.write_text(sas("rwdtc", fresh))
        send()
    finally:
        cloud.close()
    assert world.bytes_of() == b"data"
    assert "sig=" not in "".join(str(line) for line in world.proxy.log)


@pytest.fixture
def sas_cloud(world: World, tmp_path: Path) -> Iterator[Cloud]:
    """The cloud with a SAS for everything, in the file `sas`."""
    (tmp_path / "sas").write_text(sas("rwdtc", datetime(2098, 1, 1, tzinfo=UTC)))
    cloud = Cloud(CloudSettings(f"http://127.0.0.1:{world.proxy.port}/{ACCOUNT}", "sas_file", tmp_path / "sas"))
    yield cloud
    cloud.close()


def test_a_long_upload_outlives_its_sas(world: World, sas_cloud: Cloud, tmp_path: Path) -> None:
    fresh = sas("rwdtc", datetime(2099, 1, 1, tzinfo=UTC))
    used: list[bool] = []

    def rotate(exchange: Exchange) -> None:
        if exchange.is_put("block") and world.proxy.count("comp=block&") == 1:
            (tmp_path / "sas").write_text(fresh)
        used.append("se=2099" in exchange.target)

    world.proxy.fault = rotate
    with source(tmp_path / "f", bytes(12 * MIB)) as version:
        upload(sas_cloud, version, To(world.name, "b"), Guard(), Errand(), node=NODE, blocks_in_flight=1)
    assert used[:3] == [False] * 3  # two looks and the first block
    assert used[4:] == [True] * 3  # the third block, the list and the last look; the second may have begun
    assert world.bytes_of() == bytes(12 * MIB)


def test_a_refusal_of_a_sas_that_was_replaced_meanwhile_waits_for_nobody(
    world: World, sas_cloud: Cloud, tmp_path: Path
) -> None:
    fresh = sas("rwdtc", datetime(2099, 1, 1, tzinfo=UTC))

    def refuse(exchange: Exchange) -> None:
        (tmp_path / "sas").write_text(fresh)
        exchange.answer = answered("403 No", "AuthenticationFailed")

    world.proxy.fault = refuse
    with source(tmp_path / "f", b"data") as version, pytest.raises(CloudFailed) as raised:
        upload(sas_cloud, version, To(world.name, "b"), Guard(), Errand(), node=NODE)
    assert (raised.value.fault.kind, raised.value.fault.code) == (Kind.NOW, "CredentialChanged")


def test_a_version_of_theirs_is_kept_with_a_sas_too(world: World, sas_cloud: Cloud, tmp_path: Path) -> None:
    world.container.upload_blob("b", b"theirs")
    guard = Guard(policy=Policy.KEEP_BOTH)
    with source(tmp_path / "f", b"mine") as version:
        outcome = upload(sas_cloud, version, To(world.name, "b"), guard, Errand(), node=NODE)
    assert world.bytes_of() == b"mine"
    assert world.bytes_of(outcome.kept_as) == b"theirs"
