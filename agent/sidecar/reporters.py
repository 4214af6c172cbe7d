"""What the sidecar reports on: each a blocking function from the configuration to a JSON document.

Imports are inside, so that a reporter whose library is broken fails alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.config import Config


@dataclass(frozen=True, slots=True)
class Reporter:
    """A function, and how often to call it; `glance` looks more often whether its last document is still true."""

    topic: str
    interval_seconds: float
    function: Callable[[Config], Mapping[str, Any]]
    glance: Callable[[Config, Mapping[str, Any]], Mapping[str, Any] | None] | None = None  # None: as it was


def cloud(config: Config) -> Mapping[str, Any]:
    """The way to the configured cloud account, step by step."""
    from agent.doctor.cloud import report

    return report(config.cloud)


def cloud_glance(config: Config, last: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Does the cloud still accept connections, or again?"""
    from agent.sidecar import glance

    return glance.cloud(config, last)


def tuning(_: Config) -> Mapping[str, Any]:
    """What of the applied kernel settings is no longer as it was applied."""
    from agent.tuning.report import report

    return report()


REPORTERS: Final = (Reporter("cloud", 30.0, cloud, cloud_glance), Reporter("tuning", 60.0, tuning))
