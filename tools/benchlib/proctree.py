"""CPU time of a server, read from /proc.

A server is a tree of processes (a supervisor with workers, nginx's master with its worker), so the
figure is the sum over the tree. Rejected: getrusage(RUSAGE_CHILDREN), which counts a child only once it
has been waited for.
"""

import os
from pathlib import Path

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# proc(5): after the command name (which may hold spaces) the fields start at number 3; utime is 14.
UTIME_AFTER_NAME = 14 - 3
STIME_AFTER_NAME = 15 - 3


def tree_pids(root_pid: int) -> list[int]:
    """Return `root_pid` and every living descendant; processes that exit meanwhile are left out."""
    pids = [root_pid]
    for pid in pids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                pids.extend(int(child) for child in children.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return pids


def process_cpu_s(pid: int) -> float:
    """Return user plus system seconds of all threads of one process; 0 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[UTIME_AFTER_NAME]) + int(fields[STIME_AFTER_NAME])) / CLOCK_TICKS_PER_SECOND


def tree_cpu_s(root_pid: int) -> float:
    """Return user plus system seconds of a whole process tree."""
    return sum(process_cpu_s(pid) for pid in tree_pids(root_pid))
