"""The cloud of the lab: Azurite in its namespace, the proxy before it, and the link to the edge.

The edge sees the proxy only. The lab itself looks at Azurite behind the proxy's back (`straight`), so that what it
looks at is neither counted nor spoilt.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from azure.storage.blob import BlobServiceClient

from tests.wire import azurite
from tests.wire.player import Server

from .link import CLOUD_ADDRESS, Link, link
from .proxy import BACKLOG, Proxy

PORT: Final = 10000
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Lab:
    """The link, the proxy, and the way to both."""

    link: Link
    proxy: Proxy
    azurite: Server

    @property
    def url(self) -> str:
        """The account as the edge reaches it: over the link, through the proxy."""
        return f"http://{CLOUD_ADDRESS}:{PORT}/{self.azurite.account}"

    @property
    def account(self) -> str:
        """Name of the account in the cloud."""
        return self.azurite.account

    @property
    def key(self) -> str:
        """Key of the account in the cloud."""
        return self.azurite.key

    def connection_string(self, url: str | None = None) -> str:
        """For Azure's own clients; without a URL the one that the edge uses."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};"
            f"BlobEndpoint={url or self.url};"
        )

    @contextmanager
    def straight(self) -> Iterator[BlobServiceClient]:
        """Be in the cloud, with a client of Azurite itself. Not inside of `across` or a node's `service`: a thread is
        in one place."""
        with self.link.in_cloud(), _client(self.connection_string(self.azurite.url)) as service:
            yield service

    @contextmanager
    def across(self) -> Iterator[BlobServiceClient]:
        """Be at the edge, with a client that goes over the link and through the proxy, and tries everything once."""
        with self.link.at_edge(), _client(self.connection_string()) as service:
            yield service

    def heal(self) -> None:
        """End every trouble of the link and every fault of the proxy."""
        self.proxy.meet()
        self.link.heal()


@contextmanager
def lab(scratch: Path, seed: int = SEED, delay_ms: float = 0.0) -> Iterator[Lab]:
    """Make everything; it is gone after the block, however that ends. `scratch`: for Azurite's log. Ask `unavailable`
    first; raises AssertionError or OSError when something of it cannot be had."""
    command = azurite.command()
    assert command is not None
    with ExitStack() as stack:
        way = stack.enter_context(link(delay_ms))
        with way.in_cloud():
            server = stack.enter_context(azurite.running(command, scratch))
            proxy = Proxy(socket.create_server((CLOUD_ADDRESS, PORT), backlog=BACKLOG), server.port, seed)
            proxy.start()
        stack.callback(proxy.stop)
        yield Lab(way, proxy, server)


@contextmanager
def _client(connection_string: str) -> Iterator[BlobServiceClient]:
    with BlobServiceClient.from_connection_string(
        connection_string, retry_total=0, connection_timeout=3, read_timeout=3
    ) as service:
        yield service
