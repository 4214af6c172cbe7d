"""`python -m agent.sidecar --control-fd N`: started by the supervisor, never by people."""

import sys

from agent.sidecar.life import run

if __name__ == "__main__":
    _, flag, number = sys.argv
    assert flag == "--control-fd"
    sys.exit(run(int(number)))
