"""The servers that the proofs run: the product, and the fake whose durability is chosen."""

import base64
import datetime as dt
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from .processes import ServerProcess
from .transport import Target

CHECKOUT = Path(__file__).resolve().parents[2]
ACCOUNT = "durability"
KEY = base64.b64encode(secrets.token_bytes(32)).decode()
SAS_LIFE = dt.timedelta(hours=6)


Started = tuple[ServerProcess, Target]


@dataclass(frozen=True, slots=True)
class Options:
    """How the product is started; `records` is the store's record backend."""

    workers: int = 2
    durability: str = "strict"
    records: str = "auto"


def product(root: Path, options: Options, log: Path) -> Started:
    """Start the product on `root` through its command line and wait until it is ready."""
    command = [sys.executable, "-m", "agent", "serve", "--root", str(root), "--listen", "http://127.0.0.1:0"]
    command += ["--workers", str(options.workers), "--durability", options.durability]
    command += ["--records", options.records, "--account", ACCOUNT, "--key", KEY]
    process = ServerProcess(command, "blobedge ready: ", log, CHECKOUT)
    try:
        return process, target_of(process.await_ready(), account_sas())
    except BaseException:
        process.kill_all()
        raise


def fake(root: Path, mode: str, log: Path) -> Started:
    """Start the fake server on `root`."""
    command = [sys.executable, str(Path(__file__).with_name("fake_server.py")), str(root), mode]
    process = ServerProcess(command, "fake ready: ", log, CHECKOUT)
    return process, target_of(process.await_ready(), "")


def account_sas() -> str:
    """Return an account SAS made by Azure's own library."""
    return generate_account_sas(
        ACCOUNT,
        KEY,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True),
        expiry=dt.datetime.now(dt.UTC) + SAS_LIFE,
    )


def target_of(url: str, sas: str) -> Target:
    """Return where a server with this announced URL answers."""
    parts = urlsplit(url)
    assert parts.hostname, url
    assert parts.port, url
    return Target(parts.hostname, parts.port, parts.path.rstrip("/"), sas)
