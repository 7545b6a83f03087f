"""Lists the shipped recipes, or shows the keys of one."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.load import load_config
from corewarding.launch.config.recipes import compose, parts, recipes, render


@dataclass(frozen=True)
class RecipesArguments:
    """Lists the shipped recipes, a line each, and then the parts that they build on. `corewarding train NAME` runs a recipe, and
    `corewarding train NAME+PART` one with another part: co_rewarding_iii+data/dapo+models/qwen3_4b."""

    name: tyro.conf.Positional[str | None] = None
    """A recipe, a file or a composition: shows its keys, each with the file that sets it. None: the list."""


def run(words: list[str]) -> int:
    name = read_arguments(RecipesArguments, words, prog="corewarding recipes").name
    if name is not None:
        load_config(name)  # refuses what cannot be run
        print(render(compose(name)), end="")
        return 0
    _table(recipes())
    print("\nparts, for `corewarding train RECIPE+PART` and `base:` in a file:")
    _table(parts())
    return 0


def _table(lines: dict[str, str]) -> None:
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")
