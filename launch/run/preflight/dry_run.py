"""`corewarding train --dry-run`: makes every check that a run makes before it starts an actor."""

from __future__ import annotations

import asyncio

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.introduction import introduce
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.run import placement
from corewarding.launch.run.inputs import Inputs, located, sizes
from corewarding.launch.run.preflight.checks import claim, prepare
from corewarding.launch.run.preflight.needs import joins_cluster


def check_training(config: TrainConfig) -> None:
    """Makes the checks, says where the processes would run, and writes nothing that stays. UserError as in a run.

    On one machine Ray is not started: there is room for everything but GPUs, which are counted without it.
    """
    run_dir = RunDir(config.run.root, config.run.name)
    run_dir.check(config)
    inputs = prepare(config)
    introduce(config, sizes(config, inputs) | {"run directory": str(run_dir.path)})
    places = "all processes on this machine"
    if joins_cluster():
        with placement.connected(config):
            places = asyncio.run(_rooms(located(config, inputs.folder), inputs))
    print(f"nothing was started; the configuration can run here ({places})")


async def _rooms(config: TrainConfig, inputs: Inputs) -> str:
    room = await claim(config, inputs)
    words = room.words()
    room.release()
    return words
