"""Continues a run from its last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from corewarding.launch.config.load import load_config
from corewarding.launch.config.recipes import ConfigError


@dataclass(frozen=True)
class ResumeArguments:
    """Continues a run from its last checkpoint."""

    run_dir: tyro.conf.Positional[Path]
    """Run directory, for example runs/cpu."""


def run(words: list[str]) -> int:
    folder = tyro.cli(ResumeArguments, args=words, prog="corewarding resume").run_dir
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise ConfigError(f"{folder} is no run directory: it holds no config.yaml")
    config = load_config(saved)
    where = folder.resolve()
    keys = config.run.model_copy(update={"resume": "must", "name": where.name, "root": str(where.parent)})
    from corewarding.launch.run.train import run_training

    return run_training(config.model_copy(update={"run": keys}), own_process=True).exit_code
