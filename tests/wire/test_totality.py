"""Nothing is left out: every operation, error code and documented header has a row, or a reason why it has none."""

from collections.abc import Mapping
from typing import Final

import pytest

from dataplane.blobapi.errors import ErrorCode
from dataplane.blobapi.operations import Operation
from tests.wire.documented import IGNORED, NEVER_SENT, PARAMETERS, REQUEST_HEADERS, RESPONSE_HEADERS, SHOWN_ELSEWHERE
from tests.wire.matrix import WRITTEN, rows_of

E: Final = ErrorCode
#: Error codes that no row can produce, and why: the place that shows them, or what is not offered.
WITHOUT_ROW: Final[Mapping[ErrorCode, str]] = {
    E.MISSING_CONTENT_LENGTH: "test_protocol.py: a row always has a length",
    E.REQUEST_TIMEOUT: "tests/server/test_http_deadlines.py: takes a body that stops",
    E.EXCEEDS_MAX_BATCH_REQUEST_COUNT: "inside the 202 of a batch, where a row of Blob Batch looks for it",
    E.INTERNAL_ERROR: "tests/server/test_application.py: takes a bug",
    E.SERVER_BUSY: "tests/server/test_application.py: takes a storage that fails",
    E.OPERATION_TIMED_OUT: "tests/server/test_hung_mount.py: takes a mount that hangs",
    E.OUT_OF_SPACE: "tests/server/test_application.py: takes a full disk",
    E.BLOB_IMMUTABLE: "there are no immutability policies",
    E.CONTAINER_BEING_DELETED: "a container is gone when its deletion is answered",
    E.INVALID_BLOB_TYPE: "there are block blobs only",
    E.INVALID_BLOB_TIER: "a tier that is none is an InvalidHeaderValue (answers of Azure in public issue threads)",
    E.LEASE_ALREADY_BROKEN: "breaking a broken lease succeeds (REST page Lease Blob, table of outcomes)",
    E.MISSING_REQUIRED_XML_NODE: "the service says InvalidXmlDocument instead (recordings)",
    E.UNSUPPORTED_XML_NODE: "the service says InvalidXmlDocument instead (recordings)",
    E.REQUEST_URL_FAILED_TO_PARSE: "InvalidUri is what the service says of a URL that it cannot read",
    E.TARGET_CONDITION_NOT_MET: "the destination of a copy fails with ConditionNotMet, as all writes do",
    E.UNSUPPORTED_QUERY_PARAMETER: "a parameter that an operation does not know is ignored, as by the service",
    E.NOT_IMPLEMENTED: "what is not offered is a 400 FeatureNotSupported, which clients do not retry",
    E.PUBLIC_ACCESS_NOT_PERMITTED: "the account's setting for it cannot be configured yet",
    E.BLOCK_COUNT_EXCEEDS_LIMIT: "takes 100,000 blocks",
}


def _names(operation: Operation, column: str) -> set[str]:
    """The header names that the rows of an operation send ("headers") or show ("shows"); metadata is one name."""
    found: set[str] = set()
    for row in rows_of(operation):
        if column == "headers":
            found |= {name.lower() for name in row.headers}
        else:
            found |= {entry.partition("=")[0] for entry in row.shows.split()}
    return {"x-ms-meta" if name.startswith("x-ms-meta-") else name for name in found}


def test_every_operation_has_rows() -> None:
    assert set(WRITTEN) == set(Operation) == set(REQUEST_HEADERS) == set(RESPONSE_HEADERS)


def test_every_error_code_is_produced_or_has_a_reason() -> None:
    produced = {row.want for operation in Operation for row in rows_of(operation) if isinstance(row.want, ErrorCode)}
    assert produced.isdisjoint(WITHOUT_ROW)
    assert {code.name for code in set(ErrorCode) - produced - set(WITHOUT_ROW)} == set()


@pytest.mark.parametrize("operation", Operation)
def test_every_documented_response_header_is_shown_or_has_a_reason(operation: Operation) -> None:
    shown = _names(operation, "shows")
    documented = set(RESPONSE_HEADERS[operation].split())
    never = documented & set(NEVER_SENT)
    assert shown & never == set()
    elsewhere = {name for name in documented if (operation, name) in SHOWN_ELSEWHERE}
    assert documented - shown - never - elsewhere == set()


@pytest.mark.parametrize("operation", PARAMETERS)
def test_every_documented_parameter_is_sent(operation: Operation) -> None:
    queries = [row.ask.partition("?")[2].split("&") for row in rows_of(operation)]
    sent = {part.partition("=")[0] for query in queries for part in query}
    assert {*PARAMETERS[operation].split(), "timeout", "versionid"} - sent == set()


@pytest.mark.parametrize("operation", Operation)
def test_every_documented_request_header_is_sent(operation: Operation) -> None:
    assert set(REQUEST_HEADERS[operation].split()) - _names(operation, "headers") - set(IGNORED) == set()
