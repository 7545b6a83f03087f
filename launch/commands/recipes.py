"""Lists the shipped recipes, a line each."""

from __future__ import annotations

from dataclasses import dataclass

from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.load import recipes


@dataclass(frozen=True)
class RecipesArguments:
    """Lists the shipped recipes. `corewarding train NAME` runs one, `corewarding init FILE --from NAME` copies one to edit."""


def run(words: list[str]) -> int:
    read_arguments(RecipesArguments, words, prog="corewarding recipes")
    known = recipes()
    width = max(map(len, known))
    for name, line in known.items():
        print(f"{name:<{width}}  {line}")
    return 0
