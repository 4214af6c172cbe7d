"""Uploads to Azurite: what arrives, what is sent again, who wins."""

import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from azure.storage.blob import ContentSettings

from agent.offload.failures import CloudFailed, Kind
from agent.offload.pace import Turn
from agent.offload.transport import Errand
from agent.offload.upload import Conflict, Guard, Policy, delete, upload
from agent.offload.verify import METADATA_BYTES_MAX
from dataplane.blobapi.model import AccessTier
from tests.offload.azurite import Exchange
from tests.offload.upload_support import MIB, NODE, To, World, source

SMALL = b"small " * 1000
DESCRIBED = {
    "content_type": "text/x-notes",
    "content_encoding": "identity",
    "content_language": "de",
    "content_disposition": "attachment",
    "cache_control": "no-cache",
    "metadata": {"Project": "line 4", "n": "1"},
    "tags": {"shift": "night", "line": "4"},
}


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 + 1, 8 * MIB, 8 * MIB + 1, 13 * MIB])
def test_a_blob_arrives_with_everything(world: World, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with source(tmp_path / "f", data, **DESCRIBED) as version:
        outcome = world.send(version, "dir/näme 1", tier="Cool")
    there = world.container.get_blob_client("dir/näme 1")
    assert there.download_blob().readall() == data
    properties, md5 = there.get_blob_properties(), hashlib.md5(data).digest()
    assert outcome.md5 == md5
    assert outcome.cloud_etag == properties.etag.strip('"')
    assert outcome.bytes_sent >= size
    content = properties.content_settings
    assert bytes(content.content_md5 or b"") == md5
    assert (content.content_type, content.content_language) == ("text/x-notes", "de")
    assert (content.content_encoding, content.content_disposition) == ("identity", "attachment")
    assert content.cache_control == "no-cache"
    metadata = {name.lower(): value for name, value in properties.metadata.items()}
    assert (
        metadata.items()
        >= {
            "project": "line 4",
            "n": "1",
            "blobedge_etag": "0x8DC0000000000A1",
            "blobedge_modified": "2025-10-09T08:53:20Z",
            "blobedge_node": NODE,
        }.items()
    )
    assert there.get_blob_tags() == {"shift": "night", "line": "4"}
    assert str(properties.blob_tier) == "Cool"


def test_a_small_blob_costs_one_put_and_one_look(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", SMALL) as version:
        world.send(version)
    assert [line.split()[0] for line in world.proxy.log] == ["PUT", "HEAD"]


def test_the_blobs_own_tier_is_used_when_the_rule_names_none(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", SMALL, access_tier=AccessTier.COOL) as version:
        world.send(version)
    assert str(world.container.get_blob_client("b").get_blob_properties().blob_tier) == "Cool"


def test_metadata_that_leaves_no_room_for_ours_arrives_whole(world: World, tmp_path: Path) -> None:
    users = {"a": "x" * (METADATA_BYTES_MAX - 1)}
    with source(tmp_path / "f", SMALL, metadata=users) as version:
        world.send(version)
        assert world.container.get_blob_client("b").get_blob_properties().metadata == users
        sent = world.proxy.body_bytes
        world.send(version, etag=world.etag_of(), again=True)
    assert world.bytes_of() == SMALL
    assert world.proxy.body_bytes <= sent + len(SMALL)


def test_an_interrupted_upload_sends_only_what_is_missing(world: World, tmp_path: Path) -> None:
    size = 64 * MIB
    (tmp_path / "f").write_bytes(os.urandom(size))
    errand = Errand()

    def cut(exchange: Exchange) -> None:
        if exchange.is_put("block") and world.proxy.body_bytes >= size // 2:
            exchange.reset_after_body_bytes = 1
            errand.stop()

    with source(tmp_path / "f") as version:
        world.proxy.fault = cut
        with pytest.raises(CloudFailed):
            world.send(version, errand=errand)
        assert not list(world.container.list_blob_names())
        before = world.proxy.body_bytes
        assert before >= size // 2
        world.proxy.fault = lambda exchange: None
        world.send(version, again=True)
    assert world.bytes_of() == (tmp_path / "f").read_bytes()
    # Four blocks of 4 MiB were in flight at most.
    assert world.proxy.body_bytes - before <= size // 2 + 4 * 4 * MIB + 64 * 1024


def test_blocks_of_another_version_are_not_reused(world: World, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(12 * MIB))

    def no_commit(exchange: Exchange) -> None:
        if exchange.is_put("blocklist"):
            exchange.reset_after_body_bytes = 0

    world.proxy.fault = no_commit
    with source(tmp_path / "f") as version, pytest.raises(CloudFailed):
        world.send(version)
    world.proxy.fault = lambda exchange: None
    sent = world.proxy.body_bytes
    with source(tmp_path / "f", etag="0x8DC0000000000A2") as version:
        world.send(version)
    assert world.proxy.body_bytes - sent >= 12 * MIB
    assert world.bytes_of() == (tmp_path / "f").read_bytes()


@pytest.mark.parametrize("size", [1000, 9 * MIB])
def test_an_answer_lost_after_the_commit_is_found_again(world: World, tmp_path: Path, size: int) -> None:
    def lose(exchange: Exchange) -> None:
        exchange.lose_answer = exchange.is_put() or exchange.is_put("blocklist")

    world.proxy.fault = lose
    with source(tmp_path / "f", os.urandom(size)) as version:
        outcome = world.send(version)
    assert outcome.cloud_etag == world.etag_of()
    assert world.proxy.count("PUT .*/b($|[?]comp=blocklist)") == 1


@pytest.mark.parametrize("size", [1000, 9 * MIB])
def test_an_upload_that_a_crash_forgot_is_neither_repeated_nor_a_conflict(
    world: World, tmp_path: Path, size: int
) -> None:
    with source(tmp_path / "f", os.urandom(size)) as version:
        first = world.send(version)
        sent = world.proxy.body_bytes
        again = world.send(version, again=True, policy=Policy.CLOUD_WINS)
    assert (again.cloud_etag, again.bytes_sent) == (first.cloud_etag, 0)
    assert world.proxy.body_bytes == sent
    with source(tmp_path / "f", b"newer", etag="0x8DC0000000000A2") as newer:
        world.send(newer, policy=Policy.CLOUD_WINS)  # without the ETag that the crash forgot
    assert world.bytes_of() == b"newer"


@pytest.mark.parametrize("size", [1000, 9 * MIB])
@pytest.mark.parametrize("known", [True, False], ids=["changed", "new to us"])
def test_somebody_elses_version_meets_the_policy(world: World, tmp_path: Path, size: int, known: bool) -> None:
    mine = os.urandom(size)
    for policy in Policy:
        name = policy.value
        etag = ""
        if known:
            with source(tmp_path / "f", b"first", etag="0x8DC0000000000A0") as version:
                etag = world.send(version, name).cloud_etag
        world.container.upload_blob(
            name, b"theirs", overwrite=True, metadata={"by": "them"}, tags={"a": "1"},
            content_settings=ContentSettings(content_type="text/plain"),
        )  # fmt: skip
        theirs = world.etag_of(name)
        with source(tmp_path / "f", mine) as version:
            if policy is Policy.CLOUD_WINS:
                with pytest.raises(Conflict) as raised:
                    world.send(version, name, etag=etag, policy=policy)
                assert raised.value.present is not None
                assert raised.value.present.etag == theirs
                assert world.bytes_of(name) == b"theirs"
                continue
            outcome = world.send(version, name, etag=etag, policy=policy)
        assert world.bytes_of(name) == mine
        assert outcome.replaced == theirs
        kept = f"{name}.conflict-{theirs.lower().removeprefix('0x')}"
        assert outcome.kept_as == (kept if policy is Policy.KEEP_BOTH else "")
        if policy is Policy.KEEP_BOTH:
            assert world.bytes_of(kept) == b"theirs"
            copy = world.container.get_blob_client(kept)
            assert copy.get_blob_tags() == {"a": "1"}
            assert copy.get_blob_properties().metadata == {"by": "them"}
    assert sum(".conflict-" in name for name in world.container.list_blob_names()) == 1


def test_a_change_of_properties_only_is_somebody_elses_version_too(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", SMALL) as version:
        first = world.send(version)
    world.container.get_blob_client("b").set_http_headers(ContentSettings(content_type="text/css"))
    with source(tmp_path / "f", b"new", etag="0x8DC0000000000A2") as version, pytest.raises(Conflict):
        world.send(version, etag=first.cloud_etag, policy=Policy.CLOUD_WINS)


def test_what_was_deleted_in_the_cloud_comes_back_unless_the_cloud_wins(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", SMALL) as version:
        etag = world.send(version).cloud_etag
        world.container.delete_blob("b")
        with pytest.raises(Conflict) as raised:
            world.send(version, etag=etag, policy=Policy.CLOUD_WINS)
        assert raised.value.present is None
        world.send(version, etag=etag)
    assert world.bytes_of() == SMALL


def test_keep_both_copies_what_was_there_at_the_commit(world: World, tmp_path: Path) -> None:
    """Somebody writes between our look and our commit, twice: every version of theirs is kept."""
    writes = iter([b"one", b"two"])
    world.container.upload_blob("b", b"zero")

    def meanwhile(exchange: Exchange) -> None:
        if exchange.is_put() and exchange.target.endswith("/b") and (data := next(writes, None)):
            world.container.upload_blob("b", data, overwrite=True)

    world.proxy.fault = meanwhile
    with source(tmp_path / "f", SMALL) as version:
        world.send(version, policy=Policy.KEEP_BOTH)
    kept = {world.bytes_of(name) for name in world.container.list_blob_names() if ".conflict-" in name}
    assert world.bytes_of() == SMALL
    assert {b"one", b"two"} <= kept


def test_bit_rot_is_never_sent_as_good(world: World, tmp_path: Path) -> None:
    for size in (1000, 9 * MIB):
        with (
            source(tmp_path / "f", os.urandom(size), content_md5=hashlib.md5(b"as written").digest()) as version,
            pytest.raises(CloudFailed) as raised,
        ):
            world.send(version)
        assert (raised.value.fault.kind, raised.value.fault.code) == (Kind.POISON, "SourceDamaged")
    assert not list(world.container.list_blob_names())


@pytest.mark.parametrize("recorded", [True, False])
def test_a_file_written_in_place_meanwhile_is_not_committed(world: World, tmp_path: Path, recorded: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(12 * MIB))
    options = {} if recorded else {"content_md5": None}

    def write(exchange: Exchange) -> None:
        if exchange.is_put("block"):
            with path.open("r+b") as file:
                file.seek(11 * MIB)
                file.write(b"in place")

    world.proxy.fault = write
    with source(path, **options) as version, pytest.raises(CloudFailed) as raised:
        world.send(version, blocks_in_flight=1)
    assert raised.value.fault.kind is Kind.NOW
    assert not list(world.container.list_blob_names())


def test_a_missing_container_is_named(world: World, tmp_path: Path) -> None:
    for size in (10, 9 * MIB):
        with source(tmp_path / "f", bytes(size)) as version, pytest.raises(CloudFailed) as raised:
            upload(world.cloud, version, To("no-such-container", "b"), Guard(), Errand(), node=NODE)
        assert raised.value.fault.kind is Kind.OPERATOR
        assert "no-such-container" in raised.value.fault.text


def test_progress_adds_up_and_each_piece_asks(world: World, tmp_path: Path) -> None:
    asked, told, lock = [], [], threading.Lock()

    def pace(count: int) -> Turn:
        with lock:
            asked.append(count)
        return Turn(0.0)

    def progress(count: int) -> None:
        with lock:
            told.append(count)

    with source(tmp_path / "f", os.urandom(9 * MIB)) as version:
        outcome = world.send(version, errand=Errand(pace=pace, progress=progress))
    assert sum(told) == outcome.bytes_sent == sum(asked)
    assert 9 * MIB <= sum(told) <= 9 * MIB + 64 * 1024  # and the block list
    assert max(asked) <= 64 * 1024


def test_reading_without_sending_is_told_and_stopped(world: World, tmp_path: Path) -> None:
    """A large version that the cloud has already is read here, for minutes, before that is known."""
    with source(tmp_path / "f", os.urandom(9 * MIB)) as version:
        world.send(version)
        told: list[int] = []
        world.send(version, again=True, errand=Errand(progress=told.append))
        assert told == [0] * 9
        errand = Errand(progress=lambda count: errand.stop())
        with pytest.raises(CloudFailed) as raised:
            world.send(version, again=True, errand=errand)
    assert raised.value.fault.code == "Cancelled"


def test_delete_takes_away_our_version_only(world: World, tmp_path: Path) -> None:
    target = To(world.name, "b")
    with source(tmp_path / "f", SMALL) as version:
        first = world.send(version)
    delete(world.cloud, target, Guard(first.cloud_etag), Errand(), node=NODE)
    assert not list(world.container.list_blob_names())
    delete(world.cloud, target, Guard(first.cloud_etag), Errand(), node=NODE)  # an answer that was lost
    with source(tmp_path / "f", SMALL) as version:
        world.send(version)
    with pytest.raises(Conflict):
        delete(world.cloud, target, Guard(), Errand(), node=NODE, version="0xANOTHER")  # a stub's word for it
    delete(world.cloud, target, Guard(), Errand(), node=NODE)  # a crash forgot the ETag; it is ours
    world.container.upload_blob("b", b"theirs")
    with pytest.raises(Conflict):
        delete(world.cloud, target, Guard(first.cloud_etag), Errand(), node=NODE)
    assert world.bytes_of() == b"theirs"


def test_a_snapshot_in_the_cloud_keeps_the_blob(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", SMALL) as version:
        first = world.send(version)
    world.container.get_blob_client("b").create_snapshot()
    with pytest.raises(CloudFailed) as raised:
        delete(world.cloud, To(world.name, "b"), Guard(first.cloud_etag), Errand(), node=NODE)
    assert raised.value.fault.code == "SnapshotsPresent"
    assert world.bytes_of() == SMALL


def test_metadata_that_no_header_can_carry_is_this_blobs_own_trouble(world: World, tmp_path: Path) -> None:
    for value in ("line\nline", "\u65e5\u672c"):
        with source(tmp_path / "f", SMALL, metadata={"k": value}) as version, pytest.raises(CloudFailed) as raised:
            world.send(version)
        assert raised.value.fault.kind is Kind.POISON
    assert not list(world.container.list_blob_names())


def test_a_version_that_is_not_the_blobs_any_more_is_not_sent(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", SMALL, content_md5=None) as version, pytest.raises(CloudFailed) as raised:
        world.send(replace(version, etag_now=lambda: "0x8DC0000000000FF"))
    assert raised.value.fault.code == "SourceChanged"
    assert world.proxy.log == []


def test_an_upload_that_comes_late_does_not_replace_our_own_later_version(world: World) -> None:
    with source(world.scratch / "old", b"old") as old, source(world.scratch / "new", b"new") as new:
        answers = iter([old.properties.etag, "0x8DC0000000000A2"])  # the blob changes while the old version is sent
        world.send(new)
        with pytest.raises(CloudFailed) as failed:
            world.send(replace(old, etag_now=lambda: next(answers)))
    assert failed.value.fault.code == "SourceChanged"
    assert world.bytes_of() == b"new"
