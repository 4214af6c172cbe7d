"""The product over one directory, with each record backend, and a shell's view of that directory."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import Answer, WireClient
from tests.wire.product import Product, running

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=["xattr", "sidecar"])
def product(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product with two workers; its durability is shown elsewhere."""
    scratch = tmp_path_factory.mktemp(f"multiprotocol-{request.param}")
    if request.param == "xattr" and not _has_user_xattrs(scratch):
        pytest.skip("no user xattrs on the file system of the temporary directory")
    flags = ("--records", request.param, "--durability", "relaxed")
    with running(scratch / "root", scratch / "log", *flags) as started:
        yield started


def _has_user_xattrs(directory: Path) -> bool:
    try:
        os.setxattr(directory, "user.probe", b"1")
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Door:
    """One container through both doors: `client` asks for blobs, `directory` is where their files are."""

    client: WireClient
    path: str
    directory: Path

    def blob(self, method: str, name: str, body: bytes = b"", **headers: str) -> Answer:
        """A request on a blob; `name` is as it goes on the wire, keyword names are headers with underscores."""
        sent = {header.replace("_", "-"): value for header, value in headers.items()}
        if method == "PUT":
            sent.setdefault("x-ms-blob-type", "BlockBlob")
        return self.client.request(method, f"{self.path}/{name}", None, sent, body)

    def names(self, **query: str) -> list[str]:
        """The names of a listing, prefixes among them."""
        answer = self.client.request("GET", self.path, {"restype": "container", "comp": "list", **query})
        assert answer.status == 200, answer.body
        return [node.findtext("Name") or "" for node in answer.xml().iter() if node.tag in ("Blob", "BlobPrefix")]


@pytest.fixture
def door(product: Product) -> Iterator[Door]:
    """A container that the endpoint has made."""
    client = product.client()
    name = f"door-{next(_numbers)}"
    assert client.request("PUT", f"/{name}", {"restype": "container"}).status == 201
    yield Door(client, f"/{name}", product.root / name)
    client.close()


def shell(*command: str | Path) -> bytes:
    """What a command prints; it has to succeed."""
    return subprocess.run([str(part) for part in command], check=True, capture_output=True).stdout
