"""Where the processes go: Ray's resources, stated as fractions, and what each process finds in its environment.

Checks, before anything is started, that what the configuration asks for can be had, and names what is missing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launch.config import TrainConfig
from launch.errors import UserError
from rewards.rules import REWARD_RULES

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class PlacementError(UserError):
    """The cluster cannot hold what the configuration asks for."""


def needed(config: TrainConfig) -> dict[str, float]:
    """CPUs and GPUs of all actors together."""
    rollout, learner = config.rollout, config.learner
    actors = rollout.policy_actors + (rollout.teacher_actors if REWARD_RULES[config.rule].needs_teacher else 0)
    return {
        "CPU": learner.ranks * learner.cpus_per_rank + actors * rollout.cpus_per_actor,
        "GPU": learner.ranks * learner.gpus_per_rank + actors * rollout.gpus_per_actor,
    }


def connect(config: TrainConfig) -> None:
    """Joins the cluster this job was submitted to (RAY_ADDRESS), else starts Ray on this machine for this run alone."""
    if ray.is_initialized():
        return
    want = needed(config)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # our processes are the machine's work, not its background
    if "RAY_ADDRESS" in os.environ:
        ray.init(address="auto", log_to_driver=False, logging_level="warning")
    else:
        # A laptop's cores are shared as the operating system sees fit, so fractions that add up to more than there are
        # start all the same; a cluster's are not oversubscribed.
        cpus = max(os.cpu_count() or 1, -(-want["CPU"] // 1))
        ray.init(
            address="local",  # also where another cluster runs on this machine
            num_cpus=int(cpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            configure_logging=True,
        )


async def check(config: TrainConfig, *, timeout_s: float = 60.0) -> None:
    """Waits up to `timeout_s` for the cluster to have what is needed; PlacementError names what is missing."""
    want = needed(config)
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        have = ray.cluster_resources()
        missing = {k: v - have.get(k, 0.0) for k, v in want.items() if v > have.get(k, 0.0) + 1e-6}
        if not missing:
            return
        if asyncio.get_running_loop().time() > deadline or "RAY_ADDRESS" not in os.environ:
            wants = ", ".join(f"{v:g} {k}" for k, v in want.items() if v)
            lacks = ", ".join(f"{v:g} {k}" for k, v in missing.items())
            raise PlacementError(
                f"the run needs {wants} (learner.ranks, learner.cpus_per_rank, learner.gpus_per_rank, rollout.policy_actors, "
                f"rollout.teacher_actors, rollout.cpus_per_actor, rollout.gpus_per_actor); the cluster lacks {lacks}"
            )
        await asyncio.sleep(1.0)


async def probe(config: TrainConfig, *, timeout_s: float = 60.0) -> list[str]:
    """Asks every node whether it sees and can write `run.root` and runs our Python and Ray; the nodes' addresses.

    PlacementError names each node that does not.
    """
    token = Path(config.run.root) / f".probe-{uuid.uuid4().hex}"
    existed = token.parent.exists()
    try:
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise PlacementError(f"run.root {config.run.root} cannot be written here: {error}") from error
    task = ray.remote(num_cpus=0, runtime_env=process_environment(1))(_probe_here)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    try:
        asked = [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                str(token), versions()
            )
            for node in nodes
        ]
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), timeout_s)
    except TimeoutError as error:
        raise PlacementError(
            f"not every node answered within {timeout_s:g} s: can they start Python processes?"
        ) from error
    finally:
        token.unlink()
        if not existed:
            token.parent.rmdir()
    names = [str(node["NodeManagerAddress"]) for node in nodes]
    problems = [f"{name}: {answer}" for name, answer in zip(names, answers, strict=True) if answer]
    if problems:
        raise PlacementError("not every node can take part in the run:\n  " + "\n  ".join(problems))
    return names


def _probe_here(token: str, expected: dict[str, str]) -> str:
    """What is wrong on this node; empty when nothing is."""
    if versions() != expected:
        return f"runs {versions()}, the driver {expected}: install the same versions"
    root = Path(token).parent
    if not Path(token).exists():
        return f"does not see what the driver wrote in run.root {root}: it must be a folder that all nodes share"
    try:
        own = Path(f"{token}-{os.getpid()}")
        own.touch()
        own.unlink()
    except OSError as error:
        return f"cannot write run.root {root}: {error}"
    return ""


def process_environment(threads: int) -> dict[str, Any]:
    """Ray runtime environment of one process: its share of threads, and where our packages are."""
    path = [str(PROJECT_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "env_vars": {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
            "TOKENIZERS_PARALLELISM": "false",
        }
    }


def versions() -> dict[str, str]:
    """Python and Ray, which must be equal on all nodes."""
    return {"python": ".".join(map(str, sys.version_info[:3])), "ray": ray.__version__}
