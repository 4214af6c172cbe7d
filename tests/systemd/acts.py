"""Acts that a program tries in a sandbox: `python3 -m tests.systemd.acts MODULE`, with a machine's bare python3.

Does every act of the module's ACTS in a process of its own and prints {name: outcome} as JSON, where an outcome is
"done" or the name of an errno. So that nothing has to be installed in the machine it is the standard library only.
"""

import ctypes
import errno
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

DATA: Final = "/srv/blobedge/plant7"
ELSEWHERE: Final = "/srv/elsewhere"  # anybody may write there
OTHER_HOME: Final = "/home/other"
OTHER_TEMPORARY: Final = "/tmp/other-note"
DEVICE: Final = "/dev/probe"  # a second /dev/null
OUTER_ADDRESS: Final = "198.51.100.1"  # this machine's, and not of the loopback's network (RFC 5737)
NETWORK_SECONDS_MAX: Final = 1.0
ACT_SECONDS_MAX: Final = 10

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Act:
    """An act, its outcomes in the sandbox, and those of root without it, which show that it is the sandbox's doing."""

    run: Callable[[], object]
    inside: tuple[str, ...]
    outside: tuple[str, ...]


Enter = Callable[[Callable[[], object]], Callable[[], object]]


def entering(acts: dict[str, Act]) -> Callable[..., Enter]:
    """The decorator that enters functions into `acts`, under their names with spaces."""

    def act(inside: str = "EPERM", outside: str = "done") -> Enter:
        def enter(run: Callable[[], object]) -> Callable[[], object]:
            acts[run.__name__.replace("_", " ")] = Act(run, tuple(inside.split()), tuple(outside.split()))
            return run

        return enter

    return act


def libc(name: str, *arguments: object) -> int:
    """Call a function of the C library; OSError for a result of -1."""
    result: int = getattr(_LIBC, name)(*arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def outcome(act: Act) -> str:
    """Do an act in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(ACT_SECONDS_MAX)
        os.write(writer, _tried(act).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return told or f"ended with status {status}"


def _tried(act: Act) -> str:
    try:
        act.run()
    except TimeoutError:
        return "ETIMEDOUT"  # Python's own has no number
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except BaseException as error:
        return repr(error)
    return "done"


if __name__ == "__main__":
    chosen: Mapping[str, Act] = importlib.import_module(sys.argv[1]).ACTS
    print(json.dumps({name: outcome(act) for name, act in chosen.items()}))
