"""Forged and confusing credentials (attack inputs 2, 14, 15, 16): signatures, tokens, dates, spellings."""

import base64
import hashlib
import re
import time
from email.utils import formatdate
from typing import Final

import pytest

from tests.security.client import FAR, SAS_VERSION, Stranger, encoded, signature
from tests.security.endpoint import Endpoint

PUT: Final = {"x-ms-blob-type": "BlockBlob"}
REFUSED: Final = (400, 401, 403)


@pytest.fixture
def secret(stranger: Stranger, container: str) -> str:
    """The path of a blob that nobody may read without a right credential."""
    assert stranger.signed("PUT", f"/{container}/secret", headers=PUT, body=b"secret").status == 201
    return f"/{container}/secret"


def test_every_bit_of_a_signature_counts(stranger: Stranger, secret: str) -> None:
    token = stranger.service_sas(secret, "r", sr="b")
    assert stranger.bare("GET", secret, token).body == b"secret"
    good = signature_of(token)
    raw = base64.b64decode(good)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        forged = base64.b64encode(flipped).decode()
        assert stranger.bare("GET", secret, with_signature(token, forged)).status == 403
    twins = [good.rstrip("="), good + "=", good + "A", good[:-1], good.lower(), good.upper(), " " + good, good + " ",
             good.replace("=", ""), good + "\n", "\t" + good, good[::-1], good * 2, "A" * 44, "=" * 44, "\u212a" * 44,
             base64.b64encode(b"\0" * 32).decode(), raw.hex(), "null", "undefined", "0", "true", "[]"]  # fmt: skip
    for twin in twins:
        if twin != good:
            assert stranger.bare("GET", secret, with_signature(token, twin)).status in REFUSED, twin
    # The last character has two bits that stand for no byte: other spellings of the same bytes are refused.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(good[-2])
    for other in range(last & ~3, (last & ~3) + 4):
        if other != last:
            assert stranger.bare("GET", secret, with_signature(token, good[:-2] + alphabet[other] + "=")).status == 403


def signature_of(token: str) -> str:
    found = re.search(r"sig=([^&]+)", token)
    assert found is not None
    return re.sub("%(..)", lambda m: chr(int(m[1], 16)), found[1])


def with_signature(token: str, text: str) -> str:
    return re.sub(r"sig=[^&]*", lambda _: encoded({"sig": text}) or "sig=", token)


def test_claims_cannot_be_changed_added_or_moved(stranger: Stranger, container: str, secret: str) -> None:
    token = stranger.service_sas(secret, "r", sr="b")
    sv = f"sv={SAS_VERSION}"
    forgeries = [
        token.replace("sp=r", "sp=rw"), token.replace("sr=b", "sr=c"), token.replace("se=2099", "se=2199"),
        token.replace(sv, "sv=2018-03-28"), token.replace(sv, "sv=2015-04-05"), token.replace(sv, "sv=2012-02-12"),
        token.replace(sv, "sv=2999-01-01"), token.replace(sv, ""), token + "&ss=b&srt=sco", token + "&si=p",
        token + "&sip=0.0.0.0-255.255.255.255", token + "&spr=https,http", token + "&st=2020-01-01", token + "&rscd=x",
        token + "&rsct=text/html", token + "&skoid=a", token + "&sdd=1", token + "&ses=x", token + "&sv=2022-11-02",
        "sp=rwd&" + token, token + "&sp=rwd", token + "&SP=rwd", token + "&Sp=r", token + "&SIG=x", token + "&s%69g=x",
        token + "&sig=" + "A" * 44, token + "&se=2099-01-01",
        token.replace("sp=r", "sp=r%0a"), token.replace("sp=r", "sp=r%20"), token.replace("sp=r", "sp=%00r"),
        token + "&sp", token + "&sp=", token.replace("&", ";"), token.replace("&", "&amp;"), token + "#sp=rwd",
    ]  # fmt: skip
    for forged in forgeries:
        if forged == token:
            continue
        for method, headers, body in (("PUT", PUT, b"x"), ("DELETE", {}, b"")):
            answer = stranger.bare(method, secret, forged, headers, body)
            assert answer.status in REFUSED, (forged, answer)
        answer = stranger.bare("GET", secret, forged)
        assert answer.status in REFUSED, (forged, answer)
    assert stranger.signed("GET", secret).body == b"secret"


def test_line_breaks_do_not_shift_the_string_to_sign(stranger: Stranger, container: str, secret: str) -> None:
    """Two tokens with one string to sign: the fields of the second hold line breaks, so that a permission of the
    attacker's choice would slide into place. It would verify; the form has to be refused."""
    account = stranger.account
    lines = ["r", "", FAR, f"/blob/{account}/{container}", "", "", "", SAS_VERSION, "c", "", "", "", "", "", "", ""]
    text = "\n".join(lines)
    sig = signature(stranger.key, text)
    good = {"sv": SAS_VERSION, "sr": "c", "sp": "r", "se": FAR, "sig": sig}
    assert stranger.bare("GET", secret, encoded(good)).status == 200
    shifted = [
        {"sp": f"r\n\n{FAR}\n/blob/{account}/{container}", "sv": SAS_VERSION, "sr": "c", "sig": sig},
        {"sp": "r\n", "se": FAR, "sv": SAS_VERSION, "sr": "c", "sig": sig},
        {"sp": "r", "st": f"\n{FAR}", "sv": SAS_VERSION, "sr": "c", "sig": sig},
        {"sp": "r", "se": FAR, "sv": f"{SAS_VERSION}\nc", "sr": "", "sig": sig},
        {"sp": "r", "se": FAR, "si": "\n\n", "sv": SAS_VERSION, "sr": "c", "sig": sig},
        {"sp": "r", "se": FAR, "sv": SAS_VERSION, "sr": "c", "rscc": "\n\n\n", "sig": sig},
    ]
    for fields in shifted:
        assert stranger.bare("GET", secret, encoded(fields)).status in REFUSED, fields
    hostile = f"{secret}%0a"
    token = {"sv": SAS_VERSION, "sr": "b", "sp": "r", "se": FAR}
    for name in (f"/{container}/secret\n", f"/{container}/secret\n\n\nx"):
        lines = ["r", "", FAR, f"/blob/{account}{name}", "", "", "", SAS_VERSION, "b", "", "", "", "", "", "", ""]
        sig = signature(stranger.key, "\n".join(lines))
        assert stranger.bare("GET", hostile, encoded({**token, "sig": sig})).status in REFUSED


def test_a_token_fits_one_resource(stranger: Stranger, container: str, secret: str) -> None:
    for name in ("a/b/c", "a/bc", "ab/c", "a"):
        assert stranger.signed("PUT", f"/{container}/{name}", headers=PUT, body=b"x").status == 201
    snapshot = stranger.signed("PUT", secret, "comp=snapshot").headers["x-ms-snapshot"]
    sas, c = stranger.service_sas, f"/{container}"
    ways = [
        (sas(secret, "r", sr="b"), {secret: 200, f"{c}/a": 403, f"{secret}?snapshot={snapshot}": 200}),
        (sas(secret, "r", snapshot, sr="bs"), {secret: 403, f"{c}/a": 403, f"{secret}?snapshot={snapshot}": 200}),
        (sas(f"{c}/a", "r", sr="d", sdd="1"), {f"{c}/a/b/c": 200, f"{c}/a/bc": 200, f"{c}/ab/c": 403, secret: 403}),
        (sas(f"{c}/a/b", "r", sr="d", sdd="2"), {f"{c}/a/b/c": 200, f"{c}/a/bc": 403, f"{c}/a": 403}),
        (sas(f"{c}/a/b", "r", sr="d", sdd="1"), {f"{c}/a/b/c": 403}),
        (sas(f"{c}/a", "r", sr="d", sdd="0"), {f"{c}/a/b/c": 403}),
        (sas(f"{c}/a", "r", sr="d", sdd="-1"), {f"{c}/a/b/c": 403}),
        (sas(f"{c}/a", "r", sr="d", sdd="01"), {f"{c}/b": 403, secret: 403}),
        (sas(f"{c}/a", "r", sr="d"), {f"{c}/a/b/c": 403}),
        (sas(c, "r", sr="c"), {secret: 200, f"{c}/a": 200, f"{c}x/secret": 403}),
        (sas(c + "/", "r", sr="c"), {secret: 403}),
        (sas("", "r", sr="c"), {secret: 403}),
        (sas("/", "r", sr="c"), {secret: 403}),
        (sas(secret, "r", sr="c"), {secret: 403}),
        (sas(c, "r", sr="b"), {secret: 403}),
        (sas(secret, "r", sr="f"), {secret: 403}),
        (sas(secret, "r", sr="B"), {secret: 403}),
        (sas(f"{c}//secret", "r", sr="b"), {secret: 403}),
    ]
    for token, targets in ways:
        for target, status in targets.items():
            path, _, query = target.partition("?")
            answer = stranger.bare("GET", path, f"{query}&{token}".lstrip("&"))
            assert answer.status == status or (status == 200 and answer.status == 404), (token, target, answer)


def test_a_plus_is_a_plus_in_a_signature_only(stranger: Stranger, secret: str) -> None:
    """Clients that do not escape base64 are understood; that opens no second spelling of another field."""
    for number in range(200):
        token = stranger.service_sas(secret, "r", sr="b", rscc=f"n{number}")
        if "%2B" in token.partition("sig=")[2]:
            break
    assert stranger.bare("GET", secret, token.replace("%2B", "+")).body == b"secret"
    assert stranger.bare("GET", secret, token.replace("%2B", "%20")).status == 403
    spaced = stranger.service_sas(secret, "r", sr="b", rscc="a b")
    assert stranger.bare("GET", secret, spaced.replace("a%20b", "a%2Bb")).status == 403


def test_shared_key_covers_what_counts(stranger: Stranger, container: str, secret: str) -> None:
    sent = stranger.dressed("GET", None, b"")
    sent["authorization"] = stranger.authorization("GET", f"/victim{secret}", "", sent)
    target = f"/victim{secret}"
    assert stranger.send("GET", target, sent).body == b"secret"
    changes: list[tuple[str, str, dict[str, str]]] = [
        ("HEAD", target, {}), ("DELETE", target, {}), ("GET", target + "?comp=metadata", {}), ("GET", target + "?a=b",
        {}), ("GET", f"/victim/{container}/other", {}), ("GET", f"/victim//{container}/secret", {}), ("GET", target +
        "/", {}), ("GET", target.replace("secret", "%73ecret"), {}), ("GET", f"/bystander{secret}", {}), ("GET",
        secret, {}), ("GET", target, {"x-ms-range": "bytes=0-1"}), ("GET", target, {"range": "bytes=0-1"}), ("GET",
        target, {"x-ms-a": ""}), ("GET", target, {"x-ms-version": "2019-12-12"}), ("GET", target, {"if-match": "*"}),
        ("GET", target, {"x-ms-date": ""}), ("GET", target, {"content-md5": "x"}), ("GET", target, {"content-type":
        "x"}), ("GET", target, {"content-language": "x"}), ("GET", target, {"x-ms-meta-a": "b"}), ("GET", target,
        {"authorization": sent["authorization"][:-2]}), ("GET", target, {"authorization":
        sent["authorization"].replace("victim", "bystander")}), ("GET", target, {"authorization":
        sent["authorization"].replace("SharedKey", "SharedKeyLite")}), ("GET", target, {"authorization":
        sent["authorization"] + ", SharedKey victim:x"}), ("GET", target, {"authorization":
        sent["authorization"].replace("SharedKey ", "Bearer ")}), ("GET", target, {"authorization":
        sent["authorization"].replace("SharedKey ", "SharedKey victim:AAAA ")}), ("GET",
        f"http://bystander.blob.core.windows.net{secret}", {"Host": "bystander.blob.core.windows.net"}),
    ]  # fmt: skip
    for method, changed, headers in changes:
        answer = stranger.send(method, changed, {**sent, **headers})
        assert answer.status in REFUSED, (method, changed, headers, answer)


def test_duplicate_headers_are_refused(stranger: Stranger, secret: str) -> None:
    sent = stranger.dressed("GET", None, b"")
    sent["authorization"] = stranger.authorization("GET", f"/victim{secret}", "", sent)
    for name in ("authorization", "x-ms-date", "x-ms-version", "host", "range", "if-match"):
        for value in ("x", sent.get(name, "y")):
            headers = "".join(f"{n}: {v}\r\n" for n, v in {"Host": f"127.0.0.1:{stranger.port}", **sent}.items())
            twice = f"{name}: {value}\r\n" if name in (*sent, "host") else f"{name}: {value}\r\n{name}: {value}\r\n"
            answer = stranger.send_bytes(f"GET /victim{secret} HTTP/1.1\r\n{headers}{twice}\r\n".encode())
            assert answer.status == 400, (name, answer)
            assert sent["authorization"].encode() not in answer.raw


@pytest.mark.parametrize("header", ["x-ms-date", "date"])
def test_old_and_future_requests(stranger: Stranger, secret: str, header: str) -> None:
    now = time.time()
    for minutes, fresh in ((0, True), (-14, True), (14, True), (-16, False), (16, False), (-(10**7), False)):
        sent = {"x-ms-version": "2021-12-02", header: formatdate(now + minutes * 60, usegmt=True)}
        sent["authorization"] = stranger.authorization("GET", f"/victim{secret}", "", sent)
        assert (stranger.send("GET", f"/victim{secret}", sent).status == 200) is fresh, minutes
    for text in (
        "", "now", "2026-01-01T00:00:00Z", "Thu, 99 Xyz 2026 00:00:00 GMT", "0", "9" * 400, "%s",
        "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 2024 00:00:00 +0000",
    ):  # fmt: skip
        sent = {"x-ms-version": "2021-12-02", header: text}
        sent["authorization"] = stranger.authorization("GET", f"/victim{secret}", "", sent)
        assert stranger.send("GET", f"/victim{secret}", sent).status in REFUSED, text
    sent = {"x-ms-version": "2021-12-02", "x-ms-date": formatdate(now - 10**6, usegmt=True)}
    sent["date"] = formatdate(now, usegmt=True)
    sent["authorization"] = stranger.authorization("GET", f"/victim{secret}", "", sent)
    assert stranger.send("GET", f"/victim{secret}", sent).status == 403  # x-ms-date counts


def test_a_changed_body_is_noticed_where_it_was_signed(stranger: Stranger, container: str) -> None:
    body, other = b"the real body", b"another body!"
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    headers = {**PUT, "content-md5": md5, "content-length": str(len(body))}
    sent = stranger.dressed("PUT", headers, body)
    target = f"/victim/{container}/swapped"
    sent["authorization"] = stranger.authorization("PUT", target, "", sent)
    answer = stranger.send("PUT", target, sent, other)
    assert (answer.status, answer.code) == (400, "Md5Mismatch")
    assert stranger.send("PUT", target, sent, body).status == 201


def test_tokens_of_unknown_schemes_and_odd_shapes(stranger: Stranger, secret: str) -> None:
    parts = (b'{"alg":"none"}', b'{"aud":"x"}', b"")
    jwt = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    values = [
        f"Bearer {jwt}", f"bearer {jwt}", "Bearer", "Bearer ", "Bearer " + "a" * 60_000, "Basic dmljdGltOng=",
        "Digest a=b", "Negotiate x", "AWS4-HMAC-SHA256 Credential=x", "SharedKeyForTable victim:x", "a", ":",
        "SharedAccessSignature sv=x", "\x80", "SharedKey victim:x:y", "SharedKey  victim:x", "SharedKey victim :x",
        "SharedKey\tvictim:x", "sharedkey VICTIM:x", ",", "SharedKey victim:" + "A" * 60_000, "SharedKey " + "v" * 5000
        + ":x", "\u00e9 \u00e9:\u00e9", "Shared Key victim:x",
    ]  # fmt: skip
    for value in values:
        answer = stranger.bare("GET", secret, "", {"authorization": value})
        assert answer.status in REFUSED, (value[:50], answer)
        assert answer.body != b"secret"


def test_the_secondary_endpoint_reads_only(stranger: Stranger, endpoint: Endpoint, secret: str) -> None:
    token = stranger.account_sas()
    headers = stranger.dressed("PUT", PUT, b"x")
    assert stranger.send("PUT", f"/victim-secondary{secret}?{token}", headers, b"x").status == 403
    headers = stranger.dressed("DELETE", None, b"")
    assert stranger.send("DELETE", f"/victim-secondary{secret}?{token}", headers).status == 403
    names = ("victim-secondary-secondary", "-secondary", "victim%2dsecondary", "VICTIM", "victim%00", "victim.")
    for account in names:
        answer = stranger.send("GET", f"/{account}{secret}?{token}", stranger.dressed("GET", None, b""))
        assert answer.status in (400, 403, 404), (account, answer)
