"""What a run on this machine's GPUs will probably need, beyond what is certain: said before it starts, and not refused."""

from __future__ import annotations

from collections.abc import Iterator

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.preflight.memory import memory_here


def expected_problems(config: TrainConfig) -> Iterator[str]:
    """A line for each kind of process that is expected to need more than its share of a GPU. Nothing where no GPU is known.

    config: with the model's folder at model.path.
    """
    gpu = memory_here().gpu if config.learner.gpus_per_rank or config.rollout.gpus_per_actor else None
    if gpu is None:
        return
    from corewarding.launch.plan.fit import MemoryPlan
    from corewarding.launch.plan.model import planned_model
    from corewarding.launch.plan.show import verdict

    plan = MemoryPlan(config, planned_model(config, params=None, model_config_file=None))
    for fit in plan.fits(gpu):
        if not fit.fits:
            yield f"by its plan the {verdict(fit)}; `corewarding plan` shows every part"
