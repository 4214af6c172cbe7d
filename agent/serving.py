"""`blobedge serve`, once its flags are known: the configuration, and the processes until the end.

A module of its own because of what it imports: trio and all that a supervisor is made of would double the time of every
other command.
"""

import sys
from collections.abc import Callable
from functools import partial

import trio

from agent.config import Config
from agent.config_load import load
from agent.flags import Flags
from agent.observability.admin import companion
from agent.problems import OperatorError
from agent.supervision.plan import Plan, plan
from agent.supervision.supervisor import Announce, announce_ready, supervise
from dataplane.ipc import logs


def serve(config_file: str | None, flags: Flags, announce: Announce = announce_ready) -> int:
    """Supervise until the end, and return the exit code. The configuration is loaded now, and again at every SIGHUP.
    Raises OperatorError."""
    again = partial(_plan, partial(load, config_file, flags), config_file or "")
    the_plan = again()
    log = the_plan.config.log
    logs.configure(log.format, log.level, "supervisor", None, sys.stderr)
    return trio.run(partial(supervise, the_plan, announce, load=again, with_sidecar=True, companions=(companion,)))


def _plan(load_config: Callable[[], Config], config_file: str) -> Plan:
    try:
        return plan(load_config(), config_file)
    except (OSError, ValueError) as error:  # a key file that was there at the check a moment ago
        raise OperatorError(f"cannot read a key file: {error}") from None
