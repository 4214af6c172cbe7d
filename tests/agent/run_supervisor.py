"""Run the supervisor over stub_worker.py: `run_supervisor.py MODE ROOT WORKERS DRAIN_SECONDS`.

Its patience with silent workers is a second here instead of ten, so that a test of it takes a second.
"""

import logging
import sys

import trio

from agent.cli import LOG_FORMAT
from agent.config import Account, Config
from agent.supervision import policy
from agent.supervision.plan import plan
from agent.supervision.supervisor import announce_ready, supervise

HEARTBEAT_SECONDS_MAX = 1.0
ABORT_SECONDS = 0.2
KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"


def main() -> int:
    mode, root, workers, drain_seconds = sys.argv[1:]
    for name, seconds in (("HEARTBEAT_SECONDS_MAX", HEARTBEAT_SECONDS_MAX), ("ABORT_SECONDS", ABORT_SECONDS)):
        setattr(policy, name, seconds)
    logging.basicConfig(level="DEBUG", format=LOG_FORMAT)
    config = Config(
        listen=["http://127.0.0.1:0"],
        workers=int(workers),
        drain_seconds=float(drain_seconds),
        accounts=[Account(name="acct", root=root, key1=KEY)],
    )
    command = (sys.executable, "-m", "tests.agent.stub_worker", mode)
    return trio.run(supervise, plan(config), announce_ready, command)


if __name__ == "__main__":
    sys.exit(main())
