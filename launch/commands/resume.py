"""Continues a run from its last checkpoint; `--train.updates N` extends it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from corewarding.launch.commands.train import train
from corewarding.launch.config.arguments import ArgumentError
from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.config.recipes import ConfigError
from corewarding.launch.report.run_directory import RunDir


@dataclass(frozen=True)
class ResumeArguments(ConfigArguments):
    """Continues a run from its last checkpoint, or from the start if it has none. A finished run is left as it is.

    --train.updates N extends a run: the schedules of learning rate and teacher continue over the new total from the next update.
    Keys that say where and how a run works may change, too: those of run, eval, collapse, checkpoint, learner, engine, teacher_engine
    and publish, and the numbers and places of actors. What changes is printed, and recorded in changes.jsonl of the run.
    """

    config: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, for example runs/cpu."""
    watch: tyro.conf.FlagCreatePairsOff[bool] = False
    """Serve the run's page on this machine while it trains, print its address, and open it where there is a display."""


def run(words: list[str]) -> int:
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        raise ArgumentError("corewarding resume needs RUN, the run directory, first: corewarding resume runs/cpu")
    if words[0] in ("-h", "--help"):
        parse_config(ResumeArguments, words, command="resume")
    folder = Path(words[0])
    where = folder.resolve()
    run_dir = RunDir(where.parent, where.name)
    if not run_dir.config.is_file():
        raise ConfigError(f"{folder} is no run directory: it holds no config.yaml")
    run_dir.saved()  # an empty file would be a run of defaults
    arguments = parse_config(ResumeArguments, [str(run_dir.config), *words[1:]], command="resume")
    config = arguments.settings
    keys = config.run.model_copy(update={"resume": "must", "name": where.name, "root": str(where.parent)})
    return train(config.model_copy(update={"run": keys}), watch=arguments.watch)
