"""Records that somebody with access to the mount forged (attack input 8): never a 500, a split answer or a lost worker.

A forged record is either good enough to be believed, or the file is served like one that another writer made. It cannot
name files, break out of a header or an XML element, or make a request run on and on.
"""

import json
import os
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.security.client import Answer, Stranger
from tests.security.endpoint import Endpoint

XATTR: Final = "user.blobedge"
PUT: Final = {"x-ms-blob-type": "BlockBlob"}
CONTENT: Final = b"0123456789" * 10
_SPLIT: Final = "a\r\nX-Injected: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

#: Values that must not be believed where text, a number or an object belongs.
_ODD: Final[list[Any]] = [
    None, True, False, 0, -1, 1.5, -1e300, 10**18, 10**30, 2**63, -(2**63), float("nan"), float("inf"), "", "x",
    "\0", _SPLIT, "\n", "\r", "\x7f", "\ud800", "\udc80", "\udfff", "\uffff", "\u2028", "</Etag><Injected/>", "&xxe;",
    '"', "'\"><script>", "@../../../../../outside.txt", "@" + "0" * 24, "@/etc/passwd", "@", "%s%n", "x" * 30_000,
    [], [None], [[]], [1, 2], ["a"] * 7, [_SPLIT] * 7, {}, {"a": 1}, {"a": None}, {_SPLIT: "v"}, {"a": _SPLIT},
    {"a b": "v"}, {"": ""}, {"a": "\ud800"}, {"A": "1", "a": "2"}, {"a": "\u00e9"}, {str(i): "v" for i in range(50)},
]  # fmt: skip
_KEYS: Final = [
    "seal", "name", "etag", "modified", "created", "type", "encoding", "language", "disposition", "cache", "md5",
    "meta", "tags", "tier", "tier_changed", "rehydrate", "copy", "blocks",
]  # fmt: skip
_SPECIAL: Final[list[dict[str, Any]]] = [
    {"blocks": "MQ==:x"}, {"blocks": "MQ=="}, {"blocks": ":"}, {"blocks": ","}, {"blocks": "MQ==:-5,Mg==:105"},
    {"blocks": "MQ==:100000000000000000000"}, {"blocks": "MQ==:101"}, {"blocks": "MQ==:1"}, {"blocks": "<a/>:100"},
    {"blocks": "\u00e9:100"}, {"blocks": "MQ==: 100"}, {"blocks": "MQ==:1_00"}, {"blocks": "MQ==:\u0661\u0660\u0660"},
    {"blocks": "@../../../key1"}, {"blocks": "@../blocks"}, {"blocks": "@\0"}, {"blocks": "@."}, {"blocks": "@.."},
    {"md5": "AAAA"}, {"md5": "!" * 24}, {"md5": "\u00e9"}, {"md5": "A" * 24},
    {"tier": "Lukewarm"}, {"tier": "Archive"}, {"rehydrate": ["Hot"]}, {"rehydrate": ["Hot", _SPLIT]},
    {"rehydrate": ["Hot", 5]}, {"rehydrate": "Hot"},
    {"copy": ["id", "src", "success", 1, 2, 3, _SPLIT]}, {"copy": ["id", _SPLIT, "success", 1, 2, 3, ""]},
    {"copy": [_SPLIT, "src", "pending", 1, 2, None, ""]}, {"copy": ["id", "src", "nonsense", 1, 2, 3, ""]},
    {"copy": ["id", "src", "success", "1", "2", 3, ""]}, {"copy": ["id", "src", "success", 1, 2, 10**20, ""]},
    {"copy": ["id", "src", "success"]}, {"copy": ["id", "src", "success", -1, -2, -3, "d", "more"]},
    {"copy": ["id", "\ud800", "success", 1, 2, 3, "\ud800"]},
    {"modified": 253402300800}, {"created": 253402300800}, {"modified": -62135596801}, {"tier_changed": 10**15},
    {"modified": 1e9}, {"tier": "Hot", "tier_changed": "x"}, {"seal": [1, 2]}, {"seal": [1, 2, 3, 4]}, {"seal": "abc"},
    {"meta": {"a" * 70: "v" * 9000}}, {"tags": {str(i): "v" for i in range(11)}}, {"tags": {"a": "<b>"}},
    {"etag": "0x8D\u00e9"}, {"etag": 'a"b'}, {"etag": "a b"}, {"etag": "x" * 500},
]  # fmt: skip
FORGED: Final = [{key: value} for key in _KEYS for value in _ODD] + _SPECIAL


def sealed(path: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A good record of a file, with changes."""
    status = path.stat()
    record: dict[str, Any] = {
        "seal": [status.st_ino, status.st_size, status.st_mtime_ns], "name": "000000000000", "etag": "0x8DFORGED",
        "modified": 1_700_000_000, "created": 1_700_000_000, "type": "text/forged",
    }  # fmt: skip
    return record | (changes or {})


def line(body: bytes, crc: bytes | None = None, magic: bytes = b"blobedge1 ") -> bytes:
    """A line of a record with a right checksum."""
    return magic + (crc or b"%08x" % zlib.crc32(body)) + b" " + body + b"\n"


def forged(path: Path, changes: dict[str, Any] | None = None) -> bytes:
    """The line of a changed record. Lone surrogates come out as JSON escapes."""
    return line(json.dumps(sealed(path, changes), separators=(",", ":")).encode())


class Forger:
    """Makes files with forged records in one container, and looks at each by every operation that reads a record."""

    def __init__(self, stranger: Stranger, container: str, directory: Path) -> None:
        self._stranger = stranger
        self._container = container
        self._directory = directory
        self._count = 0

    def make(self, content: bytes = CONTENT) -> Path:
        """A new file, as an NFS user writes one."""
        self._count += 1
        path = self._directory / f"forged{self._count}"
        path.write_bytes(content)
        return path

    def put(self, path: Path, value: bytes) -> bool:
        """Attach a record; False when the file system has no room for it."""
        try:
            os.setxattr(path, XATTR, value)
        except OSError:
            return False
        return True

    def look(self, path: Path) -> Answer:
        """Read it in every way. The answer of the plain read."""
        target = f"/{self._container}/{path.name}"
        asked = self._stranger.signed
        answers = [
            asked("HEAD", target), asked("GET", target, "comp=metadata"), asked("GET", target, "comp=tags"),
            asked("GET", target, "comp=blocklist&blocklisttype=all"), asked("GET", target, "", {"x-ms-range":
            "bytes=1-3"}),
        ]  # fmt: skip
        got = asked("GET", target)
        for answer in [*answers, got]:
            assert answer.status in (200, 206, 400, 403, 404, 409), (path.name, answer)
            assert "x-injected" not in answer.headers
            assert b"<Injected" not in answer.body
        return got

    def listed(self) -> None:
        """The whole container in one document, with every dataset."""
        everything = "restype=container&comp=list&include=metadata,tags,copy,snapshots,uncommittedblobs"
        answer = self._stranger.signed("GET", f"/{self._container}", everything)
        assert answer.status == 200, answer
        root = ET.fromstring(answer.body.decode("utf-8-sig"))
        assert root.find(".//Injected") is None

    def change(self, path: Path) -> None:
        """Write to it in every way that reads its record first."""
        target = f"/{self._container}/{path.name}"
        asked = self._stranger.signed
        answers = [
            asked("PUT", target, "comp=metadata", {"x-ms-meta-a": "b"}),
            asked("PUT", target, "comp=snapshot"),
            asked("PUT", target, "comp=tier", {"x-ms-access-tier": "Cool"}),
            asked("PUT", target, "comp=blocklist", body=b"<BlockList><Committed>MQ==</Committed></BlockList>"),
            asked("PUT", target + "-copy", "", {"x-ms-copy-source": self._url(target), "x-ms-requires-sync": "true"}),
            asked("PUT", target, headers=PUT, body=b"new"),
            asked("DELETE", target, "", {"x-ms-delete-snapshots": "include"}),
        ]
        for answer in answers:
            assert answer.status in (200, 201, 202, 400, 404, 409, 412), (path.name, answer)

    def _url(self, target: str) -> str:
        return f"http://127.0.0.1:{self._stranger.port}/{self._stranger.account}{target}"


@pytest.fixture
def forger(endpoint: Endpoint, stranger: Stranger, container: str, directory: Path) -> Iterator[Forger]:
    before = (endpoint.scratch / "outside.txt").read_text(), (endpoint.scratch / "key1").read_text()
    yield Forger(stranger, container, directory)
    assert ((endpoint.scratch / "outside.txt").read_text(), (endpoint.scratch / "key1").read_text()) == before


def test_a_good_record_is_believed(forger: Forger) -> None:
    """The control: what the attacks below change is a record that would count."""
    path = forger.make()
    assert forger.put(path, forged(path, {"meta": {"a": "b"}, "blocks": "MQ==:100"}))
    got = forger.look(path)
    assert (got.status, got.headers["etag"], got.headers["x-ms-meta-a"]) == (200, '"0x8DFORGED"', "b")


def test_fields_of_the_wrong_kind_or_with_hostile_text(forger: Forger) -> None:
    for changes in FORGED:
        path = forger.make()
        if forger.put(path, forged(path, changes)):
            got = forger.look(path)
            assert (got.status, got.body) in ((200, CONTENT), (409, got.body)), (changes, got)
    forger.listed()


def test_changes_of_forged_records(forger: Forger) -> None:
    for changes in [*_SPECIAL, *({key: _SPLIT} for key in _KEYS), *({key: None} for key in _KEYS)]:
        path = forger.make()
        if forger.put(path, forged(path, changes)):
            forger.change(path)


def test_values_that_are_no_records(forger: Forger) -> None:
    path = forger.make()
    good = json.dumps(sealed(path)).encode()
    values = [
        b"", b"\n" * 3000, b"\0" * 3000, b"blobedge1", b"blobedge1 ", b"blobedge1 \n", line(good, b"00000000"),
        line(good, b"-1"), line(good, b"0x0"), line(good, b"zzzzzzzz"), line(good, magic=b"blobedge2 "),
        line(good)[:-20], line(b""), line(b"null"), line(b"[]"), line(b"5"), line(b'"x"'), line(b"{}"), line(b"[" *
        3500), line(b'{"a":' * 600), line(b'{"seal":[1,2,3]}'), line(b"\xff\xfe"), line(b'{"seal": NaN}'),
        line(b'{"seal":[1e400,1,1]}'), line(b'{"etag":' + b"9" * 3500 + b"}"), os.urandom(3000), b"blobedge1 " * 300,
        line(good) * 15,
    ]  # fmt: skip
    for value in values:
        assert forger.put(path, value), value
        got = forger.look(path)
        assert (got.status, got.body) == (200, CONTENT)
        assert got.headers["etag"] != '"0x8DFORGED"' or value == line(good) * 15
    forger.listed()


def test_records_of_other_files(forger: Forger) -> None:
    """A record counts for the file whose seal it holds, and for no other."""
    one, other = forger.make(), forger.make(b"x" * 50)
    assert forger.put(one, forged(other))
    assert forger.look(one).headers["etag"] != '"0x8DFORGED"'


@pytest.mark.parametrize("seconds", [-1, 0, -(2**31), 2**31, 2**33, 2**40, 2**62])
def test_files_of_any_age(forger: Forger, seconds: int) -> None:
    """An mtime that has no date."""
    path = forger.make()
    try:
        os.utime(path, (seconds, seconds))
    except OverflowError:
        pytest.skip("the file system has no such time")
    assert forger.look(path).status == 200
    forger.listed()
    forger.change(path)


PRIVATE: Final = [
    ("containers/{c}/properties", b"blobedge-container1"), ("containers/{c}/leases/{k}", b"blobedge-lease1"),
]  # fmt: skip
_DOCUMENTS: Final[list[Any]] = [
    None, [], {}, 5, {"etag": 5}, {"etag": _SPLIT, "modified": 1, "meta": {}, "public": "", "policies": [], "lease":
    None}, {"etag": "a", "modified": 10**18, "meta": {}, "public": "", "policies": [], "lease": None},
    {"etag": "a", "modified": 1, "meta": {_SPLIT: _SPLIT}, "public": "", "policies": [], "lease": None},
    {"etag": "a", "modified": 1, "meta": {"a": 1}, "public": "", "policies": [], "lease": None},
    {"etag": "a", "modified": 1, "meta": [], "public": "nonsense", "policies": [], "lease": None},
    {"etag": "a", "modified": 1, "meta": {}, "public": "", "policies": [[1]], "lease": None},
    {"etag": "a", "modified": 1, "meta": {}, "public": "", "policies": [["id", 1, 2, 3]], "lease": None},
    {"etag": "a", "modified": 1, "meta": {}, "public": "", "policies": [["a"] * 9], "lease": None},
    {"etag": "a", "modified": 1, "meta": {}, "public": "", "policies": [], "lease": {"id": 5}},
    {"id": _SPLIT, "duration": -1, "expires": None, "breaks": None, "released": False, "modified_since": False},
    {"id": "a", "duration": "x", "expires": None, "breaks": None, "released": False, "modified_since": False},
    {"id": "a", "duration": 15, "expires": 10**30, "breaks": 10**30, "released": 1, "modified_since": 1},
]  # fmt: skip


def test_forged_documents_in_the_private_directory(
    endpoint: Endpoint, stranger: Stranger, container: str, forger: Forger
) -> None:
    """Only the service's own user can write there, but an NFS server may see that otherwise."""
    target = f"/{container}/leased"
    assert stranger.signed("PUT", target, headers=PUT, body=b"x").status == 201
    lease = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
    assert stranger.signed("PUT", target, "comp=lease", lease).status == 201
    assert (
        stranger.signed("PUT", f"/{container}", "restype=container&comp=metadata", {"x-ms-meta-a": "b"}).status == 200
    )
    private = endpoint.root / ".blobedge"
    (lease_file,) = (private / "containers" / container / "leases").iterdir()
    for path, magic in (
        (private / "containers" / container / "properties", b"blobedge-container1"),
        (lease_file, b"blobedge-lease1"),
    ):
        for document in _DOCUMENTS:
            path.write_bytes(line(json.dumps(document).encode(), magic=magic + b" "))
            for method, where, query in (
                ("GET", f"/{container}", "restype=container"), ("GET", f"/{container}", "restype=container&comp=acl"),
                ("GET", f"/{container}", "restype=container&comp=list"), ("GET", "/", "comp=list&include=metadata"),
                ("HEAD", target, ""), ("GET", target, ""),
            ):  # fmt: skip
                answer = stranger.signed(method, where, query)
                assert answer.status == 200, (path.name, document, query, answer)
                assert b"njected" not in answer.raw
            assert stranger.bare("GET", target).status in (401, 404)  # whatever happens, it does not become public


def test_odd_files_in_the_private_directory(
    endpoint: Endpoint, stranger: Stranger, container: str, forger: Forger
) -> None:
    target = f"/{container}/blocks"
    block = b"b" * 1000
    assert stranger.signed("PUT", target, "comp=block&blockid=MQ==", body=block).status == 201
    assert stranger.signed("PUT", target, headers={**PUT, "x-ms-tags": "a=1"}, body=b"x").status == 201
    assert stranger.signed("PUT", target, "comp=snapshot").status == 201
    assert stranger.signed("PUT", target, "comp=block&blockid=MQ==", body=block).status == 201
    private = endpoint.root / ".blobedge" / "containers" / container
    (blocks,) = (private / "blocks").iterdir()
    (snapshots,) = (private / "snapshots").iterdir()
    for name in (
        "sNQ==.x.y",
        "s",
        "sNQ==",
        "czz",
        "c",
        "b",
        "b<a>",
        "bNQ==.1.2",
        "sNQ==.-1.-1",
        "s" + "f" * 40 + ".1.1",
        "junk",
    ):
        (blocks / name).write_bytes(b"")
    for name in ("junk", "zzzzzzzzzzzzzzzz", "-1", "f" * 16, "7" + "f" * 15, "0" * 16):
        (snapshots / name).write_bytes(b"")
    (blocks.parent / "nometa").mkdir()
    for number, text in enumerate([b"", b"null", b"[]", b"{}", b'{"name":5,"id_chars":"x"}', b"\xff", b"[" * 3000]):
        (blocks.parent / f"meta{number}").mkdir()
        (blocks.parent / f"meta{number}" / "meta").write_bytes(text)
    for name, text in (("junk", b""), ("a", b"\xff\xff"), ("b", b"../../../outside.txt"), ("c", b"\0"), ("d", b"x\0y")):
        (private / "tagged" / name).write_bytes(text)
    forger.listed()
    for query in ("comp=blocklist&blocklisttype=all", ""):
        assert stranger.signed("GET", target, query).status == 200
    assert stranger.signed("GET", f"/{container}", "restype=container&comp=blobs&where=%22a%22%3D%271%27").status == 200
    body = b"<BlockList><Uncommitted>MQ==</Uncommitted></BlockList>"
    assert stranger.signed("PUT", target, "comp=blocklist", body=body).status == 201
    assert stranger.signed("GET", target).body == block
    for meta in (b"", b"null", b"{}", b'{"name":5,"id_chars":"x"}'):
        assert stranger.signed("PUT", target, "comp=block&blockid=MQ==", body=block).status == 201
        (made,) = (path for path in (private / "blocks").iterdir() if len(path.name) == 40)
        (made / "meta").write_bytes(meta)
        assert stranger.signed("PUT", target, "comp=block&blockid=MQ==", body=block).status in (201, 400, 503)
        forger.listed()
        assert stranger.signed("PUT", target, headers=PUT, body=b"x").status == 201
    assert stranger.signed("DELETE", target, "", {"x-ms-delete-snapshots": "include"}).status == 202
