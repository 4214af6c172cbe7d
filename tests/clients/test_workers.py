"""The endpoint that all the other tests talk to is really several processes, and they serve one store."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.storage.blob import BlobClient, ContainerClient

from .endpoint import Endpoint
from .sas import container_sas

CONNECTIONS = 32
WORKERS_MIN = 2


def test_there_are_several(endpoint: Endpoint) -> None:
    if endpoint.pid is None:
        pytest.skip("the endpoint under test is foreign: its processes are not ours to see")
    children = Path(f"/proc/{endpoint.pid}/task/{endpoint.pid}/children")
    threads = children.parent.parent.glob("*/children")  # the supervisor starts them from threads of its own
    workers = {pid for thread in threads for pid in thread.read_text().split()}
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in workers]
    assert sum(b"dataplane" in command for command in commands) >= WORKERS_MIN


def test_each_connection_sees_what_another_wrote(endpoint: Endpoint, container: ContainerClient) -> None:
    """A new connection for every request: the kernel spreads them, and none is behind the others."""
    token = container_sas(endpoint, container)

    def fresh() -> BlobClient:
        return BlobClient.from_blob_url(f"{container.url}/shared", credential=token, retry_total=0)

    for number in range(CONNECTIONS):
        with fresh() as writer:
            etag = writer.upload_blob(str(number), overwrite=True, metadata={"n": str(number)})["etag"]
        with fresh() as reader:
            assert reader.download_blob().readall() == str(number).encode()
        with fresh() as looker:
            properties = looker.get_blob_properties()
        assert (properties.etag, properties.metadata) == (etag, {"n": str(number)})
        assert [item.etag.strip('"') for item in container.list_blobs()] == [str(etag).strip('"')]
