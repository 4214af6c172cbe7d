"""Where the product's answer differs from Azurite's, and why it stays so: the one table of accepted differences.

A pattern is searched in the line that azurite.Difference.line() writes, `OPERATION: what: ours / theirs [row]`; the
first that is found counts. A difference without one fails test_azurite.py, and so does an entry that no difference
needs any more. docs/api-coverage.md repeats this table for readers, and test_coverage_page.py compares the two.
"""

import re
from dataclasses import dataclass
from re import Pattern
from typing import Final

from dataplane.blobapi.operations import Operation as O

#: Operations that Azurite answers with 501 or 500 whatever is asked.
NOT_IN_AZURITE: Final = frozenset(
    {O.PUT_BLOB_FROM_URL, O.PUT_BLOCK_FROM_URL, O.GET_USER_DELEGATION_KEY, O.CONTAINER_BATCH, O.GET_SERVICE_STATS}
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted difference: what is seen, and why. `basis` is what says that the product is right."""

    pattern: Pattern[str]
    here: str
    azurite: str
    basis: str


def _accept(pattern: str, here: str, azurite: str, basis: str) -> Accepted:
    return Accepted(re.compile(pattern), here, azurite, basis)


_RECORDED: Final = "recorded answers of Azure"

ACCEPTED: Final[tuple[Accepted, ...]] = (
    # --- headers of every answer ---
    _accept(r"^\w+: x-ms-version: sent", "x-ms-version echoes the request's", "sent on some successes only", _RECORDED),
    _accept(
        r"^\w+: x-ms-client-request-id: sent",
        "x-ms-client-request-id comes back on refusals too",
        "on successes only",
        "REST page Common REST API response headers",
    ),
    _accept(r"^PREFLIGHT: x-ms-request-id", "preflight answers have a request id", "they have none", _RECORDED),
    # --- who may ---
    _accept(
        r"status: 403 AuthenticationFailed / 403 AuthorizationFailure",
        "a signature or token that does not verify is AuthenticationFailed",
        "AuthorizationFailure",
        "REST page Common REST API error codes",
    ),
    _accept(
        r"status: 401 NoAuthenticationInformation / 403",
        "no credential: 401 with a challenge, from version 2019-12-12 on",
        "403 AuthorizationFailure",
        "REST page Authorize with Microsoft Entra ID, bearer challenge",
    ),
    _accept(
        r"status: 404 ResourceNotFound / 403",
        "no credential and no version: 404, so that a private container looks like none",
        "403 AuthorizationFailure",
        "answers of Azure in public issue threads",
    ),
    _accept(
        r"status: 400 InvalidAuthenticationInfo / 403",
        "an Authorization header that cannot be read is InvalidAuthenticationInfo",
        "403 AuthorizationFailure",
        "REST page Common REST API error codes",
    ),
    _accept(
        r"status: 403 AuthorizationSourceIPMismatch",
        "sip of a SAS is enforced",
        "sip is ignored",
        "REST page Create an account SAS",
    ),
    _accept(
        r"status: 403 AuthorizationFailure / 403 AuthorizationPermissionMismatch",
        "an operation that no service SAS may call is AuthorizationFailure",
        "AuthorizationPermissionMismatch",
        "answers of Azure in public issue threads",
    ),
    _accept(
        r"status: 403 UnauthorizedBlobOverwrite",
        "overwriting with create permission alone is UnauthorizedBlobOverwrite",
        "AuthorizationPermissionMismatch",
        "REST page Blob Storage error codes",
    ),
    _accept(
        r"status: 403 CannotVerifyCopySource / (202|403)",
        "the source of a copy has to be readable on its own: key, SAS or public access",
        "any source of the same account may be copied by anybody who may write",
        "REST page Copy Blob, remarks on authorisation of the source",
    ),
    _accept(
        r"deletetype=permanent",
        "deleting for good takes the permission y",
        "it takes d",
        "REST page Create an account SAS",
    ),
    _accept(
        r"^GET_BLOB: status: 200 / 403 AuthorizationFailure .*sr=d",
        "directory SAS (sr=d) is taken",
        "refused",
        "REST page Create a service SAS",
    ),
    _accept(
        r"/locked/b",
        "a container can be mapped read-only by the configuration",
        "has no such container",
        "blobedge's own feature",
    ),
    # --- versions, features that are refused rather than ignored ---
    _accept(
        r"status: 400 InvalidHeaderValue / .*(no version|too old)",
        "x-ms-version has to be a date from 2014-02-14 on",
        "not looked at (the suite starts it with --skipApiVersionCheck)",
        "REST page Versioning for Azure Storage",
    ),
    _accept(
        r"status: 400 FeatureNotSupported",
        "versions, keys, scopes, immutability, append and page blobs: FeatureNotSupported",
        "ignored with --loose, or offered (append and page blobs)",
        "a client that asks for protection must not believe that it has it",
    ),
    # --- what is checked here ---
    _accept(
        r"status: 400 (MissingRequiredHeader|InvalidHeaderValue|InvalidQueryParameterValue|OutOfRangeQuery\w+"
        r"|InvalidXmlDocument|InvalidXmlNodeValue|InvalidTags|EmptyTagName|DuplicateTagNames|TagsTooLarge) / 400 \[",
        "a refusal names its code in x-ms-error-code and the body",
        "400 without a code, from its generated input checks",
        _RECORDED,
    ),
    _accept(
        r"status: 405 UnsupportedHttpVerb",
        "a method that the resource does not have is 405 UnsupportedHttpVerb",
        "400 without a code, or another operation is carried out",
        "REST page Common REST API error codes",
    ),
    _accept(
        r"status: .* / 500 ?\[",
        "refused with a code",
        "500",
        "a refusal is the client's fault and names it",
    ),
    _accept(
        r"status: 400 (OutOfRangeInput|InvalidUri) / .*\[\w+ (b{100}|b/b/b)",
        "blob names have at most 1,024 characters and 254 segments",
        "not checked",
        "REST page Naming and Referencing Containers, Blobs, and Metadata",
    ),
    _accept(
        r"status: 400 InvalidUri / .*%00",
        "a zero byte in a name is InvalidUri",
        "taken",
        "names that a file system cannot hold are refused",
    ),
    _accept(
        r"\$logs",
        "containers that the service makes for itself cannot be created or deleted",
        "they can",
        "REST page Create Container",
    ),
    _accept(
        r"status: 400 (EmptyMetadataKey|MetadataTooLarge)",
        "metadata has names, and at most 8 KiB",
        "not checked",
        "REST page Setting and Retrieving Properties and Metadata for Blob Resources",
    ),
    _accept(
        r"status: 400 (InvalidTags|EmptyTagName|DuplicateTagNames|TagsTooLarge) / ",
        "tags are checked: characters, count, length, names given twice",
        "less of it, and with other codes",
        "REST page Set Blob Tags",
    ),
    _accept(
        r"status: 400 (Md5Mismatch|InvalidMd5) / 400 InvalidOperation",
        "a wrong MD5 is Md5Mismatch, one that is none InvalidMd5",
        "InvalidOperation",
        _RECORDED,
    ),
    _accept(
        r"status: 400 (Md5Mismatch|InvalidMd5|Crc64Mismatch|BothCrc64AndMd5HeaderPresent) / 2",
        "every checksum that a request brings is compared",
        "only Content-MD5 of Put Blob and Put Block",
        "REST pages Put Block, Put Block List, Copy Blob From URL, Set Blob Tags",
    ),
    _accept(
        r"structured|no structured message",
        "structured bodies with checksums are decoded and encoded",
        "stored as they come, never sent",
        "azure-storage-blob from 12.25 on sends and asks for them",
    ),
    _accept(
        r"status: 413 RequestBodyTooLarge",
        "documents in requests have a bounded size",
        "any size",
        "a limit of blobedge; Azure's is not published",
    ),
    _accept(
        r"^PUT_BLOCK_LIST: status: 400 (BlockListTooLong|InvalidBlockId|InvalidXmlDocument)",
        "a block list has at most 50,000 entries, and is checked before its blocks are looked for",
        "InvalidBlockList, or taken",
        "REST page Put Block List",
    ),
    _accept(
        r"^PUT_BLOCK: status: 400 InvalidBlockId",
        "a block id that is no base64 of 1 to 64 bytes is InvalidBlockId",
        "InvalidQueryParameterValue or OutOfRangeInput",
        "REST page Blob Storage error codes",
    ),
    _accept(
        r"^SET_(SERVICE_PROPERTIES|CONTAINER_ACL): status: 400 InvalidXml",
        "documents are checked whole: unknown elements, values that are none",
        "unknown elements are ignored",
        _RECORDED,
    ),
    _accept(
        r"^SET_CONTAINER_ACL: status: 200 / 400 .*an id alone",
        "a stored access policy may have an id alone",
        "400",
        "recorded answers of Azure (test_set_container_acl_with_empty_access_policy)",
    ),
    _accept(
        r"^(SERVICE_BATCH|\w+_CONTAINER\w*|PUT_BLOB|PUT_BLOCK|GET_BLOB): status: 400 InvalidHeaderValue",
        "header values are checked: public access, type of a batch, checksums, an empty block, MD5 without range",
        "less of it",
        "REST pages of the operations",
    ),
    _accept(
        r"^PUT_BLOB: status: 400 InvalidQueryParameterValue / 201 .*comp=nonsense",
        "a comp that is no operation is refused",
        "it is taken for Put Blob",
        "a write must not do something else than was asked",
    ),
    _accept(
        r"^GET_BLOB: status: 416 InvalidRange / 206",
        "a range that begins at the end, or in an empty blob, is 416",
        "206 without bytes",
        _RECORDED,
    ),
    _accept(
        r"status: 400 MissingRequiredQueryParameter / 400",
        "a missing parameter is MissingRequiredQueryParameter",
        "400 without a code",
        "REST page Common REST API error codes",
    ),
    _accept(
        r"^SET_BLOB_TIER: status: 400 InvalidHeaderValue",
        "a tier or priority that a block blob does not have is InvalidHeaderValue",
        "AccessTierNotSupportedForBlobType, which Azure does not have, or ignored",
        "answers of Azure in public issue threads",
    ),
    # --- conditions and leases ---
    _accept(
        r"^SNAPSHOT_BLOB: status: 412 ConditionNotMet / 304",
        "Snapshot Blob is a write: its conditions fail with 412",
        "304",
        _RECORDED,
    ),
    _accept(
        r"status: 400 InvalidHeaderValue / 20\d .*x-ms-if-tags=nonsense",
        "an x-ms-if-tags that cannot be read is refused",
        "ignored in places",
        "REST page Specifying conditional headers for Blob service operations",
    ),
    _accept(
        r"yesterday",
        "a date, or a snapshot, that cannot be read is refused",
        "it is ignored, or nothing is found",
        "REST page Specifying conditional headers for Blob service operations",
    ),
    _accept(
        r"status: 400 InvalidQueryParameterValue / .*snapshot=",
        "a snapshot that is no time is refused, and so is one where the operation has none",
        "the base blob is taken, or nothing is found",
        "a write must not hit another blob than the one named",
    ),
    _accept(
        r"status: 400 InvalidQueryParameterValue / 200 .*(marker=|include=|showonly=|where=)",
        "list parameters that mean nothing are refused",
        "ignored",
        "REST pages List Blobs, List Containers, Find Blobs by Tags",
    ),
    _accept(
        r"status: 400 (ConditionHeadersNotSupported|MultipleConditionHeadersNotSupported)",
        "conditions that an operation does not take are refused",
        "ignored",
        "REST page Specifying conditional headers for Blob service operations",
    ),
    _accept(
        r"status: 412 ConditionNotMet / 20\d .*(x-ms-if-tags|x-ms-blob-if)",
        "conditions on tags, and those of the tag operations, are evaluated",
        "ignored in places",
        "REST pages Get Blob Tags, Set Blob Tags, Set Blob Tier",
    ),
    _accept(
        r"status: 304 ConditionNotMet / 200 .*x-ms-blob-if",
        "the conditions of Get Blob Tags are evaluated",
        "ignored",
        "REST page Get Blob Tags",
    ),
    _accept(
        r"status: 412 ConditionNotMet / 201 .*no blob",
        "If-Match fails when there is no blob",
        "the blob is created",
        "REST page Specifying conditional headers for Blob service operations",
    ),
    _accept(
        r"status: 412 ConditionNotMet / 202 .*x-ms-access-tier-if",
        "Delete Blob honours its conditions on the tier",
        "ignored",
        "REST page Delete Blob",
    ),
    _accept(
        r"status: 412 (SourceConditionNotMet / 412 ConditionNotMet|SourceConditionNotMet / 304)",
        "conditions on a copy's source fail with SourceConditionNotMet",
        "ConditionNotMet",
        "REST page Blob Storage error codes",
    ),
    _accept(
        r"status: (412|304) CannotVerifyCopySource",
        "conditions on the source of Copy Blob From URL fail with CannotVerifyCopySource",
        "ConditionNotMet, or ignored",
        _RECORDED,
    ),
    _accept(
        r"status: 404 CannotVerifyCopySource",
        "a source that is not there is CannotVerifyCopySource for the From URL operations",
        "BlobNotFound and other codes",
        _RECORDED,
    ),
    _accept(
        r"^COPY_BLOB(_FROM_URL)?: status: (400 InvalidHeaderValue|400 UnsupportedHeader|404 BlobNotFound) / ",
        "the headers of a copy are checked: URL, snapshot, authorisation, tag option, no body, no range",
        "less of it",
        "REST pages Copy Blob, Copy Blob From URL",
    ),
    _accept(
        r"status: 412 LeaseLost",
        "the id of a lease that was broken or has expired is LeaseLost",
        "LeaseNotPresentWith...",
        "recorded answers of Azure (test_lease_blob_with_duration)",
    ),
    _accept(
        r"status: 400 (InvalidHeaderValue|MissingRequiredHeader) / .*(x-ms-lease|x-ms-proposed|lease)",
        "lease headers are checked: ids are GUIDs, durations 15 to 60 or -1",
        "any text is an id, a missing duration is taken",
        "REST pages Lease Blob, Lease Container",
    ),
    _accept(
        r"^PUT_BLOB: status: 201 / 409 BlobAlreadyExists .*holder may overwrite",
        "If-None-Match: * with the id of the active lease overwrites",
        "409 BlobAlreadyExists",
        "recorded answers of Azure (test_lease_blob_with_duration)",
    ),
    # --- tiers ---
    _accept(
        r"status: 409 Blob(Archived|BeingRehydrated)",
        "an archived blob can be neither read, changed, copied nor snapshotted",
        "some of it is possible",
        "REST page Set Blob Tier",
    ),
    _accept(
        r"^SET_BLOB_TIER: status: 202 / 200",
        "raising the priority of a rehydration is 202",
        "200",
        "REST page Set Blob Tier",
    ),
    _accept(
        r"^GET_BLOB_PROPERTIES: x-ms-(access-tier|archive-status|rehydrate)",
        "x-ms-access-tier-change-time once the tier was set, -inferred only until then, priority while rehydrating",
        "change time always, inferred also when it was set, no archive status",
        _RECORDED,
    ),
    # --- headers of some answers ---
    _accept(
        r"^GET_BLOB: x-ms-access-tier",
        "Get Blob tells the tier from version 2026-10-06 on",
        "never",
        "azure-rest-api-specs, the specification of that version",
    ),
    _accept(
        r"^GET_(BLOB|CONTAINER)_METADATA: ",
        "Get Metadata answers ETag, Last-Modified and metadata",
        "also many properties",
        _RECORDED,
    ),
    _accept(
        r"^GET_CONTAINER_ACL: ",
        "Get Container ACL answers no properties beside public access",
        "also immutability and lease",
        _RECORDED,
    ),
    _accept(
        r"^GET_CONTAINER_PROPERTIES: x-ms-(default-enc|deny-enc|immutable)",
        "encryption scope and versioned immutability are told, as newer versions do",
        "not told",
        "REST page Get Container Properties",
    ),
    _accept(
        r"^GET_BLOCK_LIST: (etag|last-modified|x-ms-blob-content-length): absent",
        "a blob of uncommitted blocks alone has no ETag",
        "it has one",
        "REST page Get Block List",
    ),
    _accept(
        r"x-ms-content-crc64: sent",
        "the CRC-64 of what was sent comes back",
        "never",
        "REST pages Put Blob, Put Block, Put Block List; " + _RECORDED,
    ),
    _accept(
        r"content-md5: (sent|absent)",
        "Content-MD5 comes back where it was sent or is stored, and x-ms-blob-content-md5 with ranges only",
        "on other answers",
        _RECORDED,
    ),
    _accept(
        r"^GET_BLOB: content-type: absent",
        "a 304 has neither body nor Content-Type",
        "it has one",
        _RECORDED,
    ),
    _accept(
        r"x-ms-(server-encrypted|creation-time|access-tier\S*): absent",
        "headers that came with later versions stay away from older ones",
        "always sent",
        "REST page Get Blob Properties, table of versions",
    ),
    _accept(
        r"x-ms-lease-(state|status): absent",
        "snapshots have no lease",
        "they tell one",
        _RECORDED,
    ),
    _accept(r"x-ms-snapshot: sent", "a snapshot's answers name it", "they do not", "seen by the Python SDK's tests"),
    _accept(
        r"x-ms-request-server-encrypted: sent",
        "Snapshot Blob tells whether it encrypted metadata of its own",
        "not told",
        _RECORDED,
    ),
    _accept(
        r"x-ms-incremental-copy",
        "x-ms-incremental-copy is for page blobs",
        "sent for block blobs",
        _RECORDED,
    ),
    _accept(
        r"^GET_ACCOUNT_INFORMATION: x-ms-is-hns-enabled",
        "x-ms-is-hns-enabled from version 2019-07-07 on",
        "whatever the version, and not below a container",
        "REST page Get Account Information",
    ),
)
