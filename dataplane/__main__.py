"""`python -m dataplane --control-fd N`: one worker process. Started by the supervisor, never by hand."""

import argparse
import sys

from dataplane.server.worker import run


def main() -> int:
    """Parse the one argument and serve; returns the exit code (dataplane.ipc.control)."""
    parser = argparse.ArgumentParser(prog="python -m dataplane", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True, help="descriptor of the control channel")
    return run(parser.parse_args().control_fd)


if __name__ == "__main__":
    sys.exit(main())
