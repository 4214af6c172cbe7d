"""Operations on the service, on the wire. The properties' document itself is tested with its codec."""

import asyncio
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element

import pytest

from dataplane.server import application
from dataplane.server.node import Account
from tests.support import ANSWER_SECONDS_MAX, InProcessServer, WireClient

PROPERTIES = {"restype": "service", "comp": "properties"}


def set_cors(client: WireClient, *rules: tuple[str, str]) -> None:
    xml = "".join(
        f"<CorsRule><AllowedOrigins>{origins}</AllowedOrigins><AllowedMethods>{methods}</AllowedMethods>"
        "<AllowedHeaders>x-ms-*</AllowedHeaders><ExposedHeaders>x-ms-meta-*</ExposedHeaders>"
        "<MaxAgeInSeconds>60</MaxAgeInSeconds></CorsRule>"
        for origins, methods in rules
    )
    body = f"<StorageServiceProperties><Cors>{xml}</Cors></StorageServiceProperties>".encode()
    assert client.request("PUT", "/", PROPERTIES, None, body).status == 202


def get_properties(client: WireClient) -> Element:
    answer = client.request("GET", "/", PROPERTIES)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/xml")
    return answer.xml()


def test_properties_of_a_new_account_and_a_partial_change(client: WireClient) -> None:
    assert get_properties(client).findtext("DeleteRetentionPolicy/Enabled") == "false"
    body = (
        b"<StorageServiceProperties><DeleteRetentionPolicy><Enabled>True</Enabled><Days>3</Days>"
        b"</DeleteRetentionPolicy></StorageServiceProperties>"
    )
    answer = client.request("PUT", "/", PROPERTIES, None, body)
    assert (answer.status, answer.headers["content-length"]) == (202, "0")
    set_cors(client, ("https://a.example", "GET"))
    found = get_properties(client)
    assert found.findtext("DeleteRetentionPolicy/Days") == "3"
    assert found.findtext("Cors/CorsRule/AllowedOrigins") == "https://a.example"
    set_cors(client)


def test_a_document_that_is_none(client: WireClient) -> None:
    answer = client.request("PUT", "/", PROPERTIES, None, b"<StorageServiceProperties>")
    assert (answer.status, answer.code) == (400, "InvalidXmlDocument")


@pytest.mark.parametrize("path", ["", "/", "/whatever", "/whatever/blob"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_account_information(client: WireClient, method: str, path: str) -> None:
    answer = client.request(method, path, {"restype": "account", "comp": "properties"})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["x-ms-account-kind"] == "StorageV2"
    assert answer.headers["x-ms-sku-name"] == "Standard_LRS"
    assert answer.headers["x-ms-is-hns-enabled"] == "false"


def test_service_stats_at_the_secondary_only(client: WireClient) -> None:
    query = {"restype": "service", "comp": "stats"}
    answer = client.request("GET", "/", query, secondary=True)
    assert answer.status == 200
    assert answer.xml().findtext("GeoReplication/Status") == "live"
    assert (answer.xml().findtext("GeoReplication/LastSyncTime") or "").endswith(" GMT")
    answer = client.request("GET", "/", query)
    assert (answer.status, answer.code) == (400, "InvalidQueryParameterValue")


def test_user_delegation_key_needs_a_bearer_token(client: WireClient) -> None:
    body = b"<KeyInfo><Start>2026-01-01T00:00:00Z</Start><Expiry>2026-01-02T00:00:00Z</Expiry></KeyInfo>"
    answer = client.request("POST", "/", {"restype": "service", "comp": "userdelegationkey"}, None, body)
    assert (answer.status, answer.code) == (403, "AuthenticationFailed")


# --- cross-origin requests ---


def test_preflight(client: WireClient, container: str) -> None:
    headers = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-ms-date",
    }
    path = container + "/blob"
    answer = client.request("OPTIONS", path, None, headers, sign=False)
    assert (answer.status, answer.code) == (403, "CorsPreflightFailure")
    set_cors(client, ("https://a.example", "PUT,GET"))
    answer = client.request("OPTIONS", path, None, headers, sign=False)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert answer.headers["access-control-allow-methods"] == "PUT"
    assert answer.headers["access-control-max-age"] == "60"
    assert client.request("OPTIONS", path, None, {"Origin": "https://a.example"}, sign=False).status == 400
    set_cors(client)


def test_answers_to_other_origins_say_what_they_may(client: WireClient, container: str) -> None:
    set_cors(client, ("https://a.example", "GET"))
    query = {"restype": "container"}
    allowed = client.request("GET", container, query, {"Origin": "https://a.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert allowed.headers["access-control-expose-headers"] == "x-ms-meta-*"
    assert allowed.headers["vary"] == "Origin"
    other = client.request("GET", container, query, {"Origin": "https://b.example"})
    assert other.status == 200
    assert "access-control-allow-origin" not in other.headers
    missing = client.request("GET", "/absent", query, {"Origin": "https://a.example"})
    assert (missing.status, missing.headers["access-control-allow-origin"]) == (404, "https://a.example")
    set_cors(client)


def test_a_client_that_leaves_while_the_rules_are_read_leaves_no_file_open(
    client: WireClient, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gone = threading.Event(), threading.Event()

    async def hanging(_: Account) -> NoReturn:
        asked.set()
        try:
            await asyncio.sleep(ANSWER_SECONDS_MAX)
        finally:
            gone.set()
        raise AssertionError

    assert client.request("PUT", f"{container}/left", None, {"x-ms-blob-type": "BlockBlob"}, b"left").status == 201
    monkeypatch.setattr(application, "service_properties", hanging)
    link = client._connection
    assert link.sock is not None
    link.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.request("GET", f"{container}/left", None, {"Origin": "https://a.example"})
    assert asked.is_set()
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.sock.close()  # with a reset
    assert gone.wait(ANSWER_SECONDS_MAX)
    deadline = time.monotonic() + 1.0
    while _open_files("left") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _open_files("left")


def _open_files(name: str) -> list[str]:
    """Descriptors of this process, which the server is in."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [path for path in found if path.endswith(f"/{name}")]


def test_a_change_counts_for_another_worker_at_once(server: InProcessServer, client: WireClient) -> None:
    root = Path(server.node.accounts[client.account].settings.root)
    other = InProcessServer(root)
    second = other.client()
    origin = {"Origin": "https://a.example"}
    assert "access-control-allow-origin" not in second.request("GET", "/", PROPERTIES, origin).headers
    set_cors(client, ("https://a.example", "GET"))
    assert "access-control-allow-origin" in second.request("GET", "/", PROPERTIES, origin).headers
    set_cors(client)
    assert "access-control-allow-origin" not in second.request("GET", "/", PROPERTIES, origin).headers
    second.close()
    other.close()
