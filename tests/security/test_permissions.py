"""No operation is served without its permission (goal 17, attack inputs 16 and 17): the whole matrix, over the wire.

Every operation of operations.SPECS x no credential, Shared Key, account SAS, SAS of a container, of a blob and of a
directory x each permission letter alone and each needed letter missing, and the wrong resource type, service, time,
address, protocol, account and key.
"""

from collections.abc import Mapping
from typing import Final

import pytest

from dataplane.blobapi.operations import SPECS, Operation
from tests.security.client import EVERY_LETTER, Answer, Stranger
from tests.security.endpoint import Endpoint
from tests.security.examples import OPEN, REQUESTS, Example

PUT: Final = {"x-ms-blob-type": "BlockBlob"}
PAST: Final = "2020-01-01T00:00:00Z"
BLOB: Final = "dir/blob"
REFUSED: Final = {
    "AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch", "AuthorizationServiceMismatch",
    "AuthorizationResourceTypeMismatch", "AuthorizationProtocolMismatch", "AuthorizationSourceIPMismatch",
    "NoAuthenticationInformation", "ResourceNotFound", "PublicAccessNotPermitted",
    "InvalidAuthenticationInfo",
}  # fmt: skip
ALL: Final = sorted(SPECS, key=lambda operation: operation.name)
each_operation = pytest.mark.parametrize("operation", [o for o in ALL if o not in OPEN], ids=lambda o: o.name)


def test_every_operation_is_in_the_matrix() -> None:
    assert set(REQUESTS) | OPEN == set(SPECS) == set(Operation)


class Matrix:
    """Asks one operation on one container's blob."""

    def __init__(self, stranger: Stranger, container: str, example: Example) -> None:
        self.stranger, self.container, self.example = stranger, container, example
        self.path = example.path.format(c=container, b=BLOB)
        self.headers: Mapping[str, str] = {
            name: text.format(port=stranger.port, c=container) for name, text in example.headers.items()
        }

    def bare(self, token: str = "", more: Mapping[str, str] | None = None) -> Answer:
        """With a SAS, or nothing."""
        query = "&".join(part for part in (self.example.query, token) if part)
        return self.stranger.bare(
            self.example.method, self.path, query, {**self.headers, **(more or {})}, self.example.body
        )

    def signed(self, more: Mapping[str, str] | None = None) -> Answer:
        headers = {**self.headers, **(more or {})}
        return self.stranger.signed(self.example.method, self.path, self.example.query, headers, self.example.body)

    def service_tokens(self, letters: str) -> dict[str, str]:
        """A service SAS of every kind that fits the target."""
        sas = self.stranger.service_sas
        tokens = {"container": sas(f"/{self.container}", letters)}
        if self.path == f"/{self.container}/{BLOB}":
            tokens["blob"] = sas(f"/{self.container}/{BLOB}", letters, sr="b")
            tokens["directory"] = sas(f"/{self.container}/dir", letters, sr="d", sdd="1")
        return tokens


#: Refusals that come later, when the operation itself was allowed: of the source, and of what is there already.
LATER: Final = {"UnauthorizedBlobOverwrite", "CannotVerifyCopySource"}


def refused(answer: Answer) -> bool:
    """Whether the answer is one of missing permission; any other, an error of the request included, came later."""
    if answer.code in LATER:
        return False
    if answer.code in REFUSED or answer.status in (401, 403):
        assert answer.status in (401, 403, 404, 409) or answer.code == "InvalidAuthenticationInfo", answer
        return True
    return False


@pytest.fixture
def matrix(stranger: Stranger, container: str, operation: Operation) -> Matrix:
    assert stranger.signed("PUT", f"/{container}/{BLOB}", headers=PUT, body=b"secret").status == 201
    return Matrix(stranger, container, REQUESTS[operation])


@each_operation
def test_nobody(matrix: Matrix, operation: Operation) -> None:
    for more in ({}, {"x-ms-version": "2018-11-09"}, {"authorization": ""}, {"authorization": "Basic YTpi"},
                 {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, {"authorization": "SharedKey"},
                 {"authorization": "SharedKey victim:"}, {"authorization": "SharedKey :x"},
                 {"authorization": "SharedKeyLite victim:AAAA"}, {"authorization": "user delegation sas"},
                 {"x-ms-copy-source-authorization": "Bearer x"}):  # fmt: skip
        assert refused(matrix.bare(more=more)), more
    for token in ("sig=", "sig=AAAA", "se=2099-01-01&sp=racwdl", "skoid=a&sktid=b&sig=AAAA", "sv=2022-11-02&sr=c&sp=r"):
        assert refused(matrix.bare(token)), token


@each_operation
def test_the_key(endpoint: Endpoint, matrix: Matrix, operation: Operation) -> None:
    assert not refused(matrix.signed()) or operation is Operation.GET_USER_DELEGATION_KEY
    mine = matrix.stranger.key
    matrix.stranger.key = endpoint.keys[1]
    assert not refused(matrix.signed()) or operation is Operation.GET_USER_DELEGATION_KEY
    matrix.stranger.key = endpoint.keys[2]  # another account's
    assert refused(matrix.signed())
    assert refused(matrix.bare(matrix.stranger.account_sas()))
    matrix.stranger.key = mine


@each_operation
def test_each_letter_of_an_account_sas(matrix: Matrix, operation: Operation) -> None:
    for letter in EVERY_LETTER:
        allowed = letter in matrix.example.letters
        answer = matrix.bare(matrix.stranger.account_sas(letter))
        assert refused(answer) is not allowed, (letter, answer)
    without = "".join(letter for letter in EVERY_LETTER if letter not in matrix.example.letters)
    assert refused(matrix.bare(matrix.stranger.account_sas(without)))


@each_operation
def test_each_resource_type_and_service(matrix: Matrix, operation: Operation) -> None:
    needed = matrix.example.types if matrix.example.letters else ""
    for types in ("s", "c", "o", "sc", "so", "co"):
        answer = matrix.bare(matrix.stranger.account_sas(srt=types))
        assert refused(answer) is set(types).isdisjoint(needed), (types, answer)
    for services in ("f", "q", "t", "fqt"):
        assert refused(matrix.bare(matrix.stranger.account_sas(ss=services))), services


@each_operation
def test_each_letter_of_a_service_sas(matrix: Matrix, operation: Operation) -> None:
    for letter in EVERY_LETTER:
        allowed = matrix.example.service and letter in matrix.example.letters
        for kind, token in matrix.service_tokens(letter).items():
            answer = matrix.bare(token)
            assert refused(answer) is not (allowed and matrix.container in matrix.path), (letter, kind, answer)


@each_operation
def test_tokens_that_are_not_valid_now_or_here(matrix: Matrix, operation: Operation) -> None:
    limits = (
        {"se": PAST}, {"st": "2098-01-01T00:00:00Z"}, {"spr": "https"}, {"sip": "10.0.0.1"}, {"sip":
        "10.0.0.1-10.0.0.9"}, {"sv": "2014-02-14"}, {"sv": ""}, {"se": ""}, {"se": "never"}, {"sip": "::1"}, {"spr":
        "http"},
    )  # fmt: skip
    for fields in limits:
        for token in (
            matrix.stranger.account_sas(**fields),
            matrix.stranger.service_sas(f"/{matrix.container}", **fields),
        ):
            assert refused(matrix.bare(token)), fields
            assert refused(matrix.bare(token, {"x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "https",
                                               "forwarded": "for=10.0.0.1;proto=https"})), fields  # fmt: skip


@each_operation
def test_two_credentials_are_none(matrix: Matrix, operation: Operation) -> None:
    token = matrix.stranger.account_sas()
    query = "&".join(part for part in (matrix.example.query, token) if part)
    for headers in ({"authorization": "SharedKey victim:AAAA"}, {"authorization": "Bearer x"}, {}):
        if headers:
            assert refused(matrix.bare(token, headers)), headers
        else:  # both valid
            example = matrix.example
            answer = matrix.stranger.signed(example.method, matrix.path, query, matrix.headers, example.body)
            assert refused(answer), answer


@each_operation
@pytest.mark.parametrize("access", ["container", "blob"])
def test_public_containers(matrix: Matrix, operation: Operation, access: str) -> None:
    acl = {"x-ms-blob-public-access": access}
    assert matrix.stranger.signed("PUT", f"/{matrix.container}", "restype=container&comp=acl", acl).status == 200
    open_to_all = access in matrix.example.public
    assert refused(matrix.bare()) is not open_to_all
    assert refused(matrix.bare(more={"x-ms-if-tags": "\"a\"='b'"}))  # the answer would tell the tags


OVERWRITES: Final = [o for o in ALL if SPECS[o].overwrite_sas]


@pytest.mark.parametrize("operation", OVERWRITES, ids=lambda o: o.name)
def test_create_does_not_overwrite(stranger: Stranger, container: str, operation: Operation) -> None:
    """The letter c makes a blob, but replaces none."""
    source = f"http://127.0.0.1:{stranger.port}/victim/{container}/source"
    for name in ("source", BLOB):
        assert stranger.signed("PUT", f"/{container}/{name}", headers=PUT, body=b"kept").status == 201
    example = REQUESTS[operation]
    headers = {**example.headers}
    if "x-ms-copy-source" in headers:
        headers["x-ms-copy-source"] = f"{source}?{stranger.service_sas(f'/{container}/source', 'r', sr='b')}"
    matrix = Matrix(stranger, container, example)
    for token in [stranger.account_sas("c"), *matrix.service_tokens("c").values()]:
        query = "&".join(part for part in (example.query, token) if part)
        answer = stranger.bare("PUT", f"/{container}/{BLOB}", query, headers, example.body)
        assert (answer.status, answer.code) == (403, "UnauthorizedBlobOverwrite"), answer
        assert stranger.signed("GET", f"/{container}/{BLOB}").body == b"kept"
    query = "&".join(part for part in (example.query, stranger.account_sas("c")) if part)
    assert stranger.bare("PUT", f"/{container}/fresh", query, headers, example.body).status in (201, 202)


def test_writes_need_t_to_bring_tags(stranger: Stranger, container: str) -> None:
    for token in (stranger.account_sas("cwdr"), stranger.service_sas(f"/{container}", "cwdr")):
        answer = stranger.bare("PUT", f"/{container}/b", token, {**PUT, "x-ms-tags": "a=b"}, b"x")
        assert refused(answer), answer
        answer = stranger.bare("GET", f"/{container}", "restype=container&comp=list&include=tags&" + token)
        assert refused(answer), answer


def test_batch_parts_have_credentials_of_their_own(endpoint: Endpoint, stranger: Stranger, container: str) -> None:
    """Nothing of the batch's own permission carries over, and a part stays in the batch's account and container."""
    elsewhere = f"{container}-b"
    assert stranger.signed("PUT", f"/{elsewhere}", "restype=container").status == 201
    for place in (container, elsewhere):
        assert stranger.signed("PUT", f"/{place}/kept", headers=PUT, body=b"kept").status == 201
    other = endpoint.stranger("bystander")
    assert other.signed("PUT", "/theirs", "restype=container").status in (201, 409)
    assert other.signed("PUT", "/theirs/kept", headers=PUT, body=b"kept").status == 201
    all_of_it, read_only = stranger.account_sas(), stranger.account_sas("r")
    mine = stranger.service_sas(f"/{container}", "d")
    parts = [
        ("/victim/{c}/kept", "", ""), ("/victim/{c}/kept", read_only, ""), ("/victim/{c}/kept", mine + "x", ""),
        ("/victim/{c}/kept", stranger.service_sas(f"/{elsewhere}", "d"), ""), ("/victim/{e}/kept", mine, ""),
        ("/bystander/theirs/kept", other.account_sas(), ""), ("/bystander/theirs/kept", all_of_it, ""),
        ("/theirs/kept", other.account_sas(), "Host: bystander.blob.core.windows.net\r\n"),
        ("/victim/{c}?restype=container", all_of_it, ""), ("/victim/?comp=batch", all_of_it, ""),
        ("/victim/{c}/../{e}/kept", mine, ""), ("/victim/{c}/%2e%2e/{e}/kept", mine, ""),
        ("http://bystander.blob.core.windows.net/theirs/kept", other.account_sas(), ""),
    ]  # fmt: skip
    for where, batch_query in (("/", "comp=batch"), (f"/{container}", "restype=container&comp=batch")):
        for path, token, extra in parts:
            target = path.format(c=container, e=elsewhere)
            target += ("&" if "?" in target else "?") + token
            part = f"--b\r\nContent-Type: application/http\r\n\r\nDELETE {target} HTTP/1.1\r\n{extra}"
            part += "Content-Length: 0\r\n\r\n"
            headers = {"content-type": "multipart/mixed; boundary=b"}
            answer = stranger.signed("POST", where, batch_query, headers, f"{part}--b--\r\n".encode())
            assert b" 202 Accepted" not in answer.body, (where, path, answer)
    for client, place in ((stranger, container), (stranger, elsewhere), (other, "theirs")):
        assert client.signed("GET", f"/{place}/kept").body == b"kept"
    other.close()


def test_a_read_only_container_takes_no_write(endpoint: Endpoint, stranger: Stranger) -> None:
    before = sorted(path.name for path in endpoint.mapped.iterdir())
    for operation, example in REQUESTS.items():
        if not SPECS[operation].write or not example.path.startswith("/{c}"):
            continue
        path = example.path.replace("{c}-scrap", "readonly").format(c="readonly", b="shown.txt")
        headers = {n: t.format(port=stranger.port, c="readonly") for n, t in example.headers.items()}
        answer = stranger.signed(example.method, path, example.query, headers, example.body)
        assert answer.status in (403, 409), (operation, answer)
    assert sorted(path.name for path in endpoint.mapped.iterdir()) == before
    assert stranger.signed("GET", "/readonly/shown.txt").body == b"mapped"


def test_revoked_policies_and_tokens_without_one(stranger: Stranger, container: str) -> None:
    assert stranger.signed("PUT", f"/{container}/b", headers=PUT, body=b"x").status == 201
    acl = (
        b"<SignedIdentifiers><SignedIdentifier><Id>p</Id><AccessPolicy><Start>2020-01-01</Start>"
        b"<Expiry>2099-01-01</Expiry><Permission>r</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>"
    )
    assert stranger.signed("PUT", f"/{container}", "restype=container&comp=acl", body=acl).status == 200
    token = stranger.service_sas(f"/{container}", "", si="p", se="")
    assert stranger.bare("GET", f"/{container}/b", token).status == 200
    assert refused(stranger.bare("PUT", f"/{container}/b", token, PUT, b"y"))
    tokens = [("rw", {"si": "p", "se": ""}), ("", {"si": "p"}), ("rw", {"si": "q"}), ("", {"si": "", "se": ""})]
    for letters, fields in tokens:
        wrong = stranger.service_sas(f"/{container}", letters, "", **fields)
        assert refused(stranger.bare("GET", f"/{container}/b", wrong))
    acl = b"<SignedIdentifiers/>"
    assert stranger.signed("PUT", f"/{container}", "restype=container&comp=acl", body=acl).status == 200
    assert refused(stranger.bare("GET", f"/{container}/b", token))
