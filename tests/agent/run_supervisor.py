"""Run the supervisor over stub_worker.py: `run_supervisor.py MODE ROOT WORKERS [DRAIN_SECONDS]`."""

import logging
import sys

import trio

from agent.cli import LOG_FORMAT
from agent.config import Account, Config
from agent.supervision.plan import plan
from agent.supervision.supervisor import announce_ready, supervise

KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"


def main() -> int:
    mode, root, workers, drain_seconds = (*sys.argv[1:], "5")[:4]
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
