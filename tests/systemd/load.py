"""Continuous load on a machine's service, by programs in the machine's network, and what became of it.

The programs run for as long as the context lasts. `Load.through` makes an event of the test count: it begins when each
program has finished an operation before it, and returns when each has finished two that began after the event or
during it; so nobody was idle, and each met the service that came out of it.
"""

import datetime
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from tests.clients.client_tools import azcopy_path
from tests.systemd.machine import CHECKOUT
from tests.systemd.service import URL, Service, until

LAST_OPERATION_SECONDS_MAX: Final = 90.0


class Program:
    """One load program. `done` has what it said of each operation so far."""

    def __init__(self, name: str, service: Service, *arguments: str) -> None:
        self.name = name
        self.done: list[dict[str, Any]] = []
        command = service.machine.in_network(sys.executable, "-m", f"tests.systemd.load_{name}", *arguments)
        self._process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_done, args=[self._process.stdout], daemon=True),
            threading.Thread(target=self._read_errors, args=[self._process.stderr], daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def failures(self) -> list[str]:
        """What failed, in words."""
        return [each["failure"] for each in self.done if each["failure"] is not None]

    @property
    def seconds_max(self) -> float:
        """The longest operation."""
        return max((float(each["seconds"]) for each in self.done), default=0.0)

    def total(self, note: str) -> int:
        """The sum of a note over all operations."""
        return sum(int(each["notes"].get(note, 0)) for each in self.done)

    def reached(self, count: int) -> bool:
        """Whether so many operations are done. AssertionError when the program is gone."""
        assert self._process.poll() is None, f"the load {self.name} ended: {''.join(self._errors)}"
        return len(self.done) >= count

    def stop(self) -> None:
        """Let it finish the operation that it is in. AssertionError when it does not, or broke down."""
        self._process.terminate()
        try:
            status = self._process.wait(LAST_OPERATION_SECONDS_MAX)
        finally:
            self._process.kill()
            for reader in self._readers:
                reader.join()
        assert status == 0, f"the load {self.name} exited {status}: {''.join(self._errors)}"

    def _read_done(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self.done.append(json.loads(line))

    def _read_errors(self, lines: IO[str]) -> None:
        with lines:
            self._errors += lines


class Load:
    """The programs that run now."""

    def __init__(self, programs: list[Program]) -> None:
        self.programs = programs

    @contextmanager
    def through(self) -> Iterator[None]:
        """What happens in this context happens under load."""
        self._more(1)
        yield
        self._more(2)

    def _more(self, count: int) -> None:
        goals = [(program, len(program.done) + count) for program in self.programs]
        until(lambda: all(program.reached(goal) for program, goal in goals), f"{count} more operations by each client")

    def summary(self) -> str:
        """One line for the test's report."""
        return "; ".join(
            f"{each.name}: {len(each.done)} operations, {len(each.failures)} failed, {each.total('retries')} retries, "
            f"longest {each.seconds_max:.2f} s"
            for each in self.programs
        )


@contextmanager
def load(service: Service, place: Path) -> Iterator[Load]:
    """The Python SDK, AzCopy and a client without retries, all at once; at the end nothing may have failed."""
    azcopy = azcopy_path()
    sas = account_sas(service.key)
    arguments = {"sdk": [service.key], "raw": [sas], "azcopy": [sas, str(azcopy), str(place)]}
    with ExitStack() as stack:
        programs = []
        for name, own in arguments.items():
            programs.append(Program(name, service, URL, *own))
            stack.callback(programs[-1].stop)
        running = Load(programs)
        yield running
    print(running.summary())
    for each in programs:
        assert each.failures == [], running.summary()


def account_sas(key: str) -> str:
    """A signature for everything in the account, by Azure's own library."""
    return generate_account_sas(
        "plant7",
        key,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions.from_string("rwdlacu"),  # type: ignore[no-untyped-call]
        expiry=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )
