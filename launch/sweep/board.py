"""TensorBoard's HParams page of a sweep: the values of every trial beside its accuracy, throughput and mismatch.

Each trial's row lies in an event file beside those of its run, so that the page finds the run's own scalars, too.
"""

from __future__ import annotations

from dataclasses import asdict

import yaml
from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, RealInterval, hparams_config_pb
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from corewarding.launch.sweep.axes import Axis
from corewarding.launch.sweep.folder import Record, SweepFolder
from corewarding.launch.sweep.plan import SEED, SweepPlan
from corewarding.launch.sweep.results import measured

SUFFIX = ".sweep"
METRICS = {
    "sweep/accuracy": "held-out accuracy",
    "sweep/throughput": "completions per second",
    "sweep/mismatch": "mismatch k3",
}


def fill_board(folder: SweepFolder, plan: SweepPlan) -> None:
    """Writes the page anew: what every axis takes into the sweep's folder, and a row into the folder of each trial that has a run."""
    for earlier in folder.path.glob(f"**/events.*{SUFFIX}"):
        earlier.unlink()
    seeds = [] if SEED in plan.keys else [HParam(SEED, Discrete(list(map(float, plan.seeds))))]
    described = [HParam(axis.key, _domain(axis)) for axis in plan.axes] + seeds
    experiment = hparams_config_pb(described, [Metric(tag, display_name=name) for tag, name in METRICS.items()])
    with SummaryWriter(str(folder.path), filename_suffix=SUFFIX) as writer:
        writer.file_writer.add_summary(experiment)
    for record in folder.records():
        if folder.run_of(record.trial).tensorboard.is_dir():
            _write_row(folder, record)


def _write_row(folder: SweepFolder, record: Record) -> None:
    run_dir = folder.run_of(record.trial)
    values = {key: _value(text) for key, text in record.point.items()}
    if SEED not in values:
        values[SEED] = float(record.seed)
    _, start, end = hparams(values, dict.fromkeys(METRICS, 0.0))
    with SummaryWriter(str(run_dir.tensorboard), filename_suffix=SUFFIX) as writer:
        writer.file_writer.add_summary(start)
        if record.status == "finished":
            for name, number in asdict(measured(run_dir)).items():
                if number is not None:
                    writer.add_scalar(f"sweep/{name}", number, run_dir.last_update())
        writer.file_writer.add_summary(end)


def _domain(axis: Axis) -> Discrete | RealInterval:
    if axis.range is not None:
        return RealInterval(float(axis.range.low), float(axis.range.high))
    values = [_value(text) for text in axis.values]
    same = all(isinstance(value, float) for value in values)
    return Discrete(values if same else list(axis.values))


def _value(text: str) -> float | str:
    """A number as a number; anything else as it was written."""
    value = yaml.safe_load(text)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else text
