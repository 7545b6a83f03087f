"""A run's membership in Ray: joined once, and left however the run ends. The only place where a run joins or leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.run import placement
from corewarding.launch.run.ending import local_ray
from corewarding.launch.run.ending.stopping import Signals
from corewarding.launch.run.preflight.needs import joins_cluster


class Membership:
    """Joins Ray, and leaves it."""

    def __init__(self, config: TrainConfig, signals: Signals) -> None:
        self._config, self._signals, self._joined = config, signals, False

    @property
    def is_own(self) -> bool:
        """Whether `join` starts a Ray for this run alone: neither a cluster nor the caller has one."""
        return not joins_cluster() and not ray.is_initialized()

    def join(self) -> None:
        """Joins Ray unless that was done. PlacementError as `placement.connect`; SignalStop if a signal came meanwhile."""
        if not self._joined:
            self._joined = True
            with self._signals.held():
                placement.connect(self._config)

    def leave(self, *, keep: Path | None = None) -> None:
        """Leaves Ray if it was joined; a Ray of the run's own ends with every process and file of it.

        keep: a folder that gets the logs of Ray's own processes, after a run that failed.
        """
        if self._joined:
            self._joined = False
            local_ray.shut_down(keep=keep)


@contextmanager
def membership(config: TrainConfig, signals: Signals) -> Iterator[Membership]:
    """Ray is left when the context is left, if it was joined."""
    member = Membership(config, signals)
    try:
        yield member
    finally:
        member.leave()
