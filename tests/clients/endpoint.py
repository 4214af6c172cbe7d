"""Start the product as an operator would, wait until it says it is ready, and stop it with SIGTERM.

Guarantees of `running`: the yielded endpoint has printed one ready line per listener; at the end SIGTERM must make it
exit 0, and its log must hold no traceback and no worker that died or had to be killed. So every client test also
shows that nothing went wrong unseen behind a client's retries.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO
from urllib.parse import urlsplit

from .authority import TlsFiles

READY_PREFIX = "blobedge ready: "
WORKER_LOST = " ended: signal "  # how the supervisor reports a worker that died or had to be killed
START_SECONDS_MAX = 60.0
DRAIN_SECONDS_MAX = 60.0
LOG_TAIL_CHARACTERS = 4000

DEVELOPMENT_ACCOUNT = "devstoreaccount1"
# Public on purpose: every Azure storage emulator has this key, and the SDKs know it as
# UseDevelopmentStorage=true.
DEVELOPMENT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
PUBLIC_SUFFIX = "blob.core.windows.net"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running Blob endpoint and all that a client needs to reach it.

    `url` is the path-style http URL with the account in it. `tls_port` and `ca_file` are None for a foreign
    endpoint that has no TLS listener; `root`, `log` and `pid` (of the supervisor) are None for every foreign one.
    """

    account: str
    key: str
    url: str
    tls_port: int | None = None
    ca_file: Path | None = None
    root: Path | None = None
    log: Path | None = None
    pid: int | None = None

    @property
    def connection_string(self) -> str:
        """The form every Azure SDK reads."""
        account = f"AccountName={self.account};AccountKey={self.key}"
        return f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={self.url};"

    @property
    def authority(self) -> str:
        """HOST:PORT of the http listener."""
        return urlsplit(self.url).netloc

    @property
    def public_host(self) -> str:
        """The name that real Azure would have for this account."""
        return f"{self.account}.{PUBLIC_SUFFIX}"


def foreign(connection_string: str, tls_port: int | None, ca_file: Path | None) -> Endpoint:
    """An endpoint that somebody else runs, for example Azurite, named by its connection string."""
    parts = dict(part.split("=", 1) for part in connection_string.split(";") if part)
    return Endpoint(
        parts["AccountName"],
        parts["AccountKey"],
        parts["BlobEndpoint"].rstrip("/"),
        tls_port=tls_port,
        ca_file=ca_file,
    )


def serve_command(root: Path, tls: TlsFiles, workers: int) -> list[str]:
    """The command line of the product under test: one http and one https listener on ports the kernel
    picks.
    """
    return [
        *(sys.executable, "-m", "agent", "serve", "--root", str(root)),
        *("--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0"),
        *("--tls-cert", str(tls.certificate), "--tls-key", str(tls.key)),
        *("--workers", str(workers), "--account", DEVELOPMENT_ACCOUNT, "--key", DEVELOPMENT_KEY),
        *shlex.split(os.environ.get("BLOBEDGE_TEST_SERVE_FLAGS", "")),
    ]


@contextlib.contextmanager
def running(checkout: Path, scratch: Path, tls: TlsFiles, workers: int) -> Iterator[Endpoint]:
    """Serve a fresh root under `scratch` for the length of the block."""
    root = scratch / "root"
    root.mkdir()
    log = scratch / "serve.log"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            serve_command(root, tls, workers),
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    try:
        urls = _ready_urls(process.stdout, listeners=2, log=log)
        by_scheme = {urlsplit(url).scheme: url for url in urls}
        yield Endpoint(
            DEVELOPMENT_ACCOUNT,
            DEVELOPMENT_KEY,
            by_scheme["http"].rstrip("/"),
            tls_port=urlsplit(by_scheme["https"]).port,
            ca_file=tls.ca,
            root=root,
            log=log,
            pid=process.pid,
        )
        process.send_signal(signal.SIGTERM)
        status = process.wait(DRAIN_SECONDS_MAX)
        text = log.read_text(errors="replace")
        assert status == 0, f"SIGTERM must drain and exit 0, got {status}: {text[-LOG_TAIL_CHARACTERS:]}"
        for trouble in ("Traceback", "Fatal Python error", WORKER_LOST):
            _, found, what = text.partition(trouble)
            assert not found, f"the endpoint's log has {trouble!r}: {what[:LOG_TAIL_CHARACTERS]}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def _ready_urls(stdout: IO[bytes], listeners: int, log: Path) -> list[str]:
    """Read the ready lines; a thread reads on afterwards so that the product can never block on a full
    pipe.
    """
    lines: Queue[bytes] = Queue()

    def read() -> None:
        with contextlib.suppress(ValueError):  # the pipe was closed under us at the end of the session
            for line in stdout:
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    urls: list[str] = []
    while len(urls) < listeners:
        try:
            line = lines.get(timeout=START_SECONDS_MAX).decode()
        except Empty:
            raise AssertionError(f"not ready in {START_SECONDS_MAX} s: {_tail(log)}") from None
        if not line:
            raise AssertionError(f"the endpoint ended before it was ready: {_tail(log)}")
        if line.startswith(READY_PREFIX):
            urls.append(line.removeprefix(READY_PREFIX).strip())
    return urls


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
