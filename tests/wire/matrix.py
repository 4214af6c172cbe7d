"""What all operations have in common, as rows made from the first row of each: who may call it, names that are none,
things that are absent, conditional headers, leases.

Which operation has which of these stands in sets here, from the REST pages. A set that forgot an operation leaves
documented headers of it unsent, which test_totality.py notices.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from dataplane.blobapi.errors import ErrorCode as E
from dataplane.blobapi.message import Level
from dataplane.blobapi.operations import SPECS
from dataplane.blobapi.operations import Operation as O
from tests.wire.documented import REFUSED, REQUEST_HEADERS
from tests.wire.rows import GUID, NOBODY, OTHER_GUID, Row
from tests.wire.rows_blob import BLOB_ROWS
from tests.wire.rows_block import BLOCK_ROWS
from tests.wire.rows_container import CONTAINER_ROWS
from tests.wire.rows_service import SERVICE_ROWS

WRITTEN: Final[Mapping[O, tuple[Row, ...]]] = {**SERVICE_ROWS, **CONTAINER_ROWS, **BLOB_ROWS, **BLOCK_ROWS}

#: What reads a blob: all four conditions and x-ms-if-tags; a wrong lease id fails, none is needed.
READS: Final = frozenset({O.GET_BLOB, O.GET_BLOB_PROPERTIES, O.GET_BLOB_METADATA})
#: What changes a blob that has to exist.
CHANGES: Final = frozenset({O.SET_BLOB_PROPERTIES, O.SET_BLOB_METADATA, O.DELETE_BLOB, O.SNAPSHOT_BLOB, O.LEASE_BLOB})
#: What makes a blob or replaces it.
CREATES: Final = frozenset({O.PUT_BLOB, O.PUT_BLOCK_LIST, O.COPY_BLOB, O.COPY_BLOB_FROM_URL, O.PUT_BLOB_FROM_URL})
COPIES: Final = frozenset({O.COPY_BLOB, O.COPY_BLOB_FROM_URL, O.PUT_BLOB_FROM_URL, O.PUT_BLOCK_FROM_URL})
#: What takes the conditions of tags: the four under names of their own, and x-ms-if-tags.
TAGGING: Final = frozenset({O.GET_BLOB_TAGS, O.SET_BLOB_TAGS})
#: What takes x-ms-if-tags alone.
TAG_CONDITION: Final = frozenset({O.SET_BLOB_TIER, O.GET_BLOCK_LIST})
#: What needs the id of an active lease; what only refuses a wrong one.
LEASE_NEEDED: Final = (
    (CHANGES | CREATES | {O.ABORT_COPY_BLOB, O.PUT_BLOCK, O.PUT_BLOCK_FROM_URL, O.SET_BLOB_TAGS, O.SET_BLOB_TIER})
    - {O.SNAPSHOT_BLOB, O.LEASE_BLOB}
)  # fmt: skip
LEASE_CHECKED: Final = READS | {O.SNAPSHOT_BLOB, O.GET_BLOB_TAGS, O.GET_BLOCK_LIST}
#: Container operations with dates as conditions, and those where a wrong lease id fails.
CONTAINER_DATED: Final = frozenset(
    {O.DELETE_CONTAINER, O.SET_CONTAINER_ACL, O.SET_CONTAINER_METADATA, O.LEASE_CONTAINER}
)
CONTAINER_LEASE_CHECKED: Final = frozenset(
    {
        O.DELETE_CONTAINER,
        O.SET_CONTAINER_ACL,
        O.SET_CONTAINER_METADATA,
        O.GET_CONTAINER_ACL,
        O.GET_CONTAINER_METADATA,
        O.GET_CONTAINER_PROPERTIES,
    }
)
#: What needs its blob to be there.
EXISTING_BLOB: Final = READS | CHANGES | TAGGING | TAG_CONDITION | {O.ABORT_COPY_BLOB}
#: Resource types of an account SAS, beside the operation's own; those not named take their own alone.
_ANY_TYPE: Final = frozenset({O.GET_ACCOUNT_INFORMATION, O.SERVICE_BATCH, O.CONTAINER_BATCH})
_LEASED: Final = "blob lease"
_NO_TAGS: Final = "\"none\" = 'such'"


def rows_of(operation: O) -> tuple[Row, ...]:
    """Every row of an operation, written and made."""
    return (*WRITTEN[operation], *made(operation))


def made(operation: O) -> Iterator[Row]:
    """The rows that an operation has in common with others."""
    base = WRITTEN[operation][0]
    yield from _common(operation, base)
    if operation is not O.PREFLIGHT:
        yield from _access(operation, base)
    level = SPECS[operation].level
    if level is not Level.SERVICE:
        yield from _names(operation, base)
    yield from _conditions(operation, base)
    yield from _leases(operation, base)


def _common(operation: O, base: Row) -> Iterator[Row]:
    if base.who == NOBODY:
        return
    yield replace(base, ask=_with(base.ask, "timeout=30"), why="a timeout changes nothing", shows="", text=())
    yield _but(base, E.INVALID_HEADER_VALUE, "no version", **{"x-ms-version": "new"})
    yield _but(base, E.INVALID_HEADER_VALUE, "a version that is too old", **{"x-ms-version": "2009-09-19"})
    for name in sorted(set(REQUEST_HEADERS[operation].split()) & REFUSED):
        yield _but(base, E.FEATURE_NOT_SUPPORTED, **{name: "1"})
    versioned = replace(base, ask=_with(base.ask, "versionid=2026-01-01T00:00:00.0000000Z"))
    yield _but(versioned, E.FEATURE_NOT_SUPPORTED, "a version of a blob")


def _access(operation: O, base: Row) -> Iterator[Row]:
    spec = SPECS[operation]

    def by(who: str, want: int | E, **more: object) -> Row:
        changes = {"who": who, "want": want, "shows": "", "hides": "", "text": (), **more}
        return replace(base, **changes)  # type: ignore[arg-type]

    yield by(NOBODY, E.NO_AUTHENTICATION_INFORMATION, shows="www-authenticate")
    yield by(NOBODY, E.RESOURCE_NOT_FOUND, version=None)
    yield by("wrong key", E.AUTHENTICATION_FAILED)
    yield by("raw SharedKey junk", E.INVALID_AUTHENTICATION_INFO)
    yield by("raw Bearer abc", E.AUTHENTICATION_FAILED)
    if operation is O.GET_USER_DELEGATION_KEY:
        return
    yield by("account ss=q", E.AUTHORIZATION_SERVICE_MISMATCH)
    yield by("account spr=https", E.AUTHORIZATION_PROTOCOL_MISMATCH)
    yield by("account sip=10.1.2.3", E.AUTHORIZATION_SOURCE_IP_MISMATCH)
    yield by("account se=2015-01-01T00:00:00Z", E.AUTHENTICATION_FAILED)
    if operation not in _ANY_TYPE:
        others = {"s": "c", "c": "o", "o": "c"}[spec.resource_type]
        yield by(f"account srt={others}", E.AUTHORIZATION_RESOURCE_TYPE_MISMATCH)
    if not spec.sas:
        yield by("account sp=rwdlacup", E.AUTHORIZATION_FAILURE)
        return
    # The token was checked for the destination alone, so a copy's source has to be signed itself.
    allowed = E.CANNOT_VERIFY_COPY_SOURCE_403 if operation in COPIES else base.want
    yield by("account sp=rwdlacupitfx", allowed)
    if len(spec.sas) < len("rwdl"):
        letter = next(letter for letter in "rdl" if letter not in spec.sas)
        yield by(f"account sp={letter}", E.AUTHORIZATION_PERMISSION_MISMATCH)
    if spec.level is Level.SERVICE:
        yield by("service sr=c&sp=rwdl", E.AUTHENTICATION_FAILED)
    elif spec.service_sas:
        yield by("service sr=c&sp=rwdlactfx", allowed)
    else:
        yield by("service sr=c&sp=rwdl", E.AUTHORIZATION_FAILURE)


def _names(operation: O, base: Row) -> Iterator[Row]:
    def at(path: str, want: E, why: str) -> Row:
        method, _, target = base.ask.partition(" ")
        _, question, query = target.partition("?")
        return Row(f"{method} {path}{question}{query}", want, base.headers, base.body, base.given, why=why)

    blob = "/b" if SPECS[operation].level is Level.BLOB else ""
    yield at("/Bad_Name" + blob, E.INVALID_RESOURCE_NAME, "characters of the container's name")
    yield at("/ab" + blob, E.OUT_OF_RANGE_INPUT, "two characters")
    yield at("/" + "a" * 64 + blob, E.OUT_OF_RANGE_INPUT, "64 characters")
    if blob:
        yield at("b" * 1025, E.OUT_OF_RANGE_INPUT, "1,025 characters")
        yield at("/".join("b" * 255), E.INVALID_URI, "255 segments")
        yield at("%00", E.INVALID_URI, "a zero byte")
    if operation is not O.CREATE_CONTAINER and operation is not O.CONTAINER_BATCH:
        yield at("/{absent}" + blob, E.CONTAINER_NOT_FOUND, "no container")
    if operation in EXISTING_BLOB:
        yield at("nothing", E.BLOB_NOT_FOUND, "no blob")


def _conditions(operation: O, base: Row) -> Iterator[Row]:
    if operation in CONTAINER_DATED:
        yield from _container_conditions(operation, base)
    if operation in TAG_CONDITION | TAGGING | READS | CHANGES | CREATES:
        target = replace(base, given=_with_blob(operation, base.given), shows="", text=())
        yield _but(target, E.CONDITION_NOT_MET, **{"x-ms-if-tags": _NO_TAGS})
        yield _but(target, E.INVALID_HEADER_VALUE, **{"x-ms-if-tags": "nonsense"})
        if operation in TAG_CONDITION:
            return
        yield from _entity_conditions(operation, target)


def _entity_conditions(operation: O, base: Row) -> Iterator[Row]:
    prefix = "x-ms-blob-" if operation in TAGGING else ""
    reads = operation in READS or operation is O.GET_BLOB_TAGS
    stale = E.NOT_MODIFIED if reads else E.CONDITION_NOT_MET
    for name, good, bad, code in (
        ("if-match", "{etag}", '"0x0"', E.CONDITION_NOT_MET),
        ("if-none-match", '"0x0"', "{etag}", stale),
        ("if-modified-since", "{past}", "{future}", stale),
        ("if-unmodified-since", "{future}", "{past}", E.CONDITION_NOT_MET),
    ):
        yield _but(base, base.want, **{prefix + name: good})
        yield _but(base, code, **{prefix + name: bad})
    yield _but(base, E.INVALID_HEADER_VALUE, **{prefix + "if-modified-since": "yesterday"})
    if not reads:
        both = {prefix + "if-match": "{etag}", prefix + "if-none-match": '"0x0"'}
        yield _but(base, E.MULTIPLE_CONDITION_HEADERS_NOT_SUPPORTED, **both)


def _container_conditions(operation: O, base: Row) -> Iterator[Row]:
    plain = replace(base, shows="")
    yield _but(plain, base.want, **{"if-modified-since": "{past}"})
    yield _but(plain, E.CONDITION_NOT_MET, **{"if-modified-since": "{future}"})
    yield _but(plain, E.INVALID_HEADER_VALUE, **{"if-modified-since": "yesterday"})
    yield _but(plain, E.CONDITION_HEADERS_NOT_SUPPORTED, **{"if-match": '"0x0"'})
    if operation is not O.SET_CONTAINER_METADATA:
        yield _but(plain, base.want, **{"if-unmodified-since": "{future}"})
        yield _but(plain, E.CONDITION_NOT_MET, **{"if-unmodified-since": "{past}"})


def _leases(operation: O, base: Row) -> Iterator[Row]:
    """The lease of the blob, or the container, and the id that the request gives."""
    if operation in CONTAINER_LEASE_CHECKED:
        scenes = base.given.replace("container-lease", "").strip()
        free = replace(base, given=scenes, shows="", text=())
        leased = replace(free, given=f"{scenes} container-lease".strip())
        yield _with_id(leased, base.want, GUID)
        yield _with_id(leased, E.LEASE_ID_MISMATCH_WITH_CONTAINER_OPERATION, OTHER_GUID)
        yield _with_id(free, E.LEASE_NOT_PRESENT_WITH_CONTAINER_OPERATION, GUID)
        yield _with_id(free, E.INVALID_HEADER_VALUE, "junk")
    if operation not in LEASE_NEEDED | LEASE_CHECKED:
        return
    scenes = base.given.replace("lease", "").strip() if "lease" in base.given.split() else base.given
    scenes = _with_blob(operation, scenes)
    free = replace(base, given=scenes, shows="", text=())
    leased, broken = replace(free, given=f"{scenes} lease"), replace(free, given=f"{scenes} lease break")
    yield _with_id(leased, base.want, GUID)
    yield _with_id(leased, E.LEASE_ID_MISMATCH_WITH_BLOB_OPERATION, OTHER_GUID)
    yield _with_id(free, E.LEASE_NOT_PRESENT_WITH_BLOB_OPERATION, GUID)
    yield _with_id(free, E.INVALID_HEADER_VALUE, "junk")
    yield _with_id(broken, E.LEASE_LOST, GUID)
    if operation in LEASE_NEEDED:
        yield replace(leased, want=E.LEASE_ID_MISSING, why="no lease id")
        yield replace(free, want=E.LEASE_ID_MISSING, given=f"{scenes} lease breaking", why="no lease id")
        yield replace(broken, why="no lease id is needed any more")


def _with_blob(operation: O, scenes: str) -> str:
    """The scenes with the blob among them: before its blocks, which Put Blob would discard, otherwise last, so that
    `{etag}` is its own."""
    if {"blob", "rich", "tagged", "pending"} & set(scenes.split()):
        return scenes
    return (f"blob {scenes}" if operation is O.PUT_BLOCK_LIST else f"{scenes} blob").strip()


def _with_id(base: Row, want: int | E, lease_id: str) -> Row:
    return _but(base, want, **{"x-ms-lease-id": lease_id})


def _but(base: Row, want: int | E, why: str = "", **headers: str) -> Row:
    """The same with more headers and another end."""
    if isinstance(want, int):
        return replace(base, headers={**base.headers, **headers}, why=why or _told(headers))
    return replace(
        base, want=want, headers={**base.headers, **headers}, why=why or _told(headers), shows="", hides="", text=()
    )


def _told(headers: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in headers.items())


def _with(ask: str, parameter: str) -> str:
    return f"{ask}{'&' if '?' in ask else '?'}{parameter}"
