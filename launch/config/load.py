"""Reads a configuration: a recipe or YAML file, then checks. Unknown and repeated keys are errors at any depth."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from corewarding.dataflow import plugins
from corewarding.launch.config.checks import explain, problems
from corewarding.launch.config.recipes import ConfigError, compose
from corewarding.launch.config.secrets import MASK, secrets_of, variable, with_secrets
from corewarding.launch.config.tree import TrainConfig


def load_config(name: str | Path) -> TrainConfig:
    """The checked configuration in a file or recipe. ConfigError names file, key, value and remedy."""
    composition = compose(name)
    return make_config(composition.content(), where=str(name), folder=composition.folder)


def make_config(content: dict[str, Any], *, where: str, folder: Path | None = None) -> TrainConfig:
    """A checked configuration with an absolute `run.root` and absolute plug-in files; the plug-ins are loaded.

    where: the source, for messages. folder: where plug-ins are looked for before the working directory.
    """
    config = validate(content, where=where, folder=folder)
    for problem in problems(config):
        raise ConfigError(f"{where}: {problem}")
    if config.correction.mode == "none" and config.staleness.max > 0:
        warnings.warn(
            f"correction.mode is none with staleness.max {config.staleness.max}: older tokens are trained on as if the "
            "policy had just sampled them",
            stacklevel=2,
        )
    try:
        root = str(Path(config.run.root).expanduser().resolve())
    except RuntimeError as error:
        raise ConfigError(f"{where}: run.root {config.run.root}: {error}; write the whole path") from error
    return config.model_copy(update={"run": config.run.model_copy(update={"root": root})})


def validate(content: dict[str, Any], *, where: str, folder: Path | None = None) -> TrainConfig:
    """Loads the plug-ins and checks every key by itself; `make_config` also checks keys against each other."""
    _refuse_unknown(content, TrainConfig, where, ())
    content = with_secrets(content, folder) | {"plugins": _load_plugins(content.get("plugins") or (), folder)}
    for key, value in secrets_of(content).items():
        if value == MASK:
            raise ConfigError(
                f"{where}: {key} is {MASK}, which stands for a secret in what a run saves; give the key itself, or set the "
                f"environment variable {variable(key)}"
            )
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from error


def _load_plugins(listed: Any, folder: Path | None) -> tuple[str, ...]:
    if isinstance(listed, str) or not all(isinstance(entry, str) for entry in listed):
        raise ConfigError(f"plugins must be a list of files or modules, got {listed!r}")
    found = plugins.resolve(listed, folders=[*([folder] if folder else []), Path.cwd()])
    plugins.load(found)
    return found


def _refuse_unknown(content: dict[str, Any], model: type[BaseModel], where: str, path: tuple[str, ...]) -> None:
    for key, value in content.items():
        full = ".".join((*path, str(key)))
        if key not in model.model_fields:
            near = difflib.get_close_matches(str(key), model.model_fields, n=1)
            hint = (
                f"did you mean {'.'.join((*path, near[0]))}?" if near else f"there are {', '.join(model.model_fields)}"
            )
            raise ConfigError(f"{where}: unknown key {full}; {hint}")
        kind = model.model_fields[key].annotation
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
            _refuse_unknown(value, kind, where, (*path, str(key)))
