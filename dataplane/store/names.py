"""Blob names to paths and back: reversible, injective, and the identity for ordinary names.

A blob's name has segments between slashes; a path has components. Most names are their own path. The rest is escaped
with the introducer `%~`, which ordinary names do not contain:

    %~XX   one byte, two upper-case hexadecimal digits: the `%` of a literal `%~`, the first dot of a component that the
           mount reserves (`.`, `..`, `.snapshot`, `.nfs...`, `.blobedge`), and characters that the mount refuses
    %~e    an empty segment (`a//b`, `/a`, `a/`)
    %~c    at the end of a directory: the segment goes on in the next component (segments over 255 bytes)
    %~f    at the end of a file: the blob of that name, kept beside a directory of the same name (`a` and `a/b`)

A component that decodes to a name whose path is another one (somebody made it by hand) is no blob: it is left out of
listings and cannot be opened, so two names never reach one file. Rejected: percent-encoding every odd byte (names with
`%41` or `%2F` in them are common in partitioned data and would not be themselves), and hashing long names (not
reversible without a table that could be lost).
"""

import re
from enum import Enum
from functools import lru_cache
from typing import Final

COMPONENT_BYTES_MAX: Final = 255  # NAME_MAX of every file system that we serve (limits.h, pathconf(3))
_MARK: Final = "%~"
_MARK_BYTES: Final = 3  # "%~c" and "%~f"
_RESERVED: Final = frozenset({".", "..", ".snapshot", ".blobedge"})
#: Characters that VAST's default character set refuses (its views' "LCD" setting); a backslash never reaches us.
REFUSED_BY_LCD: Final = '":|<>*?'
_TOKEN: Final = re.compile(r"%~([0-9A-F]{2})")


class Kind(Enum):
    """What a component is: a whole segment, the first part of a long one, or a blob beside its directory."""

    WHOLE = "whole"
    CONTINUES = "continues"
    BESIDE = "beside"


def is_hidden(component: str) -> bool:
    """Whether a directory entry is never a blob: ours, the mount's own, or not UTF-8."""
    if component[0] == "." and (component in _RESERVED or component.startswith(".nfs")):
        return True
    return not component.isascii() and any("\ud800" <= c <= "\udfff" for c in component)


def encode(name: str, refused: str = "") -> str:
    """The path of a blob, relative to its container. `refused`: characters that the mount does not take in names."""
    if not refused and _is_ordinary(name):
        return name
    return _encode(name, refused, beside=False)


def encode_beside(name: str, refused: str = "") -> str:
    """The path of a blob whose own path is a directory."""
    return _encode(name, refused, beside=True)


def _is_ordinary(name: str) -> bool:
    """Cheap and sufficient, not necessary: what it turns away takes the long way to the same answer."""
    return (
        len(name) <= 63  # 63 characters are at most 252 bytes
        and name[0] != "."
        and name[0] != "/"
        and name[-1] != "/"
        and "/." not in name
        and "//" not in name
        and _MARK not in name
    )


@lru_cache(maxsize=16384)
def _encode(name: str, refused: str, beside: bool) -> str:
    *parents, last = name.split("/")
    components: list[str] = []
    for segment in parents:
        components += _split(_escape(segment, refused), COMPONENT_BYTES_MAX)
    if beside:
        *head, tail = _split(_escape(last, refused), COMPONENT_BYTES_MAX - _MARK_BYTES)
        components += [*head, tail + "%~f"]
    else:
        components += _split(_escape(last, refused), COMPONENT_BYTES_MAX)
    return "/".join(components)


def _escape(segment: str, refused: str) -> list[str]:
    """The segment as a list of pieces that must not be cut: single characters and whole tokens."""
    if not segment:
        return ["%~e"]
    pieces = list(segment)
    for i, char in enumerate(pieces):
        if char in refused or (char == "%" and segment[i + 1 : i + 2] == "~"):
            pieces[i] = f"%~{ord(char):02X}"
    if segment in _RESERVED or segment.startswith(".nfs"):
        pieces[0] = "%~2E"
    return pieces


def _split(pieces: list[str], bytes_max: int) -> list[str]:
    """Components of at most `bytes_max` bytes; all but the last end in `%~c`. Greedy, so the cut is always the same."""
    whole = "".join(pieces)
    if len(whole.encode("utf-8", "surrogatepass")) <= bytes_max:
        return [whole]
    components: list[str] = []
    current: list[str] = []
    used = 0
    for piece in pieces:
        size = len(piece.encode("utf-8", "surrogatepass"))
        if used + size > COMPONENT_BYTES_MAX - 2 * _MARK_BYTES:
            components.append("".join(current) + "%~c")
            current, used = [], 0
        current.append(piece)
        used += size
    return [*components, "".join(current)]


def decode_component(component: str) -> tuple[str, Kind] | None:
    """The text of one component and what it is, or None when no encoding yields it.

    The caller joins: after WHOLE directories a slash, after CONTINUES nothing. The result counts only if
    `path_matches`."""
    if _MARK not in component:
        return component, Kind.WHOLE
    if component == "%~e":
        return "", Kind.WHOLE
    kind = Kind.WHOLE
    if component.endswith("%~c"):
        kind, component = Kind.CONTINUES, component[:-_MARK_BYTES]
    elif component.endswith("%~f"):
        kind, component = Kind.BESIDE, component[:-_MARK_BYTES]
        if component == "%~e":
            return "", kind
    text = _TOKEN.sub(lambda match: chr(int(match[1], 16)), component)
    if _MARK in _TOKEN.sub("\0", component):
        return None
    return text, kind


def path_matches(name: str, path: str, refused: str = "") -> bool:
    """Whether `path` is one that a blob called `name` is kept at."""
    return bool(name) and (path == encode(name, refused) or path == encode_beside(name, refused))


def decode(path: str, refused: str = "") -> str | None:
    """The blob's name of a path relative to its container, or None when it is none of ours."""
    name = ""
    components = path.split("/")
    for i, component in enumerate(components):
        if not component or is_hidden(component):
            return None
        found = decode_component(component)
        if found is None:
            return None
        text, kind = found
        is_last = i == len(components) - 1
        if (kind is Kind.CONTINUES) is is_last and kind is not Kind.WHOLE:
            return None
        if kind is Kind.BESIDE and not is_last:
            return None
        name += text
        if not is_last and kind is Kind.WHOLE:
            name += "/"
    return name if path_matches(name, path, refused) else None
