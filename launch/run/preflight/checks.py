"""The lists of checks, and where they run: on the driver before Ray is started, then on every node that has a process of the run.

On one machine the driver makes all of them, so nothing is started where one fails.
"""

from __future__ import annotations

import asyncio
import os

import ray
import torch

from corewarding.actors.parameters import parameters_of
from corewarding.dataflow.errors import UserError, origin
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.plain import say
from corewarding.launch.run import placement
from corewarding.launch.run.inputs import Inputs, read_inputs
from corewarding.launch.run.plans import admission_limits
from corewarding.launch.run.preflight.early import PreflightError, check_early, refuse
from corewarding.launch.run.preflight.needs import Kind, bundles, joins_cluster, needed, process_environment
from corewarding.launch.run.preflight.node import NodePlan, late_problems, node_problems, stages

NODES_S = 60.0
"""How long nodes may take to answer; the first answer needs a new Python process there."""


def prepare(config: TrainConfig) -> Inputs:
    """Reads the inputs of a run and makes all checks that need no cluster. Prints what is probably not meant.

    PreflightError, or the UserError of what cannot be read, with key, value and remedy.
    """
    check_early(config)
    inputs = read_inputs(config)
    admission_limits(config)
    if not joins_cluster():
        processes = {role: len(several) for role, several in bundles(config).items()}
        refuse(late_problems(_plan(config, processes)))
    if note := warning(config):
        say(f"note: {note}")
    return inputs


async def claim(config: TrainConfig) -> placement.Reservation:
    """Reserves room for all processes and, on a cluster, makes the checks of every node that has one. Release it after use.

    PlacementError or PreflightError, and nothing is reserved, if the run cannot start.
    """
    room = await placement.reserve(config)
    try:
        await check_nodes(config, room)
        if len(ray.nodes()) > 1:
            await placement.probe(config)
            print(f"room: {room.words()}", flush=True)
    except UserError:
        room.release()
        raise
    return room


async def check_nodes(config: TrainConfig, room: placement.Reservation) -> None:
    """On a cluster: the checks of each node, made on it, in the room that is reserved there. PreflightError names the nodes."""
    if not joins_cluster():
        return
    task = ray.remote(runtime_env=process_environment(1))(node_problems)
    known, asked = placement.addresses(), {}
    for node, here in room.on_nodes().items():
        processes = {role: len(indices) for role, indices in here.items()}
        role, index = max(((role, indices[0]) for role, indices in here.items()), key=lambda one: _gpus(config, one[0]))
        options = room.options(role, index) | {"num_cpus": 0, "num_gpus": _gpus(config, role)}
        asked[node] = task.options(**options).remote(_plan(config, processes))
    try:
        answers = await asyncio.wait_for(asyncio.gather(*asked.values(), return_exceptions=True), NODES_S)
    except TimeoutError:
        raise PreflightError(
            f"not every node answered within {NODES_S:g} s: {', '.join(known[node] for node in asked)}"
        ) from None
    messages: list[str] = []
    for node, found in zip(asked, answers, strict=True):
        if isinstance(found, BaseException):
            raise PreflightError(f"node {known[node]} could not make its checks: {origin(found)}") from found
        messages += [f"node {known[node]}: {message}" for message in found]
    refuse(messages)


def warning(config: TrainConfig) -> str | None:
    """A note where the processes of one machine ask for more cores together than it has; a cluster refuses that."""
    cores, wanted = os.cpu_count() or 1, needed(config)["CPU"]
    if joins_cluster() or wanted <= cores:
        return None
    return f"the processes reserve {wanted:g} CPUs and this machine has {cores}: they take turns; a cluster would refuse this"


def _plan(config: TrainConfig, processes: dict[Kind, int]) -> NodePlan:
    return NodePlan(config=config, processes=processes, staged_bytes=_staged_bytes(config))


def _staged_bytes(config: TrainConfig) -> int:
    """Size of one engine's weights; 0 where no engine stages them in shared memory."""
    if not stages(config.engine) and not stages(config.engine_of("teacher")):
        return 0
    return sum(p.nbytes for p in parameters_of(config.model_folder, getattr(torch, config.engine.dtype)).values())


def _gpus(config: TrainConfig, role: Kind) -> float:
    return config.learner.gpus_per_rank if role == "learner" else config.rollout.gpus_per_actor
