"""The lists of checks, and where they run: on the driver before Ray is started, then on every node that has a process of the run.

On one machine the driver makes all of them, so nothing is started where one fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import ray

from corewarding.dataflow.errors import UserError, origin
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.plain import say
from corewarding.launch.run import placement
from corewarding.launch.run.inputs import Inputs, located, read_inputs
from corewarding.launch.run.plans import admission_limits
from corewarding.launch.run.preflight.early import PreflightError, check_early, refuse
from corewarding.launch.run.preflight.expected import expected_problems
from corewarding.launch.run.preflight.fetch import fetch_here
from corewarding.launch.run.preflight.needs import Kind, bundles, fit_gpus, joins_cluster, needed, process_environment
from corewarding.launch.run.preflight.node import NodePlan, late_problems, node_problems
from corewarding.weights.model_files import StoredModel

NODES_S = 180.0
"""How long nodes may take to answer: a new Python process there imports torch, perhaps from a slow disk."""


def prepare(config: TrainConfig, *, revision: str | None = None) -> Inputs:
    """Reads the inputs of a run and makes all checks that need no cluster. Prints what is probably not meant.

    revision: of a hub id, if config names none. PreflightError, or the UserError of what cannot be read, with key, value and remedy.
    """
    check_early(config)
    inputs = read_inputs(config, revision=revision)
    admission_limits(config)
    config = located(config, inputs.folder)
    if not joins_cluster():
        processes = {role: len(several) for role, several in bundles(config).items()}
        refuse(
            [*late_problems(NodePlan(config=config, processes=processes, model=inputs.model)), *_too_few_gpus(config)]
        )
    for note in (*warnings(config), *(() if joins_cluster() else expected_problems(config))):
        say(f"note: {note}")
    return inputs


async def claim(config: TrainConfig, inputs: Inputs) -> placement.Reservation:
    """Reserves room for all processes and, on a cluster, makes the checks of every node that has one. Release it after use.

    Nodes that lack a model of the hub download it first. PlacementError or PreflightError, and nothing is reserved, if the run cannot
    start.
    """
    room = await placement.reserve(config)
    try:
        if joins_cluster():
            if inputs.folder.hub_id is not None:
                refuse(await _ask_nodes(config, room, fetch_here, lambda processes: inputs.folder, timeout_s=None))
            await check_nodes(config, inputs.model, room)
        if len(ray.nodes()) > 1:
            await placement.probe(config)
            print(f"room: {room.words()}", flush=True)
    except UserError:
        room.release()
        raise
    return room


async def check_nodes(config: TrainConfig, model: StoredModel, room: placement.Reservation) -> None:
    """On a cluster: the checks of each node. PreflightError names the nodes.

    model: what the driver's folder holds, which must be the same on each.
    """

    def plan(processes: dict[Kind, int]) -> NodePlan:
        return NodePlan(config=config, processes=processes, model=model)

    refuse(await _ask_nodes(config, room, node_problems, plan, timeout_s=NODES_S))


async def _ask_nodes(
    config: TrainConfig,
    room: placement.Reservation,
    function: Callable[[Any], list[str]],
    argument: Callable[[dict[Kind, int]], Any],
    *,
    timeout_s: float | None,
) -> list[str]:
    """The messages of `function` on each node, with the node's address, called there in the room that is reserved for the run.

    argument: of the function, from the number of processes on the node. PreflightError for a node that fails or does not answer.
    """
    task = ray.remote(runtime_env=process_environment(1))(function)
    known, asked = placement.addresses(), {}
    for node, here in room.on_nodes().items():
        processes = {role: len(indices) for role, indices in here.items()}
        role, index = max(((role, indices[0]) for role, indices in here.items()), key=lambda one: _gpus(config, one[0]))
        options = room.options(role, index) | {"num_cpus": 0, "num_gpus": _gpus(config, role)}
        asked[node] = task.options(**options).remote(argument(processes))
    try:
        answers = await asyncio.wait_for(asyncio.gather(*asked.values(), return_exceptions=True), timeout_s)
    except TimeoutError:
        raise PreflightError(
            f"not every node answered within {timeout_s:g} s: {', '.join(known[node] for node in asked)}"
        ) from None
    messages: list[str] = []
    for node, found in zip(asked, answers, strict=True):
        if isinstance(found, BaseException):
            raise PreflightError(f"node {known[node]} could not make its checks: {origin(found)}") from found
        messages += [f"node {known[node]}: {message}" for message in found]
    return messages


def warnings(config: TrainConfig) -> Iterator[str]:
    """What is probably not meant."""
    cores, wanted = os.cpu_count() or 1, needed(config)["CPU"]
    if not joins_cluster() and wanted > cores:
        yield (
            f"the processes reserve {wanted:g} CPUs and this machine has {cores}: they take turns; a cluster would refuse this"
        )
    watchdog_s, timeout_s = config.run.watchdog_s, config.publish.timeout_s
    if watchdog_s <= timeout_s:
        yield (
            f"run.watchdog_s {watchdog_s:g} is not over publish.timeout_s {timeout_s:g}: if an engine hangs while weights are sent, "
            "the watchdog ends the run before the engine is given up; raise the one or lower the other"
        )


def _too_few_gpus(config: TrainConfig) -> Iterator[str]:
    """On one machine: whether its GPUs have room for every process."""
    if needed(config).get("GPU", 0.0) == 0:
        return
    import torch

    if not fit_gpus(config, num := torch.cuda.device_count()):
        each = "; ".join(
            f"{len(several)} x {kind} of {_gpus(config, kind):g}" for kind, several in bundles(config).items()
        )
        yield (
            f"the run needs {needed(config)['GPU']:g} GPUs ({each}; see learner.ranks, learner.gpus_per_rank, rollout.policy_actors, "
            f"rollout.teacher_actors, rollout.gpus_per_actor), and this machine has {num}; lower them, or submit the run to a cluster"
        )


def _gpus(config: TrainConfig, role: Kind) -> float:
    return config.learner.gpus_per_rank if role == "learner" else config.rollout.gpus_per_actor
