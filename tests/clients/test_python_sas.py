"""azure-storage-blob with every kind of shared access signature: what it lets in, and what it does not."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from azure.storage.blob import AccessPolicy, BlobClient, BlobServiceClient, ContainerClient, ContainerSasPermissions

from .endpoint import Endpoint
from .refusals import refused
from .sas import account_sas, blob_sas, container_sas, expiry

HOUR = datetime.timedelta(hours=1)


def blob_with(token: str, container: ContainerClient, name: str, **options: Any) -> BlobClient:
    """A client that has nothing but the token."""
    return BlobClient(
        container.url.rsplit("/", 1)[0], str(container.container_name), name, credential=token, retry_total=0, **options
    )


def container_with(token: str, container: ContainerClient) -> ContainerClient:
    """The same for a container."""
    return ContainerClient.from_container_url(container.url, credential=token, retry_total=0)


@pytest.fixture
def now() -> datetime.datetime:
    """The present."""
    return datetime.datetime.now(datetime.UTC)


def test_account_sas(endpoint: Endpoint, container: ContainerClient) -> None:
    """All that the account key can do on blobs and containers, and with less permission less."""
    full = BlobServiceClient(endpoint.url, credential=account_sas(endpoint), retry_total=0)
    name = str(container.container_name)
    full.get_container_client(name).upload_blob("x y+%.txt", b"data", tags={"a": "b"})
    assert full.get_blob_client(name, "x y+%.txt").download_blob().readall() == b"data"
    assert name in {item.name for item in full.list_containers()}
    assert [blob.name for blob in full.find_blobs_by_tags(f"a = 'b' AND @container = '{name}'")] == ["x y+%.txt"]
    assert full.get_service_properties()["cors"] is not None

    reader = BlobServiceClient(endpoint.url, credential=account_sas(endpoint, "rl"), retry_total=0)
    assert reader.get_blob_client(name, "x y+%.txt").download_blob().readall() == b"data"
    with refused(403, "AuthorizationPermissionMismatch"):
        reader.get_blob_client(name, "new").upload_blob(b"")
    with refused(403, "AuthorizationPermissionMismatch"):
        reader.get_blob_client(name, "x y+%.txt").delete_blob()


def test_container_sas(endpoint: Endpoint, container: ContainerClient, other_container: ContainerClient) -> None:
    client = container_with(container_sas(endpoint, container, "racwdl"), container)
    client.upload_blob("dir/x", b"data")
    assert list(client.list_blob_names()) == ["dir/x"]
    client.delete_blob("dir/x")
    with refused(403):
        client.get_container_properties()
    with refused(403, "AuthenticationFailed"):
        list(container_with(container_sas(endpoint, container), other_container).list_blobs())


def test_create_permission_does_not_overwrite(endpoint: Endpoint, container: ContainerClient) -> None:
    """`c` makes new blobs; replacing one needs `w`."""
    client = blob_with(blob_sas(endpoint, container, "x", "c"), container, "x")
    client.upload_blob(b"first")
    with refused(403, "UnauthorizedBlobOverwrite", "AuthorizationPermissionMismatch"):
        client.upload_blob(b"second", overwrite=True)
    assert container.download_blob("x").readall() == b"first"


@pytest.mark.parametrize("name", ["x", "dir/a b+%.txt", "grüße/日本"])
def test_blob_sas(endpoint: Endpoint, container: ContainerClient, name: str) -> None:
    """One blob, exactly its permissions, and no other blob."""
    container.upload_blob(name, b"data")
    container.upload_blob("other", b"secret")
    reader = blob_sas(endpoint, container, name, "r")
    assert blob_with(reader, container, name).download_blob().readall() == b"data"
    with refused(403, "AuthorizationPermissionMismatch"):
        blob_with(reader, container, name).upload_blob(b"", overwrite=True)
    with refused(403, "AuthenticationFailed"):
        blob_with(reader, container, "other").download_blob()
    with refused(403):
        list(container_with(reader, container).list_blobs())


def test_snapshot_sas(endpoint: Endpoint, container: ContainerClient) -> None:
    """A SAS for one snapshot opens that one only."""
    blob = container.upload_blob("s", b"then")
    snapshot = str(blob.create_snapshot()["snapshot"])
    blob.upload_blob(b"now", overwrite=True)
    token = blob_sas(endpoint, container, "s", "r", snapshot=snapshot)
    assert blob_with(token, container, "s", snapshot=snapshot).download_blob().readall() == b"then"
    with refused(403, "AuthenticationFailed"):
        blob_with(token, container, "s").download_blob()


def test_directory_sas(endpoint: Endpoint, container: ContainerClient) -> None:
    """A directory SAS reaches everything below its depth and nothing beside it."""
    for name in ("a/b/c", "a/b/d/e", "a/bb", "a/x"):
        container.upload_blob(name, name.encode())
    token = blob_sas(endpoint, container, "a/b", "rl", is_directory=True, sdd=2)
    for name in ("a/b/c", "a/b/d/e"):
        assert blob_with(token, container, name).download_blob().readall() == name.encode()
    for name in ("a/bb", "a/x"):
        with refused(403, "AuthenticationFailed"):
            blob_with(token, container, name).download_blob()


def test_stored_policy(endpoint: Endpoint, container: ContainerClient) -> None:
    """Permission and expiry come from the policy, and taking it away takes the access away."""
    container.upload_blob("x", b"data")
    rights = AccessPolicy(ContainerSasPermissions.from_string("rl"), expiry=expiry())
    container.set_container_access_policy({"readers": rights})
    token = container_sas(endpoint, container, None, policy_id="readers")
    client = container_with(token, container)
    assert client.download_blob("x").readall() == b"data"
    with refused(403, "AuthorizationPermissionMismatch"):
        client.upload_blob("y", b"")
    container.set_container_access_policy({})
    with refused(403, "AuthenticationFailed"):
        client.download_blob("x")


def test_times(endpoint: Endpoint, container: ContainerClient, now: datetime.datetime) -> None:
    """Neither before its start nor after its end."""
    container.upload_blob("x", b"data")
    valid = blob_sas(endpoint, container, "x", start=now - HOUR, expiry=now + HOUR)
    assert blob_with(valid, container, "x").download_blob().readall() == b"data"
    for start, end in ((now - 2 * HOUR, now - HOUR), (now + HOUR, now + 2 * HOUR)):
        outside = blob_sas(endpoint, container, "x", start=start, expiry=end)
        with refused(403, "AuthenticationFailed"):
            blob_with(outside, container, "x").download_blob()


def test_address_and_protocol(endpoint: Endpoint, container: ContainerClient) -> None:
    """sip admits addresses in its range; spr=https refuses plain http."""
    container.upload_blob("x", b"data")
    for admitted in ("127.0.0.1", "127.0.0.0-127.0.0.255"):
        token = blob_sas(endpoint, container, "x", ip=admitted)
        assert blob_with(token, container, "x").download_blob().readall() == b"data"
    with refused(403, "AuthorizationSourceIPMismatch"):
        blob_with(blob_sas(endpoint, container, "x", ip="203.0.113.7"), container, "x").download_blob()
    both = blob_sas(endpoint, container, "x", protocol="https,http")
    assert blob_with(both, container, "x").download_blob().readall() == b"data"
    with refused(403, "AuthorizationProtocolMismatch"):
        blob_with(blob_sas(endpoint, container, "x", protocol="https"), container, "x").download_blob()


def test_response_headers(endpoint: Endpoint, container: ContainerClient) -> None:
    """The SAS may override what a download says about the blob, not what is stored."""
    container.upload_blob("x", b"data")
    token = blob_sas(
        *(endpoint, container, "x"),
        cache_control="no-store",
        content_disposition='attachment; filename="ü & x.bin"',
        content_encoding="identity",
        content_language="fr",
        content_type="text/override",
    )
    seen = blob_with(token, container, "x").download_blob().properties.content_settings
    assert (seen.cache_control, seen.content_encoding, seen.content_language, seen.content_type) == (
        *("no-store", "identity", "fr", "text/override"),
    )
    stored = container.get_blob_client("x").get_blob_properties().content_settings
    assert (stored.content_type, stored.cache_control) == ("application/octet-stream", None)


def test_forged_signatures(endpoint: Endpoint, container: ContainerClient) -> None:
    """A signature made with another key, and one whose permissions were edited."""
    container.upload_blob("x", b"data")
    other = Endpoint(endpoint.account, "b3RoZXIga2V5", endpoint.url)
    with refused(403, "AuthenticationFailed"):
        blob_with(blob_sas(other, container, "x"), container, "x").download_blob()
    raised = blob_sas(endpoint, container, "x", "r").replace("sp=r", "sp=rwd")
    with refused(403, "AuthenticationFailed"):
        blob_with(raised, container, "x").delete_blob()
    with refused(403, "AuthenticationFailed"):
        BlobServiceClient(endpoint.url, credential=other.key, retry_total=0).get_blob_client(
            str(container.container_name), "x"
        ).download_blob()
