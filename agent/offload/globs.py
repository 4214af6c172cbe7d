"""Patterns for names: `*` any text without a slash, `**` any text, `?` one character but a slash, `[a-z]`, `[!a-z]`.

A match takes time in proportion to the name, whatever the pattern: all states of the pattern are the bits of one number
that each character moves on. Rejected: regular expressions, which a name made for it sends into minutes of
backtracking (`*a*a*a*a*b`), and fnmatch, where `*` goes on over slashes.
"""

import re
from functools import lru_cache
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
        self._stars: Final = [(1 << i, len(token) > 1) for i, token in enumerate(tokens) if token[0] == "*"]
        self._singles: Final = [(1 << i, _set(token)) for i, token in enumerate(tokens) if token[0] != "*"]
        self._star_bits: Final = sum(bit for bit, _ in self._stars)
        self._end: Final = 1 << len(tokens)
        self._masks: dict[str, tuple[int, int]] = {}

    @property
    def plain(self) -> bool:
        """Whether it matches one name only: the pattern itself."""
        return not re.search(r"[*?\[]", self.pattern)

    def matches(self, name: str) -> bool:
        """Whether the pattern is for this name, from its first to its last character."""
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
        steps = sum(bit for bit, accepts in self._singles if accepts.match(character))
        stays = sum(bit for bit, slashes in self._stars if slashes or character != "/")
        self._masks[character] = steps, stays
        return steps, stays


def check_glob(pattern: str) -> str:
    """The pattern, if it is one. Raises ValueError."""
    Glob(pattern)
    return pattern


@lru_cache(maxsize=1024)
def _set(token: str) -> re.Pattern[str]:
    """What one token accepts: a single character."""
    if token == "?":
        return re.compile(r"[^/]")
    if token[0] != "[":
        return re.compile(re.escape(token), re.DOTALL)
    negated = token[1] == "!"
    members = re.sub(r"([\\^\[\]&~|])", r"\\\1", token[1 + negated : -1])
    try:
        return re.compile(f"[^/{members}]" if negated else f"(?!/)[{members}]")
    except re.error:
        raise ValueError(f"{token!r} is not a set of characters: write [a-z] or [!a-z]") from None
