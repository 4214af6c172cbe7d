"""On which line of a TOML document does each key and each array element start?

tomllib gives values without places, and the libraries that keep places keep columns of trivia, not line numbers. This
scanner reads a document that tomllib has accepted already, so it only needs to know where tokens end: it never
validates, and a document that tomllib refused must not be given to it (what it returns then is undefined).

A place is named by the path that leads to it, as pydantic names it: ("accounts", 0, "containers", 2, "path").
"""

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]

# An opening quote up to the matching closing one; the long forms first.
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE: Final = re.compile(r"[^\s,\]\}#=\[\{\"']+(?: \d[^\s,\]\}#]*)?")  # a number, a date (one space inside), a boolean
_KEY_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")


def positions(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of every table, key and array element of a valid document."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._line_at = 0  # the offset that _line is the line of
        self._arrays: dict[Path, int] = {}  # [[headers]] seen: path -> index of the newest element
        self.lines: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> Path:
        """[a.b] or [[a.b]]: the table that the following keys belong to."""
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        here = self._offset_line()
        keys = self._keys()
        self._at += 2 if array else 1
        path = self._in_arrays(keys[:-1])
        last = (*path, keys[-1])
        if array:
            self._arrays[last] = self._arrays.get(last, -1) + 1
            self.lines.setdefault(last, here)
            last = (*last, self._arrays[last])
        elif last in self._arrays:
            last = (*last, self._arrays[last])
        self.lines[last] = here
        return last

    def _in_arrays(self, keys: Path) -> Path:
        """Resolve a header's leading keys: an array of tables means its newest element."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        return path

    def _pair(self, table: Path) -> None:
        """`key = value`; a dotted key makes the tables on its way."""
        here = self._offset_line()
        keys = self._keys()
        for depth in range(1, len(keys)):
            self.lines.setdefault((*table, *keys[:depth]), here)
        path = (*table, *keys)
        self.lines[path] = here
        self._at += 1  # "="
        self._skip(_SPACE)
        self._value(path)

    def _keys(self) -> Path:
        parts: list[str | int] = []
        while True:
            self._skip(_SPACE)
            part = self._take(_KEY_PART)
            parts.append(part if part[0] not in "\"'" else str(tomllib.loads(f"x={part}")["x"]))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return tuple(parts)
            self._at += 1

    def _value(self, path: Path) -> None:
        start = self._text[self._at]
        if start == "[":
            self._elements(path)
        elif start == "{":
            self._inline_table(path)
        elif start in "\"'":
            self._take(_STRING)
        else:
            self._take(_BARE)

    def _elements(self, path: Path) -> None:
        self._at += 1
        index = 0
        self._skip(_BLANK)
        while self._text[self._at] != "]":
            element = (*path, index)
            self.lines[element] = self._offset_line()
            self._value(element)
            index += 1
            self._separator()
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        self._skip(_BLANK)
        while self._text[self._at] != "}":
            self._pair(path)
            self._separator()
        self._at += 1

    def _separator(self) -> None:
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, "the document must be one that tomllib accepted"
        self._at = match.end()
        return match.group()

    def _offset_line(self) -> int:
        """The line of the present offset; offsets only grow, so each newline is counted once."""
        self._line += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        return self._line
