"""`python -m agent.sidecar --control-fd N`: started by the supervisor, never by people."""

import sys
from types import ModuleType
from typing import cast

from agent.sidecar.life import run

if __name__ == "__main__":
    # azure.storage.blob imports it where it is, for clients of asyncio: 4 MiB at rest. None makes that import fail.
    cast(dict[str, ModuleType | None], sys.modules)["aiohttp"] = None
    _, flag, number = sys.argv
    assert flag == "--control-fd"
    sys.exit(run(int(number)))
