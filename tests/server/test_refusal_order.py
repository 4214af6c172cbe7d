"""Which refusal is named when several apply: what is wrong with the request, then the container, then the blob."""

import pytest

from tests.support import WireClient

LEASE_ID = "5f2d7a0e-8a7b-4b57-9c1f-0d6ad0b3b6f1"
BLOCK = {"comp": "block", "blockid": "MQ=="}
LARGE = bytes(300_000)  # above what is received in memory, so looked at before it is read

WRITES: dict[str, tuple[str, dict[str, str], dict[str, str], bytes]] = {
    "Put Blob": ("PUT", {}, {"x-ms-blob-type": "BlockBlob"}, b"x"),
    "Put Blob, large": ("PUT", {}, {"x-ms-blob-type": "BlockBlob"}, LARGE),
    "Copy Blob": ("PUT", {}, {"x-ms-copy-source": "http://127.0.0.1/testaccount/c/b"}, b""),
    "Put Block List": ("PUT", {"comp": "blocklist"}, {}, b"<BlockList />"),
    "Set Blob Properties": ("PUT", {"comp": "properties"}, {}, b""),
    "Set Blob Metadata": ("PUT", {"comp": "metadata"}, {}, b""),
    "Snapshot Blob": ("PUT", {"comp": "snapshot"}, {}, b""),
    "Lease Blob": ("PUT", {"comp": "lease"}, {"x-ms-lease-action": "break"}, b""),
    "Delete Blob": ("DELETE", {}, {}, b""),
}
#: These take a lease id but no condition on the blob.
WITH_LEASE: dict[str, tuple[str, dict[str, str], dict[str, str], bytes]] = {
    "Put Block": ("PUT", BLOCK, {}, b"x"),
    "Put Block, large": ("PUT", BLOCK, {}, LARGE),
    "Get Block List": ("GET", {"comp": "blocklist"}, {}, b""),
}


@pytest.mark.parametrize("name", [*WRITES, *WITH_LEASE])
@pytest.mark.parametrize("more", [{"if-match": '"0x1"'}, {"x-ms-lease-id": LEASE_ID}])
def test_an_absent_container_comes_before_what_is_wrong_with_the_blob(
    client: WireClient, name: str, more: dict[str, str]
) -> None:
    method, query, headers, body = (WRITES | WITH_LEASE)[name]
    answer = client.request(method, "/nowhere/b", query, {**headers, **more}, body)
    assert (answer.status, answer.code) == (404, "ContainerNotFound")
    client.close()


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("path", ["/nowhere/b", "{container}/absent"])
def test_conditions_that_do_not_go_together_come_first(
    client: WireClient, container: str, name: str, path: str
) -> None:
    method, query, headers, body = WRITES[name]
    more = {"if-match": '"0x1"', "if-none-match": "*"}
    answer = client.request(method, path.format(container=container), query, {**headers, **more}, body)
    assert (answer.status, answer.code) == (400, "MultipleConditionHeadersNotSupported")
    client.close()
