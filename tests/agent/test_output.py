"""Standard output that cannot be written: one line, or none for a reader that went away, and never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import EXIT_NO_READER, EXIT_OUTPUT

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60.0


def run(stdout: int, *arguments: str, unbuffered: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-u"] if unbuffered else []), "-m", "agent", *arguments]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT, timeout=SECONDS_MAX, check=False
    )


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [["version"], ["--help"]])
def test_a_full_disk_is_told_in_a_line(arguments: list[str], unbuffered: bool) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run(full, *arguments, unbuffered=unbuffered)
    finally:
        os.close(full)
    assert done.stderr == "blobedge: standard output cannot be written: No space left on device\n"
    assert done.returncode == EXIT_OUTPUT


@pytest.mark.parametrize("unbuffered", [False, True])
def test_of_a_reader_that_went_away_nothing_is_said(unbuffered: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(writer, "config", "example", unbuffered=unbuffered)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (EXIT_NO_READER, "")


def test_a_process_without_standard_output_does_its_work() -> None:
    command = ["sh", "-c", '"$0" -m agent version >&-', sys.executable]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT, timeout=SECONDS_MAX, check=False)
    assert (done.returncode, done.stderr) == (0, "")
