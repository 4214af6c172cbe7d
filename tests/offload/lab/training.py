"""A training job: some processes at the edge read all blobs, each in an order of its own, and say what they read.

    sdk     Azure's client, each blob with one request
    ranges  Azure's client, a range at a time
    adlfs   the file system that pandas and PyTorch's loaders use

No client tries anything twice: a blob that is somewhere else has to be no different from one that is here.
"""

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Collection
from typing import Any, Final

from azure.storage.blob import BlobServiceClient

from .edge import CHECKOUT, Edge
from .traffic import Blob

READERS: Final = ("sdk", "sdk", "ranges", "adlfs")
RANGE_BYTES: Final = 1 << 20
WHOLE_BYTES: Final = 1 << 30
SECONDS_MAX: Final = 180.0


def train(node: Edge, blobs: Collection[Blob]) -> list[dict[Blob, bytes]]:
    """Return the MD5 of each blob, for each of READERS. Raises AssertionError with what a reader said when it fails."""
    jobs = []
    try:
        with node.lab.link.at_edge():
            for number, how in enumerate(READERS):
                order = random.Random(number).sample(sorted(blobs), len(blobs))
                jobs.append(_start([how, node.connection_string, order]))
        return [_end(job) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


def _start(arguments: list[Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.offload.lab.training", json.dumps(arguments)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _end(job: subprocess.Popen[str]) -> dict[Blob, bytes]:
    said, errors = job.communicate(timeout=SECONDS_MAX)
    assert job.returncode == 0, errors
    return {(container, name): bytes.fromhex(digest) for container, name, digest in json.loads(said)}


def _read_by_sdk(connection: str, blobs: list[list[str]], most: int) -> list[str]:
    with BlobServiceClient.from_connection_string(
        connection, retry_total=0, max_single_get_size=most, max_chunk_get_size=RANGE_BYTES
    ) as service:
        return [_md5(service.get_blob_client(*blob).download_blob().readall()) for blob in blobs]


def _read_by_adlfs(connection: str, blobs: list[list[str]]) -> list[str]:
    from adlfs import AzureBlobFileSystem

    files = AzureBlobFileSystem(connection_string=connection)
    return [_md5(files.cat_file("/".join(blob))) for blob in blobs]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def main() -> None:
    """Read as the first argument says, which is the JSON list of how, connection string and blobs."""
    how, connection, blobs = json.loads(sys.argv[1])
    if how == "adlfs":
        digests = _read_by_adlfs(connection, blobs)
    else:
        digests = _read_by_sdk(connection, blobs, RANGE_BYTES if how == "ranges" else WHOLE_BYTES)
    print(json.dumps([[*blob, digest] for blob, digest in zip(blobs, digests, strict=True)]))


if __name__ == "__main__":
    main()
