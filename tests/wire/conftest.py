"""The product for the wire tests: two workers over one root, for the whole session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.certificate import self_signed
from tests.wire.outside import outside
from tests.wire.player import Server
from tests.wire.product import ACCOUNT, KEY, running

_CONFIG = """
copy_ca_file = "{ca}"

[[accounts]]
name = "{account}"
root = "{root}"
key1 = "{key}"
durability = "relaxed"

[[accounts.containers]]
name = "locked"
read_only = true

[[copy_sources]]
host = "localhost"
port = {port}
private = true
"""


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a copy source outside, and the authority that its certificate is from."""
    directory = tmp_path_factory.mktemp("outside")
    context, _ = self_signed(directory)
    with outside(context) as url:
        yield url, directory / "localhost.pem"


@pytest.fixture(scope="session")
def product(source: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The product as the rows ask it. What they show is how it answers, not that writes are durable."""
    url, authority = source
    scratch = tmp_path_factory.mktemp("product")
    root = scratch / "root"
    (root / "locked").mkdir(parents=True)
    settings = scratch / "blobedge.toml"
    port = url.rpartition(":")[2]
    settings.write_text(_CONFIG.format(ca=authority, account=ACCOUNT, root=root, key=KEY, port=port))
    settings.chmod(0o600)
    with running(root, scratch / "log", "--config", str(settings)) as started:
        yield Server("product", started.port, ACCOUNT, KEY, url)
