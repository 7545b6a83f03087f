"""The checks that take no time, before torch and Ray are loaded: what they refuse is refused within a second or two."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from corewarding.dataflow.errors import UserError
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.trackers.kinds import missing
from corewarding.launch.run.preflight.needs import bundles, joins_cluster, needed
from corewarding.launch.run.preflight.node import NodePlan, early_problems


class PreflightError(UserError):
    """The run could not start. The message holds every finding, a line each."""


def check_early(config: TrainConfig) -> None:
    """Checks the run's folder and, on one machine, the early checks of its only node. PreflightError."""
    refuse(message for check in CHECKS for message in check(config))
    if not joins_cluster():
        processes = {kind: len(several) for kind, several in bundles(config).items()}
        refuse([*_room(config), *early_problems(NodePlan(config=config, processes=processes))])


def refuse(messages: Iterable[str]) -> None:
    """Raises PreflightError if there are messages."""
    found = list(dict.fromkeys(messages))
    if found:
        raise PreflightError("\n".join(found))


def _run_root(config: TrainConfig) -> Iterator[str]:
    """Whether the run's folder can be made. Writes nothing that stays."""
    existing = Path(config.run.root) / config.run.name
    try:
        while not existing.exists():
            existing = existing.parent
        if existing.is_dir():
            with tempfile.TemporaryFile(dir=existing):
                return
        yield f"run.root {config.run.root}: {existing} is a file, not a folder; set run.root to a folder"
    except OSError as error:
        yield f"run.root {config.run.root} cannot be written: {existing}: {error.strerror}; set run.root to a folder that can"


def _one_gpu(config: TrainConfig) -> Iterator[str]:
    gpus = needed(config).get("GPU", 0.0)
    if config.publish.backend == "ipc" and gpus > 1 + 1e-6:
        yield (
            f"publish.backend ipc needs all processes on one GPU (CUDA IPC) or none, and they reserve {gpus:g}; "
            "set publish.backend auto, which chooses what fits"
        )


def _room(config: TrainConfig) -> Iterator[str]:
    """On one machine Ray is told of as many cores as all processes ask, since they may take turns; but each must fit by itself."""
    cores = os.cpu_count() or 1
    rank, actor = config.learner.cpus_per_rank, config.rollout.cpus_per_actor
    for key, cpus in (("learner.cpus_per_rank", rank), ("rollout.cpus_per_actor", actor)):
        if cpus > cores:
            yield f"{key} {cpus:g}: one process needs more cores than the {cores} of this machine; lower it"


def _trackers(config: TrainConfig) -> Iterator[str]:
    yield from missing(config.report.trackers)
    port = config.report.prometheus_port
    if "prometheus" in config.report.trackers and not joins_cluster():
        with socket.socket() as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                place.bind(("127.0.0.1", port))
            except OSError as error:
                yield f"report.prometheus_port {port}: {error.strerror}; choose another, or leave prometheus out of report.trackers"


CHECKS: tuple[Callable[[TrainConfig], Iterator[str]], ...] = (_run_root, _one_gpu, _trackers)
