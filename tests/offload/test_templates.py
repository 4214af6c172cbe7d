"""Names in the cloud: two different blobs never get one, and Azure takes each of them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.offload.templates import (
    Route,
    check_container,
    check_name,
    fit_container,
    fit_name,
    parse_container,
    parse_name,
)
from dataplane.blobapi import limits
from dataplane.blobapi.uri import check_blob_name, check_container_name

ACCOUNTS = st.from_regex(r"[a-z0-9]{3,6}", fullmatch=True) | st.just("a" * 24)
CONTAINERS = (
    st.from_regex(r"[a-z0-9](-?[a-z0-9]){2,8}", fullmatch=True)
    | st.sampled_from(["$root", "$web", "$logs", "$blobchangefeed", "c" * 63, "c" * 62 + "d", "root", "logs"])
    | st.from_regex(r"[a-z]{3}-x[a-z2-7]{20}", fullmatch=True)
)
#: Short ones of few characters, so that generated names are often alike; any Unicode; and long ones.
NAMES = (
    st.text("ab./\\%~2E5C\x01\u0081", min_size=1, max_size=8)
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
    | st.builds(
        lambda text, tail: (text * 1024)[:1020] + tail, st.text("ab/.\U0001f3ed", min_size=1), st.text(max_size=4)
    )
)
BLOBS = st.tuples(ACCOUNTS, CONTAINERS, NAMES)
WHEN = st.integers(0, 2**62)
TEMPLATES = [
    ("{account}-{container}", "{name}"),
    ("{container}-{node}-{account}", "{date:%Y/%m/%d}/{name}"),
    ("{container}", "{account}/{name}"),
    ("archive", "{node}/{account}/{container}/{date:%Y-%m}-{name}"),
    ("{account}", "{container}/x-{name}"),
    ("$root", "{account}/{container}/{name}"),
]


@settings(max_examples=400)
@given(st.sampled_from(TEMPLATES), BLOBS, BLOBS, WHEN, WHEN)
def test_two_blobs_never_get_one_name(
    templates: tuple[str, str], one: tuple[str, str, str], other: tuple[str, str, str], when: int, later: int
) -> None:
    route = Route(*templates, "edge1")
    assert one == other or route.target(*one, when) != route.target(*other, later)


@settings(max_examples=400)
@given(NAMES, NAMES, st.sampled_from(["cold", "$root"]))
def test_names_that_are_made_fit_stay_different(one: str, other: str, container: str) -> None:
    assert (fit_name(one, container) == fit_name(other, container)) == (one == other)


@given(CONTAINERS, CONTAINERS)
def test_containers_that_are_made_fit_stay_different(one: str, other: str) -> None:
    assert (fit_container(one) == fit_container(other)) == (one == other)


@settings(max_examples=400)
@given(st.sampled_from(TEMPLATES), BLOBS, WHEN)
def test_azure_takes_every_name(templates: tuple[str, str], blob: tuple[str, str, str], when: int) -> None:
    """REST page "Naming and Referencing Containers, Blobs, and Metadata"."""
    target = Route(*templates, "edge1").target(*blob, when)
    check_container_name(target.container)
    check_blob_name(target.name)
    assert len(target.name.encode("utf-16-le")) // 2 <= limits.blob_name_chars_max
    assert not re.search(r"\\|[\0-\x1f\x7f-\x9f]|\.(/|$)|/$", target.name)
    assert target.container not in ("$logs", "$blobchangefeed")
    assert target.container != "$root" or "/" not in target.name


@given(NAMES)
def test_an_escaped_name_can_be_read_back(name: str) -> None:
    """By a reader that knows nothing but: %~XX is a byte. What is too long cannot be, and says so."""
    fitted = fit_name(name, "cold")
    if "%~h" not in fitted:
        raw = re.sub(rb"%~([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), fitted.encode())
        assert raw.decode() == name


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("line1/2026/a b.jpg", "line1/2026/a b.jpg"),
        ("ä/ü//x%41%2F", "ä/ü//x%41%2F"),
        ("a\\b", "a%~5Cb"),
        ("..", ".%~2E"),
        ("a/../b", "a/.%~2E/b"),
        ("a/", "a%~2F"),
        ("end.", "end%~2E"),
        ("tab\there", "tab%~09here"),
        ("100%~5C", "100%~25~5C"),
        ("n" * 1024, "n" * 1024),
    ],
)
def test_ordinary_names_stay_and_others_are_escaped(name: str, fitted: str) -> None:
    assert fit_name(name, "cold") == fitted


def test_what_is_too_long_keeps_its_beginning_and_ends_in_a_digest() -> None:
    long = Route("cold", "{container}/{name}", "n", ["acc"]).target("acc", "photos", "n" * 1024, 0)
    assert re.fullmatch(r"photos/n+%~h[0-9a-f]{32}", long.name)
    assert len(long.name) == limits.blob_name_chars_max
    deep = fit_name("d/" * 400 + "x", "cold")
    assert deep.count("/") == limits.blob_name_segments_max - 1
    assert re.fullmatch(r"plant7-c+-x[a-z2-7]{20}", fit_container("plant7-" + "c" * 63))


def test_targets_of_the_cookbook() -> None:
    target = Route("{account}-{container}", "{node}/{date:%Y/%m/%d}/{name}", "edge1").target(
        "plant7", "cam", "a.jpg", 0
    )
    assert target == ("plant7-cam", "edge1/1970/01/01/a.jpg", "")
    assert Route("{container}", "{name}", "n", ["acc"]).target("acc", "$web", "index.html", 0, "Cool") == (
        "$web",
        "index.html",
        "Cool",
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{name}", "no placeholder here"),
        ("Cold", "not a container name"),
        ("a--b", "not a container name"),
        ("a", "not a container name"),
        ("x--{container}", "Azure refuses"),
        ("{container}-", "Azure refuses"),
        ("{account}{container}", "put a dash"),
        ("{container}-{container}", "twice"),
        ("{container", "brace"),
        ("{container:%Y}", "no format"),
        ("c" * 40 + "-" + "d" * 30 + "{account}", "Azure refuses"),
    ],
)
def test_a_container_template_with_a_mistake_is_refused(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_container(template)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("backup", "end it with {name}"),
        ("{name}/x", "end it with {name}"),
        ("{name}{name}", "end it with {name}"),
        ("{container}-{name}", "put a slash"),
        ("{account}{name}", "put a slash"),
        ("/{name}", "no slash first"),
        ("a//{name}", "no empty"),
        ("../{name}", "no empty or dotted"),
        ("a\\{name}", "no backslash"),
        ("{date}/{name}", "write a format"),
        ("{date:%c}/{name}", "write a format"),
        ("{date:-}/{name}", "write a format"),
        ("{hub}/{name}", "no placeholder"),
        ("x" * 257 + "{name}", "at most 256"),
    ],
)
def test_a_name_template_with_a_mistake_is_refused(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_name(template)


def test_a_route_wants_account_and_container_unless_there_is_only_one() -> None:
    with pytest.raises(ValueError, match="of different accounts"):
        Route("{container}", "{name}", "n")
    with pytest.raises(ValueError, match="of different containers"):
        Route("cold", "{account}/{name}", "n")
    Route("{container}", "{name}", "n", accounts=["acc"])
    Route("cold", "{name}", "n", accounts=["acc"], containers=["photos"])


ROUTES = [
    Route("cold", "{name}", "n", ["acc"], ["photos"]),
    Route("cold", "{name}", "n", ["acc"], ["videos"]),
    Route("cold", "photos/{name}", "n", ["acc"], ["photos"]),
    Route("cold", "videos/{name}", "n", ["acc"], ["videos"]),
    Route("cold", "vid{name}", "n", ["acc"], ["vids"]),
    Route("cold", "{container}/{name}", "n", ["acc"]),
    Route("cold", "{date:%Y}/{name}", "n", ["acc"], ["photos"]),
    Route("other", "{name}", "n", ["acc"], ["photos"]),
    Route("{container}", "{name}", "n", ["acc"]),
    Route("{account}-{container}", "{name}", "n"),
    Route("{account}-{container}", "{name}", "n", ["acc"]),
    Route("cold", "{container}/{date:%Y}-{name}", "n", ["acc"]),
    Route("{container}", "{name}", "n", ["acc"], ["cam-*", "photos"]),
    Route("cold", "photos/{date:%m}x{name}", "n", ["acc"], ["photos"]),
]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (0, 1, False),  # the same name, of two containers
        (2, 3, True),
        (3, 4, False),  # vid + eos/x
        (2, 4, True),
        (5, 2, False),  # {container} may be photos
        (6, 2, True),  # photos is no year
        (6, 5, False),  # a container may be called 2026
        (0, 7, True),
        (8, 0, False),  # a container may be called cold
        (9, 10, True),  # one way to read for both
        (11, 13, False),
        (12, 0, True),  # cold is none of cam-*
        (12, 8, True),
        (7, 6, True),
    ],
)
def test_routes_that_could_meet_are_told_from_those_that_cannot(one: int, other: int, apart: bool) -> None:
    assert ROUTES[one].apart(ROUTES[other]) is apart
    assert ROUTES[other].apart(ROUTES[one]) is apart


ONLY = [("acc", "photos"), ("acc", "videos"), ("acc", "2026"), ("acc", "cold"), ("acc", "vids"), ("bcc", "photos")]
FOR = ["photos", "videos", "photos", "videos", "vids", "", "photos", "photos", "", "", "", "", "photos", "photos"]


@settings(max_examples=600)
@given(
    st.integers(0, len(ROUTES) - 1),
    st.integers(0, len(ROUTES) - 1),
    st.sampled_from(ONLY),
    st.sampled_from(ONLY),
    st.sampled_from(["x", "eos/x", "photos/x", "2026/x", "videos/x", "os/x"]),
    st.sampled_from(["x", "eos/x", "photos/x", "2026/x", "videos/x", "os/x"]),
)
def test_routes_that_are_apart_never_meet(
    one: int, other: int, mine: tuple[str, str], theirs: tuple[str, str], name: str, other_name: str
) -> None:
    first, second = ROUTES[one], ROUTES[other]
    for number, (account, container) in ((one, mine), (other, theirs)):
        if FOR[number] not in ("", container) or (account != "acc" and number != 9):
            return  # no blob of this route
    if (mine, name) != (theirs, other_name) and first.apart(second):
        assert first.target(*mine, name, 0) != second.target(*theirs, other_name, 0)


def test_pieces_of_a_date_are_its_parts() -> None:
    assert [piece.text for piece in parse_name("{date:%Y/%m}/{name}") if piece.field == "date"] == ["%Y", "%m"]
    assert [piece.field for piece in parse_container("{account}-{container}")] == ["account", "", "container"]


@settings(max_examples=400)
@given(st.sampled_from(TEMPLATES), BLOBS, WHEN)
def test_the_way_back_leads_to_the_blob_or_says_that_it_cannot_tell(
    templates: tuple[str, str], blob: tuple[str, str, str], when: int
) -> None:
    route = Route(*templates, "edge1")
    target = route.target(*blob, when)
    found = route.origin(target.container, target.name)
    assert found == blob or (found is None and ("%~h" in target.name or re.search("-x[a-z2-7]{20}$", target.container)))


def test_the_way_back_of_what_a_route_did_not_make_is_none() -> None:
    route = Route("{container}", "{node}/{date:%Y}/{name}", "edge1", ["acc"])
    assert route.origin("photos", "edge1/2026/a/b%~5C") == ("acc", "photos", "a/b\\")
    for name in (
        "edge2/2026/a",
        "edge1/26/a",
        "edge1/2026/",
        "edge1/2026/a%~2Eb",
        "edge1/2026/a%~FF",
        "edge1/2026/a\n",
    ):
        assert route.origin("photos", name) is None
    assert Route("{container}", "{container}/{name}", "n", ["acc"]).origin("one", "other/a") is None
    assert Route("cold", "{name}", "n", ["acc"], ["photos"]).origin("cold", "a") == ("acc", "photos", "a")
