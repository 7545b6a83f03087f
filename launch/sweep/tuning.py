"""Gives the trials of a sweep to Ray Tune, which runs as many beside each other as have room, and shows what becomes of each."""

from __future__ import annotations

import json
import logging
import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune import Callback, PlacementGroupFactory, Stopper, Tuner
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Repeater
from ray.tune.search.optuna import OptunaSearch

from corewarding.dataflow.errors import RunError, UserError
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.plain import say
from corewarding.launch.report.run_lock import RunLockedError, refuse_locked
from corewarding.launch.run import placement
from corewarding.launch.run.ending import local_ray
from corewarding.launch.run.ending.stopping import ENDING_S, NAMES
from corewarding.launch.run.forked.fork_server import forking
from corewarding.launch.run.preflight.needs import can_fork
from corewarding.launch.sweep.folder import Record, SweepFolder
from corewarding.launch.sweep.places import Places, room_of
from corewarding.launch.sweep.plan import SweepPlan, Trial, numbers_of, space
from corewarding.launch.sweep.results import accuracy_of, measured
from corewarding.launch.sweep.trial import ACCURACY, SCORE, UPDATE, Sweep, TrainedTrial, program_environment, trial_of

REDUCTION = 2
"""At each rung of --stop-early, the better one of so many trials goes on."""
LOOK_S = 0.2
_QUIET = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the sweep has its own
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial has its own run log
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # before its first evaluation a trial reports no accuracy
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",  # nothing is restored from Tune's own files
}


class Asked(Stopper):
    """Ends the sweep, with a checkpoint in every trial, once a signal asked for it."""

    def __init__(self) -> None:
        self.by: int | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.by is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first signal asks; a second Ctrl-C is Python's own."""

        def hear(number: int, frame: FrameType | None) -> None:
            if self.by is not None:
                raise KeyboardInterrupt
            self.by = number
            say(f"{NAMES[signal.Signals(number)]}: the running trials make their checkpoints")

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Shown(Callback):
    """Prints a line when a trial starts and when it ends, and records the trials that Tune stopped early."""

    def __init__(self, plan: SweepPlan, path: Path, total: int, done: int, asked: Asked) -> None:
        self._plan, self._path, self._total, self._asked = plan, path, total, asked
        self._ended = done

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        say(f"trial {trial_of(trial.config, self._plan).name} starts")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        folder, mine = SweepFolder(self._path), trial_of(trial.config, self._plan)
        record = folder.record_of(mine)
        if record is None or (record.status == "running" and self._asked.by is not None):
            return
        if record.status == "running":
            reason = f"its accuracy after update {trial.last_result.get(UPDATE)} was not among the better ones"
            folder.record(mine, "stopped early", reason)
            record = folder.record_of(mine) or record
        self._ended += 1
        words = record.reason.partition("\n")[0]
        if record.status == "finished":
            found = measured(folder.run_of(mine))
            words = f"accuracy {accuracy_of(found):.3f}, {found.throughput:.1f} completions/s"
        say(f"trial {mine.name} {record.status} ({self._ended}/{self._total}): {words}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        folder, mine = SweepFolder(self._path), trial_of(trial.config, self._plan)
        folder.record(mine, "failed", f"its process in Tune ended: {last_line(trial.error_file)}")
        self._ended += 1
        say(f"trial {mine.name} failed ({self._ended}/{self._total})")


def last_line(file: str | None) -> str:
    """The last words of Tune's file about an error, which it writes before it tells of the error."""
    text = Path(file).read_text(encoding="utf-8", errors="replace").strip() if file and Path(file).is_file() else ""
    return text.splitlines()[-1] if text else "no word"


def run_trials(plan: SweepPlan, path: Path, trials: Sequence[Trial]) -> int | None:
    """Runs these trials, or those that the plan's search suggests, and returns when all have ended; each leaves its record.

    Returns the number of the signal that ended the sweep early, or None. RunError if Tune itself fails.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    configs = [plan.config_of(trial, root=str(path)) for trial in trials] or [plan.base]
    with forking(enabled=all(map(can_fork, configs))):  # their programs use its server
        return _run_trials(plan, path, trials, configs)


def _run_trials(plan: SweepPlan, path: Path, trials: Sequence[Trial], configs: Sequence[TrainConfig]) -> int | None:
    asked, environment = Asked(), program_environment()
    joined_before = ray.is_initialized()
    try:
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # trials say themselves what became of them
        want = _most(configs)
        placement.join({name: amount for name, amount in want.items() if name in ("CPU", "GPU")})
        sweep = Sweep(plan=plan, path=path, places=Places(configs), environment=environment, directory=os.getcwd())
        tuner = _tuner(plan, trials, sweep, asked)
        with asked.listening():
            try:
                tuner.fit()
            except (tune.TuneError, ray.exceptions.RayError) as error:
                raise RunError(f"Ray Tune failed: {error}; the same command goes on") from error
        _wait_for_programs(SweepFolder(path), plan.base.run.grace_s + ENDING_S)
    finally:
        if not joined_before:
            local_ray.shut_down()
    return asked.by


def _most(configs: Sequence[TrainConfig]) -> dict[str, float]:
    """The most that any of them needs of each resource."""
    rooms = [room_of(config) for config in configs]
    return {name: max(room.get(name, 0.0) for room in rooms) for room in rooms for name in room}


def _tuner(plan: SweepPlan, trials: Sequence[Trial], sweep: Sweep, asked: Asked) -> Tuner:
    folder = SweepFolder(sweep.path)
    records = folder.records()
    num, search, space_of = len(trials), None, {"trial": tune.grid_search([_settings(trial) for trial in trials])}
    if plan.search == "optuna":
        num, search, space_of = *suggested(plan, records), {}
    finished = sum(record.status != "running" for record in records)
    total = len(plan.seeds) * plan.num_points if plan.search == "optuna" and plan.num_points else num + finished

    def room(settings: dict[str, Any]) -> PlacementGroupFactory:
        try:
            return sweep.places.of(plan.config_of(trial_of(settings, plan), root=str(sweep.path)))
        except UserError:
            return sweep.places.of(None)

    return Tuner(
        tune.with_resources(tune.with_parameters(TrainedTrial, sweep=sweep), room),
        param_space=space_of,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=_scheduler(plan),
            num_samples=num if search is not None else 1,
            max_concurrent_trials=sweep.places.at_once,
        ),
        run_config=tune.RunConfig(
            name=folder.tune.name,
            storage_path=str(sweep.path),
            verbose=0,
            stop=asked,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the runs make their own
            callbacks=[Shown(plan, sweep.path, total, finished, asked)],
        ),
    )


def _settings(trial: Trial) -> dict[str, Any]:
    return {"point": dict(trial.point), "seed": trial.seed}


def _scheduler(plan: SweepPlan) -> FIFOScheduler:
    if not plan.stop_early:
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr=UPDATE,
        metric=ACCURACY,
        mode="max",
        max_t=plan.base.train.updates + 1,  # the last update ends a trial by itself
        grace_period=plan.base.eval.every_updates,
        reduction_factor=REDUCTION,
    )


def suggested(plan: SweepPlan, records: Sequence[Record]) -> tuple[int, Repeater]:
    """(how many trials are left, Optuna's search). It knows the scores of points that an earlier start has finished, and asks first
    for those that it had begun."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    domains = OptunaSearch.convert_search_space(space(plan.axes))
    points: dict[str, list[Record]] = {}
    for record in records:
        points.setdefault(json.dumps(record.point), []).append(record)
    whole = {key: its for key, its in points.items() if sum(one.status != "running" for one in its) == len(plan.seeds)}
    begun = [numbers_of(plan, its[0].point) for key, its in points.items() if key not in whole]
    search = OptunaSearch(
        domains,
        metric=SCORE,
        mode="max",
        seed=plan.base.train.seed + len(points),  # not the draws of an earlier start again
        points_to_evaluate=begun or None,
    )
    for its in whole.values():
        search.add_evaluated_point(numbers_of(plan, its[0].point), statistics.fmean(one.score for one in its))
    left = (plan.num_points or 0) - len(whole)
    return left * len(plan.seeds), Repeater(search, repeat=len(plan.seeds))


def _wait_for_programs(folder: SweepFolder, within_s: float) -> None:
    """Returns when no trial writes into its folder any more: those that were stopped make their checkpoints."""
    deadline = time.monotonic() + within_s
    for record in folder.records():
        while time.monotonic() < deadline:
            try:
                refuse_locked(folder.run_of(record.trial).path)
            except RunLockedError:
                time.sleep(LOOK_S)
            else:
                break
