"""From a request's head to its answer: address, version, route, permission, handler, and what every answer has.

The order is fixed and the same for all operations, parts of a batch included. A target is decoded once (addressing.py);
routing, authorisation and the handler get that one Resource. Nothing reaches a handler that authorize() did not let
through, and there is no second way in.

Whatever a handler raises becomes an answer here: a refusal as it is, a failure of the storage as 503, anything else as
500 with the traceback in the log, where the request id joins the two. An answer never shows a path, key or signature.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dataplane.blobapi import cors, versions
from dataplane.blobapi.authorization import Policies, Publicity, authorize, needs_container
from dataplane.blobapi.copysource import SOURCE_HEADER
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Level, Request, Response
from dataplane.blobapi.model import AccessPolicy, ContainerState, PublicAccess
from dataplane.blobapi.operations import Operation, OperationSpec, api_name, route
from dataplane.blobapi.serviceproperties import ServiceProperties
from dataplane.blobapi.uri import check_blob_name, check_container_name
from dataplane.server import refusals
from dataplane.server.addressing import Address, Hosts, locate
from dataplane.server.body import ClientDisconnected
from dataplane.server.call import Body, Call, EmptyBody, Handler, SyncHandler, handled_in_time
from dataplane.server.head import RawRequest
from dataplane.server.lowspace import NEEDS_SPACE
from dataplane.server.node import Account, Node
from dataplane.server.plans import Plans
from dataplane.server.record import Recorder, Trace
from dataplane.server.sender import discard
from dataplane.server.serviceprops import local_service_properties, service_properties

SERVER: Final = "Windows-Azure-Blob/1.0 blobedge"  # the first product is what SDKs and tools look for

EMPTY: Final[Mapping[Operation, SyncHandler]] = MappingProxyType({})

_log = logging.getLogger(__name__)

#: What a client asks for with these would be silently missing from what we store: refused, never ignored.
_UNSUPPORTED_HEADERS: Final = frozenset(
    {
        "x-ms-encryption-key", "x-ms-encryption-key-sha256", "x-ms-encryption-scope", "x-ms-source-encryption-key",
        "x-ms-source-encryption-key-sha256", "x-ms-expiry-option", "x-ms-expiry-time",
        "x-ms-immutability-policy-until-date", "x-ms-immutability-policy-mode", "x-ms-legal-hold",
        "x-ms-default-encryption-scope",
    }
)  # fmt: skip
#: Operations for which `snapshot` names what they work on; on others it would be a write to the base blob instead.
_WITH_SNAPSHOT: Final = frozenset(
    {
        Operation.GET_BLOB, Operation.GET_BLOB_PROPERTIES, Operation.GET_BLOB_METADATA, Operation.DELETE_BLOB,
        Operation.SET_BLOB_TIER, Operation.GET_BLOB_TAGS, Operation.GET_BLOCK_LIST, Operation.GET_ACCOUNT_INFORMATION,
    }
)  # fmt: skip
_READ_METHODS: Final = ("GET", "HEAD", "OPTIONS")


class Application:
    """Answers the requests of one worker."""

    def __init__(
        self, node: Node, handlers: Mapping[Operation, Handler], sync_handlers: Mapping[Operation, SyncHandler] = EMPTY
    ) -> None:
        self._node = node
        self._handlers = handlers
        self._sync_handlers = sync_handlers
        names = {host: account.name for account in node.settings.accounts for host in account.host_names}
        self._hosts = Hosts(node.settings.host_suffixes, names)
        self._plans = Plans(_UNSUPPORTED_HEADERS)
        self._record = Recorder(node).record
        node.app = self

    async def __call__(self, raw: RawRequest, body: Body) -> Response:
        """The answer to one request. Raises nothing but CancelledError, and ClientDisconnected when nobody is left."""
        trace = Trace(raw, self._node.new_request_id(), time.perf_counter_ns())
        response: Response | None = None
        try:
            response = await self._answered(trace, body)
            if "origin" in raw.headers:
                await self._add_cors(trace, response)
        except (asyncio.CancelledError, ClientDisconnected):
            if response is not None:
                discard(response)
            trace.code = "ClientOtherError"
            self._record(trace, None, body)
            raise
        self._finish(trace, response)
        self._record(trace, response, body)
        return response

    def try_sync(self, raw: RawRequest) -> Response | None:
        """The answer to a read that needs neither a thread nor a turn of the loop, else None and nothing has happened.

        It goes the same way as any request, only without a coroutine: the common GET costs one function call.
        """
        if raw.method not in ("GET", "HEAD") or "origin" in raw.headers or "comp=" in raw.target:
            return None
        trace = Trace(raw, self._node.new_request_id(), time.perf_counter_ns())
        body = EmptyBody()
        try:
            call = self._planned(trace, body) or self._call_now(trace, body)
            if call is None:
                return None
            begun_ns = time.perf_counter_ns()
            try:
                response = self._sync_handlers[call.spec.operation](call)
            finally:
                trace.disk_ns = time.perf_counter_ns() - begun_ns  # and the few microseconds of checks and headers
            if response is None:
                return None
        except Exception as error:
            response = self._failed(error, trace)
        self._finish(trace, response)
        self._record(trace, response, body)
        return response

    def _planned(self, trace: Trace, body: Body) -> Call | None:
        """The call of a request that was worked out before (plans.py)."""
        raw, node = trace.raw, self._node
        now = node.now()
        plan = self._plans.find(raw, now)
        if plan is None:
            return None
        request = trace.request = plan.request(raw)
        trace.spec, trace.account, trace.caller, trace.secondary = plan.spec, plan.account, plan.caller, plan.secondary
        return Call(
            request, plan.spec, plan.caller, body, plan.account, node, now, trace.request_id, plan.secondary, trace
        )

    def _call_now(self, trace: Trace, body: Body) -> Call | None:
        """The call of a request whose operation can be answered at once, None for another. Raises BlobError."""
        request, spec, account = self._routed(trace, None)
        if spec.operation not in self._sync_handlers or not account.store.local():
            return None
        if not request.version:
            request.version = _default_version(local_service_properties(account))
        name = request.resource.container
        container = account.store.container(name) if needs_container(request) else None
        call = self._authorized(trace, request, spec, account, container, body)
        self._plans.keep(trace.raw, call)
        return call

    async def dispatch_inner(
        self, outer: Call, method: str, target: str, headers: Mapping[str, str], allowed: frozenset[Operation]
    ) -> Response:
        """The answer to a part of a batch, which is authorised on its own; never raises.

        A part has the version and the connection of its batch, and may only be one of `allowed`, in the same account
        and, below a container's batch, the same container.
        """
        part_headers = {"host": outer.request.host, **headers}
        raw = RawRequest(
            method, target, part_headers, None, False, True, False, outer.request.secure, outer.request.peer
        )
        trace = Trace(raw, self._node.new_request_id(), time.perf_counter_ns())
        body = EmptyBody()
        response = await self._answered(trace, body, outer, allowed)
        self._finish(trace, response)
        self._record(trace, response, body)
        return response

    # --- the way in ---

    async def _answered(
        self, trace: Trace, body: Body, outer: Call | None = None, allowed: frozenset[Operation] | None = None
    ) -> Response:
        try:
            request, spec, account = self._routed(trace, outer)
            if allowed is not None and spec.operation not in allowed:
                raise BlobError(ErrorCode.INVALID_INPUT, reason="The operation is not supported in a batch.")
            if not request.version:
                request.version = _default_version(await service_properties(account))
            container = await self._container(trace, request, account) if needs_container(request) else None
            call = self._authorized(trace, request, spec, account, container, body)
            handler = self._handlers[spec.operation]
            low_space = self._node.low_space
            if low_space is not None and spec.operation in NEEDS_SPACE:
                await trace.queued(low_space.check(account, request.resource.container, body.length or 0))
            quick = (
                account.store.local() and SOURCE_HEADER not in request.headers
            )  # a copy's source may be on any mount
            return await (handler(call) if quick else handled_in_time(handler, call))
        except ClientDisconnected:
            raise
        except Exception as error:
            return self._failed(error, trace)

    def _routed(self, trace: Trace, outer: Call | None) -> tuple[Request, OperationSpec, Account]:
        """Everything before authorisation; the version is still "" when the request does not say. Raises BlobError."""
        raw = trace.raw
        address = locate(raw.target, raw.headers.get("host", ""), self._hosts)
        request = _request(raw, address)
        trace.request, trace.secondary = request, address.secondary
        if outer is not None:
            request.version = outer.version
            _check_part(request, outer)
        elif "x-ms-version" in raw.headers or "sv" in address.query:
            request.version = versions.accepted_version(raw.headers.get("x-ms-version"), address.query.get("sv"))
        spec = trace.spec = route(request)
        account = trace.account = self._node.accounts.get(request.resource.account)
        if account is None:
            raise _unknown_account(request)
        resource = request.resource
        if resource.container:
            check_container_name(resource.container)
        if resource.level is Level.BLOB:
            check_blob_name(resource.blob)
        return request, spec, account

    def _authorized(
        self,
        trace: Trace,
        request: Request,
        spec: OperationSpec,
        account: Account,
        container: ContainerState | None,
        body: Body,
    ) -> Call:
        """The call of a request that may be served. Raises BlobError."""
        node = self._node

        now = node.now()
        policies: Policies = _no_policies
        publicity: Publicity = _not_public
        if container is not None:
            policies, publicity = _policies_of(container), _publicity_of(container)
        caller = authorize(request, spec, node.keys, policies, publicity, now, cache=node.sas_cache)
        trace.caller = caller
        _check_supported(request, spec)
        if trace.secondary and request.method not in _READ_METHODS:
            raise _refused("Write operations are not allowed on the secondary endpoint.")
        if spec.write and request.resource.container in account.read_only:
            raise _refused("The container is read-only: its directory is mapped that way on this node.")
        return Call(request, spec, caller, body, account, node, now, trace.request_id, trace.secondary, trace)

    async def _container(self, trace: Trace, request: Request, account: Account) -> ContainerState | None:
        name = request.resource.container
        if not name:
            return None
        if account.store.local():
            return trace.at_once(account.store.container, name)
        return await trace.on_thread(account.pools(name).metadata_in_time, account.store.container, name)

    # --- the way out ---

    def _failed(self, error: Exception, trace: Trace) -> Response:
        refusal = refusals.refusal(error)
        if refusal is None:
            operation = api_name(trace.spec.operation.name if trace.spec else "")
            fields = {"correlationId": trace.request_id, "operationName": operation}
            _log.error("request %s (%s) failed", trace.request_id, operation, exc_info=error, extra={"fields": fields})
            refusal = BlobError(ErrorCode.INTERNAL_ERROR)
        trace.code = refusal.code.code
        return refusals.error_answer(refusal, trace.raw.method, trace.request_id, self._node.clock() // 100)

    async def _add_cors(self, trace: Trace, response: Response) -> None:
        """Cross-origin headers, when the account has rules. A storage that fails here costs the headers, no more."""
        request, account = trace.request, trace.account
        if account is None or request is None or request.method == "OPTIONS":
            return
        try:
            properties = await service_properties(account)
        except Exception as error:
            if refusals.refusal(error) is None:
                fields = {"correlationId": trace.request_id}
                _log.error("request %s: no CORS rules", trace.request_id, exc_info=error, extra={"fields": fields})
            return
        response.headers += cors.response_headers(properties.cors, request.method, request.header("origin"))

    def _finish(self, trace: Trace, response: Response) -> None:
        """The headers that every answer has; Date is the connection's."""
        version = trace.request.version if trace.request else ""
        if not version:
            version = versions.echoed_version(trace.raw.headers.get("x-ms-version"))
        response.headers += [
            ("Server", SERVER),
            ("x-ms-request-id", trace.request_id),
            ("x-ms-version", version),
        ]
        client_id = refusals.echoed_client_id(trace.raw.headers.get("x-ms-client-request-id"))
        if client_id is not None:
            response.headers.append(("x-ms-client-request-id", client_id))


def _request(raw: RawRequest, address: Address) -> Request:
    return Request(
        method=raw.method,
        target=raw.target,
        headers=raw.headers,
        resource=address.resource,
        query=address.query,
        secure=raw.secure,
        peer=raw.peer,
        host=raw.headers.get("host", ""),
        content_length=raw.content_length,
        chunked=raw.chunked,
    )


def _no_policies(_: str) -> tuple[AccessPolicy, ...] | None:
    return None


def _not_public(_: str) -> PublicAccess:
    return PublicAccess.NONE


def _policies_of(container: ContainerState) -> Policies:
    return lambda _: container.properties.policies


def _publicity_of(container: ContainerState) -> Publicity:
    return lambda _: container.properties.public_access


def _default_version(properties: ServiceProperties) -> str:
    """What a request without a version is answered as (REST page "Set Blob Service Properties")."""
    return properties.default_service_version or versions.NEWEST


def _check_part(request: Request, outer: Call) -> None:
    """REST page "Blob Batch": the parts of a batch stay in its account, those of a container's batch in it."""
    batch, part = outer.request.resource, request.resource
    if part.account != batch.account or (batch.container and part.container != batch.container):
        raise BlobError(ErrorCode.INVALID_INPUT, reason="The part addresses another resource than its batch.")


def _check_supported(request: Request, spec: OperationSpec) -> None:
    """Refuse what would otherwise be ignored. Raises BlobError FeatureNotSupported, InvalidQueryParameterValue."""
    headers, query = request.headers, request.query
    if not _UNSUPPORTED_HEADERS.isdisjoint(headers):
        name = min(_UNSUPPORTED_HEADERS & headers.keys())
        raise BlobError(ErrorCode.FEATURE_NOT_SUPPORTED, header_name=name)
    if "versionid" in query:
        raise BlobError(ErrorCode.FEATURE_NOT_SUPPORTED, query_name="versionid")
    if "snapshot" in query and spec.operation not in _WITH_SNAPSHOT:
        raise BlobError(
            ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="snapshot", query_value=query["snapshot"][:64]
        )


def _unknown_account(request: Request) -> BlobError:
    """An account that is not served here: a credential does not fit it, and without one there is nothing."""
    if request.header("authorization") is not None or "sig" in request.query:
        return BlobError(ErrorCode.AUTHENTICATION_FAILED)
    return BlobError(ErrorCode.RESOURCE_NOT_FOUND)


def _refused(message: str) -> BlobError:
    return BlobError(ErrorCode.AUTHORIZATION_FAILURE, message=message)
