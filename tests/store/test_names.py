"""Names map to paths injectively, and back."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataplane.store import names

blob_names = st.text(
    st.sampled_from("ab/.%~ecfn25E\u00e4\U0001f600 +-")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0\\"),
    min_size=1,
    max_size=400,
)


@given(blob_names)
@example("a")
@example("a/")
@example("//")
@example("../..")
@example(".nfs0001/.snapshot")
@example("%~e")
@example("a%~25~f")
@example("x" * 300)
@example("\u00e4" * 252)
@example("%~" * 200)
def test_round_trip(name: str) -> None:
    for path in (names.encode(name), names.encode_beside(name)):
        assert names.decode(path) == name
        components = path.split("/")
        assert all(0 < len(c.encode()) <= names.COMPONENT_BYTES_MAX for c in components)
        assert not any(names.is_hidden(c) for c in components)
    assert names.encode(name) != names.encode_beside(name)


@given(blob_names)
def test_round_trip_where_the_mount_refuses_characters(name: str) -> None:
    path = names.encode(name, names.REFUSED_BY_LCD)
    assert names.decode(path, names.REFUSED_BY_LCD) == name
    assert not set(path) & set(names.REFUSED_BY_LCD)


@given(st.text(st.sampled_from("a.%~ecf25E0/nsphot"), min_size=1, max_size=40))
def test_a_path_that_decodes_is_the_name_s_own(path: str) -> None:
    name = names.decode(path)
    if name is not None:
        assert names.path_matches(name, path)


@pytest.mark.parametrize(
    "name", ["data.csv", "100%.txt", "x%3Ay=1/b", "a%2Fb", ".hidden", "a b+c", "-rf", "\u00e4.txt"]
)
def test_ordinary_names_are_their_own_paths(name: str) -> None:
    assert names.encode(name) == name


@pytest.mark.parametrize("path", ["a%~41", "%~e%~c", "a%~c", "a%~f/b", "a%~", "%~2Ea", "a//b", "x/.snapshot/y", "%~2e"])
def test_paths_that_nobody_made_are_no_blobs(path: str) -> None:
    assert names.decode(path) is None


def test_a_million_generated_names_map_injectively_and_back() -> None:
    draw = random.Random(20261123)
    alphabet = [
        "a",
        "b",
        "/",
        "//",
        ".",
        "..",
        "%",
        "~",
        "%~",
        "e",
        "c",
        "f",
        "2",
        "5",
        "E",
        ".nfs",
        "\u00fc",
        " ",
        "x" * 130,
    ]
    seen: dict[str, str] = {}
    for _ in range(1_000_000):
        name = "".join(draw.choices(alphabet, k=draw.randint(1, 6)))
        path = names._encode.__wrapped__(name, "", False)
        assert seen.setdefault(path, name) == name
    for path, name in seen.items():
        assert names.decode(path) == name
