"""Start the product as an operator would, over a directory, and stop it with SIGTERM.

Guarantee of `running`: what runs is `blobedge serve` with its real workers and sockets. At the end it has to exit 0 and
its log must hold no traceback and no worker that died. So a server that fails inside and recovers fails the test too.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.durability.processes import ServerProcess
from tests.support import WireClient

CHECKOUT: Final = Path(__file__).resolve().parents[2]
ACCOUNT: Final = "devstoreaccount1"
#: Every Azure storage emulator has this key; it is no secret.
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
WORKERS: Final = 2
READY: Final = "blobedge ready: "
#: What the log says when something went wrong that no answer showed.
TROUBLE: Final = ("Traceback", "Fatal Python error", " ended: signal ")
LOG_TAIL_CHARACTERS: Final = 4000


@dataclass(frozen=True, slots=True)
class Product:
    """A running endpoint over `root`. `url` is path style, with the account in it."""

    url: str
    root: Path
    log: Path

    @property
    def port(self) -> int:
        """The port of its http listener on the loopback."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def client(self, key: str = KEY) -> WireClient:
        """A new connection that signs for the account."""
        return WireClient(self.port, account=ACCOUNT, key=key)


@contextmanager
def running(root: Path, log: Path, *flags: str) -> Iterator[Product]:
    """Serve `root`, made if absent, with two workers for the length of the block; `flags` are of `blobedge serve`."""
    root.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "agent", "serve", "--root", str(root), "--listen", "http://127.0.0.1:0"]
    command += ["--workers", str(WORKERS), "--account", ACCOUNT, "--key", KEY, *flags]
    process = ServerProcess(command, READY, log, CHECKOUT)
    try:
        yield Product(process.await_ready().rstrip("/"), root, log)
        status = process.terminate()
        text = log.read_text(errors="replace")
        assert status == 0, f"SIGTERM has to drain and exit 0, got {status}: {text[-LOG_TAIL_CHARACTERS:]}"
        for trouble in TROUBLE:
            _, found, rest = text.partition(trouble)
            assert not found, f"the log has {trouble!r}: {rest[:LOG_TAIL_CHARACTERS]}"
    finally:
        process.kill_all()
