"""Lines of TOML keys: hand-picked forms, and generated documents whose lines are known."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.toml_positions import Path, positions

SAMPLE = '''# a comment = "no key"
plain = 1   # trailing
dotted.inner."quoted key" = true
text = """
a = 1
[not.a.table] """
literal = \'\'\'
]] \'\'\'
numbers = [ 1, # one
  2,
  [3,
   4], ]
date = 1979-05-27 07:32:00
inline = { a = 1, b = { c = ["}", '"'] } }

[table]  # [[x]]
key = "with ] and # and = inside"
[table.sub]
key = 1.5e3
[[array]]
name = 'x'
[[array.nested]]
deep = 1
[[array.nested]]
deep = 2
[array.one]
x = 1
[[array]]
name = "y"
[[array.nested]]
deep = 3
'''


def test_every_form_of_toml() -> None:
    lines = positions(SAMPLE)
    expected: dict[Path, int] = {
        ("plain",): 2,
        ("dotted",): 3,
        ("dotted", "inner", "quoted key"): 3,
        ("text",): 4,
        ("literal",): 7,
        ("numbers",): 9,
        ("numbers", 0): 9,
        ("numbers", 1): 10,
        ("numbers", 2, 0): 11,
        ("numbers", 2, 1): 12,
        ("date",): 13,
        ("inline", "b", "c", 1): 14,
        ("table",): 16,
        ("table", "key"): 17,
        ("table", "sub", "key"): 19,
        ("array", 0): 20,
        ("array", 0, "name"): 21,
        ("array", 0, "nested", 0, "deep"): 23,
        ("array", 0, "nested", 1): 24,
        ("array", 0, "nested", 1, "deep"): 25,
        ("array", 0, "one", "x"): 27,
        ("array", 1): 28,
        ("array", 1, "nested", 0, "deep"): 31,
    }
    assert {path: lines.get(path) for path in expected} == expected


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    """Every path in a parsed document."""
    found = {path} if path else set()
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found |= paths_of(inner, (*path, key))
    return found


def test_the_sample_has_a_line_for_every_value() -> None:
    assert paths_of(tomllib.loads(SAMPLE)) <= positions(SAMPLE).keys()


keys = st.from_regex(r"[A-Za-z0-9_-]{1,6}|\"[a-z .=#\[\]]{0,6}\"|'[a-z .=#\[\]]{0,6}'", fullmatch=True)
scalars = st.sampled_from(
    [
        "1",
        "-0.5",
        "true",
        '"x"',
        "'y'",
        '"#=[]{},"',
        "2020-01-01",
        "1979-05-27 07:32:00.5",
        '"\\""',
        "''",
        "inf",
        "0x1f",
    ]
)
blanks = st.sampled_from(["", " ", "\n", " # , ] }\n", "\n\n  "])


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=3))
    parts = [f"{draw(blanks)}{item}{draw(blanks)}" for item in items]
    return f"[{','.join(parts)}{draw(blanks)}]"


def tables(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    return pairs.map(lambda pair: "{ " + ", ".join(f"{key} = {value}" for key, value in pair.items()) + " }")


values = st.recursive(scalars, lambda inner: arrays(inner) | tables(inner), max_leaves=6)


@given(st.lists(st.tuples(keys, values), max_size=8), st.booleans())
def test_generated_documents_have_a_line_for_every_value(pairs: list[tuple[str, str]], windows: bool) -> None:
    seen: set[str] = set()
    text, starts = "", {}
    for written, value in pairs:
        key = next(iter(tomllib.loads(f"{written} = 1")))
        if key not in seen:
            seen.add(key)
            starts[key] = text.count("\n") + 1
            text += f"{written} = {value}\n"
    document = tomllib.loads(text)
    lines = positions(text.replace("\n", "\r\n") if windows else text)
    assert paths_of(document) <= lines.keys()
    assert {key: lines[(key,)] for key in starts} == starts
