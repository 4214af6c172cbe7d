"""From a TOML file and flags to a Config, or to every mistake in them with its line.

Three passes see the same document and none stops another: the models (types, ranges, unknown keys), the relations
between keys, and the machine's files. Only broken TOML ends it early, because then there is no document.
"""

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent import config_rules
from agent.config import Config
from agent.flags import Flags, overlay
from agent.problems import OperatorError, Problem
from agent.toml_positions import Path, positions

# The end of tomllib's messages; 3.11 has no attribute with the number.
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)\Z")

_TYPE_NAMES: Final = {
    "string_type": 'text in quotes, "like this"',
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "an array, [like, this]",
    "model_type": "a table",
}

# What says on the command line what must not be missing.
_FLAGS: Final[dict[tuple[str, ...], str]] = {
    ("accounts", "name"): "--account NAME",
    ("accounts", "root"): "--root DIR",
    ("tls", "cert"): "--tls-cert FILE",
    ("tls", "key"): "--tls-key FILE",
}


def load(path: str | None, flags: Flags | None = None, *, files: bool = True) -> Config:
    """Read and check a configuration. Raises OperatorError with every mistake.

    `path` None means no file: everything comes from the flags. `files` False leaves out what depends on this machine
    (directories, certificates, key files), to check a configuration on another one.
    """
    text = _read(path) if path is not None else ""
    document = _parse(path or "", text)
    origins = {place: f"{path}:{line}" for place, line in positions(text).items()} | {(): path or ""}
    if flags is not None:
        overlay(document, flags, origins)
    config, findings = _check(document)
    findings += config_rules.relations(document)
    if files:
        findings += config_rules.environment(document)
    problems = [Problem(_where(place, origins), said) for place, said in findings]
    if problems or config is None:
        raise OperatorError(sorted(dict.fromkeys(problems), key=_order))
    return config


def _order(problem: Problem) -> tuple[str, int]:
    """By place: flags first, then the file's lines in order."""
    name, _, line = problem.where.rpartition(":")
    return (name, int(line)) if line.isdigit() else (problem.where, 0)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not UTF-8 text, which TOML must be") from None
    except OSError as error:
        raise OperatorError(f"cannot read the configuration {path}: {error.strerror}") from None


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _TOML_PLACE.search(message)
        line = (place.group(1) if place else None) or str(text.count("\n") + 1)
        raise OperatorError([Problem(f"{path}:{line}", f"not TOML: {_TOML_PLACE.sub('', message)}")]) from None


def _check(document: dict[str, Any]) -> tuple[Config | None, list[config_rules.Finding]]:
    try:
        return Config.model_validate(document), []
    except ValidationError as error:
        return None, [(detail["loc"], _sentence(detail)) for detail in error.errors(include_url=False)]


def _where(path: Path, origins: dict[Path, str]) -> str:
    """The place of the path, or of the nearest table around it."""
    while path not in origins:
        path = path[:-1]
    return origins[path]


def _sentence(detail: ErrorDetails) -> str:
    """Say a pydantic error in the operator's words."""
    path, kind = detail["loc"], detail["type"]
    name = _name(path)
    if path == ("accounts",) and kind in ("missing", "too_short"):
        return "there is no account: add [[accounts]] to the file, or --account NAME --key-file FILE --root DIR"
    if kind == "extra_forbidden":
        return f"unknown key {name}{_suggestion(path)}"
    if kind == "missing":
        flag = _FLAGS.get(tuple(part for part in path if isinstance(part, str)))
        return f"{name} is missing{f' ({flag})' if flag else ''}"
    if kind == "value_error":
        return f"{name}: {detail['ctx']['error']}"
    if kind == "literal_error":
        return f"{name} must be {detail['ctx']['expected'].replace(chr(39), chr(34))}"
    if kind in _TYPE_NAMES:
        return f"{name} must be {_TYPE_NAMES[kind]}"
    if kind == "too_short":
        return f"{name} must not be empty"
    return f"{name}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _name(path: Iterable[str | int]) -> str:
    """A path as an operator would say it: accounts[0].root."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _suggestion(path: Path) -> str:
    model = _model_at(path[:-1])
    if model is None:
        return ""
    near = difflib.get_close_matches(str(path[-1]), model.model_fields, n=1)
    return f": did you mean {near[0]}?" if near else f": there is {', '.join(model.model_fields)}"


def _model_at(path: Path) -> type[BaseModel] | None:
    """The model that checks the table at this path."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, int):
            continue  # an element of the array whose model the name before it gave
        field = model.model_fields.get(part)
        inner = next(_models(field.annotation), None) if field is not None else None
        if inner is None:
            return None
        model = inner
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside an annotation such as `list[Account]` or `Tls | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models(argument)
