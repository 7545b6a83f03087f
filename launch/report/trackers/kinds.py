"""The table of trackers: what each needs, and how it is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from corewarding.launch.config.secrets import masked
from corewarding.launch.config.tree import TrackerName, TrainConfig
from corewarding.launch.report.trackers.process import ClientProcess
from corewarding.launch.report.trackers.threads import END_S, Trackers
from corewarding.launch.report.trackers.tracker import RunFacts, Tracker, flat

_CLIENTS: dict[TrackerName, str] = {"wandb": "Wandb", "trackio": "Trackio", "mlflow": "MLflow"}
"""Class of each client that runs in a process of its own. Its module in this folder, the package that it needs and the extra in
pyproject.toml have the tracker's name."""


def missing(names: Sequence[TrackerName]) -> Iterator[str]:
    """A message for each tracker whose client is not installed."""
    for name in names:
        if name in _CLIENTS and find_spec(name) is None:
            yield (
                f"report.trackers: {name} needs its client, which {sys.executable} lacks; `pip install 'corewarding[{name}]'`, "
                f"or leave {name} out"
            )


def load(names: Sequence[TrackerName]) -> None:
    """Imports what these trackers run in this process. Called before Ray is joined, because Ray then unpacks a job's folder anew for
    every node, and nodes that share a disk share that folder."""
    for name in names:
        if name not in _CLIENTS:
            import_module(f"corewarding.launch.report.trackers.{name}")


def opened_by(config: TrainConfig, folder: Path) -> dict[str, str]:
    """The command that opens what each tracker of a run has written into the run directory, or sends it."""
    programs, inside = Path(sys.executable).parent, folder / "trackers"
    commands = {
        "tensorboard": f"{programs}/tensorboard --logdir {folder / 'tensorboard'}",
        "wandb": f"{programs}/wandb sync {inside}/wandb/offline-run-*",
        "trackio": f"TRACKIO_DIR={inside}/trackio {programs}/trackio show --project {config.report.project}",
        "mlflow": f"MLFLOW_ALLOW_FILE_STORE=true {programs}/mlflow ui --backend-store-uri {inside}/mlflow",
    }
    local = [
        name for name in config.report.trackers if name == "tensorboard" or (name in _CLIENTS and config.report.offline)
    ]
    return {name: commands[name] for name in local}


def started(
    config: TrainConfig, folder: Path, warn: Callable[[str], None], *, resumed_at: int = 0, end_s: float = END_S
) -> Trackers:
    """Starts the trackers that `report.trackers` names. folder: the run directory. resumed_at: 0 for a new run."""
    run = RunFacts(
        name=config.run.name,
        project=config.report.project,
        folder=folder,
        config=flat(masked(config.model_dump(mode="json"), logins=True)),
        resumed_at=resumed_at,
        offline=config.report.offline,
    )
    trackers: dict[str, Tracker] = {name: _tracker(name, run) for name in config.report.trackers}
    return Trackers(trackers, warn, every_scalar=config.report.scalars == "all", end_s=end_s)


def _tracker(name: TrackerName, run: RunFacts) -> Tracker:
    if name in _CLIENTS:
        client = f"corewarding.launch.report.trackers.{name}:{_CLIENTS[name]}"
        return ClientProcess(client, run, run.folder / "logs" / f"tracker-{name}.log")
    if name == "prometheus":
        from corewarding.launch.report.trackers.prometheus import Prometheus

        return Prometheus(run)
    from corewarding.launch.report.trackers.tensorboard import TensorBoard  # not needed for `missing`

    return TensorBoard(run)
