"""No name leaves the root, reaches our own files, or is two things at once (goal 16, attack inputs 1, 2, 4, 5, 6).

The oracle is the file system: whatever was answered, afterwards nothing outside of the container has changed, what was
written is found again under exactly the name that was sent, and no answer holds what lies outside.
"""

import hashlib
import os
import re
import xml.etree.ElementTree as ET
from base64 import b64encode
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from tests.security.client import Stranger
from tests.security.endpoint import Endpoint

PUT: Final = {"x-ms-blob-type": "BlockBlob"}

#: Ways to write "one directory up" and the slash after it: plain, encoded, encoded twice, overlong, wide, backslashed.
_UPS: Final = [
    "..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%25252e%25252e", "%c0%ae%c0%ae", "%c0%2e%c0%2e",
    "%e0%80%ae%e0%80%ae", "%f0%80%80%ae%f0%80%80%ae", "%uff0e%uff0e", "%ef%bc%8e%ef%bc%8e", "..%00", "%00..", "..;",
    "..%20", "..%09", "...", "..%c2%a0", "%2e%2e%e2%80%8b", ".%0a.", "..%0d%0a",
]  # fmt: skip
_SLASHES: Final = ["/", "%2f", "%5c", "%252f", "%255c", "%c0%af", "%c1%9c", "%ef%bc%8f", "//", "/./", "%2f%2f"]
_GOALS: Final = ["outside.txt", "key1", "root/.blobedge/format", "bystander"]
_WHOLE: Final = [
    "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "C:%5cwindows", "%5c%5chost%5cshare",
    ".", "..", "%2e", "%2e%2e", "./", "../", "a/..", "a/../..", "a/../../../../../../etc/passwd", "~root", "~", "-rf",
    "--help", ".blobedge", ".blobedge/format", ".BLOBEDGE/format", ".blobedge/staging/x", ".snapshot",
    ".snapshot/daily", ".nfs0000000000000001", "a/.nfs1", "lost+found", "$root", "$web", "proc/self/environ",
    "/proc/self/environ", "/dev/stdin", "/proc/self/fd/0", "%~2E%~2E", "%25~2E%25~2E/outside.txt", "%25~2F", "%25~e/x",
    "%25~c", "a%25~c/b", "a%25~f", "%25~00", "%25~2e", "a%25~2Fb", "nul", "con.txt", "a.", "%20a", "a%20", "a/", "a//",
    "a//b", "/a", "//a", "a/./b", "./a", "a/.", "a%00b", "a%0ab", "a%0d%0ab", "a%7f", "a%01", "%ef%bf%be", "%ef%bf%bf",
    "%ff", "%c3", "%ed%a0%80", "%f5%80%80%80", "%e2%80%ae", "%", "%2", "%zz", "%u002e", "a%3fb", "a%23b", "a;b=c",
    "a:b", "a|b", "a*b",
]  # fmt: skip


def climbing() -> list[str]:
    """Every way up, with every slash, some levels, to something worth having."""
    found = []
    for up in _UPS:
        for number, slash in enumerate(_SLASHES):
            goal = _GOALS[number % len(_GOALS)].replace("/", slash)
            found += [f"{up}{slash}{goal}", f"a{slash}{(up + slash) * 3}{goal}"]
    return found


VECTORS: Final = [*dict.fromkeys(_WHOLE + climbing())]


def digest_outside(endpoint: Endpoint, container: str) -> dict[str, str]:
    """Everything that requests to one container must not change, by path."""
    found = {}
    for parent, directories, files in os.walk(endpoint.scratch):
        if parent == str(endpoint.root):
            directories[:] = [name for name in directories if name not in (container, ".blobedge")]
        if parent == str(endpoint.scratch / "bystander"):
            directories[:] = [name for name in directories if name != ".blobedge"]
        for name in files:
            path = os.path.join(parent, name)
            if name != "log":
                found[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        found[parent] = ""
    return found


def listed(stranger: Stranger, container: str, query: str = "") -> list[str]:
    """The names of a listing, or none when it was refused."""
    answer = stranger.signed("GET", f"/{container}", "restype=container&comp=list" + query)
    if answer.status != 200:
        assert 400 <= answer.status < 500, answer
        return []
    names = []
    for element in ET.fromstring(answer.body.decode("utf-8-sig")).iterfind("Blobs/Blob/Name"):
        text = element.text or ""
        names.append(text)
    return names


def test_blob_names_stay_inside_and_come_back_as_they_were_sent(
    endpoint: Endpoint, stranger: Stranger, container: str
) -> None:
    before = digest_outside(endpoint, container)
    stored: dict[str, bytes] = {}
    for number, vector in enumerate(VECTORS):
        body = f"content {number}".encode()
        answer = stranger.signed("PUT", f"/{container}/{vector}", headers=PUT, body=body)
        assert answer.status in (201, 400, 404, 409), (vector, answer)
        if answer.status == 201:
            stored[vector] = body
    for vector, body in stored.items():
        got = stranger.signed("GET", f"/{container}/{vector}")
        twins = {content for other, content in stored.items() if same_name(other, vector)}
        assert got.status == 200, (vector, got)
        assert got.body in twins, (vector, got)
        if len(twins) == 1:
            assert got.body == body
    assert digest_outside(endpoint, container) == before
    distinct = {normal(vector) for vector in stored}
    assert len(listed(stranger, container)) == len(distinct)
    for vector in stored:
        assert stranger.signed("DELETE", f"/{container}/{vector}").status in (202, 404)
    assert listed(stranger, container) == []
    assert digest_outside(endpoint, container) == before


def normal(vector: str) -> bytes:
    """The name that a path means: decoded once, a backslash is a slash."""
    text = re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), vector.encode())
    return text.replace(b"\\", b"/")


def same_name(one: str, other: str) -> bool:
    return normal(one) == normal(other)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_reading_and_deleting_reach_nothing_outside(
    endpoint: Endpoint, stranger: Stranger, container: str, method: str
) -> None:
    before = digest_outside(endpoint, container)
    for vector in VECTORS:
        answer = stranger.signed(method, f"/{container}/{vector}")
        assert answer.status in (400, 404), (vector, answer)
    assert digest_outside(endpoint, container) == before


def test_container_names_stay_inside(endpoint: Endpoint, stranger: Stranger, container: str) -> None:
    before = digest_outside(endpoint, container)
    vectors = [v.replace("/", "%2f") for v in VECTORS] + [
        "UPPER",
        "a",
        "ab",
        "a" * 64,
        "a--b",
        "-ab",
        "ab-",
        "a_b",
        "a.b",
    ]
    for vector in vectors:
        if vector in ("$root", "$web") or re.fullmatch("[a-z]{3,}", vector):
            continue  # proper names
        for method, query in (("PUT", ""), ("GET", ""), ("GET", "&comp=list"), ("DELETE", ""), ("PUT", "&comp=acl")):
            answer = stranger.signed(method, f"/{vector}", "restype=container" + query)
            assert answer.status in (400, 404), (vector, method, answer)
    assert digest_outside(endpoint, container) == before


def test_accounts_do_not_name_directories(endpoint: Endpoint, stranger: Stranger) -> None:
    for vector in [*VECTORS, "bystander/../victim", "victim%2f..%2fbystander", "bystander"]:
        answer = stranger.send("GET", f"/{vector}/c?restype=container&comp=list", stranger.dressed("GET", None, b""))
        assert answer.status in (400, 401, 403, 404, 405), (vector, answer)


def test_one_path_has_one_reading(endpoint: Endpoint, stranger: Stranger, container: str) -> None:
    """The signature, the permission and the file go by the same decoded name: an escape cannot change which blob a
    token is for."""
    for name in ("secret", "mine"):
        assert stranger.signed("PUT", f"/{container}/{name}", headers=PUT, body=name.encode()).status == 201
    token = stranger.service_sas(f"/{container}/mine", "r", sr="b")
    assert stranger.bare("GET", f"/{container}/mine", token).body == b"mine"
    assert stranger.bare("GET", f"/{container}/%6Dine", token).body == b"mine"
    for path in (
        "secret", "mine/../secret", "mine%2f..%2fsecret", "mine%252f..%252fsecret", "./secret", "mine%5c..%5csecret",
        "mine/%2e%2e/secret", "mine?/../secret", "mine%3f/../secret", "mine;/../secret", "secret%23mine",
        "secret%00mine",
    ):  # fmt: skip
        answer = stranger.bare("GET", f"/{container}/{path}", token)
        assert answer.status in (400, 403, 404), (path, answer)
        assert answer.body != b"secret"
    assert stranger.bare("GET", f"/other-{container}/mine", token).status == 403
    assert stranger.bare("GET", f"/other-{container}/..%2f{container}%2fmine", token).status == 403


@pytest.mark.parametrize("sync", [True, False])
def test_copy_sources_stay_inside(endpoint: Endpoint, stranger: Stranger, container: str, sync: bool) -> None:
    before = digest_outside(endpoint, container)
    extra = {"x-ms-requires-sync": "true"} if sync else {}
    base = f"http://127.0.0.1:{endpoint.port}/victim"
    for vector in VECTORS:
        for place in (
            f"{base}/{container}/{vector}",
            f"{base}/{vector.replace('/', '%2f')}/blob",
            f"{base}/../{vector}",
        ):
            answer = stranger.signed("PUT", f"/{container}/copied", headers={"x-ms-copy-source": place, **extra})
            assert answer.status in (400, 403, 404, 409), (place, answer)
    assert digest_outside(endpoint, container) == before


def test_batch_parts_stay_inside(endpoint: Endpoint, stranger: Stranger, container: str) -> None:
    before = digest_outside(endpoint, container)
    for start in range(0, len(VECTORS), 200):
        lines = []
        for number, vector in enumerate(VECTORS[start : start + 200]):
            path = f"/victim/{container}/{vector}"
            sent = {"x-ms-date": stranger.dressed("GET", None, b"")["x-ms-date"], "content-length": "0"}
            sent["authorization"] = stranger.authorization("DELETE", path, "", sent)
            head = "\r\n".join(f"{name}: {value}" for name, value in sent.items())
            lines.append(f"--b\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n")
            lines.append(f"DELETE {path} HTTP/1.1\r\n{head}\r\n\r\n")
        body = ("".join(lines) + "--b--\r\n").encode()
        answer = stranger.signed("POST", "/", "comp=batch", {"content-type": "multipart/mixed; boundary=b"}, body)
        assert answer.status in (202, 400), answer
        assert set(re.findall(rb"HTTP/1\.1 (\d{3})", answer.body)) <= {b"400", b"403", b"404"}, answer
    assert digest_outside(endpoint, container) == before


@pytest.mark.parametrize("parameter", ["prefix", "marker", "startFrom", "delimiter"])
def test_listing_parameters_stay_inside(endpoint: Endpoint, stranger: Stranger, container: str, parameter: str) -> None:
    (endpoint.root / container / "inside.txt").write_text("x")
    for vector in VECTORS:
        for value in (vector, b64encode(b"\x01" + vector.encode()).decode()):
            escaped = re.sub(r"[&+#? ]", lambda m: quote(m[0]), value)
            for name in listed(stranger, container, f"&{parameter}={escaped}"):
                assert name == "inside.txt", (vector, name)
            query = f"comp=list&maxresults=5&{'prefix' if parameter == 'delimiter' else parameter}={escaped}"
            answer = stranger.signed("GET", "/", query)
            assert answer.status in (200, 400), (vector, answer)


def test_long_names_get_a_refusal_or_a_blob(endpoint: Endpoint, stranger: Stranger, container: str) -> None:
    wide = quote("\U0001f600")
    names = [
        "n" * 1024, "n" * 1025, wide * 256, wide * 1024, wide * 1025, "/".join("ab" * 200), "/".join("x" * 254),
        "/".join("x" * 255), "d/" * 253 + "x", "d/" * 254 + "x", "/" * 200, "a" * 255 + "/b", "a" * 256 + "/b",
        "." * 1000, "%25~" * 300, "../" * 200 + "etc",
    ]  # fmt: skip
    for name in names:
        answer = stranger.signed("PUT", f"/{container}/{name}", headers=PUT, body=b"long")
        assert answer.status in (201, 400), (name[:40], answer)
        if answer.status == 201:
            assert stranger.signed("GET", f"/{container}/{name}").body == b"long"
            assert stranger.signed("DELETE", f"/{container}/{name}").status == 202
    assert os.listdir(endpoint.root / container) == []
