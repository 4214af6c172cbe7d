"""Find Blobs by Tags, in an account or in one container.

There is no index by value: the store knows which blobs have tags, and each of these is looked at, in order. So that a
request that matches little does not hold a thread for long, a page ends after a bounded number of blobs, and has a
marker then even if it is empty, which the REST page "Find Blobs by Tags" announces to clients.
"""

from collections.abc import Mapping
from typing import Final

from dataplane.blobapi import limits, listing, listparams, tagquery
from dataplane.blobapi.message import Response
from dataplane.blobapi.operations import Operation
from dataplane.blobapi.tagquery import TagQuery
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.listing import endpoint
from dataplane.server.handlers.shared import XML, existing_container
from dataplane.store.store import Store

Found = list[tuple[str, str, Mapping[str, str]]]


async def find_blobs(call: Call) -> Response:
    """REST page "Find Blobs by Tags". Raises BlobError InvalidQueryParameterValue, MissingRequiredQueryParameter."""
    return await _answer(call, None)


async def find_blobs_in_container(call: Call) -> Response:
    """REST page "Find Blobs by Tags in Container". Raises also BlobError ContainerNotFound."""
    return await _answer(call, call.request.resource.container)


async def _answer(call: Call, container: str | None) -> Response:
    where = call.require_query("where")
    query = tagquery.parse_where(where)
    _, limit = listparams.max_results(call.query("maxresults"))
    start = listing.decode_marker(call.request.query.get("marker", ""), 2)
    if container is not None:
        await existing_container(call)
        if query.container not in (None, container):
            return Response(200, [XML], listing.render_found(endpoint(call.request), where, (), ""))
    found, next_marker = await call.blocking(find, call.store, container or query.container, query, start, limit)
    return Response(200, [XML], listing.render_found(endpoint(call.request), where, found, next_marker))


def find(
    store: Store,
    container: str | None,
    query: TagQuery,
    start: tuple[str, ...],
    limit: int,
    scanned_max: int = limits.find_scanned_blobs_max,
) -> tuple[Found, str]:
    """Up to `limit` matches from `start` (container, blob) on, with the tags that the query names, and the marker."""
    found: Found = []
    scanned = 0
    for name, state in store.tagged_blobs(container):
        if (name, state.name) < start:
            continue
        if len(found) >= limit or scanned >= scanned_max:
            return found, listing.encode_marker(name, state.name)
        scanned += 1
        tags = state.properties.tags
        if query.matches(name, tags):
            found.append((name, state.name, {key: tags[key] for key in tags if key in query.keys}))
    return found, ""


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.FIND_BLOBS_BY_TAGS: find_blobs,
    Operation.FIND_BLOBS_IN_CONTAINER: find_blobs_in_container,
}
