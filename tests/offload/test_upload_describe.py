"""Versions whose bytes the cloud has: described there, whatever dies in between, and never sent again."""

import hashlib
import os
from dataclasses import replace
from typing import Any

import pytest
from azure.storage.blob import BlobBlock, ContentSettings

from agent.offload.failures import CloudFailed, Kind
from agent.offload.upload import WHOLE_BYTES_MAX, Outcome, Policy
from agent.offload.verify import Facts, Seen, content_md5, sorted_metadata
from dataplane.blobapi.model import AccessTier, Remote
from tests.offload.azurite import Exchange
from tests.offload.upload_support import MIB, NODE, World, answered, source

SIZE = 2 * MIB
OLD, NEW = "0x8DC0000000000A1", "0x8DC0000000000A2"
FIRST: dict[str, Any] = {
    "content_type": "text/plain",
    "metadata": {"Line": "4"},
    "tags": {"shift": "day"},
    "access_tier": AccessTier.HOT,
}
SECOND: dict[str, Any] = {
    "content_type": "text/csv",
    "cache_control": "no-cache",
    "metadata": {"Line": "5", "more": "yes"},
    "tags": {"shift": "night", "line": "5"},
    "access_tier": AccessTier.COOL,
}


def stub_of(sent: Outcome, data: bytes, container: str) -> Remote:
    """What a stub says of a blob that was sent."""
    return Remote(len(data), hashlib.md5(data).digest(), sent.cloud_etag, container, "b", OLD, 0, 0o644)


def is_described(world: World, wanted: dict[str, Any]) -> None:
    """The cloud has all that the version has."""
    properties = world.container.get_blob_client("b").get_blob_properties()
    assert properties.content_settings.content_type == wanted["content_type"]
    assert (properties.content_settings.cache_control or "") == wanted.get("cache_control", "")
    users = {name: value for name, value in properties.metadata.items() if not name.startswith("blobedge_")}
    assert {name.lower(): value for name, value in users.items()} == {
        name.lower(): value for name, value in wanted["metadata"].items()
    }
    assert world.container.get_blob_client("b").get_blob_tags() == wanted["tags"]
    assert str(properties.blob_tier) == wanted["access_tier"].value
    assert properties.metadata["blobedge_etag"] == NEW


@pytest.mark.parametrize("size", [SIZE, 9 * MIB])
def test_new_properties_send_no_bytes(world: World, size: int) -> None:
    data = os.urandom(size)
    with source(world.scratch / "f", data, **FIRST) as version:
        first = world.send(version)
    before = world.proxy.body_bytes
    with source(world.scratch / "f", etag=NEW, **SECOND) as version:
        second = world.send(version, etag=first.cloud_etag, again=True)
    assert world.proxy.body_bytes - before < 1000
    is_described(world, SECOND)
    assert world.bytes_of() == data
    assert (second.cloud_etag, second.md5) == (world.etag_of(), hashlib.md5(data).digest())


@pytest.mark.parametrize("size", [3000, SIZE])
def test_tags_and_tier_alone_follow_without_bytes(world: World, size: int) -> None:
    """They change no ETag: what tells them from those of the copy is the hash beside it."""
    with source(world.scratch / "f", os.urandom(size), etag=NEW, **FIRST) as version:
        first = world.send(version)
        same = world.send(version, etag=first.cloud_etag, again=True)
        assert same.cloud_etag == first.cloud_etag
        before = world.proxy.body_bytes
        tagged = {**FIRST, "tags": {"shift": "late"}, "access_tier": AccessTier.COOL}
        changed = replace(version, properties=replace(version.properties, **tagged))
        second = world.send(changed, etag=same.cloud_etag, again=True)
        is_described(world, tagged)
        none = replace(version, properties=replace(version.properties, **{**tagged, "tags": {}}))
        world.send(none, etag=second.cloud_etag, again=True)
        is_described(world, {**tagged, "tags": {}})
    assert world.proxy.body_bytes - before < 2000


def test_tags_that_change_while_an_answer_is_lost_follow_without_bytes(world: World) -> None:
    """The queue does not know of the copy: nobody could say that it was made."""
    with source(world.scratch / "f", b"small", etag=NEW, **FIRST) as version:
        world.send(version)
        tagged = {**FIRST, "tags": {"shift": "late"}}
        world.send(replace(version, properties=replace(version.properties, **tagged)))
    is_described(world, tagged)
    assert world.proxy.count("PUT .*/b$") == 2  # the second one was refused, as something is there


def test_a_small_blob_is_one_request_all_the_same(world: World) -> None:
    with source(world.scratch / "f", bytes(WHOLE_BYTES_MAX), **FIRST) as version:
        first = world.send(version)
    with source(world.scratch / "f", etag=NEW, **SECOND) as version:
        world.send(version, etag=first.cloud_etag, again=True)
    is_described(world, SECOND)
    assert [line.split()[0] for line in world.proxy.log] == ["PUT", "HEAD", "HEAD", "PUT", "HEAD"]


def test_a_stub_is_described_and_its_empty_file_is_never_sent(world: World) -> None:
    data = os.urandom(1000)
    with source(world.scratch / "f", data, **FIRST) as version:
        first = world.send(version)
    remote = stub_of(first, data, world.name)
    with source(world.scratch / "stub", b"", etag=NEW, remote=remote, content_md5=None, **SECOND) as stub:
        sent = world.send(replace(stub, size=len(data)), etag=first.cloud_etag)
        is_described(world, SECOND)
        assert (world.bytes_of(), sent.md5) == (data, remote.md5)
        world.container.upload_blob("b", b"theirs, as long" + bytes(985), overwrite=True)
        for policy in (Policy.EDGE_WINS, Policy.KEEP_BOTH):
            with pytest.raises(CloudFailed) as raised:
                world.send(replace(stub, size=len(data)), etag=sent.cloud_etag, policy=policy)
            assert (raised.value.fault.kind, raised.value.fault.code) == (Kind.OPERATOR, "CopyGone")
        world.container.delete_blob("b")
        with pytest.raises(CloudFailed) as raised:
            world.send(replace(stub, size=len(data)), etag=sent.cloud_etag)
    assert raised.value.fault.code == "CopyGone"
    assert "b" not in world.container.list_blob_names()


def test_whoever_reads_a_stub_is_refused(world: World) -> None:
    remote = Remote(4, bytes(16), "0x1", "c", "b", OLD, 0, 0o644)
    request = world.cloud.request("Put Blob", "w", "c", "b")
    with source(world.scratch / "f", b"", remote=remote) as stub:
        for size in (0, 4):
            with pytest.raises(CloudFailed) as raised:
                stub.read(0, size, request)
            assert raised.value.fault.code == "BytesAway"
        with pytest.raises(CloudFailed):
            stub.hash(0, 4, request)


@pytest.mark.parametrize("accident", ["reset", "lost answer", "500", "truncated"])
def test_a_kill_between_any_two_requests_is_made_good(world: World, accident: str) -> None:
    """Each request in turn has an accident; then a sidecar that has forgotten everything but its queue goes on."""
    data = os.urandom(SIZE)
    for number in range(7):
        with source(world.scratch / "f", data, **FIRST) as version:
            first = world.send(version, again=True, policy=Policy.EDGE_WINS)
        begin = len(world.proxy.log)

        def accidents(exchange: Exchange, at: int = begin + number) -> None:
            if exchange.number == at:
                exchange.lose_answer = accident == "lost answer"
                exchange.truncate_answer = 20 if accident == "truncated" else None
                exchange.reset_after_body_bytes = 0 if accident == "reset" else None
                exchange.answer = answered("500 No") if accident == "500" else b""

        with source(world.scratch / "f", etag=NEW, **SECOND) as version:
            world.proxy.fault = accidents
            try:
                world.send(version, etag=first.cloud_etag, again=True, policy=Policy.CLOUD_WINS)
            except CloudFailed:
                world.proxy.fault = lambda exchange: None
                # With the ETag of the queue, and without it, as after the database was lost too.
                known = "" if number % 2 else first.cloud_etag
                world.send(version, etag=known, again=True, policy=Policy.CLOUD_WINS)
            world.proxy.fault = lambda exchange: None
        is_described(world, SECOND)
        assert world.bytes_of() == data
        world.container.delete_blob("b")


def test_somebody_elses_change_in_the_middle_meets_the_policy(world: World) -> None:
    with source(world.scratch / "f", os.urandom(SIZE), **FIRST) as version:
        first = world.send(version)

    def theirs(exchange: Exchange) -> None:
        if exchange.is_put("properties"):
            world.proxy.fault = lambda exchange: None
            world.container.upload_blob("b", b"theirs", overwrite=True)

    world.proxy.fault = theirs
    with source(world.scratch / "f", etag=NEW, **SECOND) as version:
        outcome = world.send(version, etag=first.cloud_etag, again=True, policy=Policy.KEEP_BOTH)
    is_described(world, SECOND)
    assert world.bytes_of(outcome.kept_as) == b"theirs"


@pytest.mark.parametrize("size", [1000, 9 * MIB])
def test_an_md5_that_a_client_made_up_goes_along_and_the_true_one_beside_it(world: World, size: int) -> None:
    """Put Block List stores x-ms-blob-content-md5 unseen (REST page "Put Block List")."""
    data, made_up = os.urandom(size), bytes(range(16))
    with source(world.scratch / "f", data, content_md5=made_up, block_list="l1") as version:
        sent = world.send(version)
        again = world.send(version, etag=sent.cloud_etag, again=True)
    assert (again.cloud_etag, again.bytes_sent) == (sent.cloud_etag, 0)
    there = world.container.get_blob_client("b").get_blob_properties()
    assert world.bytes_of() == data
    assert bytes(there.content_settings.content_md5 or b"") == made_up
    assert sent.md5 == hashlib.md5(data).digest() == bytes.fromhex(there.metadata["blobedge_md5"])
    assert content_md5(made_up, there.metadata["blobedge_md5"]) == sent.md5


def test_an_md5_of_ours_that_does_not_fit_is_damage(world: World) -> None:
    with source(world.scratch / "f", b"data", content_md5=bytes(16)) as version, pytest.raises(CloudFailed) as raised:
        world.send(version)
    assert raised.value.fault.code == "SourceDamaged"


def test_two_nodes_of_one_name_are_somebody_else_to_each_other(world: World) -> None:
    with source(world.scratch / "f", b"one's", **FIRST) as version:
        world.send(version, node=f"{NODE}/aaaa")
    with source(world.scratch / "g", b"the other's", etag=NEW) as version:
        outcome = world.send(version, node=f"{NODE}/bbbb", policy=Policy.KEEP_BOTH)
    assert world.bytes_of(outcome.kept_as) == b"one's"
    with source(world.scratch / "g", etag=NEW) as version:  # the same version, whoever sent it, is there already
        assert world.send(version, node=f"{NODE}/cccc", again=True, policy=Policy.CLOUD_WINS).bytes_sent == 0


def test_what_was_sent_before_there_were_instances_is_still_ours(world: World) -> None:
    with source(world.scratch / "f", b"old", **FIRST) as version:
        world.send(version, node=NODE)
    with source(world.scratch / "g", b"new", etag=NEW) as version:
        outcome = world.send(version, node=f"{NODE}/aaaa", policy=Policy.KEEP_BOTH)
    assert outcome.kept_as == ""


def test_an_entry_that_somebody_forged_is_not_believed() -> None:
    stored = b"stored" + bytes(10)
    entries = sorted_metadata({"blobedge_md5": "00" * 16, "blobedge_check": "no"})
    assert Seen("0x1", Facts(1, stored, metadata=entries)).md5 == stored
    assert content_md5(stored, "no hex") == stored


def test_the_blocks_of_a_client_are_no_reason_to_send_again(world: World) -> None:
    """A blob that was made of blocks without any MD5, as SDKs make large ones, is read once and described."""
    data = os.urandom(9 * MIB)
    with source(world.scratch / "f", data, content_md5=None, block_list="l1") as version:
        first = world.send(version)
    before = world.proxy.body_bytes
    with source(world.scratch / "f", etag=NEW, content_md5=None, block_list="l1", **SECOND) as version:
        world.send(version, etag=first.cloud_etag, again=True)
    assert world.proxy.body_bytes - before < 1000
    is_described(world, SECOND)


def test_what_somebody_else_says_of_his_bytes_is_not_believed(world: World) -> None:
    """His MD5 and size are ours, his bytes are not: they are replaced, not described."""
    data = os.urandom(SIZE)
    blob = world.container.get_blob_client("b")
    blob.stage_block("a", os.urandom(SIZE))
    blob.commit_block_list(
        [BlobBlock("a")], content_settings=ContentSettings(content_md5=bytearray(hashlib.md5(data).digest()))
    )
    with source(world.scratch / "f", data, **FIRST) as version:
        world.send(version, again=True)
    assert world.bytes_of() == data
