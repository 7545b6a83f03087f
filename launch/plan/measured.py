"""Rates out of recorded runs: work is what a process did in the time in which it had a core.

Where more processes were busy than cores, each is taken to have had an equal part of them; so rates of a crowded run serve for one
with other work. Of each run the first updates are left out: engines and learner are slower in them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.errors import UserError
from corewarding.dataflow.ids import Source
from corewarding.launch.config.load import load_config
from corewarding.launch.plan.simulation import Device, Rates, drawn
from corewarding.launch.plan.speed import devices_of
from corewarding.launch.report.files import whole_rows
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.trace import merged, read_spans
from corewarding.learner.replay.journal.history import History, PastUpdate

WARM_UP = 3
"""Updates at the beginning of a run that are not counted."""
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a run did, to compare a forecast with."""

    updates_per_s: float
    staleness_mean: float


class RatesError(UserError):
    """A run that holds no rates."""


class Load:
    """How many processes were busy on a device, and how much of their full speed each had."""

    def __init__(self, lanes: Sequence[Sequence[Interval]], device: Device) -> None:
        """lanes: disjoint busy intervals of each process."""
        changes: dict[float, int] = defaultdict(int)
        for start, end in (interval for lane in lanes for interval in lane):
            changes[start] += 1
            changes[end] -= 1
        self._times = sorted(changes)
        shares, busy = [], 0
        for time in self._times:
            busy += changes[time]
            shares.append(device.share(busy))
        self._shares = shares
        sums = [0.0]
        for (start, end), share in zip(pairwise(self._times), shares, strict=False):
            sums.append(sums[-1] + share * (end - start))
        self._sums = sums

    def work_s(self, start: float, end: float) -> float:
        """Seconds that a process which was busy all the time had a core."""
        return self._until(end) - self._until(start)

    def _until(self, time: float) -> float:
        index = bisect_right(self._times, time) - 1
        if index < 0:
            return time - self._times[0]  # before the first: a core for itself
        return self._sums[index] + self._shares[index] * (time - self._times[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One completion: tokens, seconds of work while it ran, and how many ran beside it on average, itself included."""

    tokens: int
    work_s: float
    running: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What one run shows."""

    updates: list[tuple[int, float]]  # packed tokens, seconds of work
    sampled: list[Sampled]
    publish_s: float
    acknowledge_s: float
    turn_s: float
    lengths: dict[Source, list[int]]
    prompts: list[int]


def rates_of(folders: Sequence[Path], *, cores: int) -> Rates:
    """The rates of one or several runs with the same model, engines and learner settings. cores: that their processes had.
    RatesError for a run without a journal, trace or enough updates."""
    facts = [facts_of(folder, cores=cores) for folder in folders]
    update_s, token_s = line([one for its in facts for one in its.updates])
    step_s, sequence_s = step_line([one for its in facts for one in its.sampled])
    sources = dict.fromkeys(source for its in facts for source in its.lengths)
    return Rates(
        update_s=update_s,
        token_s=token_s,
        step_s=step_s,
        sequence_s=sequence_s,
        publish_s=median(its.publish_s for its in facts),
        acknowledge_s=median(its.acknowledge_s for its in facts),
        turn_s=median(its.turn_s for its in facts),
        lengths={source: drawn([n for its in facts for n in its.lengths.get(source, [])]) for source in sources},
        prompts=drawn([n for its in facts for n in its.prompts]),
    )


def facts_of(folder: Path, *, cores: int) -> RunFacts:
    """What the folder of a run shows. RatesError if it shows too little."""
    run_dir, rows = RunDir(folder.parent, folder.name), _updates(folder)
    history = History.of(run_dir.journal)
    past = {one.batch.update: one for one in history.updates(history.first - 1)}
    completions = [one for its in past.values() for one in completions_of(its)]
    engines: dict[str, list[Interval]] = defaultdict(list)
    for one in completions:
        engines[one.actor_id].append((one.timings.started_s, one.timings.finished_s))
    lanes = {"learner": [[(row["time/update_started_s"], row["time/update_ended_s"]) for row in rows]]}
    for source in ("policy", "teacher"):
        lanes[source] = [merged(its) for actor, its in engines.items() if actor.startswith(source)]
    loads = _loads(lanes, devices_of(load_config(run_dir.config), cores=cores))
    counted = [row for row in rows[WARM_UP:] if row["update"] in past]
    arrived = _arrivals(run_dir.trace)
    return RunFacts(
        updates=[
            (
                packed_tokens(past[row["update"]]),
                loads["learner"].work_s(row["time/update_started_s"], row["time/update_ended_s"]),
            )
            for row in counted
        ],
        sampled=_sampled(
            [one for one in completions if one.timings.started_s > counted[0]["time/update_started_s"]], engines, loads
        ),
        publish_s=median(row["time/publish_s"] for row in counted),
        acknowledge_s=median(
            arrived[row["update"]] - row["time/update_ended_s"] for row in counted if row["update"] in arrived
        ),
        turn_s=max(0.0, median(_handing_over(row, past[row["update"]]) for row in counted)),
        lengths=_lengths(completions),
        prompts=[len(one.prompt_token_ids) for one in completions],
    )


def _updates(folder: Path) -> list[dict[str, Any]]:
    """The rows of the updates of a run. RatesError, with the remedy, if the folder does not hold enough."""
    run_dir = RunDir(folder.parent, folder.name)
    if not run_dir.config.is_file():
        raise RatesError(f"--rates {folder} is no run directory: it holds no config.yaml")
    rows = (
        [row for row in whole_rows(run_dir.metrics) if row.get("kind") == "update"] if run_dir.metrics.is_file() else []
    )
    if len(rows) < WARM_UP + 2:
        raise RatesError(
            f"--rates {folder} has made {len(rows)} updates, and rates need {WARM_UP + 2}: take a longer run"
        )
    if not run_dir.journal.is_dir():
        raise RatesError(
            f"--rates {folder} has no journal, which tells when each completion ran; train with --journal.retain all"
        )
    return rows


def _loads(lanes: Mapping[str, list[list[Interval]]], devices: Mapping[str, Device]) -> dict[str, Load]:
    """The load of each kind's device, on which processes of several kinds may be busy."""
    found = {}
    for kind, device in devices.items():
        beside = [lane for other, its in lanes.items() if devices[other].name == device.name for lane in its]
        if any(beside):
            found[kind] = Load(beside, device)
    return found


def _arrivals(trace: Path) -> dict[int, float]:
    """When the policy's engines had the weights of each update."""
    spans = (span for span in read_spans(trace) if span.lane == "weights to policy")
    return {int(span.name.split()[1]): span.ended_s for span in spans}


def _handing_over(row: Mapping[str, float], past: PastUpdate) -> float:
    """Seconds from when an update could have begun, its samples finished and the learner free, until it began."""
    finished = max(one.timings.finished_s for one in completions_of(past))
    asked = row["time/update_started_s"] - row["time/learner_wait_s"]
    return row["time/update_started_s"] - max(finished, asked)


def completions_of(past: PastUpdate) -> list[Completion]:
    return [one for rollouts in past.rollouts for group in rollouts.groups.values() for one in group]


def recorded(folder: Path) -> Recorded:
    """Of the updates after the warm-up."""
    rows = [row for row in whole_rows(RunDir(folder.parent, folder.name).metrics) if row.get("kind") == "update"]
    before, *counted = rows[WARM_UP - 1 :]
    seconds = counted[-1]["time/update_ended_s"] - before["time/update_ended_s"]
    ages = [row["staleness/question_mean"] for row in counted]
    return Recorded(updates_per_s=len(counted) / seconds, staleness_mean=sum(ages) / len(ages))


def packed_tokens(one: PastUpdate) -> int:
    """Tokens of the trained completions, and each prompt once, as the learner packs them."""
    prompts = {sample.prompt_token_ids.tobytes(): len(sample.prompt_token_ids) for sample in one.batch.samples}
    return sum(prompts.values()) + sum(len(sample.token_ids) for sample in one.batch.samples)


def _lengths(completions: Sequence[Completion]) -> dict[Source, list[int]]:
    found: dict[Source, list[int]] = defaultdict(list)
    for one in completions:
        found[one.id.group.source].append(len(one.token_ids))
    return dict(found)


def _sampled(
    completions: Sequence[Completion], engines: dict[str, list[Interval]], loads: dict[str, Load]
) -> list[Sampled]:
    running = {actor: Running(intervals) for actor, intervals in engines.items()}
    return [
        Sampled(
            tokens=len(one.token_ids),
            work_s=loads[one.id.group.source].work_s(one.timings.started_s, one.timings.finished_s),
            running=running[one.actor_id].mean(one.timings.started_s, one.timings.finished_s),
        )
        for one in completions
        if one.timings.finished_s > one.timings.started_s
    ]


class Running:
    """How many of some intervals are open."""

    def __init__(self, intervals: Sequence[Interval]) -> None:
        changes: dict[float, int] = defaultdict(int)
        for start, end in intervals:
            changes[start] += 1
            changes[end] -= 1
        self._times = np.array(sorted(changes))
        self._open = np.cumsum([changes[time] for time in self._times])
        self._sums = np.concatenate([[0.0], np.cumsum(self._open[:-1] * np.diff(self._times))])

    def mean(self, start: float, end: float) -> float:
        """Of the time from start to end."""
        return float(self._until(end) - self._until(start)) / (end - start)

    def _until(self, time: float) -> float:
        index = int(np.searchsorted(self._times, time, side="right")) - 1
        return float(self._sums[index] + self._open[index] * (time - self._times[index])) if index >= 0 else 0.0


def line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """(seconds whatever the tokens, seconds of a token), neither below 0, by least squares; through the origin if the numbers of
    tokens hardly differ."""
    tokens, seconds = np.array(points, float).T
    through_origin = float((tokens @ seconds) / (tokens @ tokens))
    if tokens.max() < 1.3 * tokens.min():
        return 0.0, through_origin
    slope, start = np.polyfit(tokens, seconds, 1)
    if start < 0:
        return 0.0, through_origin
    return (float(start), float(slope)) if slope > 0 else (float(seconds.mean()), 0.0)


def step_line(sampled: Sequence[Sampled]) -> tuple[float, float]:
    """(seconds of a step, seconds of each sequence in it), neither below 0, by least squares over work = tokens (a + b running)."""
    tokens = np.array([one.tokens for one in sampled], float)
    running = np.array([one.running for one in sampled])
    work = np.array([one.work_s for one in sampled])
    (step, sequence), *_ = np.linalg.lstsq(np.stack([tokens, tokens * running], axis=1), work, rcond=None)
    if step < 0:
        return 0.0, float(work @ (tokens * running) / ((tokens * running) @ (tokens * running)))
    return (float(step), float(sequence)) if sequence > 0 else (float(work @ tokens / (tokens @ tokens)), 0.0)
