"""Writes an editable copy of a recipe: corewarding init my.yaml --from cpu."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from corewarding.launch.config.arguments import read_arguments
from corewarding.launch.config.recipes import ConfigError, compose, render
from corewarding.launch.config.schema import with_schema
from corewarding.launch.report.plain import say


@dataclass(frozen=True)
class InitArguments:
    """Writes an editable copy of a recipe."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """New YAML file; must not exist."""
    source: Annotated[str, tyro.conf.arg(name="from")] = "cpu"
    """Recipe to copy, or RECIPE+PART; `corewarding recipes` lists both. What a recipe builds on is written out."""


def run(words: list[str]) -> int:
    arguments = read_arguments(InitArguments, words, prog="corewarding init")
    file = arguments.file
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{file} must end in .yaml: a name without a suffix means a shipped recipe")
    recipe = compose(arguments.source)
    text = with_schema(render(recipe) if len(recipe.files) > 1 else recipe.files[0].read_text(encoding="utf-8"))
    try:
        with contextlib.suppress(FileExistsError):  # said below, if it is a file
            file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise ConfigError(f"{file} exists already; choose another name") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}; choose another place") from error
    say(f"{file} written; train with: corewarding train {file}")
    return 0
