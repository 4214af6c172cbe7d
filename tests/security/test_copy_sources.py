"""x-ms-copy-source makes a server send requests (attack input 3): it reads this node's own blobs, with a permission of
their own, and nothing else that the operator did not name.

Names that lead to inner addresses, redirects and a name server that changes its mind are tried on a node whose
configuration allows the attacker's host, in this process, because the test is then the name server.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dataplane.ipc.settings import CopySource
from dataplane.server import remotesource
from tests.security.client import Answer, Stranger
from tests.security.endpoint import Endpoint
from tests.support import ACCOUNT, InProcessServer, WireClient

PUT: Final = {"x-ms-blob-type": "BlockBlob"}
_HOSTS: Final = [
    "169.254.169.254", "169.254.169.254:80", "[fd00:ec2::254]", "metadata.google.internal", "168.63.129.16",
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
    "127.000.000.001", "0", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fe80::1%25lo]", "localhost", "LOCALHOST.",
    "localhost.localdomain", "127.0.0.1.nip.io", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1",
    "224.0.0.1", "255.255.255.255", "192.0.2.1", "127.0.0.1%00.blob.core.windows.net", "blob.core.windows.net",
    "evil.example", "victim.blob.core.windows.net.evil.example", "victim.blob.core.windows.net@127.0.0.1",
    "127.0.0.1#victim.blob.core.windows.net", "127.0.0.1\\@victim.blob.core.windows.net",
    "victim%2eblob.core.windows.net", "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
    "\uff11\uff12\uff17.0.0.1", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:", ":80", "", " ", "[", "]", "[]",
    "[::1", "a" * 5000, "..", "x..y", "-", "user:pass@127.0.0.1", "@", "%31%32%37.0.0.1",
]  # fmt: skip
_URLS: Final = [
    "file:///etc/passwd", "file://127.0.0.1/etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:25/_HELO",
    "dict://127.0.0.1/x", "data:text/plain,x", "javascript:x", "unix:///var/run/docker.sock",
    "jar:http://127.0.0.1!/x", "//127.0.0.1/x", "/etc/passwd", "victim/c/b", "http:127.0.0.1/x", "http:/127.0.0.1/x",
    "http:///x", "https://", "http:\\\\127.0.0.1\\x", "HTTP://127.0.0.1:22/x", " http://127.0.0.1/x", "http://127.0.0.1%20/x",
    "http://127.0.0.1/x y", "http://127.0.0.1/\tx", "ht%74p://127.0.0.1/", "\x00", "",
]  # fmt: skip


class Trap:
    """Listens on the loopback, as an inner service would; every connection is one too many."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connected, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connected.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def trap() -> Iterator[Trap]:
    opened = Trap()
    yield opened
    opened.close()


def attempts(stranger: Stranger, container: str, url: str) -> Iterator[Answer]:
    """All five ways to have something copied."""
    target, source = f"/{container}/copied", {"x-ms-copy-source": url}
    yield stranger.signed("PUT", target, headers=source)
    yield stranger.signed("PUT", target, headers={**source, "x-ms-requires-sync": "true"})
    yield stranger.signed("PUT", target, headers={**source, **PUT})
    yield stranger.signed("PUT", target, "comp=block&blockid=MQ%3D%3D", source)
    yield stranger.signed("PUT", target, headers={**source, **PUT, "x-ms-copy-source-authorization": "Bearer token"})


def test_nothing_is_fetched_from_anywhere(stranger: Stranger, container: str, trap: Trap) -> None:
    urls = [f"{scheme}://{host}/c/b" for scheme in ("http", "https") for host in _HOSTS]
    urls += [f"{scheme}://{host}:{trap.port}/c/b" for scheme in ("http", "https") for host in
             ("127.0.0.1", "localhost", "[::1]", "2130706433", "127.1", "[::ffff:127.0.0.1]", "0x7f.1")]  # fmt: skip
    for url in [*urls, *_URLS]:
        for answer in attempts(stranger, container, url):
            assert answer.status in (400, 403, 404, 409, 412), (url, answer)
            assert b"token" not in answer.raw
    assert trap.connections == 0
    assert stranger.signed("GET", f"/{container}/copied").status == 404


def test_a_local_source_needs_a_permission_of_its_own(endpoint: Endpoint, stranger: Stranger, container: str) -> None:
    """The Host header, a second name of this node or a write permission open no source."""
    other = endpoint.stranger("bystander")
    assert other.signed("PUT", "/private", "restype=container").status in (201, 409)
    for client, path in ((other, "/private/secret"), (stranger, f"/{container}/secret")):
        assert client.signed("PUT", path, headers=PUT, body=b"secret").status == 201
    here = f"http://127.0.0.1:{endpoint.port}"
    elsewhere = [
        f"{here}/bystander/private/secret", f"http://localhost:{endpoint.port}/bystander/private/secret",
        f"https://127.0.0.1:{endpoint.tls_port}/bystander/private/secret",
        "https://bystander.blob.core.windows.net/private/secret",
        "http://bystander.blob.core.windows.net/private/secret",
        "https://bystander-secondary.blob.core.windows.net/private/secret",
        f"{here}/victim/../bystander/private/secret", f"{here}/victim%2f..%2fbystander/private/secret",
        f"{here}/bystander/private/secret?{stranger.account_sas()}", f"{here}/bystander/private/secret?sig=x",
        f"{here}/bystander/private/secret?{other.account_sas('cwd')}",
        f"{here}/bystander/private/secret?{other.account_sas('l')}",
    ]  # fmt: skip
    for url in elsewhere:
        for answer in attempts(stranger, container, url):
            assert answer.status in (400, 403, 404), (url, answer)
        assert stranger.signed("GET", f"/{container}/copied").status == 404, url
    writing = stranger.service_sas(f"/{container}", "cw")
    mine = f"{here}/victim/{container}/secret"
    tokens = ["", writing, stranger.service_sas(f"/{container}", "l"), stranger.service_sas(f"/{container}/x", "r",
    sr="b"),
              stranger.service_sas(f"/{container}", "r", se="2020-01-01T00:00:00Z"), stranger.account_sas("r",
              srt="sc"), stranger.account_sas("r", spr="https"), stranger.account_sas("r", sip="10.0.0.1"),
              stranger.account_sas("r", ss="q")]  # fmt: skip
    for token in tokens:
        for more in ({"x-ms-requires-sync": "true"}, {}, PUT):
            source = {"x-ms-copy-source": f"{mine}?{token}", **more}
            answer = stranger.bare("PUT", f"/{container}/copied", writing, source)
            assert answer.status in (400, 403, 404), (token, answer)
    assert stranger.signed("GET", f"/{container}/copied").status == 404
    good = stranger.service_sas(f"/{container}/secret", "r", sr="b")
    source = {"x-ms-copy-source": f"{mine}?{good}", "x-ms-requires-sync": "true"}
    assert stranger.bare("PUT", f"/{container}/copied", writing, source).status == 202
    shown = stranger.signed("HEAD", f"/{container}/copied")
    assert "sig" not in shown.headers["x-ms-copy-source"]  # a token is a secret
    other.close()


# --- a host that the operator allows, and that turns out to be hostile ---


class Resolver:
    """Stands in for the name server of the event loop; counts what it was asked."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        address = self.answers[min(len(self.asked), len(self.answers)) - 1]
        addresses = ["93.184.216.34", "127.0.0.1"] if address == "both" else [address]
        kinds = {a: socket.AF_INET6 if ":" in a else socket.AF_INET for a in addresses}
        return [(kinds[a], socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (a, port)) for a in addresses]


INNER: Final = [
    "127.0.0.1", "127.8.8.8", "169.254.169.254", "10.1.2.3", "172.31.255.255", "192.168.1.1", "100.64.0.1", "0.0.0.0",
    "::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fe80::1",
    "fc00::1", "fd00:ec2::254", "224.0.0.1", "ff02::1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "2001:db8::1",
    "240.0.0.1", "both",
]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
def test_a_name_that_leads_inside_is_not_connected_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """JudgedResolver is the one place where a source's name becomes addresses."""
    fake = Resolver([address])

    async def resolve() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", fake.getaddrinfo)
        judged = remotesource._resolver(CopySource("evil.example", 443, False))
        with pytest.raises(OSError, match="not allowed"):
            await judged.resolve("evil.example", 443)

    asyncio.run(resolve())
    assert fake.asked == ["evil.example"]


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: the second answer of the name server would be an inner one, so there must be no second question."""
    fake = Resolver(["93.184.216.34", "127.0.0.1"])

    async def resolve() -> list[str]:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", fake.getaddrinfo)
        judged = remotesource._resolver(CopySource("evil.example", 443, False))
        found = await judged.resolve("evil.example", 443)
        numeric = [entry["flags"] & socket.AI_NUMERICHOST for entry in found]
        assert all(numeric)  # what connects is told not to ask again
        return [entry["host"] for entry in found]

    assert asyncio.run(resolve()) == ["93.184.216.34"]
    assert fake.asked == ["evil.example"]


@pytest.fixture
def open_node(tmp_path: Path, trap: Trap) -> Iterator[tuple[InProcessServer, WireClient]]:
    """A node whose operator allows two hosts, at the trap's port, but nothing private."""
    rules = (CopySource("localhost", trap.port, False), CopySource("127.0.0.1", trap.port, False),
             CopySource("*.example", 443, False))  # fmt: skip
    server = InProcessServer(tmp_path / "root", copy_sources=rules)
    client = server.client()
    assert client.request("PUT", "/box", {"restype": "container"}).status == 201
    yield server, client
    client.close()
    server.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost.", "LocalHost"])
def test_an_allowed_name_of_an_inner_address_is_not_connected_to(
    open_node: tuple[InProcessServer, WireClient], trap: Trap, host: str
) -> None:
    _, client = open_node
    source = {"x-ms-copy-source": f"https://{host}:{trap.port}/c/b", "x-ms-requires-sync": "true"}
    answer = client.request("PUT", "/box/copied", headers=source)
    assert answer.status in (404, 412), answer
    assert str(trap.port).encode() not in answer.body
    assert trap.connections == 0


@pytest.mark.parametrize(
    "host",
    ["example", "xexample", "a.example.evil", "example.", "a.example@b", "*.example", ".example", "a.example:444"],
)
def test_hosts_beside_a_pattern(open_node: tuple[InProcessServer, WireClient], host: str) -> None:
    _, client = open_node
    source = {"x-ms-copy-source": f"https://{host}/c/b", "x-ms-requires-sync": "true"}
    answer = client.request("PUT", "/box/copied", headers=source)
    assert answer.status in (400, 404), answer
    assert ACCOUNT.encode() not in answer.body
