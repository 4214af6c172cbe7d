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


@dataclass(frozen=True, slots=True)
class Options:
    """How the product is started; `records` is the store's record backend, None for its own choice."""

    workers: int = 2
    durability: str = "strict"
    records: str | None = None


def fake(root: Path, mode: str, log: Path) -> tuple[ServerProcess, Target]:
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
