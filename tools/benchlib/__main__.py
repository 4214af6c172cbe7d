"""`python -m benchlib`, as `tools/bench` runs it."""

import sys

from .cli import main

sys.exit(main())
