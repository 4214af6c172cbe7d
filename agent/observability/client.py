"""Asking the admin endpoint of a running service, from another process.

The address is found by the rule that the service itself follows (address.py). A socket that nobody answers is what a
killed service left and is passed over; with several services alive the caller has to say which one he means.
"""

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from agent.listen import UnixListen, parse_admin
from agent.observability.address import candidates
from agent.problems import OperatorError

ASK_SECONDS_MAX: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 << 20


class Unreachable(Exception):
    """Nobody answers at the address, or what answers is not the admin endpoint."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. A wait of more than `seconds_max` for a single call is a TimeoutError."""

    def __init__(self, path: str, seconds_max: float = ASK_SECONDS_MAX) -> None:
        super().__init__("localhost", timeout=seconds_max)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def find(admin: str | None) -> str:
    """Return the address to ask: the one that is given, or the single live socket of the default places.

    Raises OperatorError if the address is no address or several services live, Unreachable if none does.
    """
    if admin is not None:
        try:
            parse_admin(admin)
        except ValueError as error:
            raise OperatorError(f"--admin: {error}") from None
        return admin
    live, forbidden = [], []
    for path in candidates(os.environ, os.geteuid()):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(ASK_SECONDS_MAX)
                probe.connect(str(path))
            live.append(f"unix:{path}")
        except PermissionError:
            forbidden.append(str(path))
        except OSError:
            continue
    if len(live) > 1:
        raise OperatorError(f"several services run: say which one with --admin: {', '.join(live)}")
    if live:
        return live[0]
    if forbidden:
        raise Unreachable(f"user {os.geteuid()} may not use {forbidden[0]}: use sudo, or join its group")
    raise Unreachable("no blobedge of this user runs here; --admin ADDRESS asks another one")


def get(address: str, path: str, token_file: str | None = None) -> tuple[int, Any]:
    """Ask for a page; return its status and its JSON. Raises Unreachable, OperatorError for the token file."""
    headers = {"Authorization": f"Bearer {_token(token_file)}"} if token_file is not None else {}
    parsed = parse_admin(address)
    if isinstance(parsed, UnixListen):
        connection: http.client.HTTPConnection = UnixConnection(parsed.path)
    else:
        parts = urlsplit(address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ASK_SECONDS_MAX)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{address}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        connection.close()
    if answer.getheader("Content-Type") != "application/json":
        raise Unreachable(f"{address} answers {answer.status}: {body[:200].decode(errors='replace').strip()}")
    try:
        return answer.status, json.loads(body)
    except ValueError:
        raise Unreachable(f"{address} answers no JSON: is it blobedge's admin address?") from None


def _token(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot read the token file {path}: {error}") from None
