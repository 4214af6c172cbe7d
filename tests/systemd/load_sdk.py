"""Load by the Python SDK: `load_sdk.py URL KEY`. Writes in one piece and in blocks, reads back, lists, deletes.

Its retry policy is the SDK's own, with its three retries; only the pauses are a second instead of 15, so that a test
does not wait for them. How often it had to try again is in the notes of each operation.
"""

import contextlib
import random
import sys
from typing import Any

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, ExponentialRetry

from tests.systemd.load_loop import repeat

CONTAINER = "sdk"
NAMES_COUNT = 8
SMALL_BYTES = 64 << 10
BLOCK_BYTES = 1 << 20
BIG_BYTES = 3 * BLOCK_BYTES + 17
BIG_EVERY = 5


class CountedRetry(ExponentialRetry):
    """The SDK's policy, which also counts."""

    def __init__(self) -> None:
        self.retries_count = 0
        super().__init__(initial_backoff=1, increment_base=1, random_jitter_range=0)

    def sleep(self, settings: Any, transport: Any) -> None:
        self.retries_count += 1
        super().sleep(settings, transport)  # type: ignore[no-untyped-call]


def main(url: str, key: str) -> None:
    retry = CountedRetry()
    service = BlobServiceClient(
        url, credential=key, retry_policy=retry, max_single_put_size=BLOCK_BYTES, max_block_size=BLOCK_BYTES
    )
    container = service.get_container_client(CONTAINER)
    with contextlib.suppress(ResourceExistsError):
        container.create_container()

    def operation(index: int) -> dict[str, object]:
        before = retry.retries_count
        content = random.randbytes(BIG_BYTES if index % BIG_EVERY == 0 else SMALL_BYTES)
        blob = container.get_blob_client(f"{index % NAMES_COUNT}.bin")
        blob.upload_blob(content, overwrite=True)
        if blob.download_blob().readall() != content:
            raise ValueError("other bytes came back")
        if blob.blob_name not in container.list_blob_names():
            raise ValueError("the blob is not listed")
        blob.delete_blob()
        return {"retries": retry.retries_count - before}

    repeat(operation)


if __name__ == "__main__":
    main(*sys.argv[1:])
