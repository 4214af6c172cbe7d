"""The configuration: every mistake at once with its line, flags over the file, defaults, nothing guessed."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import Config
from agent.config_load import load
from agent.config_rules import read_key
from agent.flags import Flags
from agent.problems import OperatorError

KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration file; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "blobedge.toml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def mistakes(path: str | None, flags: Flags | None = None, *, files: bool = False) -> list[str]:
    """What load complains of, with the file's directory cut off."""
    with pytest.raises(OperatorError) as caught:
        load(path, flags, files=files)
    return [str(problem).removeprefix(str(path) + ":") for problem in caught.value.problems]


def test_every_mistake_is_told_at_once_with_its_line(write: Write) -> None:
    path = write(
        """\
        workerz = 2
        workers = "two"
        listen = [
            "http://127.0.0.1:10000",
            "ftp://files",
            "https://127.0.0.1:10443",
        ]
        drain_seconds = -1
        [log]
        level = "loud"
        [[accounts]]
        name = "UPPER"
        root = "relative"
        key1 = "not base64!"
        durability = "strct"
        [[accounts.containers]]
        name = "a--b"
        [[accounts]]
        name = "second"
        root = "/srv/second"
        nme = 3
        """
    )
    found = mistakes(path)
    assert [int(line.split(":")[0]) for line in found] == [1, 2, 5, 6, 8, 10, 12, 13, 14, 15, 17, 18, 21]
    assert "did you mean workers?" in found[0]
    assert "a whole number" in found[1]
    assert "[tls]" in found[3]
    assert '"strict" or "relaxed"' in found[9]
    assert "no key" in found[11]
    assert "did you mean name?" in found[12]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("listen = [1", 1, "not TOML"),
        ("a = 1\na = 2\n", 2, "not TOML"),
        ("[tls]\ncert = '/c'\n", 1, "tls.key is missing (--tls-key FILE)"),
        ("accounts = []\n", 1, "there is no account"),
        ("listen = []\n", 1, "listen must not be empty"),
        ("accounts = 3\n", 1, "an array"),
        ("workers = true\n", 1, "a whole number"),
        ("workers = 0\n", 1, "greater than or equal to 1"),
        ("listen = ['http://127.0.0.1']\n", 1, "no port"),
        ("listen = ['http://127.0.0.1:99999']\n", 1, "0 to 65535"),
        ("listen = ['http://h:1/path']\n", 1, "more than a host and a port"),
        ("listen = ['http://h:1', 'http://h:1']\n", 1, "one address, one listener"),
        ("host_suffixes = ['.dot']\n", 1, "not a host name"),
        ("[[copy_sources]]\nhost = 'https://x'\n", 2, "not a host name"),
        ("[[copy_sources]]\nhost = '*.x'\nport = 0\n", 3, "greater than or equal to 1"),
        ("[limits]\nconnections_count_max = 0\n", 2, "greater than or equal to 1"),
        ("[limits]\nblock_bytes_max = 1\n", 2, "unknown key limits.block_bytes_max"),
    ],
)
def test_single_mistakes(write: Write, text: str, line: int, said: str) -> None:
    found = mistakes(write(text))
    assert any(one.startswith(f"{line}:") and said in one for one in found), found


ACCOUNT = f'[[accounts]]\nname = "one"\nroot = "/srv/one"\nkey1 = "{KEY}"\n'


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (ACCOUNT + ACCOUNT.replace("/srv/one", "/srv/two"), 6, "defined twice"),
        (ACCOUNT + ACCOUNT.replace('"one"', '"two"'), 7, "overlap"),
        (ACCOUNT + ACCOUNT.replace('"one"', '"two"').replace("/srv/one", "/srv"), 7, "overlap"),
        (ACCOUNT + 'key1_file = "/k"\n', 5, "keep one"),
        (ACCOUNT.replace(KEY, "c2hvcnQ="), 4, "at least 16"),
        (ACCOUNT + 'host_names = ["x.example", "x.example"]\n', 5, "used twice"),
        (ACCOUNT + '[[accounts.containers]]\nname = "con"\n' * 2, 8, "defined twice"),
        (ACCOUNT + '[[accounts.containers]]\nname = "con"\npath = "/srv/one/d"\n', 7, "inside the account's root"),
        (
            ACCOUNT
            + '[[accounts.containers]]\nname = "con"\npath = "/m"\n'
            + '[[accounts.containers]]\nname = "dee"\npath = "/m"\n',
            10,
            "is container 'con' already",
        ),
    ],
)
def test_mistakes_between_keys(write: Write, text: str, line: int, said: str) -> None:
    found = mistakes(write(text))
    assert len(found) == 1, found
    assert found[0].startswith(f"{line}:")
    assert said in found[0]


def test_what_is_missing_on_this_machine(write: Write, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no certificate")
    (tmp_path / "short").write_text("c2hvcnQ=\n")
    path = write(
        f"""\
        copy_ca_file = "{tmp_path}/nowhere"
        listen = ["https://127.0.0.1:0"]
        [tls]
        cert = "{tmp_path}/plain"
        key = "{tmp_path}/plain"
        [[accounts]]
        name = "one"
        root = "{tmp_path}/missing"
        key1_file = "{tmp_path}/short"
        key2_file = "{tmp_path}/nowhere"
        [[accounts.containers]]
        name = "con"
        path = "{tmp_path}/plain"
        """
    )
    found = mistakes(path, files=True)
    assert [int(line.split(":")[0]) for line in found] == [1, 4, 8, 9, 10, 13]
    assert load(path, files=False).accounts[0].name == "one"


def test_flags_alone_are_enough(tmp_path: Path) -> None:
    config = load(None, Flags(root=str(tmp_path), account="acct", key=KEY, listen=["http://127.0.0.1:0"], workers=3))
    assert config.accounts[0].root == str(tmp_path)
    assert (config.listen, config.worker_count()) == (["http://127.0.0.1:0"], 3)


def test_a_flag_is_blamed_by_its_name() -> None:
    found = mistakes(None, Flags(root="/nonexistent", account="X", key="?", workers=0), files=True)
    assert [line.split(":")[0] for line in found] == ["--account", "--key", "--root", "--workers"]


def test_flags_override_the_file(write: Write, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    path = write(f'workers = 1\n{ACCOUNT.replace("/srv/one", str(tmp_path))}key2 = "{KEY}"\n')
    flags = Flags(
        root=str(other), workers=2, durability="relaxed", records="sidecar", listen=["http://[::1]:0"], access_log=False
    )
    config = load(path, flags)
    (account,) = config.accounts
    assert (account.name, account.root, account.durability, account.records) == (
        "one",
        str(other),
        "relaxed",
        "sidecar",
    )
    assert account.key2 == KEY
    assert (config.workers, config.listen, config.log.access) == (2, ["http://[::1]:0"], False)


def test_a_key_flag_replaces_the_key_file_of_the_file(write: Write, tmp_path: Path) -> None:
    text = ACCOUNT.replace(f'key1 = "{KEY}"', 'key1_file = "/nowhere"').replace("/srv/one", str(tmp_path))
    config = load(write(text), Flags(key=KEY))
    assert (config.accounts[0].key1, config.accounts[0].key1_file) == (KEY, None)


def test_a_key_file_may_break_the_key_into_lines(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY[:64]}\n{KEY[64:]}\n")  # as openssl rand -base64 writes it
    load(None, Flags(root=str(tmp_path), account="one", key_file=str(path)))
    assert read_key(str(path)) == KEY


def test_an_unknown_account_flag_adds_one_and_an_ambiguous_root_is_refused(write: Write, tmp_path: Path) -> None:
    second = ACCOUNT.replace('"one"', '"two"').replace("/srv/one", "/srv/two")
    both = load(write(ACCOUNT), Flags(account="new", root="/x", key=KEY), files=False)
    assert [account.name for account in both.accounts] == ["one", "new"]
    assert "say which with --account" in mistakes(write(ACCOUNT + second), Flags(root="/x"))[0]
    chosen = load(write(ACCOUNT + second), Flags(account="two", root="/x"), files=False)
    assert [account.root for account in chosen.accounts] == ["/srv/one", "/x"]


def test_no_account_at_all_says_how_to_name_one() -> None:
    assert "--account NAME" in mistakes(None, Flags())[0]


def test_defaults_are_the_documented_ones(write: Write) -> None:
    config: Config = load(write(ACCOUNT), files=False)
    assert config.listen == ["http://127.0.0.1:10000"]
    assert config.host_suffixes == ["blob.core.windows.net"]
    assert config.accounts[0].durability == "strict"
    assert config.accounts[0].records == "auto"


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert "cannot read" in mistakes(str(tmp_path / "none.toml"))[0]
    path = tmp_path / "latin.toml"
    path.write_bytes(b"a = '\xff'")
    assert "UTF-8" in mistakes(str(path))[0]


def test_keys_do_not_show_in_what_pydantic_says(write: Write) -> None:
    assert "hunter2" not in " ".join(mistakes(write(ACCOUNT.replace(KEY, "hunter2!"))))
