"""Says before a run what it needs of memory, how fast it will be, and what to change if it does not fit.

`corewarding plan CONFIG [--gpu H100] [--any.key value ...]`. Of the model only config.json is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.command_line import ConfigArguments, parse_config
from corewarding.launch.report.tables.output import JsonFlag, json_line
from corewarding.launch.report.terminal import output_console

if TYPE_CHECKING:
    from corewarding.launch.plan.simulation import Rates
    from corewarding.weights.model_shape import ModelShape

GpuName = Literal["A100-40GB", "A100", "L40S", "H100", "H200", "B200"]


@dataclass(frozen=True)
class PlanArguments(ConfigArguments):
    """Says what a run needs and how fast it will be, before anything is loaded: the memory of each rank and engine by part, whether it
    fits a GPU, the nearest change of the configuration that makes it fit, the bytes of a publication, and a forecast of speed,
    staleness and idle time.

    Nothing is started; of the model only config.json is read. Exit code 1 if something does not fit.
    """

    gpu: GpuName | None = None
    """The GPUs of the run; None: those of this machine, if it has any."""
    params: str | None = None
    """Plan for a dense model of this size, such as 8B, instead of the one at model.path."""
    model_config: Path | None = None
    """A config.json, or a folder with one, instead of the model's own: for a model that this machine cannot reach."""
    rates: tuple[Path, ...] = ()
    """Run directories with the same model, engines and learner settings: the forecast uses what they measured. None: the peak numbers
    of --gpu, and assumed shares of them."""
    cores: int | None = None
    """Cores of a machine whose CPUs compute; None: as many as this one has."""
    json: JsonFlag = False
    """Print one JSON object instead of tables."""


def run(words: list[str]) -> int:
    arguments = parse_config(PlanArguments, words, command="plan")
    if arguments.cores is not None and arguments.cores < 1:
        raise UserError(f"--cores must be at least 1, got {arguments.cores}")
    from corewarding.launch.plan.fit import MemoryPlan
    from corewarding.launch.plan.gpus import GPUS
    from corewarding.launch.plan.model import planned_model
    from corewarding.launch.plan.show import Plan, as_json, show
    from corewarding.launch.plan.speed import forecast, publication_bytes
    from corewarding.launch.run.preflight.memory import memory_here

    config, cores = arguments.settings, arguments.cores or os.cpu_count() or 1
    model = planned_model(config, params=arguments.params, model_config_file=arguments.model_config)
    gpu = memory_here().gpu if arguments.gpu is None else GPUS[arguments.gpu].memory
    memory = MemoryPlan(config, model)
    rates = _rates(arguments, model.shape, cores)
    plan = Plan(
        config=config,
        memory=memory,
        gpu=gpu,
        fits=() if gpu is None else tuple(memory.fits(gpu)),
        publication=publication_bytes(config, model.shape),
        rates=rates,
        forecast=None if rates is None else forecast(config, rates, cores=cores),
        is_measured=bool(arguments.rates),
    )
    if arguments.json:
        print(json_line(as_json(plan)))
    else:
        show(plan, output_console())
    return int(any(not fit.fits for fit in plan.fits))


def _rates(arguments: PlanArguments, shape: ModelShape, cores: int) -> Rates | None:
    """None where nothing is known: no recorded run, and no GPU whose data sheet could say something."""
    from corewarding.launch.plan.gpus import GPUS
    from corewarding.launch.plan.measured import rates_of
    from corewarding.launch.plan.speed import stated_rates

    if arguments.rates:
        return rates_of([folder.resolve() for folder in arguments.rates], cores=cores)
    config = arguments.settings
    on_gpus = config.learner.gpus_per_rank > 0 and config.rollout.gpus_per_actor > 0
    return stated_rates(config, shape, GPUS[arguments.gpu]) if arguments.gpu is not None and on_gpus else None
