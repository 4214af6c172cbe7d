"""The whole way of what is not simply sent: stubs, tags and tiers, versions that came back, and cloud-wins."""

import os
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError

from agent.offload.cloud import Cloud
from agent.offload.identity import identity
from agent.offload.source import source_of
from agent.offload.states import COPY_LOST
from agent.offload.transport import Errand
from agent.offload.upload import Guard, upload
from dataplane.blobapi.model import BlobProperties, Remote
from dataplane.store.records import Record, encode, name_hash, seal_of
from dataplane.store.recordstore import XATTR
from dataplane.store.store import BlobRef, Store
from tests.offload.engine_support import NOW, Edge, away, back, edge
from tests.offload.upload_support import To, eventually, settings

MIB = 1 << 20
CLOUD_WINS = NOW + 'conflict = "cloud-wins"\n'


def evict(node: Edge, container: str, name: str) -> None:
    """What the evictor does with a blob that the queue says is copied."""
    (row,) = (row for row in node.rows("--container", container) if row["name"] == name)
    store = Store(str(node.root))
    try:
        state = store.stat_blob(BlobRef(container, name))
        assert state is not None
        assert state.properties.content_md5 is not None
        remote = Remote(
            state.size, state.properties.content_md5, row["cloud_etag"], row["cloud_container"], row["cloud_name"],
            state.properties.etag, 0, 0,
        )  # fmt: skip
        store.run(store.evict(BlobRef(container, name), state.properties.etag, remote))
    finally:
        store.close()


def tags_in_cloud(node: Edge, container: str, name: str) -> dict[str, str]:
    return dict(node.cloud.get_blob_client(container, name).get_blob_tags())


def test_tags_and_tier_that_are_changed_alone_follow_without_the_bytes(node: Edge) -> None:
    blobs = node.container("tags-alone")
    blob = blobs.upload_blob("b", data := os.urandom(MIB), tags={"line": "1"})
    node.until_in_cloud("tags-alone", {"b": data})
    sent = node.proxy.body_bytes
    blob.set_blob_tags({"line": "2", "more": "yes"})
    eventually(lambda: tags_in_cloud(node, "tags-alone", "b") == {"line": "2", "more": "yes"})
    blob.set_standard_blob_tier("Cool")
    there = node.cloud.get_blob_client("tags-alone", "b")
    eventually(lambda: str(there.get_blob_properties().blob_tier) == "Cool")
    blob.set_blob_metadata({"Line": "2"})
    eventually(lambda: there.get_blob_properties().metadata.get("Line") == "2")
    node.until(lambda report: not report["unprotected_blobs"])
    assert node.proxy.body_bytes - sent < 10_000
    assert node.in_cloud("tags-alone") == {"b": data}


def test_a_version_that_came_back_is_compared_with_the_cloud(cloud_port: int, tmp_path: Path) -> None:
    """The sidecar was killed after it had sent what stood there meanwhile, and before it said so."""
    with edge(cloud_port, tmp_path, more='node = "edge"\n') as node:
        blobs = node.container("came-back")
        blob = blobs.upload_blob("b", b"first")
        node.until_in_cloud("came-back", {"b": b"first"})
        (tmp_path / "other").mkdir()
        store, cloud = Store(str(tmp_path / "other")), Cloud(settings(cloud_port, tmp_path))
        (tmp_path / "other" / "box").mkdir()
        (tmp_path / "other" / "box" / "b").write_bytes(b"meanwhile")
        opened = store.open_blob(BlobRef("box", "b"))
        assert opened is not None
        upload(
            cloud, source_of(store, BlobRef("box", "b"), opened), To("came-back", "b"), Guard(), Errand(),
            node=identity(node.state, "edge"), again=True,
        )  # fmt: skip
        opened.close()
        store.close()
        cloud.close()
        assert node.in_cloud("came-back") == {"b": b"meanwhile"}
        blob.set_blob_tags({"look": "again"})  # it is looked at, and has the ETag of the copy
        node.until_in_cloud("came-back", {"b": b"first"})


def test_a_stub_that_is_described_anew_is_described_in_the_cloud(node: Edge) -> None:
    blobs = node.container("stub-described")
    blob = blobs.upload_blob("b", data := os.urandom(MIB), metadata={"v": "1"})
    node.until_in_cloud("stub-described", {"b": data})
    evict(node, "stub-described", "b")
    sent = node.proxy.body_bytes
    node.proxy.fault = away
    blob.set_blob_metadata({"v": "2"})
    blob.set_blob_tags({"t": "2"})
    node.proxy.fault = back
    there = node.cloud.get_blob_client("stub-described", "b")
    eventually(lambda: there.get_blob_properties().metadata.get("v") == "2")
    node.until(lambda report: not report["unprotected_blobs"])
    assert tags_in_cloud(node, "stub-described", "b") == {"t": "2"}
    (row,) = node.rows("--container", "stub-described")
    etag = there.get_blob_properties().etag.strip('"')
    assert (row["residency"], row["cloud_etag"], row["size"]) == ("remote", etag, MIB)
    store = Store(str(node.root))
    state = store.stat_blob(BlobRef("stub-described", "b"))
    store.close()
    assert state is not None
    assert state.properties.remote is not None
    assert (state.properties.remote.etag, state.properties.remote.version) == (etag, state.properties.etag)
    assert node.proxy.body_bytes - sent < 10_000
    assert node.in_cloud("stub-described") == {"b": data}


def test_a_stub_whose_copy_somebody_replaced_waits_for_a_person(node: Edge) -> None:
    blobs = node.container("stub-replaced")
    blob = blobs.upload_blob("b", data := os.urandom(1000))
    node.until_in_cloud("stub-replaced", {"b": data})
    evict(node, "stub-replaced", "b")
    node.cloud.get_blob_client("stub-replaced", "b").upload_blob(b"theirs", overwrite=True)
    blob.set_blob_metadata({"v": "2"})
    node.until(lambda report: report["failed_rows"].get("operator"))
    (row,) = node.rows("--container", "stub-replaced")
    assert "the stub here stands for" in row["error"]
    assert node.in_cloud("stub-replaced") == {"b": b"theirs"}
    blob.delete_blob()
    node.until(lambda report: not report["failed_rows"])


def test_bytes_that_somebody_wrote_into_a_stub_never_take_the_place_of_its_copy(node: Edge) -> None:
    blobs = node.container("stub-written")
    blob = blobs.upload_blob("b", data := os.urandom(50_000))
    blobs.upload_blob("also", data)
    node.until_in_cloud("stub-written", {"b": data, "also": data})
    for name in ("b", "also"):
        evict(node, "stub-written", name)
        with (node.root / "stub-written" / name).open("ab") as file:
            file.write(b"x\n")  # as root, whom no mode stops
    blobs.get_blob_client("also").set_blob_metadata({"a": "record of its own"})
    assert node.queue("scan").returncode == 0
    node.until(lambda report: report["failed_rows"].get("operator") == 2)
    for row in node.rows("--container", "stub-written"):
        assert f"stub-written/{row['name']}: somebody wrote into its stub here" in row["error"]
    assert node.in_cloud("stub-written") == {"b": data, "also": data}
    os.truncate(node.root / "stub-written/b", 0)
    (node.root / "stub-written/also").chmod(0o644)
    node.queue("retry", "--hold", "operator")
    node.until_in_cloud("stub-written", {"b": data, "also": b"x\n"})
    assert blob.download_blob().readall() == data


def test_a_stub_that_somebody_forged_gets_nothing_of_another_blob(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, CLOUD_WINS) as node:
        blobs = node.container("forged")
        node.cloud.create_container("forged-about").upload_blob("secret", b"not theirs to read")
        path = node.root / "forged/b"
        path.touch()
        path.chmod(0o1400)
        remote = Remote(5, bytes(16), "0x2", "forged-about", "secret", "0x1", 0, 0o644)
        record = Record(seal_of(path.stat()), name_hash("forged", "b"), BlobProperties("0x1", 0, 0, remote=remote))
        os.setxattr(path, XATTR, encode(record))
        blobs.get_blob_client("b").set_blob_metadata({"look": "at it"})
        # The look at the blob says so, or the reconciliation that made the rows, if it is still under way.
        node.until(lambda report: report["failed_rows"].keys() & {"operator", COPY_LOST})
        with pytest.raises(HttpResponseError):
            blobs.download_blob("b", retry_total=0).readall()
        assert node.in_cloud("forged-about") == {"secret": b"not theirs to read"}


def test_files_of_years_that_no_column_holds_are_sent_like_others(node: Edge) -> None:
    node.container("future")
    path = node.root / "future/b"
    path.write_bytes(b"of the year 2302")
    os.utime(path, (10_500_000_000, 10_500_000_000))
    assert node.queue("scan").returncode == 0
    node.until_in_cloud("future", {"b": b"of the year 2302"})


def test_cloud_wins_puts_theirs_here_and_deletes_what_they_deleted(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, CLOUD_WINS) as node:
        blobs = node.container("cloud-wins")
        for name in ("changed", "deleted"):
            blobs.upload_blob(name, b"ours")
        node.until_in_cloud("cloud-wins", {"changed": b"ours", "deleted": b"ours"})
        theirs = node.cloud.get_container_client("cloud-wins")
        theirs.upload_blob("changed", b"this is theirs", overwrite=True, metadata={"by": "them"})
        theirs.delete_blob("deleted")
        before = blobs.upload_blob("changed", b"ours again", overwrite=True).get_blob_properties()
        blobs.upload_blob("deleted", b"ours again", overwrite=True)
        node.until(lambda report: report["conflicts"] == {"cloud-wins": 2})
        (told,) = (line for line in node.service.log.read_text().splitlines() if "somebody deleted" in line)
        assert "WARNING" in told.upper()
        assert "10 bytes, is gone" in told
        assert node.in_cloud("cloud-wins") == {"changed": b"this is theirs"}
        assert list(blobs.list_blob_names()) == ["changed"]
        after = blobs.get_blob_client("changed").get_blob_properties()
        assert (after.size, after.metadata) == (14, {"by": "them"})
        assert after.etag != before.etag
        (row,) = node.rows("--container", "cloud-wins")
        assert (row["residency"], row["size"]) == ("remote", 14)
