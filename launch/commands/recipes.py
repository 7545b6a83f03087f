"""Lists the shipped recipes, or shows the keys of one."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.load import load_config
from corewarding.launch.config.recipes import compose, parts, recipes, render
from corewarding.launch.config.schema import schema_text
from corewarding.launch.report.tables.output import JsonFlag, json_line


@dataclass(frozen=True)
class RecipesArguments:
    """Lists the shipped recipes, a line each, and then the parts that they build on. `corewarding train NAME` runs a recipe, and
    `corewarding train NAME+PART` one with another part: co_rewarding_iii+data/dapo+models/qwen3_4b."""

    name: tyro.conf.Positional[str | None] = None
    """A recipe, a file or a composition: shows its keys, each with the file that sets it. None: the list."""
    json: JsonFlag = False
    """A JSON object on each line, for programs: of a recipe or part, or of the keys of NAME."""
    schema: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the JSON Schema of configuration files, for an editor."""


def run(words: list[str]) -> int:
    arguments = read_arguments(RecipesArguments, words, prog="corewarding recipes")
    if arguments.schema:
        print(schema_text(), end="")
        return 0
    if arguments.name is not None:
        load_config(arguments.name)  # refuses what cannot be run
        composition = compose(arguments.name)
        if arguments.json:
            print(json_line(composition.content()))
        else:
            print(render(composition), end="")
        return 0
    if arguments.json:
        for kind, listed in (("recipe", recipes()), ("part", parts())):
            for name, title in listed.items():
                print(json_line({"kind": kind, "name": name, "title": title}))
        return 0
    _table(recipes())
    print("\nparts, for `corewarding train RECIPE+PART` and `base:` in a file:")
    _table(parts())
    return 0


def _table(lines: dict[str, str]) -> None:
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")
