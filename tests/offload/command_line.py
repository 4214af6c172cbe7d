"""`blobedge` as an operator types it, run in this process: a process of its own takes a second of a core to begin.

Tests of signals, terminals and of what a new process imports still start one.
"""

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout

from agent.cli import main


def blobedge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Its exit code, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    code: str | int | None = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
