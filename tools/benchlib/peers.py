"""The servers under test and how each is started: blobedge, Azurite, nginx.

Each runs on one core with one worker. blobedge syncs before it answers (its default), Azurite keeps its
normal persistence on disk and never syncs, nginx serves the same bytes as static files with sendfile.
"""

import os
import shutil
import socket
import subprocess
import sys
import urllib.parse
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from .process import PeerUnavailable, ServerProcess

REPOSITORY = Path(__file__).resolve().parents[2]
AZURITE_LOCAL = REPOSITORY / ".cache" / "npm" / "node_modules" / ".bin" / "azurite-blob"


@dataclass(frozen=True, slots=True)
class Account:
    """The account that every Azure-speaking peer serves, with a SAS good for the whole run."""

    name: str
    key: str
    sas: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running peer: where it answers, and the process tree whose CPU time counts.

    `base` is the path before the container; `document_root` is set for a peer that is fed with files
    instead of Put Blob.
    """

    name: str
    host: str
    port: int
    base: str
    query: str
    pid: int
    document_root: Path | None = None

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return f"{self.host}:{self.port}"

    def target(self, path: str, query: str = "") -> str:
        """Return a request target below the account: path, the given query, then the SAS."""
        return f"{self.base}/{path}?{query + '&' if query else ''}{self.query}"


class Peer(ABC):
    """One server of the comparison; `start` and `stop` are called once per run of the tool."""

    name: str

    def __init__(self, work: Path, account: Account, core: int | None) -> None:
        self.work = work / self.name
        self.work.mkdir(parents=True)
        self.account = account
        self.core = core
        self.process: ServerProcess | None = None

    @abstractmethod
    def start(self) -> Endpoint:
        """Start the server; raises PeerUnavailable with the reason."""

    @abstractmethod
    def version(self) -> str:
        """Return the peer's version for the report."""

    def stop(self) -> None:
        """Stop the server if it runs."""
        if self.process is not None:
            self.process.stop()

    def _endpoint(self, process: ServerProcess, url: str, base: str) -> Endpoint:
        parts = urllib.parse.urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise PeerUnavailable(f"announced {url!r}, which names no host and port")
        return Endpoint(self.name, parts.hostname, parts.port, base, self.account.sas, process.pid)


class Blobedge(Peer):
    """This repository's server, durability strict (the default), one worker."""

    name = "blobedge"

    def start(self) -> Endpoint:
        data = self.work / "data"
        data.mkdir()
        # No access log, as the other peers have none.
        configuration = self.work / "blobedge.toml"
        configuration.write_text("[log]\naccess = false\n")
        argv = [sys.executable, "-m", "agent", "serve", "--config", str(configuration), "--root", str(data)]
        argv += ["--listen", "http://127.0.0.1:0", "--workers", "1"]
        argv += ["--account", self.account.name, "--key", self.account.key]
        self.process = ServerProcess(
            argv, core=self.core, ready=r"blobedge ready: (\S+)", log=self.work / "log", cwd=REPOSITORY
        )
        return self._endpoint(self.process, self.process.wait_ready(), f"/{self.account.name}")

    def version(self) -> str:
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
        return first_line(command)


class Azurite(Peer):
    """Azurite from npm, on disk; BLOBEDGE_AZURITE names another copy of its azurite-blob command."""

    name = "azurite"

    def start(self) -> Endpoint:
        argv = [self._command(), "--loose", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
        argv += ["--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(self.work)]
        self.process = ServerProcess(
            argv,
            core=self.core,
            ready=r"successfully listen\w* (?:on|at) (\S+)",
            log=self.work / "log",
            cwd=self.work,
            env={"AZURITE_ACCOUNTS": f"{self.account.name}:{self.account.key}"},
        )
        return self._endpoint(self.process, self.process.wait_ready(), f"/{self.account.name}")

    def version(self) -> str:
        return first_line([self._command(), "--version"])

    def _command(self) -> str:
        command = os.environ.get("BLOBEDGE_AZURITE") or str(AZURITE_LOCAL)
        if not Path(command).exists():
            raise PeerUnavailable("no azurite-blob: run tools/test once, or set BLOBEDGE_AZURITE")
        return command


NGINX_CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {work}/pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    server {{ listen 127.0.0.1:{port}; root {work}/html; }}
}}
"""


class Nginx(Peer):
    """Debian's nginx, one worker, static files with sendfile: the yardstick for reads."""

    name = "nginx"

    def start(self) -> Endpoint:
        command = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if command is None:
            raise PeerUnavailable("no nginx: apt-get install nginx-light")
        html = self.work / "html"
        html.mkdir()
        port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = self.work / "nginx.conf"
        configuration.write_text(NGINX_CONFIGURATION.format(work=self.work, port=port, user=user))
        argv = [command, "-p", str(self.work), "-e", "stderr", "-c", str(configuration)]
        # The listening socket exists before the master starts its worker, and says so at level notice.
        self.process = ServerProcess(
            argv, core=self.core, ready=r"start (worker) process \d", log=self.work / "log", cwd=self.work
        )
        self.process.wait_ready()
        return Endpoint(self.name, "127.0.0.1", port, "", self.account.sas, self.process.pid, document_root=html)

    def version(self) -> str:
        command = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        return first_line([command or "nginx", "-v"]).removeprefix("nginx version: nginx/")


PEERS: tuple[type[Peer], ...] = (Blobedge, Azurite, Nginx)


def free_port() -> int:
    """Return a TCP port of the loopback that was free a moment ago (nginx cannot report a chosen one)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def first_line(command: list[str]) -> str:
    """Return the first line a command prints on stdout or stderr, or "unknown"."""
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return run.stdout.strip().partition("\n")[0] or "unknown"
