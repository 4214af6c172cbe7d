"""A little blob server whose durability is chosen: the control that shows that the proofs can fail.

    python fake_server.py ROOT none|file|full

`none` never syncs, `file` syncs the file but not its directory (so the rename may be undone), `full` does
it right. It knows Create Container, Put Blob, Set Blob Metadata, Get Blob and Delete Blob, no
authorisation, names without their slashes.
"""

import contextlib
import http.server
import json
import os
import sys
import threading
import uuid
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

RECORD = "user.fake.record"


class Store:
    """Blobs as files of one directory, their properties in an xattr."""

    def __init__(self, root: Path, mode: str) -> None:
        self.root = root
        self.mode = mode
        self.lock = threading.Lock()

    def path(self, blob: str) -> Path:
        return self.root / blob.replace("/", "=")

    def put(self, blob: str, body: bytes, record: dict[str, str]) -> None:
        staged = self.root / f".{uuid.uuid4().hex}"
        staged.write_bytes(body)
        os.setxattr(staged, RECORD, json.dumps(record).encode())
        self.sync_file(staged)
        staged.rename(self.path(blob))
        self.sync_directory()

    def set_record(self, blob: str, record: dict[str, str]) -> None:
        with self.lock:
            kept = json.loads(os.getxattr(self.path(blob), RECORD))
            record = {"content-type": kept["content-type"], **record}
            os.setxattr(self.path(blob), RECORD, json.dumps(record).encode())
        self.sync_file(self.path(blob))

    def get(self, blob: str) -> tuple[bytes, dict[str, str]]:
        with self.path(blob).open("rb") as file:
            record: dict[str, str] = json.loads(os.getxattr(file.fileno(), RECORD))
            return file.read(), record

    def delete(self, blob: str) -> None:
        self.path(blob).unlink()
        self.sync_directory()

    def sync_file(self, path: Path) -> None:
        if self.mode != "none":
            sync(path)

    def sync_directory(self) -> None:
        if self.mode == "full":
            sync(self.root)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the fake."""

    protocol_version = "HTTP/1.1"
    store: Store

    def blob(self) -> str:
        return urlsplit(self.path).path.split("/", 3)[3]

    def record(self) -> dict[str, str]:
        wanted = ("x-ms-meta-", "x-ms-blob-content-type")
        named = {name.lower(): value for name, value in self.headers.items()}
        return {
            name.replace("x-ms-blob-content-type", "content-type"): value
            for name, value in named.items()
            if name.startswith(wanted)
        }

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        query = parse_qs(urlsplit(self.path).query)
        if "restype" in query:
            self.answer(201)
            return
        try:
            if query.get("comp") == ["metadata"]:
                self.store.set_record(self.blob(), self.record())
                self.answer(200)
            else:
                self.store.put(self.blob(), body, self.record())
                self.answer(201)
        except OSError:
            self.answer(500)

    def do_GET(self) -> None:
        try:
            body, record = self.store.get(self.blob())
        except FileNotFoundError:
            self.answer(404)
        except OSError:
            # A name without its record or its bytes: served as what it is, as nothing that was sent.
            self.answer(200, {}, b"damaged")
        else:
            self.answer(200, record, body)

    def do_DELETE(self) -> None:
        try:
            self.store.delete(self.blob())
            self.answer(202)
        except FileNotFoundError:
            self.answer(404)
        except OSError:
            self.answer(500)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def main() -> None:
    Handler.store = Store(Path(sys.argv[1]), sys.argv[2])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"fake ready: http://127.0.0.1:{server.server_port}/fake", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
