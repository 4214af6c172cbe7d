"""An SDK client in a machine's network: `client.py KEY BLOB` writes the blob, reads it back, prints what it read.

A program of its own, because a network namespace belongs to a whole thread and the test's own must not move. The SDK
retries what is refused, as it does in production.
"""

import contextlib
import sys

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

URL = "http://127.0.0.1:10000/plant7"
CONTAINER = "tested"


def main(key: str, name: str) -> None:
    service = BlobServiceClient(URL, credential=key, retry_total=5)
    container = service.get_container_client(CONTAINER)
    with contextlib.suppress(ResourceExistsError):
        container.create_container()
    container.upload_blob(name, f"content of {name}".encode(), overwrite=True)
    print(container.download_blob(name).readall().decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
