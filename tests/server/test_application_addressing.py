"""Which account, container and blob a target means."""

import pytest

from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.message import Resource
from dataplane.server.addressing import Hosts, locate

HOSTS = Hosts(["blob.core.windows.net", ".edge.example."], {"Data.Plant7.example": "plantdata"})


def resource(target: str, host: str = "127.0.0.1:10000") -> Resource:
    return locate(target, host, HOSTS).resource


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("/acct/cont/a/b", "127.0.0.1:10000", ("acct", "cont", "a/b")),
        ("/acct/cont/a%2Fb", "127.0.0.1:10000", ("acct", "cont", "a/b")),
        ("/acct/cont/a%252Fb", "127.0.0.1", ("acct", "cont", "a%2Fb")),
        ("/cont/a", "acct.blob.core.windows.net", ("acct", "cont", "a")),
        ("/cont/a", "ACCT.Blob.core.windows.net:443", ("acct", "cont", "a")),
        ("/cont/a", "acct.blob.core.windows.net.", ("acct", "cont", "a")),
        ("/cont/a", "acct.edge.example", ("acct", "cont", "a")),
        ("/cont/a", "data.plant7.example", ("plantdata", "cont", "a")),
        ("http://acct.edge.example/cont/a", "acct.edge.example", ("acct", "cont", "a")),
        ("/", "acct.edge.example", ("acct", "", "")),
        ("/acct", "[::1]:10000", ("acct", "", "")),
        ("/acct/", "[::1]:10000", ("acct", "", "")),
        ("/acct/cont?restype=container", "localhost", ("acct", "cont", "")),
        ("/acct/name", "localhost", ("acct", "$root", "name")),
        ("/name", "acct.edge.example", ("acct", "$root", "name")),
        ("/acct/cont/a\\b", "localhost", ("acct", "cont", "a/b")),
        ("/too.many.labels/cont", "a.b.edge.example", ("too.many.labels", "$root", "cont")),
    ],
)
def test_resource(target: str, host: str, expected: tuple[str, str, str]) -> None:
    found = resource(target, host)
    assert (found.account, found.container, found.blob) == expected


def test_secondary_is_the_primary_under_another_name() -> None:
    path_style = locate("/acct-secondary/cont/a", "localhost", HOSTS)
    host_style = locate("/cont/a", "acct-secondary.edge.example", HOSTS)
    assert path_style.secondary
    assert host_style.secondary
    assert path_style.resource == Resource("acct", "cont", "a", "/acct/cont/a", True)
    assert host_style.resource == Resource("acct", "cont", "a", "/cont/a", False)
    assert not locate("/acct/cont/a", "localhost", HOSTS).secondary


def test_escaped_secondary_is_refused() -> None:
    with pytest.raises(BlobError):
        locate("/acct%2Dsecondary/cont/a", "localhost", HOSTS)


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "[::1", "a:123456", "a:b"])
def test_host_that_is_none(host: str) -> None:
    with pytest.raises(BlobError):
        locate("/acct/cont/a", host, HOSTS)


@pytest.mark.parametrize("target", ["/acct/cont/%", "/acct/cont/%zz", "/acct/cont/%00", "/acct/cont/%ff", "cont"])
def test_target_that_is_none(target: str) -> None:
    with pytest.raises(BlobError):
        locate(target, "localhost", HOSTS)
