"""A node with offload: `blobedge serve` with its workers and its sidecar, and Azurite behind a proxy as its cloud."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ContainerClient, ResourceTypes, generate_account_sas

from agent.observability import client
from tests.observability.service import RunningService, running
from tests.observability.support import KEY
from tests.offload import azurite
from tests.offload.azurite import Exchange, Proxy
from tests.offload.command_line import blobedge

SECONDS_MAX: Final = 45.0
POLL_SECONDS: Final = 0.05
NOW: Final = '[[offload.rules]]\nupload = "now"\n'


@dataclass(frozen=True, slots=True)
class Edge:
    """The node, a client of it, and a client of its cloud."""

    service: RunningService
    root: Path
    state: Path
    proxy: Proxy
    local: BlobServiceClient
    cloud: BlobServiceClient
    credential: Path

    def container(self, name: str) -> ContainerClient:
        """A new container here and in the cloud; the client is of the one here. One of another test's goes first."""
        with suppress(ResourceNotFoundError):
            self.cloud.delete_container(name)
        self.cloud.create_container(name)
        return self.local.create_container(name)

    def report(self) -> dict[str, Any]:
        """What status says of the offload, {} so far nothing."""
        _, status = client.get(self.service.admin, "/status")
        return next((each for each in status["reports"] if each["kind"] == "offload"), {})

    def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Ask for the report until it is as wanted, and return it."""
        end = time.monotonic() + SECONDS_MAX
        while True:
            report = self.report()
            if report.get("socket") and condition(report):
                return report
            assert time.monotonic() < end, f"{report}\n{self.service.log.read_text()[-3000:]}"
            time.sleep(POLL_SECONDS)

    def queue(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `blobedge queue`."""
        return self.run("queue", *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command against this node."""
        return blobedge(*arguments, "--admin", self.service.admin)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """The rows that `blobedge queue ls --json` prints."""
        ran = self.queue("ls", "--json", *arguments)
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def in_cloud(self, container: str) -> dict[str, bytes]:
        """What the cloud has."""
        there: dict[str, bytes] = {}
        found = self.cloud.get_container_client(container)
        for name in found.list_blob_names():
            with suppress(ResourceNotFoundError):  # deleted since it was listed
                there[name] = found.download_blob(name).readall()
        return there

    def until_in_cloud(self, container: str, wanted: dict[str, bytes]) -> None:
        """Wait until the cloud has exactly these blobs, and the queue knows it."""
        end = time.monotonic() + SECONDS_MAX
        while self.in_cloud(container) != wanted:
            assert time.monotonic() < end, f"{self.report()}\n{self.service.log.read_text()[-3000:]}"
            time.sleep(POLL_SECONDS)
        self.until(lambda report: not report["unprotected_blobs"])


def away(exchange: Exchange) -> None:
    """A fault: the cloud resets every connection."""
    exchange.reset_after_body_bytes = 0


def back(exchange: Exchange) -> None:
    """No fault."""


def answer(status: int, code: str) -> bytes:
    """What a cloud says that refuses."""
    return (
        f"HTTP/1.1 {status} Refused\r\nx-ms-error-code: {code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode()


def sas(permissions: str, hours: float = 1.0) -> str:
    """A SAS of the cloud's account with these permissions, which expires so many hours from now."""
    expires = datetime.now(UTC) + timedelta(hours=hours)
    types = ResourceTypes(container=True, object=True)
    return generate_account_sas(azurite.ACCOUNT, azurite.KEY, types, permissions, expires)


def tables(port: int, credential: str, state: Path, rules: str = NOW, more: str = "") -> str:
    """The configuration's tables for a cloud on this port."""
    return (
        f'[cloud]\nendpoint = "http://127.0.0.1:{port}/{azurite.ACCOUNT}"\n{credential}\n'
        f'[offload]\ndirectory = "{state}"\n{more}{rules}'
    )


@contextmanager
def edge(cloud_port: int, scratch: Path, rules: str = NOW, more: str = "", sas: str = "") -> Iterator[Edge]:
    """A node that is ready, with its queue open; with a SAS as the credential, or the key."""
    root, state, credential = scratch / "root", scratch / "state", scratch / "credential"
    root.mkdir()
    credential.write_text(sas or azurite.KEY)
    line = f'{"sas_file" if sas else "key_file"} = "{credential}"'
    with azurite.proxy(cloud_port) as proxy:
        text = tables(proxy.port, line, state, rules, more)
        with (
            running(scratch, root, text) as service,
            BlobServiceClient(f"http://127.0.0.1:{service.port}/acct", {"account_name": "acct", "account_key": KEY})
            as local,
            BlobServiceClient(
                f"http://127.0.0.1:{cloud_port}/{azurite.ACCOUNT}",
                {"account_name": azurite.ACCOUNT, "account_key": azurite.KEY},
            ) as cloud,
        ):  # fmt: skip
            made = Edge(service, root, state, proxy, local, cloud, credential)
            made.until(lambda report: True)
            yield made
