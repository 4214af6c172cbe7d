"""What a refused operation must look like to an Azure SDK: the status, and Azure's error code in a header."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from azure.core.exceptions import HttpResponseError


@contextlib.contextmanager
def refused(status: int, *codes: str) -> Iterator[None]:
    """The block must raise the SDK's error with this status and one of these codes in x-ms-error-code.

    No code means any, for refusals whose code Azure does not document.
    """
    with pytest.raises(HttpResponseError) as caught:
        yield
    error = caught.value
    headers = getattr(error.response, "headers", {})
    code = headers.get("x-ms-error-code", "")
    assert error.status_code == status, f"expected {status} {codes}, got {error.status_code} {code}: {error.message}"
    assert code in codes if codes else code, f"expected {status} {codes}, got {code!r}: {error.message}"
