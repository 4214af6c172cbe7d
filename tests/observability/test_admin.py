"""Where the admin endpoint listens, and who finds it there."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agent.observability import address, client
from agent.observability.listeners import open_all
from agent.problems import OperatorError
from tests.observability.support import FakeService, config, running


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A login's runtime directory; short, since the path of a socket has 107 bytes. No service of the machine."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        monkeypatch.setattr(address, "SYSTEM_SOCKET", f"{directory}/none")
        monkeypatch.setattr(address, "_tmp_directory", lambda uid: Path(directory) / f"tmp-{uid}")
        yield Path(directory)


@pytest.mark.trio
async def test_the_default_socket_is_found_and_removed_at_the_end(login: Path, tmp_path: Path) -> None:
    path = login / "blobedge" / "admin-10000.sock"
    async with running(FakeService(config(tmp_path))) as urls:
        assert urls == (f"unix:{path}",)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert client.find(None) == f"unix:{path}"
        status, document = await trio.to_thread.run_sync(client.get, client.find(None), "/status")
        assert (status, document["version"]) == (200, "1.2.3")
    assert not path.exists()
    with pytest.raises(client.Unreachable, match="no blobedge of this user runs here"):
        client.find(None)


@pytest.mark.trio
async def test_a_stale_socket_is_replaced_and_a_live_one_refused(login: Path, tmp_path: Path) -> None:
    path = login / "blobedge" / "admin-10000.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    service = FakeService(config(tmp_path))
    async with running(service):
        with pytest.raises(OperatorError, match="another blobedge answers"):
            open_all(service.config.admin, 10000)
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "admin.sock"
    file.write_text("precious")
    with pytest.raises(OperatorError, match="is no socket"):
        open_all(config(tmp_path, admin={"listen": [f"unix:{file}"]}).admin, 1)
    assert file.read_text() == "precious"


def test_a_directory_that_others_may_enter_is_refused(login: Path, tmp_path: Path) -> None:
    (login / "blobedge").mkdir(mode=0o755)
    with pytest.raises(OperatorError, match="mode 0700"):
        open_all(config(tmp_path).admin, 1)
    (login / "blobedge").rmdir()
    (login / "blobedge").symlink_to(tmp_path)
    with pytest.raises(OperatorError, match="mode 0700"):
        open_all(config(tmp_path).admin, 1)


def test_one_address_that_cannot_be_had_closes_the_others(login: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = [f"unix:{login}/a.sock", f"http://127.0.0.1:{taken.getsockname()[1]}"]
        with pytest.raises(OperatorError, match="Address already in use"):
            open_all(config(tmp_path, admin={"listen": listen}).admin, 1)
    assert not (login / "a.sock").exists()


def test_outside_needs_a_token_and_a_token_a_length(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="token_file"):
        open_all(config(tmp_path, admin={"listen": ["http://0.0.0.0:0"]}).admin, 1)
    (tmp_path / "token").write_text("short\n")
    tables = {"listen": [], "token_file": str(tmp_path / "token")}
    with pytest.raises(OperatorError, match="openssl rand"):
        open_all(config(tmp_path, admin=tables).admin, 1)


def test_no_listener_at_all(tmp_path: Path) -> None:
    assert open_all(config(tmp_path, admin={"listen": []}).admin, 1) == {}


@pytest.mark.trio
async def test_with_several_services_the_caller_has_to_choose(login: Path, tmp_path: Path) -> None:
    other = FakeService(config(tmp_path))
    other.change(urls=("http://127.0.0.1:10001/acct",))
    async with running(FakeService(config(tmp_path))), running(other):
        with pytest.raises(OperatorError, match=r"--admin.*admin-10000\.sock.*admin-10001\.sock"):
            client.find(None)


def test_the_rule() -> None:
    assert str(address.default_socket({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, 5, 1)) == "/run/a/admin.sock"
    assert str(address.default_socket({"XDG_RUNTIME_DIR": "/run/user/5"}, 5, 1)) == "/run/user/5/blobedge/admin-1.sock"
    assert str(address.default_socket({"XDG_RUNTIME_DIR": "relative"}, 5, 1)) == "/tmp/blobedge-5/admin-1.sock"
    assert str(address.default_socket({}, 5, 1)) == "/tmp/blobedge-5/admin-1.sock"


def test_a_wrong_address_is_the_operators_mistake() -> None:
    with pytest.raises(OperatorError, match="not a Unix socket"):
        client.find("unix:relative")
    with pytest.raises(client.Unreachable):
        client.get(f"unix:/nowhere-{os.getpid()}/admin.sock", "/status")
