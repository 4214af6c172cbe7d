"""A tree that cp wrote is blobs, and blobs are files that cat reads: both doors show the same, whoever wrote."""

import hashlib
import os
import random
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.multiprotocol.conftest import Door, shell
from tests.wire.product import Product

#: Segments over 255 bytes, empty and dotted ones, a blob beside a directory of its name, what xattr and XML dislike.
ODD_NAMES = (
    "a", "a/b", "a/", "a//b", "/a", "//", "..", "../x", ".", "./a", "a/..", "x" * 300, "y" * 300 + "/" + "z" * 300,
    "\u00e4" * 200, ".snapshot/x", ".nfs0001", ".blobedge/x", "%~e", "%~", "100%.txt", "a b+c", "name:with|odd?*",
    "a\nb", "\U0001f600", "-rf", "CON", "trailing.", "trailing ", "'\"`$(x)",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, bytes]:
    """A source tree under tmp_path/tree: path -> content."""
    dice = random.Random(7)
    files = {
        "readme.txt": b"hello\n",
        "empty": b"",
        "images/a b.png": dice.randbytes(70_000),
        "images/deep/er/\u00fcber.bin": dice.randbytes(300_000),
        "images/deep/er/x.json": b"{}",
        "k=1/part-0.parquet": dice.randbytes(5_000),
    }
    for name, content in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


def test_a_tree_that_cp_wrote_is_listed_read_overwritten_and_deleted(
    door: Door, tree: dict[str, bytes], tmp_path: Path
) -> None:
    shell("cp", "-r", f"{tmp_path}/tree/.", door.directory)
    assert door.names() == sorted(tree)
    assert door.names(delimiter="/") == ["empty", "images/", "k=1/", "readme.txt"]
    for name, content in tree.items():
        answer = door.blob("GET", quote(name))
        assert (answer.status, answer.body) == (200, content)
        assert "content-md5" not in answer.headers, "nobody has hashed a file that somebody else wrote"
    assert door.blob("HEAD", "readme.txt").headers["content-type"] == "text/plain"
    part = door.blob("GET", quote("images/a b.png"), range="bytes=100-199")
    assert (part.status, part.body) == (206, tree["images/a b.png"][100:200])
    assert door.blob("PUT", "readme.txt", b"new").status == 201
    assert shell("cat", door.directory / "readme.txt") == b"new"
    for name in tree:
        assert door.blob("DELETE", quote(name)).status == 202
    assert door.names() == []
    assert shell("find", door.directory, "-mindepth", "1") == b"", "a flat namespace leaves no directories behind"


def test_a_directory_that_mkdir_made_is_a_container(product: Product, tree: dict[str, bytes], tmp_path: Path) -> None:
    shell("cp", "-r", tmp_path / "tree", product.root / "made-by-hand")
    client = product.client()
    listed = client.request("GET", "/", {"comp": "list", "prefix": "made-by"})
    assert [node.text for node in listed.xml().iter("Name")] == ["made-by-hand"]
    assert client.request("GET", "/made-by-hand/readme.txt").body == tree["readme.txt"]
    assert client.request("DELETE", "/made-by-hand", {"restype": "container"}).status == 202
    assert not (product.root / "made-by-hand").exists()
    client.close()


def test_blobs_are_files_that_cat_reads(door: Door) -> None:
    content = random.Random(8).randbytes(1_000_000)
    assert door.blob("PUT", "small", b"tiny", x_ms_meta_k="v").status == 201
    assert door.blob("PUT", quote("dir/name with spaces \u00e4.bin"), content).status == 201
    half = len(content) // 2
    for block, part in (("QQ==", content[:half]), ("Qg==", content[half:])):
        path = f"{door.path}/big"
        assert door.client.request("PUT", path, {"comp": "block", "blockid": block}, None, part).status == 201
    body = b"<BlockList><Latest>QQ==</Latest><Latest>Qg==</Latest></BlockList>"
    assert door.client.request("PUT", f"{door.path}/big", {"comp": "blocklist"}, None, body).status == 201
    assert shell("cat", door.directory / "small") == b"tiny"
    assert shell("cat", door.directory / "dir/name with spaces \u00e4.bin") == content
    assert shell("cat", door.directory / "big") == content
    assert sorted(os.listdir(door.directory)) == ["big", "dir", "small"], "nothing of ours beside the blobs"


def test_a_file_that_was_changed_gets_a_new_etag_and_loses_its_md5(door: Door) -> None:
    written = door.blob("PUT", "shared", b"one", x_ms_meta_owner="me")
    assert door.blob("HEAD", "shared").headers["content-md5"] == b64encode(hashlib.md5(b"one").digest()).decode()
    (door.directory / "shared").write_bytes(b"three")
    changed = door.blob("GET", "shared")
    assert (changed.status, changed.body) == (200, b"three")
    assert changed.headers["etag"] != written.headers["etag"]
    assert "content-md5" not in changed.headers
    assert changed.headers["x-ms-meta-owner"] == "me", "the user metadata of its last record stays"
    assert door.blob("GET", "shared", if_match=written.headers["etag"]).status == 412
    assert door.blob("PUT", "shared", b"four", if_match=written.headers["etag"]).status == 412
    assert door.blob("GET", "shared").headers["etag"] == changed.headers["etag"], "it stays what it is until changed"
    assert door.blob("PUT", "shared", b"four", if_match=changed.headers["etag"]).status == 201
    assert (door.directory / "shared").read_bytes() == b"four"


def test_what_the_shell_moves_keeps_its_properties_and_what_it_removes_is_gone(door: Door) -> None:
    written = door.blob("PUT", "old", b"content", x_ms_meta_k="v")
    shell("mkdir", door.directory / "sub")
    shell("mv", door.directory / "old", door.directory / "sub/new")
    assert door.blob("GET", "old").status == 404
    moved = door.blob("GET", "sub/new")
    assert (moved.headers["etag"], moved.headers["x-ms-meta-k"]) == (written.headers["etag"], "v")
    shell("rm", "-r", door.directory / "sub")
    assert door.blob("GET", "sub/new").code == "BlobNotFound"
    assert door.names() == []


def test_names_that_no_file_system_would_hold_coexist(door: Door) -> None:
    for name in ODD_NAMES:
        answer = door.blob("PUT", quote(name, safe=""), name.encode(), x_ms_meta_length=str(len(name)))
        assert answer.status == 201, (name, answer.body)
    assert door.names() == sorted(ODD_NAMES, key=lambda name: name.encode("utf-16-be"))
    for name in ODD_NAMES:
        for safe in ("", "/"):
            answer = door.blob("GET", quote(name, safe=safe))
            assert (answer.status, answer.body) == (200, name.encode()), name
        assert answer.headers["x-ms-meta-length"] == str(len(name))
    assert not [path for path in door.directory.parent.glob("*") if path.name in ("x", "a", "etc")]
    for name in ODD_NAMES:
        assert door.blob("DELETE", quote(name, safe="")).status == 202, name
    assert door.names() == []
    assert os.listdir(door.directory) == []


def test_a_blob_and_the_directory_of_its_name_in_either_order(door: Door) -> None:
    for first, second in (("a", "a/b"), ("c/d", "c")):
        assert door.blob("PUT", first, b"first").status == 201
        assert door.blob("PUT", second, b"second").status == 201
        assert (door.blob("GET", first).body, door.blob("GET", second).body) == (b"first", b"second")
    assert door.names() == ["a", "a/b", "c", "c/d"]
    assert door.names(delimiter="/") == ["a", "a/", "c", "c/"]
    (door.directory / "made").mkdir()
    assert door.blob("PUT", "made", b"beside").status == 201
    (door.directory / "made/inside").write_bytes(b"within")
    assert (door.blob("GET", "made").body, door.blob("GET", "made/inside").body) == (b"beside", b"within")
