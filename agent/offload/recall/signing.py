"""Signs a Get Blob of ours with whatever opens the cloud: a SAS, an account key, or an identity's token.

The SDK signs only what it sends itself, and what it downloads it reads a whole chunk of before it gives the first byte.
A SAS is in the URL; nothing that this makes is ever logged.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

from agent.offload.credentials import Credential
from dataplane.blobapi.dates import http_date
from dataplane.blobapi.sharedkey import sign

VERSION: Final = "2021-12-02"  # of the REST API: long there, and has all that is asked for
_SCOPE: Final = "https://storage.azure.com/.default"


def blob_url(endpoint: str, container: str, name: str) -> str:
    """Where a blob is, escaped as the SDK does it."""
    return f"{endpoint.rstrip('/')}/{quote(container, safe='$')}/{quote(name, safe='~/')}"


def signed(
    session: requests.Session, url: str, headers: Mapping[str, str], credential: Credential, now: datetime
) -> requests.PreparedRequest:
    """A GET that may be sent. Raises ValueError for a key that is not base64, and what azure-identity raises when it
    gets no token."""
    moment = http_date(int(now.astimezone(UTC).timestamp()))
    known = {"x-ms-date": moment, "x-ms-version": VERSION, "Accept-Encoding": "identity", **headers}
    signer = credential.signer
    if isinstance(signer, AzureSasCredential):
        return session.prepare_request(requests.Request("GET", f"{url}?{credential.sas}", known))
    prepared = session.prepare_request(requests.Request("GET", url, known))
    if isinstance(signer, AzureNamedKeyCredential):
        prepared.headers["Authorization"] = _shared_key(prepared, *signer.named_key)
    else:
        prepared.headers["Authorization"] = f"Bearer {signer.get_token(_SCOPE).token}"
    return prepared


def _shared_key(prepared: requests.PreparedRequest, account: str, key: str) -> str:
    try:
        secret = base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ValueError("the account key is not base64") from None
    headers = {name.lower(): str(value) for name, value in prepared.headers.items()}
    return sign("GET", account, urlsplit(str(prepared.url)).path, {}, headers, secret)
