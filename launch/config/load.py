"""Reads a configuration: a YAML file, overrides, checks. Unknown keys are errors at any depth."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from corewarding.dataflow import plugins
from corewarding.dataflow.errors import UserError
from corewarding.launch.config.checks import explain, problems
from corewarding.launch.config.tree import TrainConfig


class ConfigError(UserError):
    """A key, a value or a combination that cannot be run."""


def load_config(path: str | Path) -> TrainConfig:
    """The configuration in a YAML file. ConfigError names file, key, value and remedy."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{path}: there is no such configuration file")
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: the top level must be keys, got a {type(content).__name__}")
    return make_config(content, where=str(path), folder=file.parent)


def make_config(content: dict[str, Any], *, where: str, folder: Path | None = None) -> TrainConfig:
    """A validated configuration with an absolute `run.root` and absolute plug-in files; the plug-ins are loaded.

    folder: where plug-ins are looked for before the working directory.
    """
    _refuse_unknown(content, TrainConfig, where, ())
    content = content | {"plugins": _load_plugins(content.get("plugins") or (), folder)}
    try:
        config = TrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from error
    for problem in problems(config):
        raise ConfigError(f"{where}: {problem}")
    if config.correction.mode == "none" and config.staleness.max > 0:
        warnings.warn(
            f"correction.mode is none with staleness.max {config.staleness.max}: older tokens are trained on as if the "
            "policy had just sampled them",
            stacklevel=2,
        )
    root = str(Path(config.run.root).expanduser().resolve())
    return config.model_copy(update={"run": config.run.model_copy(update={"root": root})})


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
