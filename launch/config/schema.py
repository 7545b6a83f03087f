"""Writes configs/schema.json, by which editors complete and check the keys of a configuration file.

python -m corewarding.launch.config.schema > configs/schema.json
"""

from __future__ import annotations

import json
from typing import Any

from corewarding.launch.config.checks import NAMES
from corewarding.launch.config.paths import RECIPES
from corewarding.launch.config.tree import TrainConfig

COMMAND = "python -m corewarding.launch.config.schema > configs/schema.json"
FILE = RECIPES / "schema.json"
MARK = "# yaml-language-server: $schema="
"""Begins the line of a YAML file that names its schema."""
_BASE = {
    "description": "Files whose keys this one takes over and may override: parts, recipes, or YAML files of your own.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def schema() -> dict[str, Any]:
    """JSON Schema of a configuration file. Unknown keys are refused at any depth; keys that plug-ins may extend take any name."""
    content = TrainConfig.model_json_schema()
    content["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    content["title"] = "corewarding configuration"
    content["properties"] = {"base": _BASE, **content["properties"]}
    for key, names in NAMES.items():
        _suggest(content, key.split("."), list(names))
    for its in content["properties"].values():
        if "$ref" in its:
            its.pop("default", None)  # each key of the section has its own
    return content


def schema_text() -> str:
    """The content of configs/schema.json."""
    return json.dumps(schema(), indent=1) + "\n"


def with_schema(text: str) -> str:
    """A YAML configuration with a line, below its first, that names the installed schema; one of its own is replaced."""
    title, *rest = text.splitlines(keepends=True)
    return title + f"{MARK}{FILE.resolve()}\n" + "".join(line for line in rest if not line.startswith(MARK))


def _suggest(content: dict[str, Any], path: list[str], names: list[str]) -> None:
    """Lets an editor offer the names, and still takes others."""
    section = content
    for key in path[:-1]:
        section = content["$defs"][section["properties"][key]["$ref"].rpartition("/")[2]]
    key = section["properties"][path[-1]]
    key["anyOf"] = [{"enum": names}, {"type": key.pop("type")}]


if __name__ == "__main__":
    print(schema_text(), end="")
