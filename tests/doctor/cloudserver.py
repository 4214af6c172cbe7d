"""Small servers on loopback that stand for the cloud, with what may be wrong about it as arguments."""

import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SAS = "sv=2021-12-02&ss=b&srt=sco&sp=l&se=2099-01-01T00:00:00Z&sig=c2VjcmV0"
SIGNATURE = "c2VjcmV0"


def certificate(directory: Path, name: str, *, days: int = 30) -> Path:
    """A certificate for a DNS name, signed by itself, and its key, in one PEM file. `days` < 0: expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}{days}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    path.chmod(0o600)
    return path


@contextmanager
def serving(
    *, status: int = 200, code: str = "", pem: Path | None = None, ahead_seconds: float = 0, close: bool = False
) -> Iterator[int]:
    """Serve until the block ends; the port. A request without `sig=` is answered 403 as by Azure, any other `status`
    with the error `code`. `ahead_seconds`: how far the server's clock is ahead; `close`: end after each answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def version_string(self) -> str:
            return "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"

        def date_time_string(self, timestamp: float | None = None) -> str:
            now = datetime.datetime.now(datetime.UTC).timestamp()
            return formatdate(now + ahead_seconds, usegmt=True)

        def do_GET(self) -> None:
            signed = "sig=" in self.path
            self.send_response(status if signed else 403)
            if code or not signed:
                self.send_header("x-ms-error-code", code if signed else "AuthenticationFailed")
            if close:
                self.send_header("Connection", "close")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
