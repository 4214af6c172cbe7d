"""What clients see of a node's blobs without reading them: all that HEAD and List Blobs say, compared as a whole.

A blob that leaves the node or comes back has the same face; its residency, which is told apart, is all that moves.
"""

from typing import Any, Final, NamedTuple

from azure.core.pipeline import PipelineResponse
from azure.storage.blob import BlobProperties, ContainerClient

from .edge import Edge
from .traffic import Blob

RESIDENCY: Final = "x-blobedge-residency"
#: Headers that belong to the answer and not to the blob.
_OF_ANSWER: Final = frozenset({"date", "x-ms-request-id", "x-ms-client-request-id", RESIDENCY})


class Face(NamedTuple):
    """One blob: its entry of the listing with metadata and tags, and the headers of HEAD."""

    listed: BlobProperties
    headers: dict[str, str]


def faces(node: Edge, container: str) -> dict[Blob, Face]:
    """Return how each blob of a container looks now. Raises the client's errors."""
    with node.service() as service:
        client = service.get_container_client(container)
        listed = list(client.list_blobs(include=["metadata", "tags"]))
        return {(container, str(item.name)): Face(item, _head(client, str(item.name), False)) for item in listed}


def residencies(node: Edge, container: str) -> dict[Blob, str]:
    """Return where HEAD says that each blob's bytes are."""
    with node.service() as service:
        client = service.get_container_client(container)
        names = list(client.list_blob_names())
        return {(container, name): _head(client, name, True)[RESIDENCY] for name in names}


def _head(client: ContainerClient, name: str, residency: bool) -> dict[str, str]:
    found: dict[str, str] = {}

    def keep(answer: PipelineResponse[Any, Any]) -> None:
        found.update({each.lower(): value for each, value in answer.http_response.headers.items()})

    client.get_blob_client(name).get_blob_properties(raw_response_hook=keep)
    return found if residency else {each: value for each, value in found.items() if each not in _OF_ANSWER}
