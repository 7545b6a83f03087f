"""Places the processes in the rooms that Ray reserves for them.

Checks that the cluster has what the configuration needs before anything is started, and names what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.addresses import problem_of
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.ending import local_ray, own_ray
from corewarding.launch.run.preflight.needs import Kind, bundles, joins_cluster, needed, process_environment

log = logging.getLogger(__name__)


NO_ROOM = "its nodes have no room for all of it"
"""Says that a cluster has enough of everything, but not together on its nodes, or not now."""

NOT_STARTED = "Ray does not start for"
"""Says that the processes of Ray did not come up, which happens on a busy machine."""


class PlacementError(UserError):
    """The cluster does not have what the configuration needs."""


def actor_class(cls: type, **options: Any) -> Any:
    """`cls` as a Ray actor class. Ray's annotations lack options such as max_concurrency, hence Any."""
    return ray.remote(**options)(cls)


def connect(config: TrainConfig) -> None:
    """Joins the cluster that this job was submitted to (RAY_ADDRESS); otherwise starts Ray on this machine for this run.

    PlacementError if nothing answers at RAY_ADDRESS, or Ray does not start.
    """
    watched = "prometheus" in config.report.trackers
    join(needed(config), metrics_port=config.report.prometheus_port if watched else None)


def join(want: dict[str, float], *, metrics_port: int | None = None) -> None:
    """`connect` for processes that need this much together. metrics_port: of a page of numbers, where Ray is started here."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports runs to its makers otherwise
    os.environ.setdefault("RAY_worker_niceness", "0")  # our processes are the machine's work, not its background
    try:
        _start_ray(want, metrics_port)
    except UserError:
        raise
    except Exception as error:  # Ray raises Exception itself when its processes do not come up in time
        where = f"RAY_ADDRESS {os.environ['RAY_ADDRESS']}" if joins_cluster() else "this machine"
        raise PlacementError(f"{NOT_STARTED} {where}: {error}; `corewarding doctor` checks this machine") from error


def _start_ray(want: dict[str, float], metrics_port: int | None) -> None:
    if joins_cluster():
        address = os.environ["RAY_ADDRESS"]
        if ":" in address and (problem := problem_of(f"http://{address.rpartition('://')[2]}")):
            raise PlacementError(
                f"the Ray cluster of RAY_ADDRESS {address} {problem}; start the cluster, or unset RAY_ADDRESS: a run then starts its "
                "own Ray"
            )
        ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    else:
        # On one machine the operating system shares the cores, so a run starts even if its fractions add up to more cores
        # than there are. A cluster is not oversubscribed.
        cpus = max(os.cpu_count() or 1, -(-want["CPU"] // 1))
        custom = {
            name: value for name, value in want.items() if name not in ("CPU", "GPU")
        }  # one machine stands for every node
        _start_own(num_cpus=int(cpus), resources=custom, metrics_port=metrics_port)


def _start_own(**options: Any) -> None:
    """Ray on this machine. It waits 30 s for its own processes and then gives up, which is short on a busy machine: so it has two
    attempts."""
    for is_last in (False, True):
        reaper = local_ray.mark()
        try:
            session = own_ray.start(
                log_to_driver=False, logging_level=logging.WARNING, configure_logging=True, **options
            )
        except Exception as error:  # Ray raises Exception itself
            if is_last or "timed out during startup" not in str(error):
                raise
            log.warning("Ray did not start in its time; this machine is busy, so it is started once more")
            ray.shutdown()
            local_ray.end_processes()
        else:
            local_ray.own_session(session, reaper)
            return


@contextlib.contextmanager
def connected(config: TrainConfig) -> Iterator[None]:
    """`connect`; leaves Ray when the context is left, if it was joined here."""
    joined_before = ray.is_initialized()
    try:
        connect(config)
        yield
    finally:
        if not joined_before:
            local_ray.shut_down()


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room for every process, reserved on the cluster until `release`."""

    group: PlacementGroup
    first: dict[Kind, int]  # bundle of the first process of `learner`, `policy`, `teacher`

    def options(self, kind: Kind, index: int) -> dict[str, Any]:
        """Ray options that put process `index` of `kind` in its reserved room."""
        where = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=self.first[kind] + index)
        return {"scheduling_strategy": where}

    def nodes(self) -> dict[Kind, list[str]]:
        """Ids of the nodes that have the reserved room, one for each process, by kind."""
        nodes = placement_group_table(self.group)["bundles_to_node_id"]
        ends = [*list(self.first.values())[1:], len(nodes)]
        return {
            kind: [nodes[index] for index in range(start, end)]
            for (kind, start), end in zip(self.first.items(), ends, strict=True)
            if end > start
        }

    def on_nodes(self) -> dict[str, dict[Kind, list[int]]]:
        """By id of a node: the processes whose room is there, as their numbers by kind."""
        found: dict[str, dict[Kind, list[int]]] = {}
        for kind, nodes in self.nodes().items():
            for index, node in enumerate(nodes):
                found.setdefault(node, {}).setdefault(kind, []).append(index)
        return found

    def words(self) -> str:
        """The addresses of the nodes on which each kind of process is, in one line."""
        known = addresses()
        return "; ".join(
            f"{kind} on {', '.join(known[node] for node in nodes)}" for kind, nodes in self.nodes().items()
        )

    def release(self) -> None:
        remove_placement_group(self.group)


def addresses() -> dict[str, str]:
    """The address of each node of the cluster, by its id."""
    return {node["NodeID"]: str(node["NodeManagerAddress"]) for node in ray.nodes()}


async def reserve(config: TrainConfig, *, timeout_s: float = 15.0) -> Reservation:
    """Reserves room for all processes; waits up to `timeout_s` for it. PlacementError names what is missing."""
    wanted = bundles(config)
    everything = list(itertools.chain.from_iterable(wanted.values()))
    first = dict(zip(wanted, itertools.accumulate(map(len, wanted.values()), initial=0), strict=False))
    group = placement_group(everything, strategy="PACK")
    if await asyncio.to_thread(group.wait, timeout_s if joins_cluster() else 10.0):
        return Reservation(group, first)
    remove_placement_group(group)
    want, have = needed(config), ray.cluster_resources()
    missing = {k: v - have.get(k, 0.0) for k, v in want.items() if v > have.get(k, 0.0) + 1e-6}
    nodes = [
        f"{node['NodeManagerAddress']} has {_words(_ours(node['Resources']))}" for node in ray.nodes() if node["Alive"]
    ]
    free = _words(_ours(ray.available_resources()))
    lacks = f"the cluster lacks {_words(missing)}" if missing else f"{NO_ROOM}: {'; '.join(nodes)}; {free} are free"
    each = "; ".join(f"{len(several)} x {kind} of {_words(several[0])}" for kind, several in wanted.items() if several)
    raise PlacementError(
        f"the run needs {_words(want)} ({each}; see learner.ranks, learner.cpus_per_rank, learner.gpus_per_rank, "
        "learner.resources, rollout.policy_actors, rollout.teacher_actors, rollout.cpus_per_actor, rollout.gpus_per_actor, "
        f"rollout.resources); {lacks}"
    )


def _words(resources: dict[str, float]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in resources.items() if value) or "nothing"


def _ours(resources: dict[str, float]) -> dict[str, float]:
    """CPUs, GPUs and custom resources, without the resources that Ray adds itself."""
    own = ("node:", "memory", "object_store_memory", "accelerator_type:")
    return {name: resources[name] for name in sorted(resources) if not name.startswith(own) and "_group_" not in name}


async def probe(config: TrainConfig, *, timeout_s: float = 60.0) -> list[str]:
    """Checks that every node can write `run.root` and has our Python and Ray; returns the nodes' addresses.

    PlacementError names each node that fails.
    """
    token = Path(config.run.root) / f".probe-{uuid.uuid4().hex}"
    existed = token.parent.exists()
    try:
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise PlacementError(f"run.root {config.run.root} cannot be written here: {error}") from error
    task = ray.remote(num_cpus=0, runtime_env=process_environment(1))(probe_here)
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


def probe_here(token: str, expected: dict[str, str]) -> str:
    """Runs on each node: returns the problem there, or an empty string. token: a file that the driver wrote."""
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


def versions() -> dict[str, str]:
    """Versions of Python and Ray, which must be equal on all nodes."""
    return {"python": ".".join(map(str, sys.version_info[:3])), "ray": ray.__version__}
