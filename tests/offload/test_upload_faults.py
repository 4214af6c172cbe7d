"""A cloud that fails in every way at every stage: the class is right, nothing counts as copied that is not there byte
for byte, and the next try, with the cloud well again, ends with one version."""

import base64
import os
import re
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agent.offload.failures import CloudFailed, Fault, Kind
from agent.offload.pace import Turn
from agent.offload.transport import Errand
from agent.offload.upload import Guard, Policy, delete
from tests.offload.azurite import Exchange
from tests.offload.azurite import Fault as Misbehaviour
from tests.offload.upload_support import MIB, NODE, To, World, answered, source

SIZES = {"Put Blob": 70_000, "Put Block List": 9 * MIB}


def commit(exchange: Exchange) -> bool:
    return exchange.is_put() or exchange.is_put("blocklist")


def once(when: Callable[[Exchange], bool], then: Callable[[Exchange], None]) -> Misbehaviour:
    """The fault for the first exchange that it is for."""
    done: list[Exchange] = []

    def fault(exchange: Exchange) -> None:
        if not done and when(exchange):
            done.append(exchange)
            then(exchange)

    return fault


def is_number(number: int) -> Callable[[Exchange], bool]:
    """Whether it is the exchange with this number."""
    return lambda exchange: exchange.number == number


def tried(work: Callable[[], object]) -> Fault | None:
    """What became of it; None for success."""
    try:
        work()
    except CloudFailed as failed:
        return failed.fault
    return None


def setting(**values: object) -> Callable[[Exchange], None]:
    def then(exchange: Exchange) -> None:
        for name, value in values.items():
            setattr(exchange, name, value)

    return then


def replaced(pattern: bytes, by: bytes) -> Callable[[Exchange], None]:
    return setting(edit_answer=lambda answer: re.sub(pattern, by, answer, count=1))


def retry_later(status: str, code: str = "") -> Callable[[Exchange], None]:
    return setting(answer=answered(status, code, Retry_After="7"))


#: Stage, what happens, and the class that must come of it.
FAULTS = {
    "reset at the head": (commit, setting(reset_after_body_bytes=0), Kind.LINK),
    "reset in the body": (
        lambda exchange: exchange.is_put() or exchange.is_put("block"),
        setting(reset_after_body_bytes=1),
        Kind.LINK,
    ),
    "reset after the body": (lambda exchange: exchange.is_put("blocklist"), setting(reset_after_body_bytes=1), None),
    "nothing but a status line": (commit, setting(truncate_answer=20), None),
    "500": (commit, setting(answer=answered("500 Internal", "InternalError")), Kind.LATER),
    "500 without a code": (commit, setting(answer=answered("500 Internal")), Kind.LATER),
    "503": (commit, retry_later("503 Busy", "ServerBusy"), Kind.LATER),
    "429": (commit, retry_later("429 Too Many"), Kind.LATER),
    "403": (commit, setting(answer=answered("403 No", "AuthorizationPermissionMismatch")), Kind.OPERATOR),
    "a lying 201": (commit, setting(answer=answered("201 Created", ETag='"0x8D0000000000001"')), Kind.NOW),
    "a lying 201 without an ETag": (commit, setting(answer=answered("201 Created")), Kind.NOW),
    "another ETag": (commit, replaced(rb'(?i)etag: "[^"]*"', b'etag: "0x1"'), Kind.NOW),
    "not HTTP": (commit, setting(answer=b"220 mail.example ESMTP\r\n\r\n"), Kind.LINK),
    "a portal": (commit, setting(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"), Kind.LATER),
    "a redirect": (commit, setting(answer=answered("302 Found", Location="http://127.0.0.1:9/")), Kind.OPERATOR),
    "a body damaged on the way": (
        lambda exchange: exchange.is_put() or exchange.is_put("block"),
        setting(edit_body=lambda body: bytes([body[0] ^ 1]) + body[1:]),
        Kind.NOW,
    ),
    "another MD5 seen afterwards": (
        lambda exchange: exchange.method == "HEAD" and exchange.number > 0,
        replaced(rb"(?i)content-md5: [^\r]*", b"content-md5: AAAAAAAAAAAAAAAAAAAAAA=="),
        Kind.NOW,
    ),
    "another length seen afterwards": (
        lambda exchange: exchange.method == "HEAD" and exchange.number > 0,
        replaced(rb"(?i)content-length: [^\r]*", b"content-length: 1"),
        Kind.NOW,
    ),
    "reset at the look afterwards": (
        lambda exchange: exchange.method == "HEAD" and exchange.number > 0,
        setting(reset_after_body_bytes=0),
        None,
    ),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("when", "then", "kind"), FAULTS.values(), ids=FAULTS)
def test_each_fault_has_its_class_and_the_next_try_ends_with_one_version(
    world: World,
    tmp_path: Path,
    when: Callable[[Exchange], bool],
    then: Callable[[Exchange], None],
    kind: Kind | None,
    size: int,
) -> None:
    world.proxy.fault = once(when, then)
    with source(tmp_path / "f", os.urandom(size), metadata={"a": "b"}) as version:
        fault = tried(lambda: world.send(version))
        assert kind is (fault and fault.kind), fault
        outcome = world.send(version, again=fault is not None, policy=Policy.CLOUD_WINS)
    assert world.bytes_of() == (tmp_path / "f").read_bytes()
    assert outcome.cloud_etag == world.etag_of()


@pytest.mark.parametrize("status", ["429 Too Many", "503 Busy"])
def test_retry_after_is_told(world: World, tmp_path: Path, status: str) -> None:
    world.proxy.fault = once(commit, retry_later(status))
    with source(tmp_path / "f", b"data") as version, pytest.raises(CloudFailed) as raised:
        world.send(version)
    assert raised.value.fault.wait_seconds_min == 7


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_an_answer_cut_off_after_its_status_line_has_a_class_at_any_request(
    world: World, tmp_path: Path, size: int
) -> None:
    """Azure's client raises whatever its own code runs into, as it does not expect an answer without its content."""
    with source(tmp_path / "f", os.urandom(size)) as version:
        world.send(version, "model")
        for number in range(len(world.proxy.log)):
            first = len(world.proxy.log)
            world.proxy.fault = once(is_number(first + number), setting(truncate_answer=20))
            fault = tried(partial(world.send, version, f"b{number}"))
            assert fault is None or fault.kind in (Kind.NOW, Kind.LATER, Kind.LINK), fault
            world.send(version, f"b{number}", again=True, policy=Policy.CLOUD_WINS)
            assert world.bytes_of(f"b{number}") == (tmp_path / "f").read_bytes()


def test_a_look_that_is_cut_off_shows_nobody_elses_version(world: World, tmp_path: Path) -> None:
    """Or a delete would be given up, and a conflict be seen where there is none."""
    with source(tmp_path / "f", b"data") as version:
        etag = world.send(version).cloud_etag
        world.proxy.fault = once(lambda exchange: exchange.method == "HEAD", setting(truncate_answer=20))
        fault = tried(lambda: world.send(version, etag=etag, again=True, policy=Policy.CLOUD_WINS))
        assert fault is not None
        assert fault.kind is Kind.LATER
        world.proxy.fault = once(lambda exchange: exchange.method == "HEAD", setting(truncate_answer=20))
        fault = tried(lambda: delete(world.cloud, To(world.name, "b"), Guard(etag), Errand(), node=NODE))
        assert fault is not None
        assert fault.kind is Kind.LATER


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_reset_at_any_request_loses_and_doubles_nothing(world: World, tmp_path: Path, size: int) -> None:
    """Each request of an upload in turn, before it and after it took effect."""
    with source(tmp_path / "f", os.urandom(size)) as version:
        world.send(version, "model")
        requests = len(world.proxy.log)
        for number in range(requests):
            for how in ({"reset_after_body_bytes": 0}, {"lose_answer": True}):
                name, first = f"b{number}{len(how)}{'lose_answer' in how}", len(world.proxy.log)
                world.proxy.fault = once(is_number(first + number), setting(**how))
                fault = tried(partial(world.send, version, name))
                assert fault is None or fault.kind is Kind.LINK, fault
                outcome = world.send(version, name, again=True, policy=Policy.CLOUD_WINS)
                assert outcome.cloud_etag == world.etag_of(name)
                assert world.bytes_of(name) == (tmp_path / "f").read_bytes()


def test_a_service_that_never_answers_is_left_when_the_errand_is_stopped(world: World, tmp_path: Path) -> None:
    arrived, release = threading.Event(), threading.Event()

    def hang(exchange: Exchange) -> None:
        if commit(exchange):
            arrived.set()
            release.wait(60)

    world.proxy.fault = hang
    errand, failures = Errand(), list[CloudFailed]()

    def send() -> None:
        with source(tmp_path / "f", b"data") as version:
            try:
                world.send(version, errand=errand)
            except CloudFailed as failed:
                failures.append(failed)

    thread = threading.Thread(target=send)
    thread.start()
    assert arrived.wait(30)
    errand.stop()
    thread.join(30)
    ended = not thread.is_alive()
    release.set()
    thread.join()
    assert ended
    assert [failed.fault.code for failed in failures] == ["Cancelled"]


def test_a_deadline_ends_between_pieces(world: World, tmp_path: Path) -> None:
    now = iter(range(10**9))
    with source(tmp_path / "f", bytes(9 * MIB)) as version, pytest.raises(CloudFailed) as raised:
        world.send(version, errand=Errand(deadline=40, clock=lambda: float(next(now))))
    assert raised.value.fault.code == "DeadlinePassed"
    assert not list(world.container.list_blob_names())


def test_a_closed_pace_sends_nothing_more_and_what_was_sent_is_kept(world: World, tmp_path: Path) -> None:
    granted = iter([True] * 100)  # pieces of 64 KiB: one block of 4 MiB, and half of the next

    def pace(count: int) -> Turn:
        return Turn(0.0) if next(granted, False) else Turn(600.0, closed="the schedule sends nothing now")

    data = os.urandom(12 * MIB)
    with source(tmp_path / "f", data) as version:
        with pytest.raises(CloudFailed) as raised:
            world.send(version, errand=Errand(pace=pace), blocks_in_flight=1)
        assert (raised.value.fault.code, raised.value.fault.wait_seconds_min) == ("PaceClosed", 600.0)
        sent = world.proxy.body_bytes
        world.send(version, again=True)
    assert world.bytes_of() == data
    assert world.proxy.body_bytes - sent <= 8 * MIB + 64 * 1024


def test_an_upload_waits_for_its_turn_and_can_be_stopped_meanwhile(world: World, tmp_path: Path) -> None:
    asked = threading.Event()

    def pace(count: int) -> Turn:
        asked.set()
        return Turn(3000.0)

    errand, codes = Errand(pace=pace), list[str]()

    def send() -> None:
        with source(tmp_path / "f", b"data") as version:
            try:
                world.send(version, errand=errand)
            except CloudFailed as failed:
                codes.append(failed.fault.code)

    thread = threading.Thread(target=send)
    thread.start()
    assert asked.wait(30)
    errand.stop()
    thread.join(30)
    assert codes == ["Cancelled"]


def test_memory_is_that_of_pieces_not_of_blocks(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", b"warm", content_md5=None) as warm:
        world.send(warm, "warm")  # imports and caches are not of the upload
    with (tmp_path / "f").open("wb") as file:
        file.truncate(96 * MIB)
    tracemalloc.start()
    try:
        with source(tmp_path / "f", content_md5=None) as version:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            world.send(version)
            peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # The hash reads a MiB at a time; pieces of 64 KiB in flight; the rest is the proxy's and the SDK's.
    assert peak < 8 * MIB


def test_a_delete_whose_answer_is_lost_is_done(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", b"data") as version:
        etag = world.send(version).cloud_etag
    target, guard = To(world.name, "b"), Guard(etag)
    world.proxy.fault = once(lambda exchange: exchange.method == "DELETE", setting(lose_answer=True))
    fault = tried(lambda: delete(world.cloud, target, guard, Errand(), node=NODE))
    assert fault is not None
    assert fault.kind is Kind.LINK
    delete(world.cloud, target, guard, Errand(), node=NODE)
    assert not list(world.container.list_blob_names())


def test_a_lying_delete_is_found_out(world: World, tmp_path: Path) -> None:
    with source(tmp_path / "f", b"data") as version:
        etag = world.send(version).cloud_etag
    world.proxy.fault = once(lambda exchange: exchange.method == "DELETE", setting(answer=answered("202 Accepted")))
    delete(world.cloud, To(world.name, "b"), Guard(etag), Errand(), node=NODE)
    assert not list(world.container.list_blob_names())


def test_a_copy_beside_that_cannot_be_made_leaves_their_version(world: World, tmp_path: Path) -> None:
    world.container.upload_blob("b", b"theirs")

    def refuse(exchange: Exchange) -> None:
        if ".conflict-" in exchange.target and exchange.method == "PUT":
            exchange.answer = answered("500 Internal", "InternalError")

    world.proxy.fault = refuse
    for size in SIZES.values():
        with source(tmp_path / "f", bytes(size)) as version, pytest.raises(CloudFailed) as raised:
            world.send(version, policy=Policy.KEEP_BOTH)
        assert raised.value.fault.kind is Kind.LATER
    assert world.bytes_of() == b"theirs"


def test_a_lying_copy_leaves_their_version(world: World, tmp_path: Path) -> None:
    world.container.upload_blob("b", b"theirs")

    def lie(exchange: Exchange) -> None:
        if ".conflict-" in exchange.target and exchange.method == "PUT":
            exchange.answer = answered("202 Accepted", x_ms_copy_id="1", x_ms_copy_status="success")

    world.proxy.fault = lie
    with source(tmp_path / "f", b"mine") as version, pytest.raises(CloudFailed) as raised:
        world.send(version, policy=Policy.KEEP_BOTH)
    assert raised.value.fault.code == "CopyFailed"
    assert world.bytes_of() == b"theirs"


def test_connections_are_used_again(world: World, tmp_path: Path) -> None:
    """What was stopped does not touch a connection that somebody else uses now."""
    first = Errand()
    with source(tmp_path / "f", b"data") as version:
        world.send(version, "one", errand=first)
        first.stop()
        world.send(version, "two")
    assert world.bytes_of("two") == b"data"


def test_a_key_that_is_not_the_accounts_is_named(world: World, tmp_path: Path) -> None:
    assert world.cloud.settings.file is not None
    world.cloud.settings.file.write_text(base64.b64encode(b"another key").decode())
    with source(tmp_path / "f", b"x") as version:
        fault = tried(lambda: world.send(version))
    assert fault is not None
    assert fault.kind is Kind.OPERATOR
    assert "account key" in fault.text


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        pytest.param(setting(answer=answered("500 Internal", "InternalError")), Kind.LATER, id="500"),
        pytest.param(setting(reset_after_body_bytes=0), Kind.LINK, id="reset"),
    ],
)
def test_a_refusal_that_could_not_be_looked_into_is_no_conflict(
    world: World, tmp_path: Path, then: Callable[[Exchange], None], kind: Kind
) -> None:
    """What refuses the commit may be our own, whose answer was lost: no person is asked before that is known."""
    with source(tmp_path / "f", b"data") as version:
        world.send(version)
        world.proxy.fault = once(lambda exchange: exchange.method == "HEAD", then)
        fault = tried(lambda: world.send(version))
        assert fault is not None
        assert fault.kind is kind
        world.send(version, again=True)
