"""Run AzCopy and read its own account of what it did.

`--output-type json` ends with a summary whose counters (transferred, skipped, deleted, failed) the tests
check besides contents: "the second sync transfers nothing" cannot be seen from the container alone. AzCopy
takes no account key; every URL carries a SAS, and because an IP host names no service, every command says
`--from-to` or `--location`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND_SECONDS_MAX = 120.0
OUTPUT_TAIL_CHARACTERS = 6000


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended: its exit status, its messages as (type, content), and its last summary."""

    status: int
    messages: list[tuple[str, str]]
    raw: str

    @property
    def summary(self) -> dict[str, Any]:
        """The counters of EndOfJob."""
        for kind, text in reversed(self.messages):
            if kind == "EndOfJob":
                summary: dict[str, Any] = json.loads(text)
                return summary
        raise AssertionError(f"AzCopy ended without a summary: {self.raw[-OUTPUT_TAIL_CHARACTERS:]}")

    def count(self, name: str) -> int:
        """One counter of the summary; AzCopy prints them as strings."""
        return int(self.summary[name])


class AzCopy:
    """One AzCopy installation with a log and plan directory of its own."""

    def __init__(self, executable: Path, directory: Path, environment: Mapping[str, str]) -> None:
        self.executable = executable
        self.logs = directory / "logs"
        self.plans = directory / "plans"
        self.logs.mkdir(parents=True)
        self.plans.mkdir()
        self.environment = {
            **environment,
            "AZCOPY_LOG_LOCATION": str(self.logs),
            "AZCOPY_JOB_PLAN_LOCATION": str(self.plans),
            "AZCOPY_AUTO_LOGIN_TYPE": "",
            "AZCOPY_CONCURRENCY_VALUE": "8",
            "AZCOPY_BUFFER_GB": "0.25",
            "AZCOPY_DISABLE_SYSLOG": "true",
        }

    def with_environment(self, **variables: str) -> AzCopy:
        """The same installation seen through other variables, such as a proxy."""
        copy = object.__new__(AzCopy)
        copy.__dict__.update(self.__dict__)
        copy.environment = {**self.environment, **variables}
        return copy

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        """The full command line."""
        return [
            str(self.executable),
            *(os.fspath(argument) for argument in arguments),
            "--output-type",
            "json",
            "--check-version=false",
        ]

    def start(self, *arguments: str | os.PathLike[str], output: Path) -> subprocess.Popen[bytes]:
        """Start a command that the test means to kill; its output goes to a file."""
        with output.open("wb") as sink:
            return subprocess.Popen(
                self.command(*arguments), env=self.environment, stdout=sink, stderr=subprocess.STDOUT
            )

    def attempt(self, *arguments: str | os.PathLike[str]) -> Finished:
        """Run a command to its end, whatever that is."""
        process = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        raw = process.stdout.decode(errors="replace")
        return Finished(process.returncode, _messages(raw), raw)

    def run(self, *arguments: str | os.PathLike[str]) -> Finished:
        """Run a command that must succeed; on failure the message holds what AzCopy's log says of it."""
        finished = self.attempt(*arguments)
        assert finished.status == 0, (
            f"azcopy {arguments[0]} exited {finished.status}\n{finished.raw[-OUTPUT_TAIL_CHARACTERS:]}\n"
            f"{self.log_text()[-OUTPUT_TAIL_CHARACTERS:]}"
        )
        return finished

    def log_text(self) -> str:
        """All log files, oldest first; the INFO level names every request and answer."""
        files = sorted(self.logs.rglob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        return "\n".join(path.read_text(errors="replace") for path in files)


def _messages(raw: str) -> list[tuple[str, str]]:
    messages = []
    for line in raw.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            messages.append((str(record["MessageType"]), str(record["MessageContent"])))
    return messages
