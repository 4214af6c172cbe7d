"""The endpoint of tools/quickstart: the development account on the loopback, and text to paste.

Loopback only, and not configurable: the key is printed in every emulator's manual. Everything printed works when
pasted into a shell in the checkout: the container in the AzCopy line exists, and its SAS is signed here.
"""

import base64
import ctypes.util
import http.client
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from agent.flags import Flags
from agent.problems import OperatorError
from agent.supervision.supervisor import Announce, announce_ready
from dataplane.blobapi import dates, sas

DEFAULT_PORT: Final = 10000
HOST: Final = "127.0.0.1"
CONTAINER: Final = "quickstart"
SAS_SECONDS: Final = 30 * 24 * 3600
REQUEST_SECONDS_MAX: Final = 30.0

# Public: Azurite, the storage emulator and every SDK know this pair as UseDevelopmentStorage=true.
ACCOUNT: Final = "devstoreaccount1"
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_AZCOPY: Final = "@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The flags to serve with, and what to do when it is ready."""

    flags: Flags
    announce: Announce


def prepare(root: str, port: int, workers: int | None) -> Prepared:
    """Make the data directory if need be. Raises OperatorError if that is impossible."""
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"cannot make the directory {root}: {error.strerror}") from None
    listen = [f"http://{HOST}:{port}"]
    flags = Flags(root=root, listen=listen, account=ACCOUNT, key=KEY, workers=workers, access_log=False)

    async def announce(urls: Sequence[str]) -> None:
        token = account_sas(int(time.time()))
        await trio.to_thread.run_sync(create_container, urls[0], token)
        print(welcome(urls[0], token, root), flush=True)
        await announce_ready(urls)

    return Prepared(flags, announce)


def account_sas(now: int) -> str:
    """A token for everything in the development account for SAS_SECONDS from `now` (seconds since the epoch)."""
    expiry = dates.iso_ticks((now + SAS_SECONDS) * 10_000_000).partition(".")[0] + "Z"
    token = sas.account_token("rwdlacupitfx", expiry)
    return sas.issue(token, ACCOUNT, base64.b64decode(KEY)).query()


def create_container(url: str, token: str) -> None:
    """Create the container of the examples, unless it is there. Prints what goes wrong; blocking."""
    authority, _, account = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(authority, timeout=REQUEST_SECONDS_MAX)
    try:
        connection.request("PUT", f"/{account}/{CONTAINER}?restype=container&{token}", headers={"Content-Length": "0"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"blobedge: cannot create the container {CONTAINER}: {error}", file=sys.stderr)
        return
    finally:
        connection.close()
    if status not in (http.client.CREATED, http.client.CONFLICT):
        print(f"blobedge: cannot create the container {CONTAINER}: status {status}", file=sys.stderr)


def connection_string(url: str) -> str:
    """The connection string of the development account at this URL."""
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url};"


def welcome(url: str, token: str, root: str) -> str:
    """What the terminal shows when it is ready."""
    return f"""
A Blob endpoint is at  {url}
Its data is in         {os.path.abspath(root)}, as plain files: CONTAINER/BLOB. Ctrl-C stops it.
Connection string      {connection_string(url)}

This key is public: every storage emulator has it. Keep it to this machine, and give `blobedge serve` keys of your own.

From another terminal, with AzCopy:
{_azcopy_lines(url, token)}

With Python:
{_python_lines(url)}
"""


def _azcopy_lines(url: str, token: str, find: Callable[[str], str | None] = shutil.which) -> str:
    """One copy into the container, after the installation that is missing, if any."""
    packaged = _CHECKOUT / ".cache" / "npm" / "node_modules" / _AZCOPY
    command = find("azcopy")
    lines = []
    if command is None:
        command = str(packaged)
        if not os.access(packaged, os.X_OK):
            prefix = packaged.parents[5]
            lines.append(f"  npm install --prefix {prefix} @azure-tools/azcopy-linux && chmod +x {packaged}")
    if ctypes.util.find_library("secret-1") is None:
        sudo = "" if os.geteuid() == 0 else "sudo "
        lines.append(f"  {sudo}apt-get install -y libsecret-1-0   # AzCopy does not start without it")
    source = _CHECKOUT / "README.md"
    lines.append(f"  {command} copy {source} '{url}/{CONTAINER}/README.md?{token}' --from-to=LocalBlob")
    return "\n".join(lines)


def _python_lines(url: str) -> str:
    """An upload and a listing with the Azure SDK, in the interpreter that runs this."""
    development = url == f"http://{HOST}:{DEFAULT_PORT}/{ACCOUNT}"
    how = "UseDevelopmentStorage=true" if development else connection_string(url)
    lines = []
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.storage.blob") is None:
        lines.append(f"  {sys.executable} -m pip install azure-storage-blob")
    lines += [
        f"  {sys.executable} - <<'END'",
        "from azure.storage.blob import BlobServiceClient",
        f'service = BlobServiceClient.from_connection_string("{how}")',
        f'container = service.get_container_client("{CONTAINER}")',
        'container.upload_blob("hello.txt", b"hello from Python", overwrite=True)',
        "print([blob.name for blob in container.list_blobs()])",
        "END",
    ]
    return "\n".join(lines)
