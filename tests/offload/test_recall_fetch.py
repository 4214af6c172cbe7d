"""One range of a cloud blob: signed in each way, streamed, gone on with after a cut, and never taken for another."""

import base64
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.storage.blob import ContainerSasPermissions, ContentSettings, generate_container_sas

from agent.offload import verify
from agent.offload.cloud import Cloud
from agent.offload.credentials import CloudSettings, Credential
from agent.offload.failures import CloudFailed, Kind
from agent.offload.recall.fetch import TRIES_MAX, CloudCopy, Fetcher, OtherContent
from agent.offload.recall.signing import blob_url, signed
from agent.offload.transport import Errand
from dataplane.blobapi.model import Remote
from tests.offload.azurite import ACCOUNT, KEY, Exchange
from tests.offload.upload_support import DEADLINE_SECONDS, MIB, World, answered

NAMES = ["plain", "a folder/with spaces+plus", "ünïcödé/漢字", "per%20cent%", "que?ry#hash&amp;=", "~tilde'quote(1)!*"]


@pytest.fixture
def fetcher(world: World) -> Iterator[Fetcher]:
    made = Fetcher(world.cloud, answer_seconds=10.0)
    yield made
    made.close()


def put(world: World, data: bytes, name: str = "b", *, md5: bool = True) -> Remote:
    digest = hashlib.md5(data).digest()
    copy = world.container.get_blob_client(name)
    copy.upload_blob(data, overwrite=True)
    copy.set_http_headers(ContentSettings(content_md5=bytearray(digest) if md5 else None))
    return Remote(len(data), digest, world.etag_of(name), world.name, name, "0x1", 0, 0)


def test_what_a_client_said_of_the_md5_is_not_taken_for_that_of_the_bytes(world: World, fetcher: Fetcher) -> None:
    """Azure keeps what Put Block List and Set Blob Properties say unseen, and so the copy has an entry of ours."""
    data = os.urandom(1000)
    remote = put(world, data)
    copy = world.container.get_blob_client(remote.name)
    copy.set_http_headers(ContentSettings(content_md5=bytearray(16)))
    copy.set_blob_metadata({verify.MD5: remote.md5.hex()})
    assert read(fetcher, remote) == data


def read(fetcher: Fetcher, remote: Remote, start: int = 0, end: int = -1, errand: Errand | None = None) -> bytes:
    """A range, as the sink gets it."""
    got = bytearray()

    def sink(offset: int, piece: bytes) -> bool:
        assert offset == start + len(got)
        got.extend(piece)
        return True

    errand = errand or Errand(deadline=time.monotonic() + DEADLINE_SECONDS)
    CloudCopy(fetcher, remote).fetch(start, remote.size if end < 0 else end, errand, sink)
    return bytes(got)


# --- signing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_account_key_signs_any_name(name: str, world: World, fetcher: Fetcher) -> None:
    data = os.urandom(1000)
    assert read(fetcher, put(world, data, name), 10, 990) == data[10:990]


@pytest.mark.parametrize("name", NAMES)
def test_a_sas_opens_any_name(name: str, world: World) -> None:
    data = os.urandom(1000)
    remote = put(world, data, name)
    file = world.scratch / "sas"
    later = datetime.now(UTC) + timedelta(hours=1)
    permission = ContainerSasPermissions(read=True)
    file.write_text(generate_container_sas(ACCOUNT, world.name, KEY, permission=permission, expiry=later))
    cloud = Cloud(CloudSettings(world.cloud.settings.endpoint, "sas_file", file))
    fetcher = Fetcher(cloud)
    with contextlib.closing(cloud), contextlib.closing(fetcher):
        assert read(fetcher, remote) == data


def test_an_identity_s_token_is_sent() -> None:
    class Identity:
        def get_token(self, *scopes: str, **_: object) -> AccessToken:
            assert scopes == ("https://storage.azure.com/.default",)
            return AccessToken("a token", 0)

    url = blob_url("https://account.blob.core.windows.net", "$root", "a b")
    with requests.Session() as session:
        made = signed(session, url, {}, Credential(Identity(), 0), datetime.now(UTC))
    assert made.url == "https://account.blob.core.windows.net/$root/a%20b"
    assert made.headers["Authorization"] == "Bearer a token"


def test_a_refused_credential_is_named_without_its_secret(world: World) -> None:
    remote = put(world, b"x")
    file = world.scratch / "key"
    wrong = base64.b64encode(b"wrong key").decode()
    file.write_text(wrong)
    cloud = Cloud(CloudSettings(world.cloud.settings.endpoint, "key_file", file))
    fetcher = Fetcher(cloud)
    with contextlib.closing(cloud), contextlib.closing(fetcher), pytest.raises(CloudFailed) as raised:
        read(fetcher, remote)
    assert raised.value.fault.kind is Kind.OPERATOR
    assert wrong not in str(raised.value)


# --- bytes -------------------------------------------------------------------------------------------------------


def test_a_blob_with_a_content_encoding_comes_as_it_is_stored(world: World, fetcher: Fetcher) -> None:
    data = os.urandom(1000)
    remote = put(world, data)
    md5 = bytearray(remote.md5)
    world.container.get_blob_client("b").set_http_headers(ContentSettings(content_encoding="gzip", content_md5=md5))
    assert read(fetcher, remote) == data


def test_a_sink_that_has_enough_ends_it(world: World, fetcher: Fetcher) -> None:
    remote = put(world, os.urandom(MIB))
    got = 0

    def sink(_offset: int, piece: bytes) -> bool:
        nonlocal got
        got += len(piece)
        return got < MIB // 2

    CloudCopy(fetcher, remote).fetch(0, MIB, Errand(), sink)
    assert MIB // 2 <= got < MIB


def test_what_the_sink_raises_is_not_the_cloud_s_failure(world: World, fetcher: Fetcher) -> None:
    remote = put(world, os.urandom(MIB))

    def sink(_offset: int, _piece: bytes) -> bool:
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        CloudCopy(fetcher, remote).fetch(0, MIB, Errand(), sink)
    assert world.proxy.count("GET") == 1


@pytest.mark.parametrize("cut", ["truncated", "reset"])
def test_it_goes_on_where_it_was_cut(cut: str, world: World, fetcher: Fetcher) -> None:
    data = os.urandom(2 * MIB)
    remote = put(world, data)

    def once(exchange: Exchange) -> None:
        world.proxy.fault = lambda exchange: None
        if cut == "truncated":
            exchange.truncate_answer = MIB
        else:
            exchange.lose_answer = True

    world.proxy.fault = once
    assert read(fetcher, remote) == data
    assert world.proxy.count("GET") == 2


def test_it_gives_up_after_some_tries(world: World, fetcher: Fetcher) -> None:
    remote = put(world, b"x" * 1000)
    world.proxy.fault = lambda exchange: setattr(exchange, "lose_answer", True)
    with pytest.raises(CloudFailed) as raised:
        read(fetcher, remote)
    assert raised.value.fault.kind is Kind.LINK
    assert world.proxy.count("GET") == TRIES_MAX


def test_no_try_is_made_once_the_link_is_known_to_be_down(world: World, fetcher: Fetcher) -> None:
    remote = put(world, b"x" * 1000)
    world.proxy.fault = lambda exchange: setattr(exchange, "lose_answer", True)
    failures: list[CloudFailed] = []
    copy = CloudCopy(fetcher, remote, lambda: True, lambda failure, came: failures.append(failure))
    with pytest.raises(CloudFailed):
        copy.fetch(0, 1000, Errand(), lambda offset, piece: True)
    assert world.proxy.count("GET") == len(failures) == 1


def test_a_busy_service_is_asked_again_and_one_that_asks_for_long_is_not(world: World, fetcher: Fetcher) -> None:
    remote = put(world, b"x" * 1000)

    def busy(seconds: str) -> None:
        def once(exchange: Exchange) -> None:
            world.proxy.fault = lambda exchange: None
            exchange.answer = answered("503 Busy", "ServerBusy", Retry_After=seconds)

        world.proxy.fault = once

    busy("1")
    assert read(fetcher, remote) == b"x" * 1000
    busy("60")
    with pytest.raises(CloudFailed) as raised:
        read(fetcher, remote)
    assert raised.value.fault.wait_seconds_min == 60


def test_stopped_it_ends_at_once(world: World, fetcher: Fetcher) -> None:
    remote = put(world, b"x" * 1000)
    errand, go_on = Errand(), threading.Event()

    def hang(_exchange: Exchange) -> None:
        errand.stop()
        go_on.wait(DEADLINE_SECONDS)

    world.proxy.fault = hang
    try:
        with pytest.raises(CloudFailed) as raised:
            read(fetcher, remote, errand=errand)
    finally:
        go_on.set()
    assert raised.value.fault.code == "Cancelled"


# --- lies --------------------------------------------------------------------------------------------------------

LIES = {
    "another range": (b"bytes 0-999/1000", b"bytes 1-1000/1000"),
    "a shorter range": (b"bytes 0-999/1000", b"bytes 0-998/1000"),
    "no range": (b"content-range", b"x-content-range"),
    "no etag": (b"etag:", b"x-etag:"),
    "all of it": (b"206 Partial Content", b"200 OK"),
    "another length": (b"content-length: 1000", b"content-length: 1001"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_is_none_to_the_question_is_refused(lie: str, world: World, fetcher: Fetcher) -> None:
    remote = put(world, b"x" * 1000)
    true, false = LIES[lie]

    def edit(answer: bytes) -> bytes:
        head, _, body = answer.partition(b"\r\n\r\n")
        at = head.lower().index(true.lower())
        return head[:at] + false + head[at + len(true) :] + b"\r\n\r\n" + body

    world.proxy.fault = lambda exchange: setattr(exchange, "edit_answer", edit)
    got: list[bytes] = []

    def sink(_offset: int, piece: bytes) -> bool:
        got.append(piece)
        return True

    with pytest.raises(CloudFailed) as raised:
        CloudCopy(fetcher, remote, lambda: True).fetch(0, 1000, Errand(), sink)
    assert raised.value.fault.kind is Kind.LATER
    assert not got


@pytest.mark.parametrize("other", ["size", "md5", "no md5"])
def test_other_content_is_found_before_a_byte_is_given(other: str, world: World, fetcher: Fetcher) -> None:
    remote = put(world, b"x" * 1000)
    if other == "size":
        world.container.upload_blob("b", b"x" * 1001, overwrite=True)
    elif other == "md5":
        put(world, b"y" * 1000)
    else:
        put(world, b"x" * 1000, md5=False)  # another ETag, and nothing that says what it is
    with pytest.raises(OtherContent):
        read(fetcher, remote)


def test_without_a_stored_md5_the_etag_says_it(world: World, fetcher: Fetcher) -> None:
    remote = put(world, b"x" * 1000, md5=False)
    assert read(fetcher, remote) == b"x" * 1000


def test_a_url_is_escaped() -> None:
    assert blob_url("http://127.0.0.1:1/account/", "c", "a/b?c") == "http://127.0.0.1:1/account/c/a/b%3Fc"
