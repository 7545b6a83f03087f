"""Writes docs/configuration.md, the table of all keys, from the settings' fields.

python -m corewarding.launch.config.reference > docs/configuration.md
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from corewarding.dataflow.settings import Unit
from corewarding.launch.config.tree import TrainConfig

COMMAND = "python -m corewarding.launch.config.reference > docs/configuration.md"
_HEAD = f"""\
# Configuration

Every key with its type, unit, default and meaning. This page is generated from the code:
`{COMMAND}`.

A recipe or YAML file sets keys (`train: {{lr: 1.0e-5}}`); the command line overrides them, as `--train.lr 1e-5` or `train.lr=1e-5`.
`null` in YAML is `None` on the command line. Unknown and repeated keys are refused. `corewarding train CONFIG --help` shows the same
keys with CONFIG's values. A run prints the keys that differ from the defaults and saves all of them in `runs/<name>/config.yaml`.

Secrets (`engine.api_key`, and any key that ends in api_key, token, password or secret) are shown and saved as `***`. Their values
lie in `runs/<name>/secrets.json`, which only its owner can read (mode 600), and come back from there when the run is resumed; a
submitted job carries such a file, too. Or leave `***` as the value and set a variable of the environment,
COREWARDING_ENGINE_API_KEY for `engine.api_key`.

`base: [models/qwen3_8b, data/math]` in a file takes over the keys of those files: shipped parts and recipes by name
(`corewarding recipes` lists them), files of your own by their path from that file, with suffix. The file's own keys override
those of its bases; two bases that set the same key are refused, unless the file sets it too. On the command line `RECIPE+PART`
lets the keys of PART override those of RECIPE.
"""
_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


@dataclass(frozen=True, slots=True)
class Key:
    """One key, as a row of the table."""

    name: str  # section.key
    type: str
    unit: str | None  # None: no field annotation names one; "": a number without a unit
    default: str
    text: str
    numeric: bool

    @property
    def row(self) -> str:
        cells = (f"`{self.name}`", self.type, self.unit or "-", self.default, self.text)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def sections() -> Iterator[tuple[str, str, list[Key]]]:
    """(name, text, keys) of every section; the keys outside any section come first, under the name ''."""
    inside = {name: field for name, field in TrainConfig.model_fields.items() if _is_section(field)}
    yield "", "Keys outside any section.", [_key(n, f) for n, f in TrainConfig.model_fields.items() if n not in inside]
    for name, field in inside.items():
        yield name, field.description or "", list(_keys(name, field))


def reference() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD]
    for name, text, keys in sections():
        title = f"## `{name}`" if name else "## Top level"
        rows = "\n".join(key.row for key in keys)
        parts.append(f"{title}\n\n{text}\n\n| key | type | unit | default | meaning |\n|---|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _keys(name: str, field: FieldInfo) -> Iterator[Key]:
    """The keys of a section, and of the sections in it."""
    fields: dict[str, FieldInfo] = field.annotation.model_fields  # type: ignore[union-attr]
    for key, its in fields.items():
        yield from _keys(f"{name}.{key}", its) if _is_section(its) else [_key(f"{name}.{key}", its)]


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _key(name: str, field: FieldInfo) -> Key:
    units = [entry for entry in (*field.metadata, *_metadata(field.annotation)) if isinstance(entry, Unit)]
    bounds = [
        f"{sign} {getattr(entry, bound):g}"
        for entry in field.metadata
        for bound, sign in _BOUNDS
        if hasattr(entry, bound)
    ]
    kinds = _alternatives(field.annotation)
    return Key(
        name=name,
        type=", ".join([_type(field.annotation), *bounds]),
        unit=units[0].name if units else None,
        default=_default(field.get_default(call_default_factory=True)),
        text=" ".join((field.description or "").split()),
        numeric=int in kinds or float in kinds,
    )


def _alternatives(kind: Any) -> list[Any]:
    """The members of a union, or the type itself, without annotations."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in _alternatives(part)]
    return [kind]


def _metadata(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Annotated:
        yield from get_args(kind)[1:]
    elif get_origin(kind) in (Union, types.UnionType):
        for part in get_args(kind):
            yield from _metadata(part)


def _type(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {_type(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)} × {_type(inner[0])}"
    if origin is dict:
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    if origin in (Annotated, Union, types.UnionType):
        several = _alternatives(kind)
        return "value" if {bool, int, float, str} <= set(several) else " or ".join(map(_type, several))
    return _NAMES[kind]


def _default(value: Any) -> str:
    """YAML on one line, as code."""
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return f"`{text.removesuffix(chr(10)).removesuffix(chr(10) + '...')}`"


if __name__ == "__main__":
    print(reference(), end="")
