"""What a new user does: clone, paste one command, then paste what it printed, once for AzCopy and once for Python.

The clone is a real one of the last commit, with no virtual environment in it, so this also shows that nothing which
is not committed is needed. It installs from the package index and is therefore the slowest test of the suite.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from .azcopy import AzCopy
from .client_tools import CHECKOUT
from .endpoint import DRAIN_SECONDS_MAX, READY_PREFIX, foreign

PASTE_SECONDS_MAX = 120.0


def block_after(output: list[str], heading: str) -> str:
    """The lines below the one that begins so, up to the next empty one: what a user would select and paste."""
    start = next(index for index, line in enumerate(output) if line.startswith(heading)) + 1
    end = next((index for index in range(start, len(output)) if not output[index].strip()), len(output))
    return "\n".join(output[start:end]) + "\n"


def paste(text: str, environment: dict[str, str]) -> str:
    """Feed lines to a shell as a terminal would."""
    finished = subprocess.run(
        ["bash", "-e"],
        input=text,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PASTE_SECONDS_MAX,
        check=False,
    )
    assert finished.returncode == 0, f"{text}\n{finished.stdout}"
    return finished.stdout


@pytest.mark.slow
@pytest.mark.skipif("BLOBEDGE_TEST_ENDPOINT" in os.environ, reason="another endpoint is under test")
@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="not a git checkout")
def test_from_clone_to_upload(azcopy: AzCopy, tmp_path: Path) -> None:
    clone, root, bin_directory = tmp_path / "clone", tmp_path / "data", tmp_path / "bin"
    subprocess.run(["git", "clone", "-q", CHECKOUT, clone], check=True)
    bin_directory.mkdir()
    (bin_directory / "azcopy").symlink_to(azcopy.executable)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}},
        **{name: value for name, value in azcopy.environment.items() if name.startswith("AZCOPY_")},
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        ["tools/quickstart", "--root", root, "--port", "0", "--workers", "2"],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        output: list[str] = []
        for line in process.stdout:
            output.append(line.rstrip("\n"))
            if line.startswith(READY_PREFIX):
                break
        else:
            pytest.fail(f"it ended with {process.wait()} before it was ready: {output}")
        assert "public" in "\n".join(output), "it says that the key is no secret"
        paste(block_after(output, "From another terminal, with AzCopy"), environment)
        printed = paste(block_after(output, "With Python"), environment)
        assert "hello.txt" in printed
        assert "README.md" in printed

        (connection_string,) = (word for line in output for word in line.split() if word.startswith("DefaultEndp"))
        endpoint = foreign(connection_string, None, None)
        container = ContainerClient(endpoint.url, "quickstart", credential=endpoint.key)
        assert container.download_blob("README.md").readall() == (clone / "README.md").read_bytes()
        assert container.download_blob("hello.txt").readall() == b"hello from Python"
        assert (root / "quickstart" / "hello.txt").read_bytes() == b"hello from Python"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DRAIN_SECONDS_MAX) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
