"""Trains a model and leaves a run directory; --dry-run only checks.

`corewarding train CONFIG [--any.key value ...] [any.key=value ...]`, where CONFIG is a recipe (`cpu`) or a YAML file.
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.config.recipes import compose
from corewarding.launch.run.preflight.early import check_early


@dataclass(frozen=True)
class TrainArguments(ConfigArguments):
    """Trains a model and leaves a run directory."""

    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Check everything a run needs, start nothing. A model of the hub is downloaded, as a run would."""


def run(words: list[str]) -> int:
    arguments = parse_config(TrainArguments, words, command="train")
    check_early(arguments.settings)  # before the imports below, which take seconds
    if arguments.dry_run:
        from corewarding.launch.run.preflight.dry_run import check_training

        print(compose(arguments.config).description())
        check_training(arguments.settings)
        return 0
    from corewarding.launch.run.train import run_training

    return run_training(arguments.settings, own_process=True).exit_code
