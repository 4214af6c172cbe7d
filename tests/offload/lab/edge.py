"""The edge node of the lab: the product as an operator starts it, in the edge's namespace.

What it serves is on its namespace's loopback only. It may be killed, wholly or its sidecar alone, and started again
over the same directories, as a machine that lost its power is.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient

from tests.durability.processes import ServerProcess, children, session

from .cloud import Lab

CHECKOUT: Final = Path(__file__).resolve().parents[3]
ACCOUNT: Final = "devstoreaccount1"
#: Every Azure storage emulator has this key; it is no secret.
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
READY: Final = "blobedge ready: "
WORKERS: Final = 2
SIDECAR_MODULE: Final = b"agent.sidecar"
APPEAR_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.05
LOG_TAIL_CHARACTERS: Final = 4000
#: What the log says when something went wrong that no answer showed.
TROUBLE: Final = ("Traceback", "Fatal Python error")


@dataclass(slots=True)
class Edge:
    """A node. `home` has the account's directory and the state, `scratch` all else. `offload`: TOML of its [offload]
    table and rules, "" for none."""

    lab: Lab
    scratch: Path
    home: Path
    offload: str = ""
    _process: ServerProcess | None = field(default=None, init=False)
    _port: int = field(default=0, init=False)

    @property
    def root(self) -> Path:
        """The account's directory."""
        return self.home / "root"

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.scratch / "blobedge.toml"

    @property
    def key_file(self) -> Path:
        """What the node signs its requests to the cloud with."""
        return self.scratch / "cloud.key"

    @property
    def state(self) -> Path:
        """Where journals and the queue are."""
        return self.home / "state"

    @property
    def log(self) -> Path:
        """Standard error of all its processes, over all its starts."""
        return self.scratch / "edge.log"

    @property
    def url(self) -> str:
        """The account, for clients in the edge's namespace."""
        return f"http://127.0.0.1:{self._port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """The form that Azure's clients read."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.url};"

    def prepare(self) -> None:
        """Make the directories, the configuration and the key of the cloud."""
        for directory in (self.root, self.state):
            directory.mkdir(exist_ok=True)
        self.renew_key()
        self.config.write_text(
            f"""
listen = ["http://127.0.0.1:0"]
workers = {WORKERS}
[admin]
listen = ["unix:{self.scratch}/admin.sock"]
[[accounts]]
name = "{ACCOUNT}"
root = "{self.root}"
key1 = "{KEY}"
[cloud]
endpoint = "{self.lab.url}"
key_file = "{self.key_file}"
{self.offload.replace("[offload]", f'[offload]{os.linesep}directory = "{self.state}"')}
"""
        )

    def renew_key(self) -> None:
        """Replace the file with the cloud's key, as an operator does when the cloud refuses what is in it."""
        fresh = self.key_file.with_suffix(".new")
        fresh.write_text(self.lab.key)
        fresh.chmod(0o600)
        fresh.rename(self.key_file)

    def start(self) -> None:
        """Start it and wait until it serves. Raises AssertionError with the log's end when it does not."""
        command = [sys.executable, "-m", "agent", "serve", "--config", str(self.config)]
        with self.lab.link.at_edge():
            self._process = ServerProcess(command, READY, self.log, CHECKOUT)
        port = urlsplit(self._process.await_ready()).port
        assert port is not None
        self._port = port

    def stop(self) -> None:
        """SIGTERM; it has to drain and exit 0, and nothing may have gone wrong unseen before."""
        assert self._process is not None
        assert (status := self._process.terminate()) == 0, f"exit {status}: {self.tail()}"
        self._process = None
        text = self.log.read_text(errors="replace")
        for trouble in TROUBLE:
            _, found, what = text.partition(trouble)
            assert not found, f"the log has {trouble!r}: {what[:LOG_TAIL_CHARACTERS]}"

    def kill(self) -> None:
        """SIGKILL to every process, as a power cut would end them."""
        if self._process is not None:
            self._process.kill_all()
            self._process = None

    def boot_anew(self) -> None:
        """After a power cut and before `start`: the kernel is the same here, so say of the one that wrote the journals
        that it was another. Entries that it had not written to the disk are gone, and only its name tells so."""
        for marker in (self.state / "journal").glob("*.running"):
            boot, space, promised = marker.read_text().partition(" ")
            marker.write_text(f"{boot[::-1]}{space}{promised}")

    def sidecar(self, other_than: int = 0) -> int:
        """Return the pid of the sidecar, waiting for it, or for another one, to be there. Raises TimeoutError."""
        assert self._process is not None
        deadline = time.monotonic() + APPEAR_SECONDS_MAX
        while time.monotonic() < deadline:
            for pid in set(children(self._process.pid)) - {other_than}:
                with contextlib.suppress(OSError):
                    if SIDECAR_MODULE in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                        return pid
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"no sidecar: {self.tail()}")

    def kill_sidecar(self) -> int:
        """SIGKILL the sidecar and return the pid that it had; the supervisor starts another one."""
        pid = self.sidecar()
        os.kill(pid, signal.SIGKILL)
        return pid

    def alive(self) -> list[int]:
        """Every process of the node."""
        return session(self._process.pid) if self._process is not None else []

    @contextmanager
    def service(self) -> Iterator[BlobServiceClient]:
        """Be at the edge, with a client of the node."""
        with (
            self.lab.link.at_edge(),
            BlobServiceClient.from_connection_string(self.connection_string, retry_total=0) as service,
        ):
            yield service

    def queue(self, *arguments: str) -> str:
        """Run `blobedge queue ARGUMENTS` against the node; what it prints. Raises CalledProcessError when it fails."""
        admin = f"unix:{self.scratch}/admin.sock"
        command = [sys.executable, "-m", "agent", "queue", *arguments, "--admin", admin]
        return subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True).stdout

    def rows(self, *filters: str) -> list[dict[str, Any]]:
        """Return the rows that `blobedge queue ls` shows with some filters."""
        return [json.loads(line) for line in self.queue("ls", "--limit", "0", "--json", *filters).splitlines()]

    def make_container(self, name: str) -> None:
        """Make a container, and first the one in the cloud that an operator has to have made."""
        with self.lab.straight() as cloud:
            cloud.create_container(name)
        with self.service() as service:
            service.create_container(name)

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if self.log.exists() else ""


@contextmanager
def edge(lab: Lab, scratch: Path, offload: str = "", home: Path | None = None) -> Iterator[Edge]:
    """Start a node whose data is below `home`, else below `scratch`. It has to end well unless the block ends badly;
    either way no process is left."""
    node = Edge(lab, scratch, home or scratch, offload)
    node.prepare()
    try:
        node.start()
        yield node
        if node.alive():
            node.stop()
    finally:
        node.kill()
