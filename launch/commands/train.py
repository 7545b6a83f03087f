"""Trains a model and leaves a run directory; --dry-run only checks.

`corewarding train CONFIG [--any.key value ...] [any.key=value ...]`, where CONFIG is a recipe (`cpu`) or a YAML file.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import tyro

from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.config.recipes import compose
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.plain import say
from corewarding.launch.run.forked.fork_server import forking
from corewarding.launch.run.preflight.early import check_early
from corewarding.launch.run.preflight.needs import can_fork


@dataclass(frozen=True)
class TrainArguments(ConfigArguments):
    """Trains a model and leaves a run directory."""

    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Check everything a run needs, start nothing. A model of the hub is downloaded, as a run would."""
    watch: tyro.conf.FlagCreatePairsOff[bool] = False
    """Serve the run's page on this machine while it trains, print its address, and open it where there is a display."""


def run(words: list[str]) -> int:
    arguments = parse_config(TrainArguments, words, command="train")
    check_early(arguments.settings)  # before the imports below, which take seconds
    if arguments.dry_run:
        from corewarding.launch.run.preflight.dry_run import check_training

        print(compose(arguments.config).description())
        check_training(arguments.settings)
        if arguments.watch:
            say("--watch: nothing to watch, because --dry-run starts no run")
        return 0
    return train(arguments.settings, watch=arguments.watch)


def train(config: TrainConfig, *, watch: bool) -> int:
    """Trains, and returns the exit code. watch: with the run's page beside it."""
    from corewarding.launch.view.live.watch import watched

    page = watched(Path(config.run.root) / config.run.name) if watch else nullcontext()
    with page, forking(enabled=can_fork(config)):  # beside the imports below
        from corewarding.launch.run.train import run_training

        return run_training(config, own_process=True).exit_code
