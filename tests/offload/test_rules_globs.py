"""Patterns of names, and sizes and spans as they are written."""

import fnmatch
import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.offload import amounts
from agent.offload.globs import Glob


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        ("*.jpg", ["a.jpg", ".jpg"], ["a/b.jpg", "a.jpg.tmp", "a.JPG"]),
        ("**.jpg", ["a.jpg", "a/b.jpg"], ["a.png"]),
        ("line?/**", ["line1/a", "line1/", "line1/a/b"], ["line/a", "line12/a", "line//a"]),
        ("line[1-3]/x", ["line1/x", "line3/x"], ["line4/x", "line/x"]),
        ("[!.]*", ["a", "ab"], [".a", "/a", ""]),
        ("a/**/b", ["a/x/b", "a/x/y/b", "a//b"], ["a/b", "a/b/c"]),
        ("*", ["", "abc", "\u00e4\n"], ["/", "a/b"]),
        ("[]]", ["]"], ["[", "a"]),
        ("a/b", ["a/b"], ["a", "a/", "a/c"]),
        ("[+-9]", ["5", "-"], ["/", ":"]),
        ("[\\]", ["\\"], ["a"]),
        ("a+(b)|c.", ["a+(b)|c."], ["aab"]),
        ("a", ["a"], ["", "aa", "b"]),
    ],
)
def test_patterns(pattern: str, names: list[str], others: list[str]) -> None:
    glob = Glob(pattern)
    assert [name for name in [*names, *others] if glob.matches(name)] == names


@settings(max_examples=500)
@given(st.text("ab*?[]!-", max_size=8), st.text("ab-!]", max_size=8))
def test_without_slashes_a_pattern_is_what_fnmatch_says(pattern: str, name: str) -> None:
    try:
        glob = Glob(pattern)
    except ValueError:
        return  # empty, or a set that never ends, or ends before it begins
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # re wonders about two dashes
        assert glob.matches(name) == bool(re.match(fnmatch.translate(pattern), name))


def test_no_name_makes_a_pattern_slow() -> None:
    """A regular expression for this never ends; the suite's time limit would tell."""
    assert not Glob("**a" * 40 + "b").matches("a" * 1024)


@pytest.mark.parametrize("pattern", ["", "a[b", "[z-a]"])
def test_a_pattern_with_a_mistake_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        Glob(pattern)


def test_only_a_pattern_without_wildcards_is_plain() -> None:
    assert [pattern for pattern in ("cam", "cam-*", "ca?", "c[a]m", "$web") if Glob(pattern).plain] == ["cam", "$web"]


def test_sizes_and_spans() -> None:
    assert amounts.size("0 B") == 0
    assert amounts.size("64KiB") == 65_536
    assert amounts.size("1.5 MiB") == 1_572_864
    assert [amounts.size_text(count) for count in (0, 1023, 1024, 5 << 30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    assert [amounts.span_text(each) for each in (3, 90, 7_200, 86_400)] == ["3 s", "1.5 min", "2.0 h", "1.0 d"]


@pytest.mark.parametrize("text", ["", "64", "64 MB", "-1 KiB", "1 kib", "1e3 B", "KiB"])
def test_a_size_with_a_mistake_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        amounts.size(text)
