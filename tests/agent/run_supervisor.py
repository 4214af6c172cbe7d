"""Run the supervisor over stub_worker.py: `run_supervisor.py MODE ROOT WORKERS DRAIN_SECONDS`.

Its patience with silent workers is a second here instead of ten, so that a test of it takes a second, and in the mode
"mute" so is its patience with starts. At SIGHUP it
reads ROOT/reload.json: `account`, `workers`, `listen`, each as before if it is not there; `mistake` refuses the whole.
"""

import json
import sys
from pathlib import Path

import trio

from agent.config import Account, Config
from agent.problems import OperatorError
from agent.supervision import policy
from agent.supervision.plan import Plan, plan
from agent.supervision.supervisor import announce_ready, supervise
from dataplane.ipc import logs

HEARTBEAT_SECONDS_MAX = 1.0
ABORT_SECONDS = 0.2
START_SECONDS_MAX = 0.5
KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
LISTEN = "http://127.0.0.1:0"


def main() -> int:
    mode, root, workers, drain_seconds = sys.argv[1:]
    patience = {"HEARTBEAT_SECONDS_MAX": HEARTBEAT_SECONDS_MAX, "ABORT_SECONDS": ABORT_SECONDS}
    if mode == "mute":
        patience["START_SECONDS_MAX"] = START_SECONDS_MAX
    for name, seconds in patience.items():
        setattr(policy, name, seconds)
    logs.configure("text", "debug", "supervisor", None, sys.stderr)

    def make(listen: list[str], count: int, account: str) -> Plan:
        accounts = [Account(name=account, root=root, key1=KEY)]
        return plan(Config(listen=listen, workers=count, drain_seconds=float(drain_seconds), accounts=accounts))

    def load() -> Plan:
        changed = json.loads((Path(root) / "reload.json").read_text())
        if "mistake" in changed:
            raise OperatorError(changed["mistake"])
        account = changed.get("account", "acct")  # the stub refuses one that is called "refuse"
        return make(changed.get("listen", [LISTEN]), changed.get("workers", int(workers)), account)

    command = (sys.executable, "-m", "tests.agent.stub_worker", mode)

    async def serve() -> int:
        return await supervise(make([LISTEN], int(workers), "acct"), announce_ready, command, load=load)

    return trio.run(serve)


if __name__ == "__main__":
    sys.exit(main())
