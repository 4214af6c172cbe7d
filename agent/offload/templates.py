"""Where a blob goes in the cloud: a template for its container, one for its name, both with placeholders. Pure.

    {node}        the name of this node             {container}   the local container
    {account}     the local account                 {name}        the blob's name, at the end of the name's template
    {date:%Y/%m}  the version's last change, UTC: %Y %m %d %H %j %G %V and - _ . / between them

Two different local blobs never get one cloud name. The argument has three steps.
1. A rendered pair of texts can be read back. {account} has no dash and no slash, {container} no slash, a date's parts
   have fixed widths, and {name} is all that is left. So `parse_name` wants a slash after {account} and {container},
   `parse_container` a dash between the two, and `Route` wants each of them somewhere, unless the rule is for one only.
2. Two rules either have the same templates, which is one way to read for both, or templates that cannot give the same
   text (`Route.apart`), which is checked when the configuration is read.
3. What Azure would not take is made fit by functions that are injective themselves: `fit_name` escapes reversibly, with
   the introducer `%~` that is itself escaped. What is too long ends in a digest, in a form that nothing else ends in;
   here alone two blobs could meet, if 128 bits (100 for containers) of two SHA-256 were the same.

Rejected: to look for collisions when blobs are uploaded, as then one of two blobs is already where it must not be; a
digest in every name, as people and programs in the cloud look for the names that they know.
"""

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from agent.offload.amounts import NANOSECONDS
from agent.offload.globs import Glob
from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.uri import check_container_name

NODE: Final = re.compile(r"[a-z0-9](?:-?[a-z0-9])*\Z")
NODE_CHARACTERS_MAX: Final = 40
TEXT_CHARACTERS_MAX: Final = 256  # of a template without its placeholders: what is cut from a long name is the name

_FIELD: Final = re.compile(r"\{(\w+)(?::([^{}]*))?\}|([^{}]+)")
_DATE_PART: Final = re.compile(r"%[YmdHjGV]|[-_./]+")
_WIDTHS: Final = {"%Y": 4, "%m": 2, "%d": 2, "%H": 2, "%j": 3, "%G": 4, "%V": 2}
_DATES: Final = (0, 253_402_300_799)  # seconds: 1970 to 9999; a wrong clock is no reason for a name that cannot be read
#: What a placeholder can become.
_VALUES: Final = {"account": "[a-z0-9]{3,24}", "container": "[a-z0-9$-]{3,63}"}

_CONTAINER_DIGEST: Final = 20  # characters of base32: 100 bits
_CONTAINER_FITTED: Final = re.compile(rf".*-x[a-z2-7]{{{_CONTAINER_DIGEST}}}\Z")
_WRITABLE_SPECIALS: Final = frozenset({"$root", "$web"})
_NAME_DIGEST: Final = 32  # hexadecimal digits: 128 bits
#: Azure's page on names: no segment that ends with a dot, no slash or backslash at the end, no control characters. What
#: an XML listing cannot hold is here too.
_ESCAPED: Final = re.compile(r"%(?=~)|[\0-\x1f\x7f-\x9f\\\ud800-\udfff\ufffe\uffff]|\.(?=/|\Z)|/\Z")
_ESCAPED_IN_ROOT: Final = re.compile(_ESCAPED.pattern + "|/")  # `$root` has no blobs with a slash in their names
_ESCAPE: Final = re.compile(rb"%~([0-9A-F]{2})")
_HALF_ESCAPE: Final = re.compile(r"%(?:~[0-9A-F]?)?\Z")


class Piece(NamedTuple):
    """Part of a template: a text, or a placeholder when `field` is not "". A date's is one of its parts."""

    field: str
    text: str = ""


Template = tuple[Piece, ...]


def parse_container(template: str) -> Template:
    """The pieces of a template for container names. Raises ValueError with a sentence for the operator."""
    pieces = _pieces(template, ("node", "account", "container"))
    if all(not piece.field for piece in pieces):
        try:
            check_container_name(template)
        except BlobError:
            raise ValueError(f"{template!r} is not a container name: 3 to 63 of a-z, 0-9 and single dashes") from None
        return pieces
    joined = "".join("n" if piece.field else piece.text for piece in pieces)
    if not NODE.match(joined) or len(joined) > limits.container_name_chars_max:
        raise ValueError(
            f"{template!r} would make names that Azure refuses: a-z, 0-9 and single dashes, no dash first or last"
        )
    fields = [piece.field for piece in pieces]
    if any(fields.count(field) > 1 for field in ("account", "container")):
        raise ValueError(f"{template!r} has a placeholder twice")
    if "account" in fields and "container" in fields:
        first, last = sorted((fields.index("account"), fields.index("container")))
        if not any("-" in piece.text for piece in pieces[first:last]):
            raise ValueError(
                f"{template!r}: put a dash between {{account}} and {{container}}, or two pairs could look alike"
            )
    return pieces


def parse_name(template: str) -> Template:
    """The pieces of a template for blob names. Raises ValueError with a sentence for the operator."""
    pieces = _pieces(template, ("node", "account", "container", "name", "date"))
    fields = [piece.field for piece in pieces]
    if fields.count("name") != 1 or fields[-1] != "name":
        raise ValueError(
            f"{template!r}: end it with {{name}}, and have it there only, so that each blob keeps a name of its own"
        )
    for piece, following in pairwise(pieces):
        if piece.field in _VALUES and not following.text.startswith("/"):
            raise ValueError(f"{template!r}: put a slash after {{{piece.field}}}, or two blobs could look alike")
    plain = "".join("n" if piece.field else piece.text for piece in pieces)
    if plain.startswith("/") or "//" in plain or "%~" in plain or _ESCAPED.search(plain):
        raise ValueError(
            f"{template!r}: no slash first, no empty or dotted part, no backslash, no %~, no control character"
        )
    if len(plain) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"a template has at most {TEXT_CHARACTERS_MAX} characters besides its placeholders")
    return pieces


def check_container(template: str) -> str:
    """The template, if it is one for containers. Raises ValueError."""
    parse_container(template)
    return template


def check_name(template: str) -> str:
    """The template, if it is one for names. Raises ValueError."""
    parse_name(template)
    return template


def _pieces(template: str, allowed: Sequence[str]) -> Template:
    pieces: list[Piece] = []
    at = 0
    while at < len(template):
        found = _FIELD.match(template, at)
        if found is None:
            raise ValueError(f"{template!r} has a brace that is not part of a placeholder")
        field, option, text = found.groups()
        if text:
            pieces.append(Piece("", text))
        elif field not in allowed:
            raise ValueError(
                f"{{{field}}} is no placeholder here: there is " + ", ".join(f"{{{each}}}" for each in allowed)
            )
        elif field == "date":
            pieces += _date_pieces(option)
        elif option is not None:
            raise ValueError(f"{{{field}}} takes no format")
        else:
            pieces.append(Piece(field))
        at = found.end()
    return tuple(pieces)


def _date_pieces(option: str | None) -> list[Piece]:
    parts = _DATE_PART.findall(option or "")
    if "".join(parts) != option or not any(part in _WIDTHS for part in parts):
        raise ValueError(f"{{date:{option or ''}}}: write a format like %Y/%m/%d, of %Y %m %d %H %j %G %V and - _ . /")
    return [Piece("date", part) if part in _WIDTHS else Piece("", part) for part in parts]


class Target(NamedTuple):
    """Where a blob goes. `tier` is Azure's word, "" for the default of the account."""

    container: str
    name: str
    tier: str = ""


class Route:
    """The way of one rule's blobs: its templates, with what is the same for all of its blobs put in."""

    def __init__(
        self, container: str, name: str, node: str, accounts: Sequence[str] = (), containers: Sequence[str] = ()
    ) -> None:
        """`accounts`: those that the rule is for; `containers`: patterns of the local ones. Empty: any. Raises
        ValueError with a sentence for the operator when blobs could meet."""
        self._parsed: Final = parse_container(container), parse_name(name)
        self._containers: Final = [Glob(pattern) for pattern in containers]
        self._accounts: Final = accounts
        one_container = len(containers) == 1 and self._containers[0].plain
        self._only: Final = {
            "account": accounts[0] if len(accounts) == 1 else "",
            "container": containers[0] if one_container else "",
        }
        fields = {piece.field for template in self._parsed for piece in template}
        self._missing: Final = [field for field in self._only if field not in fields]
        for field in self._missing:
            if not self._only[field]:
                raise ValueError(
                    f"blobs of different {field}s could meet in one name: write {{{field}}} into container or name, "
                    f"or have the rule for one {field} only"
                )
        known = {"node": node, **{field: value for field, value in self._only.items() if value}}
        self._container, self._name = (_filled(template, known) for template in self._parsed)

    def target(self, account: str, container: str, name: str, modified_ns: int, tier: str = "") -> Target:
        """Where a version goes that was last changed at `modified_ns`."""
        values = {"account": account, "container": container, "name": name}
        moment = time.gmtime(min(max(modified_ns // NANOSECONDS, _DATES[0]), _DATES[1]))
        into = fit_container(_rendered(self._container, values, moment))
        return Target(into, fit_name(_rendered(self._name, values, moment), into), tier)

    def origin(self, container: str, name: str) -> tuple[str, str, str] | None:
        """The (account, container, name) of the one blob that goes there: the way back of `target`. None for a place
        that is not of this route, and for one that ends in a digest, which nobody can read."""
        text = _unfit(name)
        if text is None or fit_name(text, container) != name or fit_container(container) != container:
            return None
        values = {field: value for field, value in self._only.items() if value}
        for template, part in ((self._container, container), (self._name, text)):
            found = re.fullmatch("".join(map(_reading, template)), part, re.DOTALL)
            if found is None or any(values.setdefault(*each) != each[1] for each in found.groupdict().items()):
                return None
        return values["account"], values["container"], values["name"]

    def leads_to(self, container: str) -> bool:
        """Whether blobs of this route may be in a container of the cloud, but for names that end in a digest."""
        return re.fullmatch("".join(map(_pattern, self._container)), container) is not None

    def apart(self, other: "Route") -> bool:
        """Whether no blob of one could meet another blob of the other."""
        if self._parsed == other._parsed and all(self._only[each] == other._only[each] for each in self._missing):
            return True
        mine, theirs = self._segments(), other._segments()
        shorter = min(len(mine), len(theirs)) - 1  # the last one is open: the blob's name goes on in it
        for one, another in zip(mine[:shorter], theirs[:shorter], strict=True):
            if not (self._may_be(one, another) and other._may_be(another, one)):
                return True
        first, second = _beginning(mine[shorter:]), _beginning(theirs[shorter:])
        return not first.startswith(second) and not second.startswith(first)

    def _may_be(self, segment: Template, other: Template) -> bool:
        """Whether a whole segment of this route may be the text of another one. True where that one is no text."""
        text = _text(other)
        if text is None:
            return True
        if not re.fullmatch("".join(map(_pattern, segment)), text):
            return False
        if [piece.field for piece in segment] == ["account"]:
            return not self._accounts or text in self._accounts
        if [piece.field for piece in segment] == ["container"]:
            return not self._containers or any(glob.matches(text) for glob in self._containers)
        return True

    def _segments(self) -> list[Template]:
        """The container, the parts of the name that a slash ends, and the one that the blob's name is in."""
        segments: list[list[Piece]] = [[]]
        for piece in self._name:
            if piece.field:
                segments[-1].append(piece)
                continue
            first, *others = piece.text.split("/")
            segments[-1].append(Piece("", first))
            segments += [[Piece("", part)] for part in others]
        return [self._container, *(_filled(segment, {}) for segment in segments)]


def _filled(template: Sequence[Piece], known: dict[str, str]) -> Template:
    """The template with known values as text; texts side by side become one, empty ones go."""
    filled: list[Piece] = []
    for piece in template:
        new = Piece("", known[piece.field]) if piece.field in known else piece
        if not new.field and filled and not filled[-1].field:
            filled[-1] = Piece("", filled[-1].text + new.text)
        elif new.field or new.text:
            filled.append(new)
    return tuple(filled)


def _rendered(template: Template, values: dict[str, str], moment: time.struct_time) -> str:
    parts = []
    for piece in template:
        if piece.field == "date":
            parts.append(time.strftime(piece.text, moment).zfill(_WIDTHS[piece.text]))
        else:
            parts.append(values[piece.field] if piece.field else piece.text)
    return "".join(parts)


def _text(segment: Template) -> str | None:
    return None if any(piece.field for piece in segment) else "".join(piece.text for piece in segment)


def _pattern(piece: Piece) -> str:
    """A regular expression of what the piece may become."""
    if piece.field == "date":
        return rf"\d{{{_WIDTHS[piece.text]}}}"
    return _VALUES[piece.field] if piece.field else re.escape(piece.text)


def _reading(piece: Piece) -> str:
    """The same, as a group that the value can be taken out of."""
    if piece.field in ("", "date"):
        return _pattern(piece)
    return f"(?P<{piece.field}>{'.+' if piece.field == 'name' else _VALUES[piece.field]})"


def _beginning(segments: list[Template]) -> str:
    """The text that whatever has these segments begins with. The last of them is open."""
    first = segments[0]
    whole = _text(first)
    if whole is not None:
        return f"{whole}/"
    return "" if first[0].field else first[0].text


def fit_container(text: str) -> str:
    """The text itself if Azure takes it as the name of a container that can be written to, else one with a digest."""
    if text in _WRITABLE_SPECIALS:
        return text
    if NODE.match(text) and 3 <= len(text) <= limits.container_name_chars_max and not _CONTAINER_FITTED.match(text):
        return text
    digest = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:_CONTAINER_DIGEST]
    kept = re.sub("-+", "-", re.sub("[^a-z0-9-]", "", text))
    kept = kept[: limits.container_name_chars_max - _CONTAINER_DIGEST - 2].strip("-") or "c"
    return f"{kept}-x{digest}"


def fit_name(text: str, container: str) -> str:
    """The text with what Azure does not take escaped, and its end replaced by a digest where it is too long."""
    pattern = _ESCAPED_IN_ROOT if container == "$root" else _ESCAPED
    escaped = pattern.sub(_escape, text)
    if _units(escaped) <= limits.blob_name_chars_max and escaped.count("/") < limits.blob_name_segments_max:
        return escaped
    digest = "%~h" + hashlib.sha256(escaped.encode()).hexdigest()[:_NAME_DIGEST]
    kept = "/".join(escaped.split("/")[: limits.blob_name_segments_max])
    wide = kept.encode("utf-16-le")[: 2 * (limits.blob_name_chars_max - len(digest))]
    return _HALF_ESCAPE.sub("", wide.decode("utf-16-le", "ignore")) + digest


def _unfit(name: str) -> str | None:
    """The text of which `fit_name` made this by escaping. What it did not make is found out by making it again."""
    try:
        data = _ESCAPE.sub(lambda found: bytes([int(found.group(1), 16)]), name.encode())
        return data.decode("utf-8", "surrogatepass")
    except UnicodeError:
        return None


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%~{byte:02X}" for byte in found.group().encode("utf-8", "surrogatepass"))


def _units(text: str) -> int:
    """Azure counts UTF-16 units; a character beyond the first plane has two."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
