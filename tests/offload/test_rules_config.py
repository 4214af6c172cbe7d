"""[offload] and the credentials of [cloud]: every mistake in a line of its own, with its place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import config_show
from agent.config import Config
from agent.config_load import load
from agent.config_offload import Offload
from agent.problems import OperatorError

KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
ACCOUNT = f'[[accounts]]\nname = "plant7"\nroot = "/srv/plant7"\nkey1 = "{KEY}"\n'
OTHER = f'[[accounts]]\nname = "plant8"\nroot = "/srv/plant8"\nkey1 = "{KEY}"\n'
CLOUD = '[cloud]\nendpoint = "https://cold.blob.core.windows.net"\nsas_file = "/etc/blobedge/cloud.sas"\n'
Load = Callable[..., Config]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Read a configuration of a text, by default without a look at the machine."""

    def read(text: str, *, files: bool = False) -> Config:
        path = tmp_path / "blobedge.toml"
        path.write_text(text)
        return load(str(path), files=files)

    return read


def mistakes(read: Load, text: str, *, files: bool = False) -> list[str]:
    with pytest.raises(OperatorError) as caught:
        read(text, files=files)
    return [str(problem).rpartition(".toml:")[2] for problem in caught.value.problems]


def test_a_whole_configuration(read: Load) -> None:
    text = f"""{ACCOUNT}{CLOUD}
[offload]
directory = "/var/lib/blobedge"
uploads_count_max = 4
bandwidth_mbits_max = 80
daily_gib_max = 50
time_zone = "Europe/Berlin"
schedule = [
    {{ days = "mon-fri", start = "08:00", end = "18:00", mbits = 20 }},
    {{ days = "sat,sun", mbits = 0 }},
]
[[offload.rules]]
containers = ["tmp-*"]
upload = "never"
[[offload.rules]]
upload = "age"
age_days = 0.5
priority = "low"
"""
    offload = read(
        text.replace("= 80", "= 80.0").replace("= 50", "= 50.0").replace("mbits = 20", "mbits = 20.0")
    ).offload
    assert offload is not None
    assert [rule.priority for rule in offload.rules] == [500, 900]
    assert [window.mbits for window in offload.schedule] == [20, 0]
    assert offload.weekly().mbits(0) == 80


def test_whole_numbers_are_numbers(read: Load) -> None:
    offload = read(f"{ACCOUNT}{CLOUD}[offload]\nbandwidth_mbits_max = 80\ndaily_gib_max = 50\n").offload
    assert offload is not None
    assert offload.bandwidth_mbits_max == 80


def test_what_show_prints_can_be_read_again(read: Load) -> None:
    text = (
        f'{ACCOUNT}{CLOUD}[offload]\n[[offload.schedule]]\nmbits = 0\n[[offload.rules]]\ncontainers = ["a*"]\n'
        '[[offload.rules]]\nglob = "**.jpg"\nsize_min = "1 KiB"\n'
    )
    config = read(text)
    again = config_show.document(config).replace('key1 = "(hidden)"', f'key1 = "{KEY}"')
    assert read(again) == config


def test_the_summary_says_that_blobs_leave(read: Load) -> None:
    assert "sends blobs" not in config_show.summary(read(ACCOUNT + CLOUD))
    said = config_show.summary(read(ACCOUNT + CLOUD + "[[offload.rules]]\n"))
    assert said.endswith("\n  sends blobs to https://cold.blob.core.windows.net: 1 rule(s)")


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        (
            "space_low_percent = 85",
            "1: space_low_percent is 85 and has to be less than space_high_percent, which is 85",
        ),
        (
            "space_high_percent = 93",
            "1: space_high_percent is 93 and has to be less than low_space_percent, which is 92",
        ),
        ("low_space_percent = 98", "1: low_space_percent is 98 and has to be less than reserve_percent, which is 97"),
        ("reserve_percent = 90", "1: low_space_percent is 92 and has to be less than reserve_percent, which is 90"),
        ("reserve_percent = 101", "1: offload.reserve_percent"),
        ("space_low_percent = 0", "1: offload.space_low_percent"),
    ],
)
def test_the_marks_of_a_disk_are_in_order(read: Load, marks: str, said: str) -> None:
    text = f"{ACCOUNT}{CLOUD}[offload]\n"
    line, _, words = said.partition(": ")
    (found,) = mistakes(read, f"{text}{marks}\n[[offload.rules]]\n")
    assert found.startswith(f"{text.count(chr(10)) + int(line)}: {words}")


def test_every_way_to_leave_is_read(read: Load) -> None:
    rules = (
        'containers = ["a"]\nevict = "age"\nevict_days = 0.5\nttl_days = 90\nconflict = "cloud-wins"',
        'containers = ["b"]\ndelete_after_upload = true',
        'containers = ["c"]\nupload = "never"\nttl_days = 1',
        'containers = ["d"]\npin = true\ndelete = "propagate"',
        'evict = "space"',
    )
    offload = read(ACCOUNT + CLOUD + "".join(f"[[offload.rules]]\n{rule}\n" for rule in rules)).offload
    assert offload is not None
    assert [rule.evict for rule in offload.rules] == ["age", "never", "never", "never", "space"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('upload = "later"', '1: offload.rules[0].upload must be "now", "idle", "age" or "never"'),
        ('upload = "age"', '1: upload = "age" and age_days go together'),
        ("age_days = 2", '0: upload = "age" and age_days go together'),
        ('conflict = "theirs"', '1: offload.rules[0].conflict must be "edge-wins", "cloud-wins" or "keep-both"'),
        ('glob = "a[b"', "1: offload.rules[0].glob: 'a[b' is not a pattern: a [ has no ]"),
        ('containers = [""]', "1: offload.rules[0].containers[0]: '' is not a pattern: it is empty"),
        ('size_min = "3 MB"', "1: offload.rules[0].size_min: '3 MB' is not a size"),
        ('size_min = "3 MiB"\nsize_max = "2 MiB"', "2: no blob has at least 3 MiB and at most 2 MiB"),
        ('accounts = ["plant9"]', "1: there is no account 'plant9': there is plant7"),
        ("priority = 1000", "1: offload.rules[0].priority"),
        ('priority = "urgent"', "1: offload.rules[0].priority: 'urgent' is no priority: write high, normal"),
        ('container = "cold"', "0: blobs of different containers could meet"),
        ('name = "{container}-{name}"', "1: offload.rules[0].name: '{container}-{name}': put a slash"),
        ('tier = "hot"', '1: offload.rules[0].tier must be "Hot", "Cool", "Cold" or "Archive"'),
        ('evict = "always"', '1: offload.rules[0].evict must be "never", "age" or "space"'),
        ('evict = "age"', '1: evict = "age" and evict_days go together'),
        ("evict_days = 3", '0: evict = "age" and evict_days go together'),
        ('upload = "never"\nevict = "space"', "2: evict needs the cloud's copy"),
        ('upload = "never"\ndelete_after_upload = true', "2: delete_after_upload needs the cloud's copy"),
        ('evict = "space"\ndelete_after_upload = true', "2: evict and delete_after_upload are two ways to leave"),
        ('delete = "propagate"\ndelete_after_upload = true', "2: delete_after_upload leaves the copy"),
        ('delete = "propagate"\nttl_days = 3', "2: ttl_days leaves the copy"),
        ('pin = true\nevict = "space"', "2: pin keeps it here, evict does not"),
        ("pin = true\nttl_days = 3", "2: pin keeps it here, ttl_days does not"),
        ("ttl_days = 0", "1: offload.rules[0].ttl_days"),
        ("delete_fuse_percent = 0", "1: offload.rules[0].delete_fuse_percent"),
    ],
)
def test_a_rule_with_a_mistake(read: Load, rules: str, said: str) -> None:
    text = f"{ACCOUNT}{CLOUD}[[offload.rules]]\n"
    line, _, words = said.partition(": ")
    found = mistakes(read, text + rules + "\n")
    assert len(found) == 1
    assert found[0].startswith(f"{text.count(chr(10)) + int(line)}: {words}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('time_zone = "Mars/Olympus"', "not a time zone"),
        ('node = "Edge.1"', "a node's name is"),
        ('directory = "state"', "not an absolute path"),
        ('directory = "/srv/plant7/state"', "inside /srv/plant7, which is an account's data"),
        ("uploads_count_max = 0", "uploads_count_max"),
        ('schedule = [{ days = "mo", mbits = 1.0 }]', "offload.schedule[0].days: 'mo' are no days"),
        ('schedule = [{ start = "8:00", mbits = 1.0 }]', "not a time of day"),
        ("schedule = [{}]", "offload.schedule[0].mbits is missing"),
    ],
)
def test_the_table_with_a_mistake(read: Load, text: str, said: str) -> None:
    found = mistakes(read, f"{ACCOUNT}{CLOUD}[offload]\n{text}\n")
    assert len(found) == 1
    assert said in found[0]


def test_two_accounts_need_their_name_in_the_template(read: Load) -> None:
    plain = f"{ACCOUNT}{OTHER}{CLOUD}[[offload.rules]]\n"
    assert "blobs of different accounts could meet" in mistakes(read, plain)[0]
    assert read(plain + 'container = "{account}-{container}"\n').offload
    assert read(plain + 'accounts = ["plant7"]\n').offload


def test_two_rules_must_not_lead_to_one_name(read: Load) -> None:
    one = '[[offload.rules]]\ncontainers = ["photos"]\ncontainer = "cold"\n'
    two = '[[offload.rules]]\ncontainers = ["videos"]\ncontainer = "cold"\n'
    assert "of this rule and of rule 1 could meet" in mistakes(read, ACCOUNT + CLOUD + one + two)[0]
    assert read(ACCOUNT + CLOUD + one + 'name = "p/{name}"\n' + two + 'name = "v/{name}"\n').offload
    assert read(ACCOUNT + CLOUD + one + two + 'upload = "never"\n').offload  # it leads nowhere


def test_offload_needs_a_cloud_and_a_way_in(read: Load) -> None:
    rule = "[[offload.rules]]\n"
    assert "needs a [cloud] table" in mistakes(read, ACCOUNT + rule)[0]
    bare = '[cloud]\nendpoint = "https://cold.blob.core.windows.net"\n'
    assert "needs one way to be let in" in mistakes(read, ACCOUNT + bare + rule)[0]
    assert read(ACCOUNT + "[offload]\n").offload == Offload()  # off


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('sas_file = "/s"\nkey_file = "/k"', "sas_file and key_file are two ways to be let in: keep one"),
        ('key_file = "/k"\ncredential = "managed-identity"', "key_file and credential are two ways"),
        ('credential = "client-secret"\ntenant_id = "t"\nclient_id = "c"', "needs client_secret_file too"),
        ('credential = "managed-identity"\ntenant_id = "t"', 'tenant_id belongs to credential = "client-secret"'),
        ('sas_file = "/s"\nclient_id = "c"', "client_id belongs to credential = "),
        ('credential = "password"', '"managed-identity", "workload-identity" or "client-secret"'),
    ],
)
def test_there_is_exactly_one_way_into_the_cloud(read: Load, keys: str, said: str) -> None:
    found = mistakes(read, f'{ACCOUNT}[cloud]\nendpoint = "https://c.blob.core.windows.net"\n{keys}\n')
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "keys",
    [
        'connection_string_file = "/c"',
        'key_file = "/k"',
        'credential = "managed-identity"',
        'credential = "managed-identity"\nclient_id = "c"',
        'credential = "workload-identity"',
        'credential = "client-secret"\ntenant_id = "t"\nclient_id = "c"\nclient_secret_file = "/s"',
    ],
)
def test_every_way_into_the_cloud(read: Load, keys: str) -> None:
    text = f'{ACCOUNT}[cloud]\nendpoint = "https://c.blob.core.windows.net"\n{keys}\n[[offload.rules]]\n'
    assert read(text).cloud is not None


def test_credential_files_and_the_directory_are_looked_at(read: Load, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "plant7").mkdir()
    account = ACCOUNT.replace("/srv", str(tmp_path))
    cloud = CLOUD.replace("/etc/blobedge", str(tmp_path))
    found = mistakes(read, f'{account}{cloud}[offload]\ndirectory = "{tmp_path}/file/state"\n', files=True)
    assert [line.partition(": ")[2] for line in found] == [
        f"cannot read {tmp_path}/cloud.sas: No such file or directory",
        f"user {os.geteuid()} cannot write to {tmp_path}/file: change its owner, or name another",
    ]
    (tmp_path / "cloud.sas").touch()
    assert read(f'{account}{cloud}[offload]\ndirectory = "{tmp_path}/new/state"\n', files=True)


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/blobedge:/var/lib/other", "XDG_STATE_HOME": "/x"}, "/var/lib/blobedge"),
        ({"XDG_STATE_HOME": "/home/me/state"}, "/home/me/state/blobedge"),
        ({"XDG_STATE_HOME": "relative"}, os.path.expanduser("~/.local/state/blobedge")),
        ({}, os.path.expanduser("~/.local/state/blobedge")),
    ],
)
def test_where_the_state_is(environ: dict[str, str], directory: str) -> None:
    assert Offload().state_directory(environ) == directory
    assert Offload(directory="/data/state").state_directory(environ) == "/data/state"


def test_the_name_of_the_node() -> None:
    assert Offload(node="edge1").node_name("host") == "edge1"
    assert Offload().node_name("Plant7_Edge--1.example.com") == "plant7-edge-1"
    assert Offload().node_name("...") == "node"
    assert Offload().node_name("x" * 60) == "x" * 40
