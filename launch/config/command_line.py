"""A configuration on a command line: CONFIG, then `--key value` or `key=value` for any key.

`--key value` is read as tyro reads it, `key=value` as YAML: `engine.arguments={swap_space: 1}`, `teacher_engine.kind=sglang`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import tyro
import yaml

from corewarding.launch.config.arguments import ArgumentError, read_arguments, refuse_repeated
from corewarding.launch.config.checks import known_names
from corewarding.launch.config.load import make_config, validate
from corewarding.launch.config.recipes import ConfigError, compose
from corewarding.launch.config.tree import TrainConfig

_ASSIGNMENT = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


@dataclass(frozen=True)
class ConfigArguments:
    """Base of the arguments of commands that take a configuration."""

    config: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CONFIG")]
    """A recipe (`corewarding recipes` lists them) or a YAML file; `A+B` lets the keys of B override those of A."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")]
    """Any key of the configuration."""


Arguments = TypeVar("Arguments", bound=ConfigArguments)


def parse_config(kind: type[Arguments], words: list[str], *, command: str) -> Arguments:
    """The command's arguments with a checked configuration. `--help` before CONFIG shows the defaults, after it the recipe's values.

    ConfigError names a wrong key or value; SystemExit (2) for a word that is no argument.
    """
    prog = f"corewarding {command}"
    if words and words[0] in ("-h", "--help"):
        with _names_after_help():
            tyro.cli(kind, args=["--help"], prog=prog, default=kind(tyro.MISSING, TrainConfig()))
    if not words or words[0].startswith("-"):
        raise ConfigError(f"{command} needs a configuration first, for example `corewarding {command} cpu`")
    name, *rest = words
    composition = compose(name)
    content = composition.content()
    if rest:
        validate(content, where=name, folder=composition.folder)  # its own mistakes are not the command line's
    assignments, rest = _split(rest)
    _refuse_repeated(assignments, rest)
    for assignment in assignments:
        _assign(content, assignment)
    if "--plugins" in rest:  # loaded before the other words are read, so that --help lists their names
        rest, content["plugins"] = _values_of(rest, "--plugins")
    where = "command line" if words[1:] else name
    base = kind(name, validate(content, where=where, folder=composition.folder))
    try:
        with _names_after_help():
            arguments = read_arguments(
                kind, [name, *rest], prog=prog, default=base, config=(tyro.conf.AvoidSubcommands,)
            )
    except ArgumentError as error:
        raise ConfigError(f"command line: {error}") from None
    return dataclasses.replace(arguments, settings=make_config(arguments.settings.model_dump(), where=where))


def _refuse_repeated(assignments: list[str], words: list[str]) -> None:
    try:
        refuse_repeated([f"--{assignment}" for assignment in assignments] + words)
    except ArgumentError as error:
        raise ConfigError(f"command line: {error}") from None


def _values_of(words: list[str], flag: str) -> tuple[list[str], list[str]]:
    """The words without `flag VALUE ...`, and the values."""
    place = words.index(flag)
    end = next((end for end in range(place + 1, len(words)) if words[end].startswith("-")), len(words))
    return words[:place] + words[end:], words[place + 1 : end]


@contextlib.contextmanager
def _names_after_help() -> Iterator[None]:
    """Adds the names that keys take, with those of plug-ins, to a help text."""
    try:
        yield
    except SystemExit as stop:
        if stop.code == 0:
            print(f"names:\n{known_names()}")
        raise


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The `key=value` words, and the others. A word after a flag is the flag's value, unless it starts with a section's name."""
    assignments: list[str] = []
    others: list[str] = []
    for previous, word in zip(["", *words], words, strict=False):
        free = not previous.startswith("-") or "=" in previous
        section = re.split(r"[.=]", word)[0].replace("-", "_") in TrainConfig.model_fields
        (assignments if _ASSIGNMENT.match(word) and (free or section) else others).append(word)
    return assignments, others


def _assign(content: dict[str, Any], assignment: str) -> None:
    """Puts the value of `a.b=value` into `content`."""
    name, _, text = assignment.partition("=")
    *sections, key = name.replace("-", "_").split(".")
    inside = content
    for section in sections:
        inside = inside.setdefault(section, {})
        if not isinstance(inside, dict):
            raise ConfigError(f"command line: {name}: {section} is a value, not a section")
    try:
        inside[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"command line: {name}={text} is not YAML: {error}") from error
