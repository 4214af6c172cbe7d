"""What requests take for the service properties of an account."""

import logging

import pytest

from dataplane.blobapi.serviceproperties import ServiceProperties
from dataplane.server import serviceprops


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1, "cors": 7}'])
def test_a_damaged_document_counts_as_none_and_is_told_once(document: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert serviceprops._decoded(document) == serviceprops._decoded(document) == ServiceProperties()
    assert len(caplog.records) == 1
