"""Where to listen, as an operator writes it: `http://HOST:PORT`, `https://HOST:PORT`, or `unix:/PATH` for the admin."""

import ipaddress
import os
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

UNIX_PATH_BYTES_MAX: Final = 107  # sun_path of unix(7), less its final NUL


@dataclass(frozen=True, slots=True)
class Listen:
    """A parsed listen address. `host` is without brackets; `port` 0 lets the kernel pick."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    def url(self, port: int | None = None) -> str:
        """The URL form, with the port that was really bound if it is given."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port if port is None else port}"


def parse_listen(text: str) -> Listen:
    """Read a listen address. Raises ValueError with a sentence for the operator."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not an address: write http://HOST:PORT, the port from 0 to 65535") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{text!r} is not an address: write http://HOST:PORT or https://HOST:PORT")
    if port is None:
        raise ValueError(f"{text!r} has no port: write {parts.scheme}://{parts.netloc}:10000 for example")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{text!r} has more than a host and a port: write {parts.scheme}://HOST:PORT")
    return Listen("https" if parts.scheme == "https" else "http", host, port)


@dataclass(frozen=True, slots=True)
class UnixListen:
    """A Unix socket by its absolute path."""

    path: str

    def url(self) -> str:
        return f"unix:{self.path}"


def parse_admin(text: str) -> Listen | UnixListen:
    """Read an address of the admin endpoint. Raises ValueError with a sentence for the operator."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
            raise ValueError(f"{text!r} is not a Unix socket: write unix:/PATH, at most {UNIX_PATH_BYTES_MAX} bytes")
        return UnixListen(path)
    if "://" not in text:
        raise ValueError(f"{text!r} is not an address: write unix:/PATH or http://HOST:PORT")
    listen = parse_listen(text)
    if listen.scheme != "http":
        raise ValueError(f"{text!r}: the admin endpoint speaks plain http; put it on loopback or a Unix socket")
    return listen


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
