"""AzCopy killed in the middle of a transfer finishes it with `jobs resume`.

SIGKILL gives it no chance to tidy up, so half an upload stays behind as uncommitted blocks: they must be kept, must not
show as a blob, must not get in the way of the second attempt's blocks and must be gone once that one commits. AzCopy
10.32 sends every block again even though it could ask which arrived. A resumed download instead depends on a
Last-Modified that has not moved.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobClient, ContainerClient

from .azcopy import AzCopy
from .endpoint import Endpoint
from .sas import container_sas
from .trees import MIB, file_md5, write_file

SIZE_BYTES = 96 * MIB
BLOCKS = 24
BLOCK_MIB = SIZE_BYTES // MIB // BLOCKS
# Slow enough that the kill lands in the middle, fast enough that the uninterrupted transfer takes eight seconds.
CAP_MEGABITS = 100
OBSERVE_SECONDS_MAX = 30.0
OBSERVE_INTERVAL_SECONDS = 0.05


def until(condition: Callable[[], bool]) -> None:
    """Watch for something that another process brings about."""
    deadline = time.monotonic() + OBSERVE_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "the transfer did not get under way"
        time.sleep(OBSERVE_INTERVAL_SECONDS)


def uncommitted_blocks(blob: BlobClient) -> int:
    """How many blocks the endpoint holds for a blob that does not exist yet."""
    try:
        return len(blob.get_block_list("uncommitted")[1])
    except ResourceNotFoundError:
        return 0


def job_of(azcopy: AzCopy, output: Path) -> str:
    """The id of the job that a killed command had begun."""
    found = re.search(r'JobID\\":\\"([0-9a-f-]{36})', output.read_text())
    assert found is not None, output.read_text()
    return found.group(1)


def test_upload_resumes(azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, tmp_path: Path) -> None:
    source = write_file(tmp_path / "checkpoint.bin", "checkpoint", SIZE_BYTES)
    blob = container.get_blob_client("run 1/checkpoint.bin")
    token = container_sas(endpoint, container)
    output = tmp_path / "killed.out"
    killed = azcopy.start(
        *("copy", source, f"{blob.url}?{token}", "--from-to=LocalBlob", "--put-md5"),
        *(f"--block-size-mb={BLOCK_MIB}", f"--cap-mbps={CAP_MEGABITS}"),
        output=output,
    )
    try:
        until(lambda: uncommitted_blocks(blob) >= 4)
    finally:
        killed.kill()
        killed.wait()
    kept = uncommitted_blocks(blob)
    assert 4 <= kept < BLOCKS
    assert not blob.exists(), "nothing is visible before the block list is committed"

    azcopy.run("jobs", "resume", job_of(azcopy, output), "--destination-sas", token)
    properties = blob.get_blob_properties()
    assert bytes(properties.content_settings.content_md5 or b"") == file_md5(source)
    assert blob.get_block_list("all")[1] == [], "a commit leaves no uncommitted block behind"
    back = tmp_path / "back.bin"
    azcopy.run(
        *("copy", f"{blob.url}?{token}", back, "--from-to=BlobLocal", "--check-md5=FailIfDifferentOrMissing"),
    )
    assert file_md5(back) == file_md5(source)


def test_download_resumes(azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, tmp_path: Path) -> None:
    source = write_file(tmp_path / "model.bin", "model", SIZE_BYTES)
    with source.open("rb") as data:
        container.upload_blob("model.bin", data, max_concurrency=2)
    container.upload_blob("small.bin", b"small")
    token = container_sas(endpoint, container)
    output, target = tmp_path / "killed.out", tmp_path / "down"
    killed = azcopy.start(
        *("copy", f"{container.url}?{token}", target, "--from-to=BlobLocal", "--recursive", "--as-subdir=false"),
        *(f"--block-size-mb={BLOCK_MIB}", f"--cap-mbps={CAP_MEGABITS}"),
        output=output,
    )
    try:
        until(lambda: target.is_dir() and any(entry.stat().st_blocks > 0 for entry in target.glob(".azDownload*")))
    finally:
        killed.kill()
        killed.wait()
    assert not (target / "model.bin").exists()

    azcopy.run("jobs", "resume", job_of(azcopy, output), "--source-sas", token)
    assert file_md5(target / "model.bin") == file_md5(source)
    assert (target / "small.bin").read_bytes() == b"small"
