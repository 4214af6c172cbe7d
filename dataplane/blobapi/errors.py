"""Azure's error codes with their status and message, in one table, and the exception that carries one.

Every refusal of a request is a BlobError. The messages are Azure's (REST pages "Common REST API error codes" and "Blob
Storage error codes"; where a recording of the service has another wording, the recording's). Whatever else escapes a
handler is a bug of ours and becomes InternalError.
"""

from enum import Enum, unique
from typing import Final
from xml.sax.saxutils import escape


@unique
class ErrorCode(Enum):
    """(code on the wire, HTTP status, message). Codes that Azure sends with two statuses have an entry for each."""

    # --- 304: a read whose cache is still good ---
    NOT_MODIFIED = ("ConditionNotMet", 304, "The condition specified using HTTP conditional header(s) is not met.")

    # --- 400 ---
    BLOCK_LIST_TOO_LONG = ("BlockListTooLong", 400, "The block list may not contain more than 50,000 blocks.")
    BOTH_CHECKSUMS = (
        "BothCrc64AndMd5HeaderPresent",
        400,
        "Both x-ms-content-crc64 header and Content-MD5 header are present.",
    )
    CONDITION_HEADERS_NOT_SUPPORTED = (
        "ConditionHeadersNotSupported",
        400,
        "Condition headers are not supported.",
    )
    COPY_ID_MISMATCH = ("CopyIdMismatch", 409, "The specified copy ID did not match the copy ID for the pending copy.")
    CRC64_MISMATCH = (
        "Crc64Mismatch",
        400,
        "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.",
    )
    DUPLICATE_TAG_NAMES = ("DuplicateTagNames", 400, "The tags specified contain duplicate tag names.")
    EMPTY_METADATA_KEY = (
        "EmptyMetadataKey",
        400,
        "The key for one of the metadata key-value pairs is empty.",
    )
    EMPTY_TAG_NAME = ("EmptyTagName", 400, "The name of one of the tag key-value pairs is empty.")
    INVALID_AUTHENTICATION_INFO = (
        "InvalidAuthenticationInfo",
        400,
        "The authentication information was not provided in the correct format. "
        "Verify the value of Authorization header.",
    )
    INVALID_BLOB_OR_BLOCK = ("InvalidBlobOrBlock", 400, "The specified blob or block content is invalid.")
    INVALID_BLOB_TIER = ("InvalidBlobTier", 400, "The specified blob tier is invalid.")
    INVALID_BLOCK_ID = (
        "InvalidBlockId",
        400,
        "The specified block ID is invalid. The block ID must be Base64-encoded.",
    )
    INVALID_BLOCK_LIST = ("InvalidBlockList", 400, "The specified block list is invalid.")
    INVALID_HEADER_VALUE = (
        "InvalidHeaderValue",
        400,
        "The value for one of the HTTP headers is not in the correct format.",
    )
    INVALID_INPUT = ("InvalidInput", 400, "One of the request inputs is not valid.")
    INVALID_MD5 = (
        "InvalidMd5",
        400,
        "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and base64 encoded.",
    )
    INVALID_METADATA = (
        "InvalidMetadata",
        400,
        "The metadata specified is invalid. It has characters that are not permitted.",
    )
    INVALID_OPERATION = ("InvalidOperation", 400, "The operation is not valid for this resource.")
    INVALID_QUERY_PARAMETER_VALUE = (
        "InvalidQueryParameterValue",
        400,
        "Value for one of the query parameters specified in the request URI is invalid.",
    )
    INVALID_RESOURCE_NAME = (
        "InvalidResourceName",
        400,
        "The specifed resource name contains invalid characters.",
    )
    INVALID_SOURCE_BLOB_TYPE = (
        "InvalidSourceBlobType",
        409,
        "The copy source blob type is invalid for this operation.",
    )
    INVALID_TAG = ("InvalidTags", 400, "The tags specified are invalid. It contains characters that are not permitted.")
    INVALID_URI = ("InvalidUri", 400, "The requested URI does not represent any resource on the server.")
    INVALID_XML_DOCUMENT = ("InvalidXmlDocument", 400, "XML specified is not syntactically valid.")
    INVALID_XML_NODE_VALUE = (
        "InvalidXmlNodeValue",
        400,
        "The value for one of the XML nodes is not in the correct format.",
    )
    MD5_MISMATCH = (
        "Md5Mismatch",
        400,
        "The MD5 value specified in the request did not match with the MD5 value calculated by the server.",
    )
    METADATA_TOO_LARGE = ("MetadataTooLarge", 400, "The metadata specified exceeds the maximum allowed limit (8KB).")
    MISSING_REQUIRED_HEADER = (
        "MissingRequiredHeader",
        400,
        "An HTTP header that's mandatory for this request is not specified.",
    )
    MISSING_REQUIRED_QUERY_PARAMETER = (
        "MissingRequiredQueryParameter",
        400,
        "A query parameter that's mandatory for this request is not specified.",
    )
    MISSING_REQUIRED_XML_NODE = (
        "MissingRequiredXmlNode",
        400,
        "A required XML node was not specified in the request body.",
    )
    MULTIPLE_CONDITION_HEADERS_NOT_SUPPORTED = (
        "MultipleConditionHeadersNotSupported",
        400,
        "Multiple condition headers are not supported.",
    )
    OUT_OF_RANGE_INPUT = ("OutOfRangeInput", 400, "One of the request inputs is out of range.")
    OUT_OF_RANGE_QUERY_PARAMETER_VALUE = (
        "OutOfRangeQueryParameterValue",
        400,
        "One of the query parameters specified in the request URI is outside the permissible range.",
    )
    REQUEST_URL_FAILED_TO_PARSE = ("RequestUrlFailedToParse", 400, "The url in the request could not be parsed.")
    TAGS_TOO_LARGE = ("TagsTooLarge", 400, "The tags specified exceed the maximum allowed limit.")
    UNSATISFIABLE_CONDITION = (
        "UnsatisfiableCondition",
        400,
        "The request includes an unsatisfiable condition for this operation.",
    )
    UNSUPPORTED_HEADER = (
        "UnsupportedHeader",
        400,
        "One of the HTTP headers specified in the request is not supported.",
    )
    UNSUPPORTED_QUERY_PARAMETER = (
        "UnsupportedQueryParameter",
        400,
        "One of the query parameters specified in the request URI is not supported.",
    )
    UNSUPPORTED_XML_NODE = (
        "UnsupportedXmlNode",
        400,
        "One of the XML nodes specified in the request body is not supported.",
    )
    EXCEEDS_MAX_BATCH_REQUEST_COUNT = (
        "ExceedsMaxBatchRequestCount",
        400,
        "The batch operation exceeds maximum number of allowed subrequests.",
    )
    FEATURE_NOT_SUPPORTED = (
        "FeatureNotSupported",
        400,
        "This operation is not supported by this server.",
    )

    # --- 401, 403 ---
    NO_AUTHENTICATION_INFORMATION = (
        "NoAuthenticationInformation",
        401,
        "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.",
    )
    AUTHENTICATION_FAILED = (
        "AuthenticationFailed",
        403,
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly "
        "including the signature.",
    )
    AUTHORIZATION_FAILURE = ("AuthorizationFailure", 403, "This request is not authorized to perform this operation.")
    AUTHORIZATION_PERMISSION_MISMATCH = (
        "AuthorizationPermissionMismatch",
        403,
        "This request is not authorized to perform this operation using this permission.",
    )
    AUTHORIZATION_PROTOCOL_MISMATCH = (
        "AuthorizationProtocolMismatch",
        403,
        "This request is not authorized to perform this operation using this protocol.",
    )
    AUTHORIZATION_RESOURCE_TYPE_MISMATCH = (
        "AuthorizationResourceTypeMismatch",
        403,
        "This request is not authorized to perform this operation using this resource type.",
    )
    AUTHORIZATION_SERVICE_MISMATCH = (
        "AuthorizationServiceMismatch",
        403,
        "This request is not authorized to perform this operation using this service.",
    )
    AUTHORIZATION_SOURCE_IP_MISMATCH = (
        "AuthorizationSourceIPMismatch",
        403,
        "This request is not authorized to perform this operation using this source IP {0}.",
    )
    CORS_PREFLIGHT_FAILURE = (
        "CorsPreflightFailure",
        403,
        "CORS not enabled or no matching rule found for this request.",
    )
    PUBLIC_ACCESS_NOT_PERMITTED = (
        "PublicAccessNotPermitted",
        409,
        "Public access is not permitted on this storage account.",
    )
    UNAUTHORIZED_BLOB_OVERWRITE = (
        "UnauthorizedBlobOverwrite",
        403,
        "This request is not authorized to perform blob overwrites.",
    )
    CANNOT_VERIFY_COPY_SOURCE_403 = (
        "CannotVerifyCopySource",
        403,
        "This request is not authorized to perform this operation.",
    )

    # --- 404, 405 ---
    BLOB_NOT_FOUND = ("BlobNotFound", 404, "The specified blob does not exist.")
    CANNOT_VERIFY_COPY_SOURCE_404 = ("CannotVerifyCopySource", 404, "The specified resource does not exist.")
    CONTAINER_NOT_FOUND = ("ContainerNotFound", 404, "The specified container does not exist.")
    RESOURCE_NOT_FOUND = ("ResourceNotFound", 404, "The specified resource does not exist.")
    UNSUPPORTED_HTTP_VERB = ("UnsupportedHttpVerb", 405, "The resource doesn't support specified Http Verb.")

    # --- 408, 409 ---
    REQUEST_TIMEOUT = ("RequestTimeout", 408, "The request body was not received in time.")
    BLOB_ALREADY_EXISTS = ("BlobAlreadyExists", 409, "The specified blob already exists.")
    BLOB_ARCHIVED = ("BlobArchived", 409, "This operation is not permitted on an archived blob.")
    BLOB_BEING_REHYDRATED = (
        "BlobBeingRehydrated",
        409,
        "This operation is not permitted because the blob is being rehydrated.",
    )
    BLOB_IMMUTABLE = (
        "BlobImmutableDueToPolicy",
        409,
        "This operation is not permitted as the blob is immutable due to a policy.",
    )
    BLOCK_COUNT_EXCEEDS_LIMIT = (
        "BlockCountExceedsLimit",
        409,
        "The uncommitted block count cannot exceed the maximum limit of 100,000 blocks.",
    )
    CONTAINER_ALREADY_EXISTS = ("ContainerAlreadyExists", 409, "The specified container already exists.")
    CONTAINER_BEING_DELETED = (
        "ContainerBeingDeleted",
        409,
        "The specified container is being deleted. Try operation later.",
    )
    INVALID_BLOB_TYPE = ("InvalidBlobType", 409, "The blob type is invalid for this operation.")
    LEASE_ALREADY_BROKEN = (
        "LeaseAlreadyBroken",
        409,
        "The lease has already been broken and cannot be broken again.",
    )
    LEASE_ALREADY_PRESENT = ("LeaseAlreadyPresent", 409, "There is already a lease present.")
    LEASE_ID_MISMATCH_WITH_LEASE_OPERATION = (
        "LeaseIdMismatchWithLeaseOperation",
        409,
        "The lease ID specified did not match the lease ID for the {resource}.",
    )
    LEASE_IS_BREAKING_AND_CANNOT_BE_ACQUIRED = (
        "LeaseIsBreakingAndCannotBeAcquired",
        409,
        "The lease ID matched, but the lease is currently in breaking state and cannot be acquired until it is broken.",
    )
    LEASE_IS_BREAKING_AND_CANNOT_BE_CHANGED = (
        "LeaseIsBreakingAndCannotBeChanged",
        409,
        "The lease ID matched, but the lease is currently in breaking state and cannot be changed.",
    )
    LEASE_IS_BROKEN_AND_CANNOT_BE_RENEWED = (
        "LeaseIsBrokenAndCannotBeRenewed",
        409,
        "The lease ID matched, but the lease has been broken explicitly and cannot be renewed.",
    )
    LEASE_NOT_PRESENT_WITH_LEASE_OPERATION = (
        "LeaseNotPresentWithLeaseOperation",
        409,
        "There is currently no lease on the {resource}.",
    )
    NO_PENDING_COPY_OPERATION = ("NoPendingCopyOperation", 409, "There is currently no pending copy operation.")
    PENDING_COPY_OPERATION = ("PendingCopyOperation", 409, "There is currently a pending copy operation.")
    SNAPSHOTS_PRESENT = (
        "SnapshotsPresent",
        409,
        "This operation is not permitted because the blob has snapshots.",
    )

    # --- 411, 412, 413, 416 ---
    MISSING_CONTENT_LENGTH = (
        "MissingContentLengthHeader",
        411,
        "The content length header was not specified.",
    )
    CONDITION_NOT_MET = (
        "ConditionNotMet",
        412,
        "The condition specified using HTTP conditional header(s) is not met.",
    )
    CANNOT_VERIFY_COPY_SOURCE_412 = (
        "CannotVerifyCopySource",
        412,
        "Could not verify the copy source within the specified time.",
    )
    CANNOT_VERIFY_COPY_SOURCE_304 = (
        "CannotVerifyCopySource",
        304,
        "The condition specified using HTTP conditional header(s) is not met.",
    )
    LEASE_ID_MISMATCH_WITH_BLOB_OPERATION = (
        "LeaseIdMismatchWithBlobOperation",
        412,
        "The lease ID specified did not match the lease ID for the blob.",
    )
    LEASE_ID_MISMATCH_WITH_CONTAINER_OPERATION = (
        "LeaseIdMismatchWithContainerOperation",
        412,
        "The lease ID specified did not match the lease ID for the container.",
    )
    LEASE_ID_MISSING = (
        "LeaseIdMissing",
        412,
        "There is currently a lease on the {resource} and no lease ID was specified in the request.",
    )
    LEASE_LOST = ("LeaseLost", 412, "A lease ID was specified, but the lease for the {resource} has expired.")
    LEASE_NOT_PRESENT_WITH_BLOB_OPERATION = (
        "LeaseNotPresentWithBlobOperation",
        412,
        "There is currently no lease on the blob.",
    )
    LEASE_NOT_PRESENT_WITH_CONTAINER_OPERATION = (
        "LeaseNotPresentWithContainerOperation",
        412,
        "There is currently no lease on the container.",
    )
    SOURCE_CONDITION_NOT_MET = (
        "SourceConditionNotMet",
        412,
        "The source condition specified using HTTP conditional header(s) is not met.",
    )
    TARGET_CONDITION_NOT_MET = (
        "TargetConditionNotMet",
        412,
        "The target condition specified using HTTP conditional header(s) is not met.",
    )
    REQUEST_BODY_TOO_LARGE = (
        "RequestBodyTooLarge",
        413,
        "The request body is too large and exceeds the maximum permissible limit.",
    )
    INVALID_RANGE = (
        "InvalidRange",
        416,
        "The range specified is invalid for the current size of the resource.",
    )

    # --- 5xx: ours, or the storage's ---
    INTERNAL_ERROR = (
        "InternalError",
        500,
        "Server encountered an internal error. Please try again after some time.",
    )
    OPERATION_TIMED_OUT = (
        "OperationTimedOut",
        500,
        "The operation could not be completed within the permitted time. It may or may not have succeeded.",
    )
    NOT_IMPLEMENTED = ("NotImplemented", 501, "The requested operation is not implemented on the specified resource.")
    SERVER_BUSY = (
        "ServerBusy",
        503,
        "The server is currently unable to receive requests. Please retry your request.",
    )
    OUT_OF_SPACE = (
        "InsufficientStorage",
        503,
        "The storage behind this server has no space left. Free space on it, then retry.",
    )

    def __init__(self, code: str, status: int, message: str) -> None:
        self.code = code
        self.status = status
        self.message = message


class BlobError(Exception):
    """A refusal that Azure defines: a code of the table, and the extra XML nodes that Azure adds for some of them.

    `resource` fills the {resource} of lease messages ("blob" or "container"); `headers` are sent with the answer
    (Content-Range of a 416, Retry-After of a 503); `close` asks the server to close the connection after it.
    """

    def __init__(
        self,
        code: ErrorCode,
        *,
        message: str | None = None,
        header_name: str | None = None,
        header_value: str | None = None,
        query_name: str | None = None,
        query_value: str | None = None,
        reason: str | None = None,
        resource: str = "blob",
        detail: tuple[tuple[str, str], ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(code.code)
        self.code = code
        self.message = message or code.message.replace("{resource}", resource)
        nodes = [
            ("HeaderName", header_name),
            ("HeaderValue", header_value),
            ("QueryParameterName", query_name),
            ("QueryParameterValue", query_value),
            ("Reason", reason),
        ]
        self.detail = tuple((name, value) for name, value in nodes if value is not None) + detail
        self.headers = headers
        self.close = close


#: XML 1.0 forbids these even escaped; in an error they are shown as U+FFFD.
_XML_UNSAFE: Final = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 65534, 65535, *range(55296, 57344)), 65533)


def error_body(error: BlobError, request_id: str, time_iso: str) -> bytes:
    """The XML body of an error, with a BOM as Azure sends it. `time_iso` is an ISO 8601 instant with seven decimals."""

    def text(value: str) -> str:
        return escape(value.translate(_XML_UNSAFE))

    nodes = "".join(f"<{name}>{text(value)}</{name}>" for name, value in error.detail)
    xml = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{error.code.code}</Code><Message>{text(error.message)}\n'
        f"RequestId:{request_id}\nTime:{time_iso}</Message>{nodes}</Error>"
    )
    return b"\xef\xbb\xbf" + xml.encode("utf-8")
