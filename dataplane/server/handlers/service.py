"""Operations on the account's Blob service: properties, account information, statistics, preflight requests."""

from collections.abc import Mapping
from typing import Final

from dataplane.blobapi import cors, limits, serviceproperties, xmlcodec
from dataplane.blobapi.dates import http_date
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Response
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.shared import XML
from dataplane.server.serviceprops import service_properties

SKU: Final = "Standard_LRS"
KIND: Final = "StorageV2"
_HNS_SHOWN_SINCE: Final = "2019-07-07"


async def get_service_properties(call: Call) -> Response:
    """REST page "Get Blob Service Properties"."""
    properties = await service_properties(call.account)
    return Response(200, [XML], serviceproperties.render(properties, call.version))


async def set_service_properties(call: Call) -> Response:
    """REST page "Set Blob Service Properties". Sections that the document leaves out stay; of two concurrent changes to
    different sections the later one may win whole, as in the service."""
    body = await call.body.read_all(limits.service_properties_bytes_max)
    current = await service_properties(call.account)
    changed = serviceproperties.update(current, body)
    await call.write(call.store.set_service_properties(serviceproperties.dump(changed)))
    return Response(202)


async def get_account_information(call: Call) -> Response:
    """REST page "Get Account Information": the same answer for the account, a container and a blob of it."""
    headers = [("x-ms-sku-name", SKU), ("x-ms-account-kind", KIND)]
    if call.version >= _HNS_SHOWN_SINCE:
        headers.append(("x-ms-is-hns-enabled", "false"))
    return Response(200, headers)


async def get_service_stats(call: Call) -> Response:
    """REST page "Get Blob Service Stats": only the secondary answers. Here both names mean the same data, so the
    secondary is always live and in step. Raises BlobError InvalidQueryParameterValue on the primary."""
    if not call.secondary:
        raise BlobError(ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="comp", query_value="stats")
    body = xmlcodec.document(
        [
            "<StorageServiceStats><GeoReplication>",
            xmlcodec.node("Status", "live"),
            xmlcodec.node("LastSyncTime", http_date(call.now)),
            "</GeoReplication></StorageServiceStats>",
        ]
    )
    return Response(200, [XML], body)


async def get_user_delegation_key(call: Call) -> Response:
    """REST page "Get User Delegation Key": only for a caller that Entra ID vouches for, and none such gets this far.

    Raises BlobError AuthenticationFailed, as the service does for an account key.
    """
    detail = (("AuthenticationErrorDetail", "Only authentication scheme Bearer is supported"),)
    raise BlobError(ErrorCode.AUTHENTICATION_FAILED, detail=detail)


async def preflight(call: Call) -> Response:
    """REST page "Preflight Blob Request". Raises BlobError CorsPreflightFailure, InvalidHeaderValue."""
    properties = await service_properties(call.account)
    return Response(200, cors.preflight(properties.cors, call.request.headers))


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.GET_SERVICE_PROPERTIES: get_service_properties,
    Operation.SET_SERVICE_PROPERTIES: set_service_properties,
    Operation.GET_ACCOUNT_INFORMATION: get_account_information,
    Operation.GET_SERVICE_STATS: get_service_stats,
    Operation.GET_USER_DELEGATION_KEY: get_user_delegation_key,
    Operation.PREFLIGHT: preflight,
}
