"""Says before a run what it needs of memory and what to change if it does not fit.

`corewarding plan CONFIG [--gpu H100] [--any.key value ...]`. Of the model only config.json is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.report.plain import say
from corewarding.launch.report.tables.output import json_line
from corewarding.launch.report.terminal import output_console

GpuName = Literal["A100-40GB", "A100", "L40S", "H100", "H200", "B200"]


@dataclass(frozen=True)
class PlanArguments(ConfigArguments):
    """Says what a run needs, before anything is loaded: the memory of each rank and engine by part, whether it fits a GPU, and the
    nearest change of the configuration that makes it fit.

    Nothing is started; of the model only config.json is read. Exit code 1 if something does not fit.
    """

    gpu: GpuName | None = None
    """The GPUs of the run; None: those of this machine, if it has any."""
    params: str | None = None
    """Plan for a dense model of this size, such as 8B, instead of the one at model.path."""
    model_config: Path | None = None
    """A config.json, or a folder with one, instead of the model's own: for a model that this machine cannot reach."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead of tables."""


def run(words: list[str]) -> int:
    arguments = parse_config(PlanArguments, words, command="plan")
    from corewarding.launch.plan.fit import MemoryPlan, engine_share
    from corewarding.launch.plan.gpus import GPUS
    from corewarding.launch.plan.model import planned_model
    from corewarding.launch.plan.show import as_json, engine_table, rank_table, verdicts
    from corewarding.launch.run.preflight.memory import memory_here

    config = arguments.settings
    model = planned_model(config, params=arguments.params, model_config_file=arguments.model_config)
    memory = memory_here().gpu if arguments.gpu is None else GPUS[arguments.gpu].memory
    plan = MemoryPlan(config, model)
    fits = [] if memory is None else plan.fits(memory)
    if arguments.json:
        print(json_line(as_json(plan, fits)))
        return int(any(not fit.fits for fit in fits))
    say(f"model: {model.name}, {model.shape.num_parameters:,} parameters")
    on_gpu = config.learner.device != "cpu" and config.learner.gpus_per_rank > 0
    console = output_console()
    console.print(rank_table(plan.rank, ranks=config.learner.ranks, device="on a GPU" if on_gpu else "on the CPU"))
    if plan.engines:
        shares = {
            source: None if memory is None else int(engine_share(config, source)[0] * memory) for source in plan.engines
        }
        console.print(engine_table(plan.engines, shares))
    for line in verdicts(fits):
        say(line)
    if memory is None and on_gpu:
        say("no GPU is known here: name one with --gpu, for example --gpu H100")
    return int(any(not fit.fits for fit in fits))
