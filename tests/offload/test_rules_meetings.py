"""Whatever rules a configuration has: if it is accepted, no two blobs of the node go to one name in the cloud."""

import re
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config_offload import Offload
from agent.config_offload_rules import relations
from agent.offload.rules import Rules, Subject, decide
from agent.offload.templates import Target

DAY = 86_400_000_000_000
ACCOUNTS = ("plant7", "plant8")
CONTAINERS = ("cam", "cam-1", "cold", "plant7", "2026", "$root")
NAMES = ("x", "cam/x", "cold/x", "plant7/cam/x", "2026/x", "-1/x", "1/x", "m/x", "a\\x", "a/x", "x.", "2026-x", "11x")

RULE = st.fixed_dictionaries(
    {"upload": st.just("now")},
    optional={
        "accounts": st.lists(st.sampled_from(ACCOUNTS), min_size=1, max_size=2, unique=True),
        "containers": st.lists(st.sampled_from([*CONTAINERS, "cam*", "c*", "*"]), min_size=1, max_size=2),
        "prefix": st.sampled_from(["", "cam", "2026"]),
        "size_min": st.sampled_from(["0 B", "1 KiB"]),
        "container": st.sampled_from(
            ["{container}", "{account}", "{account}-{container}", "{container}-{account}", "cold", "cam", "$root"]
        ),
        "name": st.sampled_from(
            [
                "{name}",
                "x{name}",
                "ca{name}",
                "{account}/{name}",
                "{container}/{name}",
                "{account}/{container}/{name}",
                "{container}/{account}/{name}",
                "cam/{name}",
                "cold/{account}/{container}/{name}",
                "{date:%Y}/{name}",
                "{date:%Y}/{account}/{container}/{name}",
                "{date:%m}{account}/{container}/{name}",
                "{node}/{container}/{date:%Y-%m}-{name}",
            ]
        ),
    },
)


def accepted(tables: list[dict[str, Any]], accounts: tuple[str, ...]) -> bool:
    document = {
        "cloud": {"sas_file": "/s"},
        "offload": {"node": "cam", "rules": tables},
        "accounts": [{"name": name} for name in accounts],
    }
    return not list(relations(document))


def as_azure_reads(target: Target) -> tuple[str, str]:
    """A backslash is a slash; what its page says to avoid at the end of a part may be cut off."""
    return target.container, re.sub(r"\.+(?=/|$)", "", target.name.replace("\\", "/")).rstrip("/")


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(RULE, min_size=1, max_size=3), st.sampled_from([ACCOUNTS, ACCOUNTS[:1]]), st.randoms(use_true_random=False)
)
def test_no_two_blobs_meet(tables: list[dict[str, Any]], accounts: tuple[str, ...], random: Any) -> None:
    if not accepted(tables, accounts):
        return  # most sets are not; `assume` would call that unhealthy
    rules = Rules(Offload.model_validate({"node": "cam", "rules": tables}), accounts)
    taken: dict[tuple[str, str], tuple[str, ...]] = {}
    for blob in product(accounts, CONTAINERS, NAMES):
        modified = random.randrange(20_000 * DAY, 22_000 * DAY)
        decision = decide(rules, Subject(*blob, random.choice([0, 2048]), modified, modified), 30_000 * DAY)
        if decision.target is not None:
            assert taken.setdefault(as_azure_reads(decision.target), blob) == blob


def test_useful_sets_of_rules_are_accepted() -> None:
    """The check must not be so careful that it is of no use."""
    never: dict[str, Any] = {"containers": ["tmp"], "upload": "never"}
    whole = "{account}/{container}/{name}"
    useful: list[list[dict[str, Any]]] = [
        [{"containers": ["cam-*"], "container": "cold", "name": whole}, {"container": "cold", "name": whole}],
        [never, {"containers": ["cam"], "name": "a/{name}"}, {"containers": ["cold"], "name": "b/{name}"}],
        [{"containers": ["cam-*"], "container": "cold", "name": whole}, {"containers": ["cam-*"], "tier": "Cool"}],
        [{"size_max": "1 KiB", "tier": "Hot"}, {"size_min": "1 KiB", "tier": "Cool"}],
    ]
    for tables in useful:
        assert accepted(tables, ("plant7",)), tables
