"""What a reader must know of the machine before comparing two reports."""

import os
import platform
import subprocess
from pathlib import Path


def machine_facts(root: Path) -> dict[str, str]:
    """Return cores, CPU, memory, kernel, the file system under `root` and Python's version."""
    return {
        "cores": str(os.cpu_count()),
        "cpu": cpu_model(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB",
        "kernel": platform.release(),
        "file system": file_system(root),
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """Return the model name of the first core."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system(path: Path) -> str:
    """Return type and options of the mount that holds `path`."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", str(path)]
    try:
        return " ".join(subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.split())
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
