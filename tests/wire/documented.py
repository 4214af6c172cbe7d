"""The headers that Azure documents for each operation, and which of them have no place here.

Source: the response and request headers that the service's own client library (azure-storage-blob 12.31, generated from
the service's specification) reads and sends for each operation, which are those of the REST reference's pages; the
headers that every request or answer has are in rows.COMMON. Names are lower-case; `x-ms-meta` stands for all metadata.
"""

from collections.abc import Mapping
from typing import Final

from dataplane.blobapi.operations import Operation as O

_CONDITIONS: Final = "if-modified-since if-unmodified-since if-match if-none-match x-ms-if-tags"
_DATES: Final = "if-modified-since if-unmodified-since"
_TAG_CONDITIONS: Final = (
    "x-ms-if-tags x-ms-blob-if-modified-since x-ms-blob-if-unmodified-since x-ms-blob-if-match x-ms-blob-if-none-match"
)
_SOURCE_CONDITIONS: Final = (
    "x-ms-source-if-modified-since x-ms-source-if-unmodified-since x-ms-source-if-match x-ms-source-if-none-match"
)
_CONTENT: Final = (
    "x-ms-blob-cache-control x-ms-blob-content-type x-ms-blob-content-md5 x-ms-blob-content-encoding "
    "x-ms-blob-content-language x-ms-blob-content-disposition"
)
_KEYS: Final = "x-ms-encryption-key x-ms-encryption-key-sha256 x-ms-encryption-algorithm"
_SOURCE_KEYS: Final = "x-ms-source-encryption-key x-ms-source-encryption-key-sha256 x-ms-source-encryption-algorithm "
_IMMUTABLE: Final = "x-ms-immutability-policy-until-date x-ms-immutability-policy-mode x-ms-legal-hold"
_LEASE: Final = "x-ms-lease-action x-ms-lease-duration x-ms-lease-break-period x-ms-proposed-lease-id x-ms-lease-id"
_ENTITY: Final = "etag last-modified"
_ENCRYPTED: Final = "x-ms-request-server-encrypted x-ms-encryption-key-sha256 x-ms-encryption-scope"
_ACCOUNT: Final = "x-ms-sku-name x-ms-account-kind x-ms-is-hns-enabled"
_BLOB: Final = (
    f"{_ENTITY} x-ms-creation-time x-ms-meta x-ms-or-policy-id x-ms-or content-length content-type content-md5 "
    "content-encoding cache-control content-disposition content-language x-ms-blob-sequence-number x-ms-blob-type "
    "x-ms-copy-completion-time x-ms-copy-status-description x-ms-copy-id x-ms-copy-progress x-ms-copy-source "
    "x-ms-copy-status x-ms-lease-duration x-ms-lease-state x-ms-lease-status x-ms-version-id "
    "x-ms-is-current-version accept-ranges x-ms-blob-committed-block-count x-ms-server-encrypted "
    "x-ms-encryption-key-sha256 x-ms-encryption-scope x-ms-tag-count x-ms-blob-sealed x-ms-last-access-time "
    f"{_IMMUTABLE} x-ms-access-tier x-ms-access-tier-inferred x-ms-access-tier-change-time x-ms-smart-access-tier"
)

REQUEST_HEADERS: Final[Mapping[O, str]] = {
    O.PREFLIGHT: "origin access-control-request-method access-control-request-headers",
    O.LIST_CONTAINERS: "",
    O.GET_SERVICE_PROPERTIES: "",
    O.SET_SERVICE_PROPERTIES: "content-type",
    O.GET_SERVICE_STATS: "",
    O.GET_USER_DELEGATION_KEY: "content-type",
    O.GET_ACCOUNT_INFORMATION: "",
    O.SERVICE_BATCH: "content-type",
    O.FIND_BLOBS_BY_TAGS: "",
    O.CREATE_CONTAINER: "x-ms-meta x-ms-blob-public-access x-ms-default-encryption-scope "
    "x-ms-deny-encryption-scope-override",
    O.DELETE_CONTAINER: f"x-ms-lease-id {_DATES}",
    O.GET_CONTAINER_PROPERTIES: "x-ms-lease-id",
    O.GET_CONTAINER_METADATA: "x-ms-lease-id",
    O.SET_CONTAINER_METADATA: "x-ms-lease-id x-ms-meta if-modified-since",
    O.GET_CONTAINER_ACL: "x-ms-lease-id",
    O.SET_CONTAINER_ACL: f"x-ms-lease-id x-ms-blob-public-access {_DATES} content-type",
    O.LEASE_CONTAINER: f"{_LEASE} {_DATES}",
    O.LIST_BLOBS: "",
    O.CONTAINER_BATCH: "content-type",
    O.FIND_BLOBS_IN_CONTAINER: "",
    O.PUT_BLOB: f"x-ms-blob-type content-md5 {_CONTENT} x-ms-meta x-ms-lease-id {_KEYS} x-ms-encryption-scope "
    f"x-ms-access-tier {_CONDITIONS} x-ms-tags {_IMMUTABLE} x-ms-content-crc64 x-ms-structured-body "
    "x-ms-structured-content-length",
    O.PUT_BLOB_FROM_URL: f"x-ms-blob-type {_CONTENT} x-ms-meta x-ms-lease-id {_KEYS} x-ms-encryption-scope "
    f"x-ms-access-tier {_CONDITIONS} {_SOURCE_CONDITIONS} x-ms-source-if-tags x-ms-source-content-md5 x-ms-tags "
    "x-ms-copy-source x-ms-copy-source-blob-properties x-ms-copy-source-authorization x-ms-copy-source-tag-option "
    f"x-ms-file-request-intent {_SOURCE_KEYS}",
    O.GET_BLOB: "x-ms-range x-ms-lease-id x-ms-range-get-content-md5 x-ms-range-get-content-crc64 "
    f"x-ms-structured-body {_KEYS} {_CONDITIONS}",
    O.GET_BLOB_PROPERTIES: f"x-ms-lease-id {_KEYS} {_CONDITIONS}",
    O.SET_BLOB_PROPERTIES: f"{_CONTENT} x-ms-lease-id {_CONDITIONS}",
    O.GET_BLOB_METADATA: f"x-ms-lease-id {_KEYS} {_CONDITIONS}",
    O.SET_BLOB_METADATA: f"x-ms-meta x-ms-lease-id {_KEYS} x-ms-encryption-scope {_CONDITIONS}",
    O.DELETE_BLOB: f"x-ms-lease-id x-ms-delete-snapshots {_CONDITIONS} x-ms-access-tier-if-modified-since "
    "x-ms-access-tier-if-unmodified-since",
    O.SNAPSHOT_BLOB: f"x-ms-meta {_KEYS} x-ms-encryption-scope {_CONDITIONS} x-ms-lease-id",
    O.LEASE_BLOB: f"{_LEASE} {_CONDITIONS}",
    O.COPY_BLOB: f"x-ms-meta x-ms-access-tier x-ms-rehydrate-priority {_SOURCE_CONDITIONS} x-ms-source-if-tags "
    f"{_CONDITIONS} x-ms-copy-source x-ms-lease-id x-ms-tags x-ms-seal-blob {_IMMUTABLE}",
    O.COPY_BLOB_FROM_URL: f"x-ms-requires-sync x-ms-meta x-ms-access-tier {_SOURCE_CONDITIONS} {_CONDITIONS} "
    f"x-ms-copy-source x-ms-lease-id x-ms-source-content-md5 x-ms-tags {_IMMUTABLE} x-ms-copy-source-authorization "
    "x-ms-encryption-scope x-ms-copy-source-tag-option x-ms-file-request-intent",
    O.ABORT_COPY_BLOB: "x-ms-copy-action x-ms-lease-id",
    O.SET_BLOB_TIER: "x-ms-access-tier x-ms-rehydrate-priority x-ms-lease-id x-ms-if-tags",
    O.GET_BLOB_TAGS: f"{_TAG_CONDITIONS} x-ms-lease-id",
    O.SET_BLOB_TAGS: f"content-md5 x-ms-content-crc64 {_TAG_CONDITIONS} x-ms-lease-id content-type",
    O.PUT_BLOCK: f"content-md5 x-ms-content-crc64 x-ms-lease-id {_KEYS} x-ms-encryption-scope x-ms-structured-body "
    "x-ms-structured-content-length",
    O.PUT_BLOCK_FROM_URL: "x-ms-copy-source x-ms-source-range x-ms-source-content-md5 x-ms-source-content-crc64 "
    f"{_KEYS} x-ms-encryption-scope x-ms-lease-id {_SOURCE_CONDITIONS} x-ms-copy-source-authorization "
    f"x-ms-file-request-intent {_SOURCE_KEYS}",
    O.PUT_BLOCK_LIST: f"{_CONTENT} content-md5 x-ms-content-crc64 x-ms-meta x-ms-lease-id {_KEYS} "
    f"x-ms-encryption-scope x-ms-access-tier {_CONDITIONS} x-ms-tags {_IMMUTABLE} content-type",
    O.GET_BLOCK_LIST: "x-ms-lease-id x-ms-if-tags",
}

_LISTING: Final = "prefix marker maxresults include"
#: Query parameters, without those that choose the operation. `timeout` and `versionid` are sent to all operations.
PARAMETERS: Final[Mapping[O, str]] = {
    O.LIST_CONTAINERS: _LISTING,
    O.FIND_BLOBS_BY_TAGS: "where marker maxresults",
    O.LIST_BLOBS: f"{_LISTING} delimiter startFrom showonly",
    O.FIND_BLOBS_IN_CONTAINER: "where marker maxresults",
    O.GET_BLOB: "snapshot",
    O.GET_BLOB_PROPERTIES: "snapshot",
    O.GET_BLOB_METADATA: "snapshot",
    O.DELETE_BLOB: "snapshot deletetype",
    O.ABORT_COPY_BLOB: "copyid",
    O.SET_BLOB_TIER: "snapshot",
    O.GET_BLOB_TAGS: "snapshot",
    O.PUT_BLOCK: "blockid",
    O.PUT_BLOCK_FROM_URL: "blockid",
    O.GET_BLOCK_LIST: "snapshot blocklisttype",
}

RESPONSE_HEADERS: Final[Mapping[O, str]] = {
    O.PREFLIGHT: "access-control-allow-origin access-control-allow-methods access-control-allow-headers "
    "access-control-max-age access-control-allow-credentials",
    O.LIST_CONTAINERS: "content-type",
    O.GET_SERVICE_PROPERTIES: "content-type",
    O.SET_SERVICE_PROPERTIES: "",
    O.GET_SERVICE_STATS: "",
    O.GET_USER_DELEGATION_KEY: "",
    O.GET_ACCOUNT_INFORMATION: _ACCOUNT,
    O.SERVICE_BATCH: "content-type",
    O.FIND_BLOBS_BY_TAGS: "content-type",
    O.CREATE_CONTAINER: _ENTITY,
    O.DELETE_CONTAINER: "",
    O.GET_CONTAINER_PROPERTIES: f"x-ms-meta {_ENTITY} x-ms-lease-duration x-ms-lease-state x-ms-lease-status "
    "x-ms-blob-public-access x-ms-has-immutability-policy x-ms-has-legal-hold x-ms-default-encryption-scope "
    "x-ms-deny-encryption-scope-override x-ms-immutable-storage-with-versioning-enabled",
    O.GET_CONTAINER_METADATA: f"x-ms-meta {_ENTITY}",
    O.SET_CONTAINER_METADATA: _ENTITY,
    O.GET_CONTAINER_ACL: f"x-ms-blob-public-access {_ENTITY} content-type",
    O.SET_CONTAINER_ACL: _ENTITY,
    O.LEASE_CONTAINER: f"{_ENTITY} x-ms-lease-id x-ms-lease-time",
    O.LIST_BLOBS: "content-type",
    O.CONTAINER_BATCH: "content-type",
    O.FIND_BLOBS_IN_CONTAINER: "content-type",
    O.PUT_BLOB: f"{_ENTITY} content-md5 x-ms-content-crc64 x-ms-version-id {_ENCRYPTED} x-ms-structured-body",
    O.PUT_BLOB_FROM_URL: f"{_ENTITY} content-md5 x-ms-content-crc64 x-ms-version-id {_ENCRYPTED}",
    O.GET_BLOB: f"{_BLOB} content-range x-ms-blob-content-md5 x-ms-content-crc64 x-ms-structured-body "
    "x-ms-structured-content-length",
    O.GET_BLOB_PROPERTIES: f"{_BLOB} x-ms-incremental-copy x-ms-copy-destination-snapshot x-ms-archive-status "
    "x-ms-expiry-time x-ms-rehydrate-priority",
    O.SET_BLOB_PROPERTIES: f"{_ENTITY} x-ms-blob-sequence-number",
    O.GET_BLOB_METADATA: f"{_ENTITY} x-ms-meta",
    O.SET_BLOB_METADATA: f"{_ENTITY} x-ms-version-id {_ENCRYPTED}",
    O.DELETE_BLOB: "x-ms-delete-type-permanent",
    O.SNAPSHOT_BLOB: f"x-ms-snapshot {_ENTITY} x-ms-version-id x-ms-request-server-encrypted",
    O.LEASE_BLOB: f"{_ENTITY} x-ms-lease-id x-ms-lease-time",
    O.COPY_BLOB: f"{_ENTITY} x-ms-version-id x-ms-copy-id x-ms-copy-status",
    O.COPY_BLOB_FROM_URL: f"{_ENTITY} x-ms-version-id x-ms-copy-id x-ms-copy-status content-md5 x-ms-content-crc64 "
    "x-ms-encryption-scope",
    O.ABORT_COPY_BLOB: "",
    O.SET_BLOB_TIER: "",
    O.GET_BLOB_TAGS: "content-type",
    O.SET_BLOB_TAGS: "",
    O.PUT_BLOCK: f"content-md5 x-ms-content-crc64 {_ENCRYPTED} x-ms-structured-body",
    O.PUT_BLOCK_FROM_URL: f"content-md5 x-ms-content-crc64 {_ENCRYPTED}",
    O.PUT_BLOCK_LIST: f"{_ENTITY} content-md5 x-ms-content-crc64 x-ms-version-id {_ENCRYPTED}",
    O.GET_BLOCK_LIST: f"{_ENTITY} content-type x-ms-blob-content-length",
}

_NO_VERSIONS: Final = "blob versioning is not offered"
_NO_KEYS: Final = "customer-provided keys and encryption scopes are refused with FeatureNotSupported"
_NO_IMMUTABILITY: Final = "immutability policies and legal holds are refused with FeatureNotSupported"
_NO_PAGES: Final = "page blobs are not offered"
_NO_APPEND: Final = "append blobs are not offered"
_NO_REPLICATION: Final = "object replication is not offered"

#: Documented response headers that no answer has, and why.
NEVER_SENT: Final[Mapping[str, str]] = {
    "x-ms-version-id": _NO_VERSIONS,
    "x-ms-is-current-version": _NO_VERSIONS,
    "x-ms-encryption-key-sha256": _NO_KEYS,
    "x-ms-encryption-scope": _NO_KEYS,
    "x-ms-immutability-policy-until-date": _NO_IMMUTABILITY,
    "x-ms-immutability-policy-mode": _NO_IMMUTABILITY,
    "x-ms-legal-hold": _NO_IMMUTABILITY,
    "x-ms-blob-sequence-number": _NO_PAGES,
    "x-ms-incremental-copy": _NO_PAGES,
    "x-ms-copy-destination-snapshot": _NO_PAGES,
    "x-ms-blob-committed-block-count": _NO_APPEND,
    "x-ms-blob-sealed": _NO_APPEND,
    "x-ms-or": _NO_REPLICATION,
    "x-ms-or-policy-id": _NO_REPLICATION,
    "x-ms-last-access-time": "last access times are not tracked: a read would become a write",
    "x-ms-expiry-time": "expiry needs a hierarchical namespace in Azure too",
    "x-ms-smart-access-tier": "tiers change by request only",
}
#: Shown by an answer in test_protocol.py, as it takes more than one exchange.
SHOWN_ELSEWHERE: Final = frozenset({(O.GET_BLOB, "x-ms-copy-status-description")}) | {
    (O.GET_BLOB_PROPERTIES, "x-ms-copy-status-description")
}
#: Documented request headers whose meaning is not offered: FeatureNotSupported, wherever they are documented.
REFUSED: Final = frozenset(f"{_KEYS} {_SOURCE_KEYS} {_IMMUTABLE} x-ms-encryption-scope".split()) - {
    "x-ms-encryption-algorithm",
    "x-ms-source-encryption-algorithm",
}
#: Documented request headers that change nothing, and why that is no harm. Others without a place are refused.
IGNORED: Final[Mapping[str, str]] = {
    "x-ms-deny-encryption-scope-override": "there are no encryption scopes to override",
    "x-ms-encryption-algorithm": "it says nothing without a key, and keys are refused",
    "x-ms-source-encryption-algorithm": "it says nothing without a key, and keys are refused",
    "x-ms-file-request-intent": "it is meant for sources in Azure Files",
    "x-ms-seal-blob": "it is for append blobs; block blobs have no seal",
}
