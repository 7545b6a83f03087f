"""TensorBoard's HParams page of a sweep: the values of every trial beside its accuracy, throughput and mismatch.

Each trial's row lies in an event file beside those of its run, so that the page finds the run's own scalars, too.
"""

from __future__ import annotations

from dataclasses import asdict

import yaml
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, RealInterval, hparams_config_pb
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from corewarding.launch.sweep.axes import Axis
from corewarding.launch.sweep.folder import Record, Status, SweepFolder
from corewarding.launch.sweep.plan import SEED, SweepPlan
from corewarding.launch.sweep.results import measured

SUFFIX = ".sweep"
METRICS = {
    "sweep/accuracy": "held-out accuracy",
    "sweep/throughput": "completions per second",
    "sweep/mismatch": "mismatch k3",
}
_ENDED: dict[Status, int] = {
    "running": api_pb2.STATUS_RUNNING,
    "finished": api_pb2.STATUS_SUCCESS,
    "stopped early": api_pb2.STATUS_SUCCESS,
    "collapsed": api_pb2.STATUS_FAILURE,
    "failed": api_pb2.STATUS_FAILURE,
    "impossible": api_pb2.STATUS_FAILURE,
}
"""What the page says of a trial."""


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
    _, start, _ = hparams(values, dict.fromkeys(METRICS, 0.0))
    with SummaryWriter(str(run_dir.tensorboard), filename_suffix=SUFFIX) as writer:
        writer.file_writer.add_summary(start)
        if record.status == "finished":
            for name, number in asdict(measured(run_dir)).items():
                if number is not None:
                    writer.add_scalar(f"sweep/{name}", number, run_dir.last_update())
        writer.file_writer.add_summary(_ended(record.status))


def _ended(status: Status) -> Summary:
    """What the page is told of a trial that ended so."""
    ended = plugin_data_pb2.SessionEndInfo(status=_ENDED[status])
    content = plugin_data_pb2.HParamsPluginData(session_end_info=ended, version=metadata.PLUGIN_DATA_VERSION)
    about = metadata.create_summary_metadata(hparams_plugin_data_pb=content)
    return Summary(value=[Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about)])


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
