"""The few Blob operations the cases are built of, as raw requests to an Endpoint.

Rules: REST pages "Create Container", "Put Blob", "Put Block", "Put Block List", "List Blobs".
"""

import base64

from .peers import Endpoint
from .sas import SIGNED_VERSION
from .wire import Connection, Response, request_head


class OperationFailed(Exception):
    """A peer answered something else than success; the text holds operation, status and error body."""


def connect(endpoint: Endpoint) -> Connection:
    """Open a keep-alive connection to a peer."""
    return Connection(endpoint.host, endpoint.port)


def head(endpoint: Endpoint, method: str, path: str, query: str = "", **headers: str) -> bytes:
    """Return a request head; keyword names become header names with dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    fixed = {"x-ms-version": SIGNED_VERSION}
    return request_head(method, endpoint.target(path, query), endpoint.authority, fixed | named)


def expect(response: Response, status: int, operation: str) -> Response:
    """Return the response if it has the expected status, else raise OperationFailed."""
    if response.status != status:
        raise OperationFailed(f"{operation}: {response.status} {response.body[:300].decode('latin-1')}")
    return response


def create_container(endpoint: Endpoint, container: str) -> None:
    """Create a container, or for a peer fed with files a directory."""
    if endpoint.document_root is not None:
        (endpoint.document_root / container).mkdir(exist_ok=True)
        return
    request = head(endpoint, "PUT", container, "restype=container", content_length="0")
    with connect(endpoint) as connection:
        expect(connection.exchange(request, keep_body=True), 201, f"create container {container}")


def delete_container(endpoint: Endpoint, container: str) -> None:
    """Delete a container with everything in it."""
    with connect(endpoint) as connection:
        request = head(endpoint, "DELETE", container, "restype=container")
        expect(connection.exchange(request, keep_body=True), 202, f"delete container {container}")


def put_blob(connection: Connection, endpoint: Endpoint, path: str, body: bytes) -> None:
    """Put Blob, or write the file of a peer fed with files."""
    if endpoint.document_root is not None:
        (endpoint.document_root / path).write_bytes(body)
        return
    request = head(endpoint, "PUT", path, content_length=str(len(body)), x_ms_blob_type="BlockBlob")
    expect(connection.exchange(request, body, keep_body=True), 201, f"put blob {path}")


def get_blob(connection: Connection, endpoint: Endpoint, path: str) -> bytes:
    """Get Blob with its content."""
    response = connection.exchange(head(endpoint, "GET", path), keep_body=True)
    return expect(response, 200, f"get blob {path}").body


def delete_blob(connection: Connection, endpoint: Endpoint, path: str) -> None:
    """Delete Blob."""
    expect(connection.exchange(head(endpoint, "DELETE", path), keep_body=True), 202, f"delete blob {path}")


def block_id(index: int) -> str:
    """Return the id of block `index`; all ids have one length."""
    return base64.b64encode(f"{index:06d}".encode()).decode()


def put_block(connection: Connection, endpoint: Endpoint, path: str, index: int, body: memoryview) -> None:
    """Put Block."""
    escaped = block_id(index).replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")
    request = head(endpoint, "PUT", path, f"comp=block&blockid={escaped}", content_length=str(len(body)))
    expect(connection.exchange(request, body, keep_body=True), 201, f"put block {index}")


def put_block_list(connection: Connection, endpoint: Endpoint, path: str, count: int) -> None:
    """Put Block List of blocks 0 to count-1, each as `Latest`."""
    items = "".join(f"<Latest>{block_id(index)}</Latest>" for index in range(count))
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode()
    request = head(
        endpoint,
        "PUT",
        path,
        "comp=blocklist",
        content_length=str(len(body)),
        content_type="application/xml",
    )
    expect(connection.exchange(request, body, keep_body=True), 201, "put block list")
