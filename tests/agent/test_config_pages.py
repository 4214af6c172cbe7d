"""The documentation of the configuration is what the code makes, and the sample is a configuration."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from agent import config_reference, config_show
from agent.config import Config
from agent.config_load import load
from agent.config_offload import PRIORITIES

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "configuration.md"
SAMPLE = CHECKOUT / "config" / "blobedge.toml"


def test_the_reference_page_is_up_to_date() -> None:
    """Mend with: python -m agent.config_reference"""
    page = PAGE.read_text()
    assert config_reference.documented(page) == page


def test_the_sample_is_up_to_date() -> None:
    """Mend with: python -m agent.config_reference"""
    assert SAMPLE.read_text() == config_reference.example()


def test_the_sample_is_valid_as_it_is() -> None:
    assert load(str(SAMPLE), files=False).accounts[0].name == "plant7"


def test_every_commented_key_of_the_sample_is_valid_too(tmp_path: Path) -> None:
    """Take every remark that is a key or a table into force, but for the second form of each key."""
    text = re.sub(r"^# (?=(?:\w+ = |\[))", "", SAMPLE.read_text(), flags=re.MULTILINE)
    text = re.sub(r'^(?:key[12] = "BASE64"|(?:sas|connection_string|key)_file = .*)\n', "", text, flags=re.MULTILINE)
    path = tmp_path / "all.toml"
    path.write_text(text)
    config = load(str(path), files=False)
    assert config.copy_sources[0].host == "*.blob.core.windows.net"
    assert config.accounts[0].containers[0].path == "/mnt/recipes"
    assert config.offload is not None
    assert config.offload.rules[0].priority == PRIORITIES["high"]


def test_what_show_prints_is_the_same_configuration_without_its_keys(tmp_path: Path) -> None:
    config = load(str(SAMPLE), files=False)
    shown = config_show.document(config)
    assert Config.model_validate(tomllib.loads(shown)) == config
    secret = config.model_copy(update={"accounts": [config.accounts[0].model_copy(update={"key1": "c2VjcmV0"})]})
    assert "c2VjcmV0" not in config_show.document(secret)


def test_the_page_names_every_flag_of_serve() -> None:
    command = [sys.executable, "-m", "agent", "serve", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    flags = set(re.findall(r"--[a-z][a-z-]+", shown.stdout)) - {"--help"}
    assert {flag for flag in flags if f"`{flag}" not in PAGE.read_text()} == set()
