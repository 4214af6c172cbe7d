"""Load by AzCopy: `load_azcopy.py URL SAS AZCOPY DIRECTORY`. Jobs, in turn one that uploads a
tree and one that downloads it.

A job counts as good when AzCopy itself calls it Completed with nothing failed or skipped, and the bytes are the same.
"""

import contextlib
import os
import random
import shutil
import sys
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import ContainerClient

from tests.clients.azcopy import AzCopy, Finished
from tests.clients.client_tools import client_environment
from tests.systemd.load_loop import repeat

CONTAINER = "azcopy"
SIZES_BYTES = (*[16 << 10] * 8, (6 << 20) + 17)


def main(url: str, sas: str, executable: str, directory: str) -> None:
    place = Path(directory)
    azcopy = AzCopy(Path(executable), place, client_environment(place))
    up, down = place / "up", place / "down"
    up.mkdir()
    for number, size in enumerate(SIZES_BYTES):
        (up / f"{number}.bin").write_bytes(random.randbytes(size))
    with contextlib.suppress(ResourceExistsError):
        ContainerClient.from_container_url(f"{url}/{CONTAINER}?{sas}").create_container()

    def operation(index: int) -> None:
        remote = f"{url}/{CONTAINER}/{index // 2 % 3}?{sas}"
        if index % 2 == 0:
            check(azcopy.attempt(*copy(up, remote, "LocalBlob"), "--put-md5", "--block-size-mb=1"))
            return
        check(azcopy.attempt(*copy(remote, down, "BlobLocal"), "--check-md5=FailIfDifferent"))
        for file in up.iterdir():
            if (down / file.name).read_bytes() != file.read_bytes():
                raise ValueError(f"{file.name} came back with other bytes")
        shutil.rmtree(down)

    repeat(operation)


def copy(source: str | os.PathLike[str], target: str | os.PathLike[str], from_to: str) -> list[str | os.PathLike[str]]:
    return ["copy", source, target, f"--from-to={from_to}", "--recursive", "--as-subdir=false", "--overwrite=true"]


def check(job: Finished) -> None:
    """Raises ValueError with AzCopy's own words, unless the job went without a flaw."""
    if job.status != 0:
        raise ValueError(f"AzCopy exited {job.status}: {job.raw[-2000:]}")
    bad = {name: job.summary[name] for name in ("TransfersFailed", "TransfersSkipped") if job.count(name)}
    if job.summary["JobStatus"] != "Completed" or bad or job.count("TransfersCompleted") != len(SIZES_BYTES):
        raise ValueError(f"AzCopy's job is {job.summary['JobStatus']}: {bad}")


if __name__ == "__main__":
    main(*sys.argv[1:])
