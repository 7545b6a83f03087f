"""What the processes of a run need: their resources, their environment, and what carries weights between them.

Imports no torch and no ray, so that a run which cannot start says so before either is loaded.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any, Literal

from corewarding.dataflow import plugins, spans
from corewarding.dataflow.process import COLLECTS_RARELY
from corewarding.launch.config.paths import IMPORT_PATH
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.forked import fork_server

Kind = Literal["learner", "policy", "teacher"]
"""The kinds of processes that reserve room."""


def bundles(config: TrainConfig) -> dict[Kind, list[dict[str, float]]]:
    """The resources that each process of `learner`, `policy` and `teacher` needs on its node."""
    rollout, learner = config.rollout, config.learner
    rank = {"CPU": learner.cpus_per_rank, "GPU": learner.gpus_per_rank} | learner.resources
    actor = {"CPU": rollout.cpus_per_actor, "GPU": rollout.gpus_per_actor} | rollout.resources
    num_teachers = rollout.teacher_actors if config.reward_rule.needs_teacher else 0
    counts: dict[Kind, tuple[int, dict[str, float]]] = {
        "learner": (learner.ranks, rank),
        "policy": (rollout.policy_actors, actor),
        "teacher": (num_teachers, actor),
    }
    return {name: [{k: v for k, v in one.items() if v}] * num for name, (num, one) in counts.items()}


def needed(config: TrainConfig) -> dict[str, float]:
    """The sum of CPUs, GPUs and custom resources over all processes."""
    total: dict[str, float] = {}
    for one in itertools.chain.from_iterable(bundles(config).values()):
        for name, amount in one.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def fit_gpus(config: TrainConfig, num: int) -> bool:
    """Whether `num` GPUs of one machine have room for every process: parts of a GPU share one, as Ray places them."""
    free = [1.0] * num
    for wanted in sorted(
        (one.get("GPU", 0.0) for several in bundles(config).values() for one in several), reverse=True
    ):
        part = min(wanted, 1.0)
        places = [index for index, left in enumerate(free) if left >= part - 1e-6][: max(1, round(wanted))]
        if len(places) < wanted:
            return False
        for index in places:
            free[index] -= part
    return True


def weight_backend(config: TrainConfig) -> str:
    """The meaning of publish.backend `auto`. NCCL needs a GPU per process; CUDA IPC needs all processes on one GPU."""
    learner, actor = config.learner.gpus_per_rank, config.rollout.gpus_per_actor
    if learner >= 1 and actor >= 1:
        return "nccl"
    return "ipc" if learner > 0 and actor > 0 and needed(config)["GPU"] <= 1 + 1e-6 else "gloo"


def joins_cluster() -> bool:
    """Whether this is a job on an existing cluster; otherwise the run starts Ray for itself."""
    return "RAY_ADDRESS" in os.environ


def can_fork(config: TrainConfig) -> bool:
    """Whether the run's processes shall be forks of one: they are on this machine, which has Linux, and have no GPU."""
    here = sys.platform == "linux" and not joins_cluster()
    return config.run.fork and here and needed(config).get("GPU", 0.0) == 0


def process_environment(threads: int, *, python: str | None = None) -> dict[str, Any]:
    """Ray runtime environment of one process: its threads, our packages, the run's clock, and its Python if not this one, or not a
    fork of this process's fork server."""
    executable = {} if python is None else {"py_executable": str(Path(python).absolute())}
    if python is None and (server := fork_server.present()) is not None and not joins_cluster():
        executable = {"py_executable": server.executable}
    path = [str(IMPORT_PATH), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return executable | {
        "env_vars": {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
            COLLECTS_RARELY: "1",
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
            "TOKENIZERS_PARALLELISM": "false",
            **plugins.environment(),
            **spans.environment(),
        }
    }
