"""What the models of all configuration tables are made of."""

import os
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def text(check: Callable[[str], str]) -> AfterValidator:
    """A check of a text value: it returns the value to keep, or raises ValueError with a sentence for the operator."""
    return AfterValidator(check)


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path: start it with /")
    return os.path.normpath(path)


AbsolutePath = Annotated[str, text(_absolute)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Table(BaseModel):
    """A TOML table: no unknown keys, no guessed types, unchangeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)
