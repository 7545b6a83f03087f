"""The room of a trial: how many run beside each other, and what none can ever get."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import ray
from ray.tune import PlacementGroupFactory

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.placement import NO_ROOM
from corewarding.launch.run.preflight.needs import bundles, fit_gpus, joins_cluster, needed

MOST = 1000
"""Trials beside each other."""
NEARLY = 1e-6


class Places:
    """Where trials run.

    On one machine each reserves its cores and GPUs in Tune's Ray, which starts as many as have room. On a cluster the runs reserve
    their own room, so Tune's processes take none and stay on this node, and as many run as the nodes hold.
    """

    def __init__(self, configs: Sequence[TrainConfig]) -> None:
        """configs: of the trials, as far as they are known."""
        self._have: dict[str, float] = ray.cluster_resources()
        self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._on_cluster = joins_cluster()
        self.at_once: int | None = None
        if self._on_cluster:
            self.at_once = max(1, min(copies(self._nodes, processes(config), MOST) for config in configs))

    def lacking(self, config: TrainConfig) -> str | None:
        """What this trial needs and never gets; None if it fits."""
        counts = [
            name for name in room_of(config) if self._on_cluster or name == "GPU"
        ]  # one machine's cores may be oversubscribed
        missing = [
            f"{amount:g} {name}, and there are {self._have.get(name, 0.0):g}"
            for name, amount in room_of(config).items()
            if name in counts and amount > self._have.get(name, 0.0) + NEARLY
        ]
        if self._on_cluster and not missing and not copies(self._nodes, processes(config), 1):
            return f"the cluster has enough in all, but {NO_ROOM}"
        return f"it needs {'; '.join(missing)}" if missing else None

    def of(self, config: TrainConfig | None) -> PlacementGroupFactory:
        """The room of a trial; the least there is for one that cannot run and only says why."""
        if self._on_cluster:
            return PlacementGroupFactory([{f"node:{ray.util.get_node_ip_address()}": 0.001}])
        if config is None or self.lacking(config):
            return PlacementGroupFactory([{"CPU": 0.001}])
        want = room_of(config)
        pinned = config.engine.cores is not None or config.learner.cores is not None
        cores = self._have["CPU"] if pinned else min(want["CPU"], self._have["CPU"])
        return PlacementGroupFactory([{"CPU": cores} | ({"GPU": want["GPU"]} if want.get("GPU") else {})])


def room_of(config: TrainConfig) -> dict[str, float]:
    """What a trial needs, in whole cores, because trials share none; GPUs whole if more than one."""
    want = needed(config)
    if want.get("GPU", 0.0) > 1:
        want["GPU"] = float(
            next(num for num in itertools.count(math.ceil(want["GPU"] - NEARLY)) if fit_gpus(config, num))
        )
    return want | {"CPU": float(math.ceil(want["CPU"] - 1e-9))} if "CPU" in want else want


def processes(config: TrainConfig) -> list[dict[str, float]]:
    """What each process of a trial needs on its node."""
    return list(itertools.chain.from_iterable(bundles(config).values()))


def copies(nodes: Sequence[Mapping[str, float]], wanted: Sequence[Mapping[str, float]], most: int) -> int:
    """How many trials of these processes the nodes hold, up to `most`: each process whole on one node, parts of a GPU on one GPU."""
    free = [_Free(node) for node in nodes]
    largest_first = sorted(wanted, key=lambda one: (one.get("GPU", 0.0), one.get("CPU", 0.0)), reverse=True)
    for num in range(most):
        for one in largest_first:
            if not any(node.take(one) for node in free):
                return num
    return most


class _Free:
    """What is free on one node."""

    def __init__(self, resources: Mapping[str, float]) -> None:
        self._gpus = [1.0] * int(resources.get("GPU", 0.0))
        self._rest = {name: amount for name, amount in resources.items() if name != "GPU"}

    def take(self, wanted: Mapping[str, float]) -> bool:
        """Takes what one process needs; False, and takes nothing, where it does not fit."""
        gpus = wanted.get("GPU", 0.0)
        part = min(gpus, 1.0)
        places = [index for index, left in enumerate(self._gpus) if left >= part - NEARLY][: math.ceil(gpus - NEARLY)]
        rest = {name: amount for name, amount in wanted.items() if name != "GPU"}
        if len(places) < math.ceil(gpus - NEARLY) or any(
            self._rest.get(name, 0.0) < amount - NEARLY for name, amount in rest.items()
        ):
            return False
        for index in places:
            self._gpus[index] -= part
        for name, amount in rest.items():
            self._rest[name] -= amount
        return True
