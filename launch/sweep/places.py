"""The room of a trial: how many run beside each other, and what none can ever get."""

from __future__ import annotations

import math

import ray
from ray.tune import PlacementGroupFactory

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run.preflight.needs import joins_cluster, needed


class Places:
    """Where trials run.

    On one machine each reserves its cores and GPUs in Tune's Ray, which starts as many as have room. On a cluster the runs reserve
    their own room, so Tune's processes take none and stay on this node, and as many run as the whole cluster holds.
    """

    def __init__(self, want: dict[str, float]) -> None:
        """want: the most that any trial needs of each resource."""
        self._have: dict[str, float] = ray.cluster_resources()
        self._on_cluster = joins_cluster()
        self.at_once: int | None = None
        if self._on_cluster:
            self.at_once = max(
                1, min(int(self._have.get(name, 0.0) / amount + 1e-6) for name, amount in want.items() if amount)
            )

    def lacking(self, config: TrainConfig) -> str | None:
        """What this trial needs and never gets; None if it fits."""
        counts = [
            name for name in room_of(config) if self._on_cluster or name == "GPU"
        ]  # one machine's cores may be oversubscribed
        missing = [
            f"{amount:g} {name}, and there are {self._have.get(name, 0.0):g}"
            for name, amount in room_of(config).items()
            if name in counts and amount > self._have.get(name, 0.0) + 1e-6
        ]
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
    whole = {name: float(math.ceil(amount - 1e-9)) for name, amount in want.items() if name == "CPU" or amount > 1}
    return want | whole
