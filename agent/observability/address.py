"""Where the admin endpoint is when nobody says: the one rule that the server and `blobedge status` share.

    under systemd      $RUNTIME_DIRECTORY/admin.sock      (/run/blobedge/admin.sock with the unit that is installed)
    in a login         $XDG_RUNTIME_DIR/blobedge/admin-PORT.sock
    elsewhere          /tmp/blobedge-UID/admin-PORT.sock

PORT is that of the first listener, so that several nodes of one user do not meet. /tmp is everybody's: the directory
there has to be ours and closed to others, or someone else could answer in our name.
"""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.problems import OperatorError

SYSTEM_SOCKET: Final = "/run/blobedge/admin.sock"
DIRECTORY_MODE: Final = 0o700


def default_socket(environ: Mapping[str, str], uid: int, port: int) -> Path:
    """Return where a service with this environment, user and first port has its socket. Looks at no file."""
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # systemd.exec(5): several are joined by colons
    if runtime:
        return Path(runtime) / "admin.sock"
    return _user_directory(environ, uid) / f"admin-{port}.sock"


def candidates(environ: Mapping[str, str], uid: int) -> Iterator[Path]:
    """Yield the sockets that are there, alive or not, where the rule may have put them."""
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    paths = [Path(runtime) / "admin.sock"] if runtime else []
    paths.append(Path(SYSTEM_SOCKET))
    for directory in dict.fromkeys((_user_directory(environ, uid), _tmp_directory(uid))):
        if _ours(directory, uid):
            paths.extend(sorted(directory.glob("admin-*.sock")))
    for path in dict.fromkeys(paths):
        if path.is_socket():
            yield path


def make_directory(directory: Path, uid: int) -> None:
    """Make the socket's directory with mode 0700. Raises OperatorError if one is there that is not ours alone."""
    try:
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"cannot make {directory} for the admin socket ({error.strerror}): set admin.listen"
        ) from None
    if not _ours(directory, uid):
        raise OperatorError(
            f"{directory} is not a directory of user {uid} with mode 0700: remove it, or set admin.listen"
        )


def _user_directory(environ: Mapping[str, str], uid: int) -> Path:
    login = environ.get("XDG_RUNTIME_DIR", "")
    return Path(login) / "blobedge" if login.startswith("/") else _tmp_directory(uid)


def _tmp_directory(uid: int) -> Path:
    return Path(f"/tmp/blobedge-{uid}")


def _ours(directory: Path, uid: int) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not stat.S_IMODE(found.st_mode) & 0o077
