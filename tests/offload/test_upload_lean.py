"""Put Blob and Get Blob Properties without the SDK: they say and see what the SDK does, and fail as it does."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import ResourceTypes, generate_account_sas

from agent.offload.cloud import Cloud, seen_of
from agent.offload.credentials import CloudSettings
from agent.offload.failures import CloudFailed, Kind
from agent.offload.transport import Errand
from agent.offload.verify import Seen, wanted
from dataplane.blobapi.model import AccessTier, BlobProperties
from tests.offload.azurite import ACCOUNT, KEY
from tests.offload.upload_support import World, answered, settings

DATA = b"some bytes" * 100
MD5 = hashlib.md5(DATA).digest()
PROPERTIES = (
    BlobProperties("0x8DC0000000000A1", 0, 0),
    BlobProperties(
        "0x8DC0000000000A1", 1_760_000_000, 0, "text/x; charset=utf-8", "identity", "de, en", "inline",
        "max-age=1,  no-transform", MD5, {"a1": "1", "a_1": " spaced  out ", "A_B": "", "b": "\xe9"},
        {"tag one": "a:b_c/+", "t2": "."}, AccessTier.COOL,
    ),
)  # fmt: skip


def put(cloud: Cloud, container: str, name: str, properties: BlobProperties, etag: str = "") -> str | None:
    request = cloud.request("Put Blob", "w", container, name)
    want = wanted(len(DATA), MD5, properties, "", "edge/1")
    return cloud.put_blob(request, Errand(), DATA, MD5, want, etag)


def by_sdk(cloud: Cloud, container: str, name: str) -> Seen:
    """The same look with the SDK."""
    request = cloud.request("Get Blob Properties", "r", container, name)
    found = cloud.properties(cloud.blob(container, name), request, Errand())
    assert found is not None
    return seen_of(found)


@pytest.mark.parametrize("properties", PROPERTIES, ids=["plain", "everything"])
@pytest.mark.parametrize("name", ["b", "dir/n\xe4me 1?#%&+'()~.txt", "\u65e5\u672c//x."])
def test_it_arrives_and_is_seen_as_with_the_sdk(world: World, name: str, properties: BlobProperties) -> None:
    etag = put(world.cloud, world.name, name, properties)
    there = world.container.get_blob_client(name)
    assert there.download_blob().readall() == DATA
    assert dict(there.get_blob_tags()) == dict(properties.tags)
    seen = world.cloud.head(world.name, name, Errand())
    assert seen == by_sdk(world.cloud, world.name, name)
    assert seen is not None
    assert seen.etag == etag
    assert seen.written_by("edge/1")


def test_a_sas_goes_along(world: World, tmp_path: Path) -> None:
    text = generate_account_sas(
        ACCOUNT, KEY, ResourceTypes(object=True), "rwt", datetime.now(UTC) + timedelta(hours=1)
    )  # fmt: skip
    (tmp_path / "sas").write_text(text)
    made = Cloud(CloudSettings(world.cloud.settings.endpoint, "sas_file", tmp_path / "sas"))
    try:
        etag = put(made, world.name, "b", PROPERTIES[1])
        seen = made.head(world.name, "b", Errand())
        assert seen is not None
        assert seen.etag == etag
        assert made.head(world.name, "not there", Errand()) is None
    finally:
        made.close()


def test_the_guard_is_kept(world: World) -> None:
    first = put(world.cloud, world.name, "b", PROPERTIES[0])
    assert first is not None
    for etag in ("", "0x8DOTHER"):
        with pytest.raises(CloudFailed) as raised:
            put(world.cloud, world.name, "b", PROPERTIES[0], etag)
        assert raised.value.fault.kind is Kind.CONFLICT
    assert put(world.cloud, world.name, "b", PROPERTIES[0], first)


def test_a_refusal_says_what_the_sdk_would_say(world: World) -> None:
    def busy(exchange: object) -> None:
        exchange.answer = answered("503 Busy", "ServerBusy", Retry_After="7")  # type: ignore[attr-defined]

    world.proxy.fault = busy
    for ask in (
        lambda: put(world.cloud, world.name, "b", PROPERTIES[0]),
        lambda: world.cloud.head(world.name, "b", Errand()),
    ):
        with pytest.raises(CloudFailed) as raised:
            ask()
        assert (raised.value.fault.kind, raised.value.fault.code) == (Kind.LATER, "ServerBusy")
        assert raised.value.fault.wait_seconds_min == 7


def test_a_key_that_is_none_is_for_the_operator(world: World, tmp_path: Path) -> None:
    made = Cloud(settings(world.proxy.port, tmp_path))
    (tmp_path / "key").write_text("no base64!")
    try:
        assert isinstance(made.credentials.current().signer, AzureNamedKeyCredential)
        with pytest.raises(CloudFailed) as raised:
            made.head(world.name, "b", Errand())
        assert (raised.value.fault.kind, raised.value.fault.code) == (Kind.OPERATOR, "AzureSigningError")
    finally:
        made.close()
