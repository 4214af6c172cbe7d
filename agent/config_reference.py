"""The configuration's reference table and sample file, generated from the models so that they cannot drift.

`python -m agent.config_reference` rewrites docs/configuration.md (between its two marks) and config/blobedge.toml;
a test fails when they are not what this module makes.
"""

import json
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent.config import Account, Admin, Cloud, Config, Container, CopySource, Health, Limits, Log, Tls, Tune
from agent.config_offload import Offload, Rule, Window

BEGIN: Final = "<!-- reference: made by python -m agent.config_reference -->"
END: Final = "<!-- end of reference -->"
WIDTH: Final = 100

# TOML header of each table, its model, and whether it repeats.
TABLES: Final[tuple[tuple[str, type[BaseModel], bool], ...]] = (
    ("", Config, False),
    ("tls", Tls, False),
    ("log", Log, False),
    ("limits", Limits, False),
    ("admin", Admin, False),
    ("health", Health, False),
    ("cloud", Cloud, False),
    ("offload", Offload, False),
    ("offload.schedule", Window, True),
    ("offload.rules", Rule, True),
    ("tune", Tune, False),
    ("accounts", Account, True),
    ("accounts.containers", Container, True),
    ("copy_sources", CopySource, True),
)

# What the sample says for keys that have no default.
SAMPLE: Final[dict[tuple[type[BaseModel], str], str]] = {
    (Config, "workers"): "4",
    (Config, "copy_ca_file"): '"/etc/blobedge/copy-ca.pem"',
    (Tls, "cert"): '"/etc/blobedge/tls/chain.pem"',
    (Tls, "key"): '"/etc/blobedge/tls/key.pem"',
    (Account, "name"): '"plant7"',
    (Account, "root"): '"/srv/blobedge/plant7"',
    (Account, "key1"): '"BASE64"',
    (Account, "key1_file"): '"/etc/blobedge/plant7.key1"',
    (Account, "key2"): '"BASE64"',
    (Account, "key2_file"): '"/etc/blobedge/plant7.key2"',
    (Account, "host_names"): '["blobs.plant7.example"]',
    (Container, "name"): '"recipes"',
    (Container, "path"): '"/mnt/recipes"',
    (Container, "durability"): '"strict"',
    (Admin, "listen"): '["unix:/run/blobedge/admin.sock"]',
    (Admin, "token_file"): '"/etc/blobedge/admin.token"',
    (Cloud, "endpoint"): '"https://plant7cold.blob.core.windows.net"',
    (Cloud, "sas_file"): '"/etc/blobedge/cloud.sas"',
    (Cloud, "connection_string_file"): '"/etc/blobedge/cloud.connection"',
    (Cloud, "key_file"): '"/etc/blobedge/cloud.key"',
    (Cloud, "credential"): '"client-secret"',
    (Cloud, "tenant_id"): '"00000000-0000-0000-0000-000000000000"',
    (Cloud, "client_id"): '"00000000-0000-0000-0000-000000000000"',
    (Cloud, "client_secret_file"): '"/etc/blobedge/cloud.secret"',
    (Cloud, "ca_file"): '"/etc/blobedge/cloud-ca.pem"',
    (Offload, "directory"): '"/var/lib/blobedge"',
    (Offload, "node"): '"plant7-edge1"',
    (Offload, "bandwidth_mbits_max"): "80.0",
    (Offload, "daily_gib_max"): "200.0",
    (Window, "days"): '"mon-fri"',
    (Window, "start"): '"08:00"',
    (Window, "end"): '"18:00"',
    (Window, "mbits"): "20.0",
    (Rule, "accounts"): '["plant7"]',
    (Rule, "containers"): '["cam-*"]',
    (Rule, "prefix"): '"line1/"',
    (Rule, "glob"): '"**.jpg"',
    (Rule, "size_min"): '"1 KiB"',
    (Rule, "size_max"): '"4 GiB"',
    (Rule, "upload"): '"age"',
    (Rule, "age_days"): "0.5",
    (Rule, "priority"): '"high"',
    (Rule, "tier"): '"Cool"',
    (Rule, "evict"): '"age"',
    (Rule, "evict_days"): "30",
    (Rule, "ttl_days"): "365",
    (Tune, "bandwidth_mbits"): "100",
    (Tune, "rtt_milliseconds"): "40.0",
    (CopySource, "host"): '"*.blob.core.windows.net"',
}
# Keys that the sample sets; the others stand there as comments with their defaults.
SET_IN_SAMPLE: Final = frozenset({(Config, "listen"), (Account, "name"), (Account, "root"), (Account, "key1_file")})
TABLES_IN_SAMPLE: Final = frozenset({"", "accounts"})


def reference() -> str:
    """The Markdown tables, one per TOML table."""
    return "\n".join(line for header, model, repeats in TABLES for line in _section(header, model, repeats))


def example() -> str:
    """The sample configuration, every key with its explanation."""
    lines = [
        "# blobedge configuration. Every key, with its default or an example; those with a # may stay out.",
        "# Check it with: blobedge config check FILE",
    ]
    for header, model, repeats in TABLES:
        lines += _sample_table(header, model, repeats)
    return "\n".join(lines) + "\n"


def _section(header: str, model: type[BaseModel], repeats: bool) -> Iterator[str]:
    title = "Top level" if not header else f"`[[{header}]]`" if repeats else f"`[{header}]`"
    yield f"### {title}\n"
    if header:
        yield f"{model.__doc__}\n"
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in _keys(model):
        description = (field.description or "").replace("|", r"\|")  # it would end the cell
        yield f"| `{name}` | {_type(field)} | {_default(field)} | {description} |"
    yield ""


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields that are plain keys; the others are tables of their own."""
    for name, field in model.model_fields.items():
        if not any(issubclass(inner, BaseModel) for inner in _classes(field.annotation)):
            yield name, field


def _classes(annotation: Any) -> Iterator[type]:
    arguments = typing.get_args(annotation)
    if not arguments and isinstance(annotation, type):
        yield annotation
    for argument in arguments:
        yield from _classes(argument)


def _type(field: FieldInfo) -> str:
    names = {str: "text", bool: "true or false", int: "whole number", float: "number"}
    alternatives = [field.annotation]
    if typing.get_origin(field.annotation) in (typing.Union, types.UnionType):
        alternatives = [one for one in typing.get_args(field.annotation) if one is not types.NoneType]
    (kind,) = alternatives
    if typing.get_origin(kind) is list:
        return "list of text"
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f'`"{value}"`' for value in typing.get_args(kind))
    assert isinstance(kind, type)
    return names[kind]


def _default(field: FieldInfo) -> str:
    value = _default_value(field)
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{json.dumps(value)}`"


def _default_value(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _sample_table(header: str, model: type[BaseModel], repeats: bool) -> Iterator[str]:
    mark = "" if header in TABLES_IN_SAMPLE else "# "
    if header:
        yield ""
        yield from _comment(model.__doc__ or "")
        yield f"{mark}[[{header}]]" if repeats else f"{mark}[{header}]"
    for name, field in _keys(model):
        yield ""
        yield from _comment(field.description or "")
        value = _default_value(field)
        shown = SAMPLE.get((model, name)) or json.dumps(value)
        yield f"{'' if (model, name) in SET_IN_SAMPLE else '# '}{name} = {shown}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def documented(page: str) -> str:
    """The page with the part between its marks replaced by the reference. Raises ValueError without the marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError("docs/configuration.md has lost its marks")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def main() -> None:
    """Rewrite the page and the sample of this checkout."""
    checkout = Path(__file__).resolve().parent.parent
    page = checkout / "docs" / "configuration.md"
    page.write_text(documented(page.read_text()))
    (checkout / "config" / "blobedge.toml").write_text(example())


if __name__ == "__main__":
    main()
