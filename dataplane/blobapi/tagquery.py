"""Expressions over tags: `where` of Find Blobs by Tags, and the condition header x-ms-if-tags.

One grammar with two dialects (REST pages "Find Blobs by Tags" and "Specifying conditional headers for Blob service
operations"):

    where      = comparison *( AND comparison )            operators = > >= < <=, also @container = 'name'
    x-ms-if-tags = term *( ( AND | OR ) term )             operators also <>, parentheses; AND binds tighter
    comparison = key operator 'value'                      key bare or in double quotes

Values compare by code unit, as strings. A comparison with a tag that the blob does not have is false, `<>` included:
the safe reading for a guard. A `where` may compare a key more than once only to bound it from both sides, and ten
different keys at most. Keywords are taken in any case. The text is tokenised once, by one regular expression without
backtracking, and nothing recurses deeper than a named limit.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import eq, ge, gt, le, lt, ne
from typing import Final, NoReturn

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.tags import permitted

IF_TAGS: Final = "x-ms-if-tags"
_CONTAINER: Final = "@container"


class Dialect(Enum):
    """Where an expression stands. WHERE: Find Blobs by Tags. CONDITION: x-ms-if-tags."""

    WHERE = "where"
    CONDITION = IF_TAGS


@dataclass(frozen=True, slots=True)
class Comparison:
    """key operator 'value'."""

    key: str
    operator: str
    value: str

    def holds(self, tags: Mapping[str, str]) -> bool:
        actual = tags.get(self.key)
        return actual is not None and _OPERATORS[self.operator](actual, self.value)


@dataclass(frozen=True, slots=True)
class Junction:
    """All (AND) or any (OR) of its terms."""

    every: bool
    terms: tuple["Expression", ...]

    def holds(self, tags: Mapping[str, str]) -> bool:
        outcomes = (term.holds(tags) for term in self.terms)
        return all(outcomes) if self.every else any(outcomes)


Expression = Comparison | Junction

_OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "=": eq, "<>": ne, ">": gt, ">=": ge, "<": lt, "<=": le
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TagQuery:
    """A parsed `where`: the containers it is confined to (None: all), its comparisons and the keys that it names.

    Find Blobs answers with those tags of a blob that the expression names.
    """

    container: str | None
    comparisons: tuple[Comparison, ...]
    keys: frozenset[str]

    def matches(self, container: str, tags: Mapping[str, str]) -> bool:
        """Whether a blob of this container with these tags is found."""
        if self.container is not None and self.container != container:
            return False
        return all(comparison.holds(tags) for comparison in self.comparisons)


def parse_where(text: str) -> TagQuery:
    """The `where` parameter. Raises BlobError InvalidQueryParameterValue."""
    parser = _Parser(text, Dialect.WHERE)
    expression = parser.parse()
    comparisons = _flat(expression)
    _check_where(parser, comparisons)
    containers = [comparison.value for comparison in comparisons if comparison.key == _CONTAINER]
    tagged = tuple(comparison for comparison in comparisons if comparison.key != _CONTAINER)
    return TagQuery(containers[0] if containers else None, tagged, frozenset(comparison.key for comparison in tagged))


def parse_condition(text: str) -> Expression:
    """The x-ms-if-tags header; ask the result with `holds(tags)`. Raises BlobError InvalidHeaderValue."""
    return _Parser(text, Dialect.CONDITION).parse()


def _flat(expression: Expression) -> tuple[Comparison, ...]:
    if isinstance(expression, Comparison):
        return (expression,)
    return tuple(comparison for term in expression.terms for comparison in _flat(term))


#: For each operator, those that may not stand beside it for the same key of a `where`.
_EXCLUDES: Final = {"=": "= > >= < <=", ">": "= > >=", ">=": "= > >=", "<": "= < <=", "<=": "= < <="}


def _check_where(parser: "_Parser", comparisons: tuple[Comparison, ...]) -> None:
    seen: dict[str, list[str]] = {}
    for comparison in comparisons:
        used = seen.setdefault(comparison.key, [])
        if any(operator in _EXCLUDES[comparison.operator].split() for operator in used):
            parser.refuse("can't have multiple conditions for a single tag unless they define a range")
        if comparison.key == _CONTAINER and comparison.operator != "=":
            parser.refuse("@container can only be compared with =")
        used.append(comparison.operator)
    if len(seen.keys() - {_CONTAINER}) > limits.find_tags_max:
        parser.refuse(f"there can be at most {limits.find_tags_max} unique tags in a query")


_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<operator><>|>=|<=|=|>|<)
      | (?P<open>\()
      | (?P<close>\))
      | (?P<value>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<word>@?[A-Za-z0-9_]+)
      | (?P<end>\Z)
      | (?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int  # from 1, as the error messages count


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        assert match is not None, "the last alternatives match anything"
        kind = match.lastgroup or "other"
        yield _Token(kind, match[kind], match.start(kind) + 1)
        if kind == "end":
            return
        position = match.end()


class _Parser:
    """Recursive descent over the tokens; `_next` is the one that has not been taken."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        self._text = text
        self._dialect = dialect
        self._next = _Token("end", "", 1)
        self._comparisons = 0
        if len(text) > limits.tag_expression_chars_max:
            self.refuse("the expression is too long")
        self._tokens = _tokens(text)
        self._take()

    def refuse(self, reason: str) -> NoReturn:
        """Raise the dialect's error, with the position reached."""
        if self._dialect is Dialect.CONDITION:
            raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=IF_TAGS, header_value=self._text)
        raise BlobError(
            ErrorCode.INVALID_QUERY_PARAMETER_VALUE,
            message=f"Error parsing query at or near character position {self._next.position}: {reason}",
            query_name="where",
            query_value=self._text,
        )

    def parse(self) -> Expression:
        expression = self._either(0)
        if self._next.kind != "end":
            self.refuse(f"unexpected '{self._next.text}'")
        return expression

    def _take(self) -> _Token:
        taken, self._next = self._next, next(self._tokens, self._next)
        return taken

    def _keyword(self, word: str) -> bool:
        if self._next.kind == "word" and self._next.text.lower() == word:
            self._take()
            return True
        return False

    def _either(self, depth: int) -> Expression:
        terms = [self._both(depth)]
        while self._dialect is Dialect.CONDITION and self._keyword("or"):
            terms.append(self._both(depth))
        return terms[0] if len(terms) == 1 else Junction(False, tuple(terms))

    def _both(self, depth: int) -> Expression:
        terms = [self._term(depth)]
        while self._keyword("and"):
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else Junction(True, tuple(terms))

    def _term(self, depth: int) -> Expression:
        if self._next.kind != "open":
            return self._comparison()
        if self._dialect is Dialect.WHERE or depth >= limits.tag_expression_depth_max:
            self.refuse("unexpected '('")
        self._take()
        inner = self._either(depth + 1)
        if self._next.kind != "close":
            self.refuse("expected ')'")
        self._take()
        return inner

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > limits.tag_expression_terms_max:
            self.refuse("there are too many comparisons")
        key = self._key()
        if self._next.kind != "operator" or (self._next.text == "<>" and self._dialect is Dialect.WHERE):
            self.refuse("expected an operator")
        operator = self._take().text
        if self._next.kind != "value":
            self.refuse("expected a tag value in single quotes")
        value = self._next.text[1:-1].replace("''", "'")
        if len(value) > limits.tag_value_chars_max:
            self.refuse(f"tag value must be between 0 and {limits.tag_value_chars_max} characters in length")
        if key != _CONTAINER:
            self._check_chars(value)
        self._take()
        return Comparison(key, operator, value)

    def _key(self) -> str:
        token = self._next
        if token.kind == "quoted":
            key = token.text[1:-1].replace('""', '"')
            self._check_chars(key)
        elif token.kind == "word":
            key = token.text
            if key.startswith("@") and (key != _CONTAINER or self._dialect is Dialect.CONDITION):
                self.refuse(f"unsupported parameter '{key}'")
        else:
            self.refuse(f"unexpected '{token.text}'" if token.text else "expected a tag name")
        if not 0 < len(key) <= limits.tag_key_chars_max:
            self.refuse(f"tag must be between 1 and {limits.tag_key_chars_max} characters in length")
        self._take()
        return key

    def _check_chars(self, text: str) -> None:
        bad = next((char for char in text if not permitted(char)), None)
        if bad is not None:
            self.refuse(f"'{bad}' not permitted in tag name or value")
