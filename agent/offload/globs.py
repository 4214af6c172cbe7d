"""Patterns for names: `*` any text without a slash, `**` any text, `?` one character but a slash, `[a-z]`, `[!a-z]`.

A match takes time in proportion to the name, whatever the pattern: all states of the pattern are the bits of one number
that each character moves on. Rejected: regular expressions, which a name made for it sends into minutes of
backtracking (`*a*a*a*a*b`), and fnmatch, where `*` goes on over slashes.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_CHARACTERS_MAX: Final = 4096  # remembered by one pattern


class Glob:
    """A pattern. Raises ValueError with a sentence for the operator."""

    def __init__(self, pattern: str) -> None:
        tokens = [match.group() for match in _TOKEN.finditer(pattern)]
        if not pattern or "[" in tokens:
            raise ValueError(f"{pattern!r} is not a pattern: " + ("a [ has no ]" if pattern else "it is empty"))
        self.pattern: Final = pattern
        self._head: Final = re.split(r"[*?\[]", pattern)[0]  # most names differ there, which is seen at once
        self._tail: Final = re.split(r"[*?\]]", pattern)[-1]
        self._stars: Final = [(1 << i, len(token) > 1) for i, token in enumerate(tokens) if token[0] == "*"]
        self._singles: Final = [(1 << i, _Single(token)) for i, token in enumerate(tokens) if token[0] != "*"]
        self._star_bits: Final = sum(bit for bit, _ in self._stars)
        self._end: Final = 1 << len(tokens)
        self._masks: dict[str, tuple[int, int]] = {}

    @property
    def plain(self) -> bool:
        """Whether it matches one name only: the pattern itself."""
        return not re.search(r"[*?\[]", self.pattern)

    def matches(self, name: str) -> bool:
        """Whether the pattern is for this name, from its first to its last character."""
        if not (name.startswith(self._head) and name.endswith(self._tail)):
            return False
        state = 1 | (self._star_bits & 1) << 1
        for character in name:
            steps, stays = self._masks.get(character) or self._mask(character)
            state = (state & steps) << 1 | (state & stays)
            state |= (state & self._star_bits) << 1
            if not state:
                return False
        return bool(state & self._end)

    def _mask(self, character: str) -> tuple[int, int]:
        """The states that the character moves one on, and those that it leaves as they are."""
        if len(self._masks) >= _CHARACTERS_MAX:
            self._masks.clear()
        steps = sum(bit for bit, single in self._singles if single.accepts(character))
        stays = sum(bit for bit, slashes in self._stars if slashes or character != "/")
        self._masks[character] = steps, stays
        return steps, stays


def check_glob(pattern: str) -> str:
    """The pattern, if it is one. Raises ValueError."""
    Glob(pattern)
    return pattern


class _Single:
    """What one token accepts: a single character."""

    def __init__(self, token: str) -> None:
        self._any: Final = token == "?"
        self._negated: Final = token.startswith("[!")
        self._ranges: Final = [(token, token)] if token[0] != "[" else _ranges(token[1 + self._negated : -1])

    def accepts(self, character: str) -> bool:
        if self._any:
            return character != "/"
        found = any(first <= character <= last for first, last in self._ranges)
        return found != self._negated and (character != "/" or self._ranges == [("/", "/")])


def _ranges(members: str) -> list[tuple[str, str]]:
    """`a-z0` as (first, last) pairs. Raises ValueError."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(members):
        last = at + 2 if members[at + 1 : at + 2] == "-" and at + 2 < len(members) else at
        if members[at] > members[last]:
            raise ValueError(f"'[{members}]' is not a set of characters: {members[at]} is after {members[last]}")
        found.append((members[at], members[last]))
        at = last + 1
    return found
