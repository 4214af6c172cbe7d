"""Where to listen, as an operator writes it: `http://HOST:PORT` or `https://HOST:PORT`."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit


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
