"""Rows of the operations on the account."""

from collections.abc import Mapping
from typing import Final

from dataplane.blobapi.errors import ErrorCode as E
from dataplane.blobapi.operations import Operation as O
from tests.wire.rows import NOBODY, OLD_VERSION, Row

_PROPERTIES: Final = "/?restype=service&comp=properties"
_PREFLIGHT: Final = {"origin": "https://a.example", "access-control-request-method": "PUT"}
_BATCH_TYPE: Final = {"content-type": "multipart/mixed; boundary=b"}
_LIST: Final = "GET /?comp=list&prefix={container}"
_FIND: Final = "GET /?comp=blobs"


def _document(inner: str) -> bytes:
    return f"<StorageServiceProperties>{inner}</StorageServiceProperties>".encode()


def _rule(**parts: str) -> bytes:
    defaults = {"AllowedOrigins": "*", "AllowedMethods": "GET", "MaxAgeInSeconds": "1"} | parts
    inner = "".join(f"<{tag}>{text}</{tag}>" for tag, text in defaults.items())
    return _document(f"<Cors><CorsRule>{inner}</CorsRule></Cors>")


def batch(*requests: str, kind: str = "application/http", blob: str = "b") -> bytes:
    """The body of a batch whose parts are these request lines, anonymous. `{path}` is the blob's."""
    parts = "".join(
        f"--b\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {number}\r\n\r\n"
        f"{line} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        for number, line in enumerate(requests)
    )
    return (parts.replace("{path}", f"/{{account}}/{{container}}/{blob}") + "--b--\r\n").encode()


_DELETE: Final = batch("DELETE {path}")

SERVICE_ROWS: Final[Mapping[O, tuple[Row, ...]]] = {
    O.PREFLIGHT: (
        Row(
            "OPTIONS b",
            200,
            {**_PREFLIGHT, "access-control-request-headers": "x-ms-date"},
            given="cors",
            who=NOBODY,
            version=None,
            shows="access-control-allow-origin=https://a.example access-control-allow-methods=PUT "
            "access-control-allow-headers=x-ms-date access-control-max-age=60 access-control-allow-credentials=true",
        ),
        Row("OPTIONS b", E.CORS_PREFLIGHT_FAILURE, {**_PREFLIGHT, "origin": "https://b"}, given="cors", who=NOBODY),
        Row(
            "OPTIONS b",
            E.CORS_PREFLIGHT_FAILURE,
            {**_PREFLIGHT, "access-control-request-method": "DELETE"},
            given="cors",
            who=NOBODY,
        ),
        Row(
            "OPTIONS b",
            E.CORS_PREFLIGHT_FAILURE,
            {**_PREFLIGHT, "access-control-request-headers": "x-other"},
            given="cors",
            who=NOBODY,
        ),
        Row("OPTIONS b", E.INVALID_HEADER_VALUE, {"origin": "https://a.example"}, given="cors", who=NOBODY),
    ),
    O.LIST_CONTAINERS: (
        Row(
            _LIST,
            200,
            shows="content-type=application/xml",
            text=("<Name>{container}</Name>", "<NextMarker />", "<Prefix>{container}</Prefix>"),
        ),
        Row(_LIST + "&include=metadata", 200, text=("<Metadata />",)),
        Row(_LIST + "&include=metadata,deleted,system&maxresults=1", 200, text=("<MaxResults>1</MaxResults>",)),
        Row(_LIST + "&marker=/{account}/zzz", 200, text=("<Containers />",)),
        Row(_LIST + "&maxresults=0", E.OUT_OF_RANGE_QUERY_PARAMETER_VALUE),
        Row(_LIST + "&maxresults=many", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_LIST + "&include=everything", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_LIST + "&marker=/someone/else", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_LIST, 200, given="container-lease", text=("<LeaseState>leased</LeaseState>",)),
        Row(_LIST, 200, given="public", text=("<PublicAccess>container</PublicAccess>",)),
        Row("DELETE /?comp=list", E.UNSUPPORTED_HTTP_VERB),
        Row("GET /?comp=nonsense", E.INVALID_QUERY_PARAMETER_VALUE),
    ),
    O.GET_SERVICE_PROPERTIES: (
        Row(
            "GET " + _PROPERTIES,
            200,
            shows="content-type=application/xml",
            text=("<Logging>", "<HourMetrics>", "<MinuteMetrics>", "<DeleteRetentionPolicy>", "<StaticWebsite>"),
        ),
        Row("GET " + _PROPERTIES, 200, given="cors", text=("<AllowedOrigins>https://a.example</AllowedOrigins>",)),
        Row("GET " + _PROPERTIES, 200, version="2015-02-21", text=("<Cors>",), given="cors"),
    ),
    O.SET_SERVICE_PROPERTIES: (
        Row("PUT " + _PROPERTIES, 202, {"content-type": "application/xml"}, _document("<Cors />")),
        Row("PUT " + _PROPERTIES, 202, body=_document("<DefaultServiceVersion />")),
        Row(
            "PUT " + _PROPERTIES,
            202,
            body=_document("<StaticWebsite><Enabled>false</Enabled></StaticWebsite>"),
            why="static website",
        ),
        Row("PUT " + _PROPERTIES, E.INVALID_XML_DOCUMENT, body=b"<a", why="not well formed"),
        Row("PUT " + _PROPERTIES, E.INVALID_XML_DOCUMENT, body=b"", why="no body"),
        Row("PUT " + _PROPERTIES, E.INVALID_XML_DOCUMENT, body=_document("<Junk />"), why="unknown element"),
        Row("PUT " + _PROPERTIES, E.INVALID_XML_DOCUMENT, body=_document("<Cors /><Cors />"), why="twice"),
        Row(
            "PUT " + _PROPERTIES,
            E.INVALID_XML_DOCUMENT,
            body=_document("<Cors>" + "<CorsRule/>" * 6 + "</Cors>"),
            why="six rules",
        ),
        Row(
            "PUT " + _PROPERTIES,
            E.INVALID_XML_DOCUMENT,
            body=_document("<DeleteRetentionPolicy><Enabled>true</Enabled><Days>366</Days></DeleteRetentionPolicy>"),
            why="366 days",
        ),
        Row("PUT " + _PROPERTIES, E.INVALID_XML_NODE_VALUE, body=_rule(AllowedMethods="BREW"), why="no method"),
        Row("PUT " + _PROPERTIES, E.INVALID_XML_NODE_VALUE, body=_rule(MaxAgeInSeconds="-1"), why="negative age"),
        Row(
            "PUT " + _PROPERTIES,
            E.INVALID_XML_NODE_VALUE,
            body=_document("<DefaultServiceVersion>yesterday</DefaultServiceVersion>"),
            why="no version",
        ),
        Row("PUT " + _PROPERTIES, E.REQUEST_BODY_TOO_LARGE, body=b" " * 70_000, why="70,000 bytes"),
    ),
    O.GET_SERVICE_STATS: (
        Row(
            "GET /?restype=service&comp=stats",
            E.INVALID_QUERY_PARAMETER_VALUE,
            why="only the secondary answers; test_protocol.py asks it",
        ),
    ),
    O.GET_USER_DELEGATION_KEY: (
        Row(
            "POST /?restype=service&comp=userdelegationkey",
            E.AUTHENTICATION_FAILED,
            {"content-type": "application/xml"},
            b"<KeyInfo><Start>2026-01-01T00:00:00Z</Start><Expiry>2026-01-02T00:00:00Z</Expiry></KeyInfo>",
            text=("Only authentication scheme Bearer is supported",),
        ),
    ),
    O.GET_ACCOUNT_INFORMATION: (
        Row(
            "GET /?restype=account&comp=properties",
            200,
            shows="x-ms-sku-name=Standard_LRS x-ms-account-kind=StorageV2 x-ms-is-hns-enabled=false",
        ),
        Row("HEAD /?restype=account&comp=properties", 200, shows="x-ms-sku-name x-ms-account-kind"),
        Row("GET ?restype=account&comp=properties", 200, shows="x-ms-sku-name x-ms-account-kind"),
        Row("GET b?restype=account&comp=properties", 200, shows="x-ms-sku-name x-ms-account-kind"),
        Row("GET /?restype=account&comp=properties", 200, version=OLD_VERSION, hides="x-ms-is-hns-enabled"),
        Row("PUT /?restype=account&comp=properties", E.UNSUPPORTED_HTTP_VERB),
    ),
    O.SERVICE_BATCH: (
        Row(
            "POST /?comp=batch",
            202,
            _BATCH_TYPE,
            batch("DELETE {path}?{sas}", "DELETE {path}?{sas}"),
            given="blob",
            shows="content-type",
            text=("HTTP/1.1 202 Accepted", "Content-ID: 1", "HTTP/1.1 404 The specified blob does not exist."),
        ),
        Row(
            "POST /?comp=batch",
            202,
            _BATCH_TYPE,
            _DELETE,
            given="blob",
            text=("HTTP/1.1 404 ", "ResourceNotFound"),
            why="each part is authorised on its own",
        ),
        Row(
            "POST /?comp=batch",
            202,
            _BATCH_TYPE,
            batch("PUT {path}?comp=tier&{sas}"),
            given="blob",
            text=("HTTP/1.1 400 ", "MissingRequiredHeader"),
        ),
        Row("POST /?comp=batch&restype=container", 202, _BATCH_TYPE, _DELETE, given="blob"),
        Row("POST /?comp=batch", E.INVALID_HEADER_VALUE, {"content-type": "text/plain"}, _DELETE),
        Row("POST /?comp=batch", E.MISSING_REQUIRED_HEADER, {}, _DELETE),
        Row("POST /?comp=batch", 202, _BATCH_TYPE, b"junk", text=("InvalidInput",)),
        Row("POST /?comp=batch", 202, _BATCH_TYPE, batch("GET {path}"), text=("InvalidInput",)),
        Row(
            "POST /?comp=batch",
            202,
            _BATCH_TYPE,
            batch("DELETE {path}", "PUT {path}?comp=tier"),
            text=("InvalidInput",),
            why="two kinds of parts",
        ),
        Row(
            "POST /?comp=batch",
            202,
            _BATCH_TYPE,
            batch(*["DELETE {path}"] * 257),
            text=("ExceedsMaxBatchRequestCount",),
            why="257 parts",
        ),
        Row("POST /?comp=batch", E.REQUEST_BODY_TOO_LARGE, _BATCH_TYPE, b" " * (4 * 1024 * 1024 + 1), why="5 MiB"),
    ),
    O.FIND_BLOBS_BY_TAGS: (
        Row(
            _FIND + "&where=@container = '{container}' AND \"a\" = '1'",
            200,
            given="tagged",
            shows="content-type=application/xml",
            text=("<Name>b</Name>", "<Key>a</Key>", "<Where>", "<ContainerName>{container}</ContainerName>"),
        ),
        Row(_FIND + "&where=\"a\" = 'none'&maxresults=1&marker=", 200, text=("<Blobs />", "<NextMarker />")),
        Row(_FIND, E.MISSING_REQUIRED_QUERY_PARAMETER),
        Row(_FIND + "&where=nonsense", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_FIND + "&where=a > '1' AND a > '2'", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_FIND + "&where=a = '1'&marker=junk", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_FIND + "&where=a = '1'&maxresults=0", E.OUT_OF_RANGE_QUERY_PARAMETER_VALUE),
    ),
}
