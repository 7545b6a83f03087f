"""Trains a configuration with other values of some keys, on Ray Tune, and compares accuracy, throughput and mismatch."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass

import tyro

from corewarding.dataflow.errors import RunError
from corewarding.launch.config.shown import compact_yaml
from corewarding.launch.report.plain import say
from corewarding.launch.report.run_lock import run_lock
from corewarding.launch.report.tables.output import JsonFlag, json_line
from corewarding.launch.sweep.arguments import SweepKeys, parse_sweep, refuse_without_extra
from corewarding.launch.sweep.folder import SweepFolder
from corewarding.launch.sweep.plan import SweepPlan, Trial, impossible


@dataclass(frozen=True)
class SweepArguments(SweepKeys):
    """Trains a configuration with other values of some keys, as trials of Ray Tune, and compares them.

    Each trial is an ordinary run, sweeps/NAME/TRIAL, made by `corewarding train`; as many run beside each other as have cores and GPUs
    of their own. A trial whose run fails, or whose collapse alarm rises, ends with that reason, and the others go on. The same command
    continues an interrupted sweep. It ends with a table and a picture of accuracy, throughput and mismatch, TensorBoard's HParams, and
    the line that trains the chosen point.
    """

    retry_failed: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also train the trials again that failed, were impossible or collapsed; each goes on from its last checkpoint."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the points and check their configurations; start nothing."""
    json: JsonFlag = False
    """A JSON object on each line, for programs: of a point with its results, or of a trial with --dry-run. All else goes to standard
    error."""


def run(words: list[str]) -> int:
    arguments = parse_sweep(SweepArguments, words, command="sweep")
    plan, folder = arguments.plan(), arguments.folder
    folder.check(plan)
    refuse_without_extra()
    trials = plan.trials()
    refused = impossible(plan, trials, root=str(folder.path))
    people = redirect_stdout(sys.stderr) if arguments.json else nullcontext()
    if arguments.dry_run:
        with people:
            _print_points(plan, trials, refused, folder)
        for trial in trials if arguments.json else ():
            print(json_line(asdict(trial) | {"name": trial.name, "impossible": refused.get(trial.name)}))
        return 0
    with people, run_lock(folder.path):
        folder.open(plan)
        if arguments.retry_failed:
            folder.forget_failures()
        code = _sweep(plan, folder, trials, refused)
    for row in json.loads(folder.results.read_text(encoding="utf-8")) if arguments.json else ():
        print(json_line(row))
    return code


def _sweep(plan: SweepPlan, folder: SweepFolder, trials: Sequence[Trial], refused: Mapping[str, str]) -> int:
    for trial in trials:
        if trial.name in refused and folder.record_of(trial) is None:
            folder.record(trial, "impossible", refused[trial.name])
            say(f"trial {trial.name} is impossible: {refused[trial.name]}")
    records = {record.trial.name: record for record in folder.records()}
    left = [trial for trial in trials if trial.name not in records or records[trial.name].status == "running"]
    ended = [record for record in records.values() if record.status != "running"]
    whole = plan.search == "optuna" and len(ended) >= (plan.num_points or 0) * len(plan.seeds)
    if fewer := plan.lists_are_short:
        say(fewer)
    say(f"sweep {folder.path}: {len(ended)} of {plan.num_trials} trials have ended")
    asked = None
    if left or (plan.search == "optuna" and not whole):
        from corewarding.launch.sweep.tuning import run_trials

        asked = run_trials(plan, folder.path, left)
    from corewarding.launch.sweep.board import fill_board
    from corewarding.launch.sweep.show import show

    fill_board(folder, plan)
    results = show(folder, plan)
    if asked is not None:
        say("the sweep was interrupted; the same command goes on")
        return 128 + signal.Signals(asked)
    if not any(result.runs for result in results):
        raise RunError(f"no trial has finished; {folder.trials} holds the log of each")
    return 0


def _print_points(plan: SweepPlan, trials: Sequence[Trial], refused: Mapping[str, str], folder: SweepFolder) -> None:
    for trial in trials:
        words = " ".join(f"{key}={text}" for key, text in trial.point.items())
        record = folder.record_of(trial)
        state = "" if record is None else f"  ({record.status})"
        say(f"{trial.name}: {words} train.seed={trial.seed}{state}".replace(":  ", ": "))
        if trial.name in refused:
            say(f"  impossible: {refused[trial.name]}")
    if plan.search == "optuna":
        ranges = {axis.key: axis.words for axis in plan.axes}
        say(f"{plan.num_points} points, which Optuna chooses while the sweep runs: {compact_yaml(ranges, 120)}")
    if fewer := plan.lists_are_short:
        say(fewer)
    say(f"{plan.num_trials} trials, {len(refused)} of them impossible; nothing was started")
