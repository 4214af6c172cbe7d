"""What the sidecar reports on: each a blocking function from the configuration to a JSON document.

Imports are inside, so that a reporter whose library is broken fails alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.config import Config


@dataclass(frozen=True, slots=True)
class Reporter:
    """A function, and how often to call it."""

    topic: str
    interval_seconds: float
    function: Callable[[Config], Mapping[str, Any]]


def cloud(config: Config) -> Mapping[str, Any]:
    """The way to the configured cloud account, step by step."""
    from agent.doctor.cloud import report

    return report(config.cloud)


def tuning(_: Config) -> Mapping[str, Any]:
    """What of the applied kernel settings is no longer as it was applied."""
    from agent.tuning.report import report

    return report()


REPORTERS: Final = (Reporter("cloud", 30.0, cloud), Reporter("tuning", 60.0, tuning))
