"""List Blobs and List Containers.

Reading the directories and writing the document both happen in one call on a data thread: a page of 5,000 blobs takes
longer than a worker's other connections should wait. A marker is where the next page starts, nothing more, so pages
need no state here, and changes between two pages neither repeat nor lose a blob that stayed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi import listing, listparams
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.listing import BlobRenderer, Include, PageHead
from dataplane.blobapi.message import Request, Response
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.shared import XML, existing_container
from dataplane.store.store import ListItem, Store


def endpoint(request: Request) -> str:
    """The ServiceEndpoint of listings: the address by which this request came, with the account when it is a path."""
    scheme = "https" if request.secure else "http"
    account = f"{request.resource.account}/" if request.resource.path_style else ""
    return f"{scheme}://{request.host}/{account}"


@dataclass(frozen=True, slots=True)
class _BlobsQuery:
    """The parameters of List Blobs. `start` is the first name to show."""

    head: PageHead
    datasets: frozenset[str]
    start: str
    limit: int
    version: str
    now: int


async def list_blobs(call: Call) -> Response:
    """REST page "List Blobs". Raises BlobError ContainerNotFound, OutOfRangeQueryParameterValue,
    InvalidQueryParameterValue."""
    query = _blobs_query(call)
    await existing_container(call)
    return Response(200, [XML], await call.blocking(_blobs_page, call.store, query))


def _blobs_query(call: Call) -> _BlobsQuery:
    query = call.request.query
    if query.get("showonly"):  # blobs of accounts with a hierarchical namespace, or deleted ones
        raise BlobError(ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="showonly", query_value=query["showonly"])
    shown, limit = listparams.max_results(query.get("maxresults"))
    marker = query.get("marker", "")
    (next_name,) = listing.decode_marker(marker)
    head = PageHead(
        endpoint(call.request),
        call.request.resource.container,
        query.get("prefix", ""),
        marker,
        shown,
        query.get("delimiter", ""),
    )
    datasets = listparams.include(query.get("include"), listparams.LIST_BLOBS_INCLUDE)
    start = max(next_name, query.get("startfrom", ""))
    return _BlobsQuery(head, datasets, start, limit, call.version, call.now)


def _blobs_page(store: Store, query: _BlobsQuery) -> bytes:
    head, datasets = query.head, query.datasets
    page = store.list_blobs(
        head.container,
        prefix=head.prefix,
        delimiter=head.delimiter,
        start=query.start,
        limit=query.limit,
        snapshots="snapshots" in datasets,
        uncommitted="uncommittedblobs" in datasets,
    )
    include = Include("metadata" in datasets, "tags" in datasets, "copy" in datasets)
    renderer = BlobRenderer(include, query.version, query.now)
    items = [_element(renderer, item) for item in page.items]
    return listing.render_blobs(head, items, listing.encode_marker(page.next_start))


def _element(renderer: BlobRenderer, item: ListItem) -> str:
    if item.state is None:
        return renderer.prefix(item.prefix)
    return renderer.uncommitted(item.state.name) if item.uncommitted else renderer.blob(item.state)


async def list_containers(call: Call) -> Response:
    """REST page "List Containers". Raises BlobError as List Blobs does."""
    query = call.request.query
    shown, limit = listparams.max_results(query.get("maxresults"))
    datasets = listparams.include(query.get("include"), listparams.LIST_CONTAINERS_INCLUDE)
    prefix, marker = query.get("prefix", ""), query.get("marker", "")
    account = call.request.resource.account
    start = _container_start(marker, account)
    head = PageHead(endpoint(call.request), prefix=prefix, marker=marker, max_results=shown)

    def page(store: Store, version: str, now: int) -> bytes:
        states, next_name = store.list_containers(prefix, start, limit)
        next_marker = f"/{account}/{next_name}" if next_name else ""
        return listing.render_containers(
            head, states, next_marker, metadata="metadata" in datasets, version=version, now=now
        )

    return Response(200, [XML], await call.blocking(page, call.store, call.version, call.now))


def _container_start(marker: str, account: str) -> str:
    """Markers of List Containers are recorded as /account/container; a container's name alone is taken as well."""
    if not marker.startswith("/"):
        return marker
    prefix = f"/{account}/"
    if not marker.startswith(prefix):
        raise BlobError(ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="marker", query_value=marker[:64])
    return marker[len(prefix) :]


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.LIST_BLOBS: list_blobs,
    Operation.LIST_CONTAINERS: list_containers,
}
