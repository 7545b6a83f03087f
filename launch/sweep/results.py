"""What a sweep measured: accuracy, throughput and mismatch of every point, the front of points that no other beats, and the choice.

Accuracy: mean@n on the held-out questions after training. Throughput: trained completions per second. Mismatch: the median of
`mismatch/k3` after the first quarter of the updates; not measured under correction.mode bypass, where it is 0 by construction.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corewarding.launch.report.files import whole_rows
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.sweep.folder import Record, SweepFolder


@dataclass(frozen=True, slots=True)
class Measured:
    """The three numbers of a run, or their means over the seeds of a point. None: not measured."""

    accuracy: float | None
    throughput: float
    mismatch: float | None


@dataclass(slots=True)
class PointResult:
    """A point with all its trials."""

    point: Mapping[str, str]
    runs: list[Measured] = field(default_factory=list)
    others: list[Record] = field(default_factory=list)  # trials without a result

    @property
    def mean(self) -> Measured | None:
        """Over the seeds; None if no trial has finished."""
        if not self.runs:
            return None
        return Measured(
            _mean([run.accuracy for run in self.runs]),
            _mean([run.throughput for run in self.runs]) or 0.0,
            _mean([run.mismatch for run in self.runs]),
        )

    def spread(self, name: str) -> float | None:
        """Standard deviation over the seeds of `accuracy`, `throughput` or `mismatch`; None for fewer than two."""
        values = [value for run in self.runs if (value := getattr(run, name)) is not None]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def is_whole(self) -> bool:
        """Whether every seed has finished."""
        return bool(self.runs) and not self.others


def measured(run_dir: RunDir) -> Measured:
    """The numbers of a finished run."""
    summary: dict[str, Any] = json.loads(run_dir.summary.read_text(encoding="utf-8"))
    after = summary.get("after") or {}
    mean = next((value for key, value in after.items() if key.startswith("mean@")), after.get("greedy"))
    rows = [row for row in whole_rows(run_dir.metrics) if row.get("kind") == "update"]
    seen = [row["mismatch/k3"] for row in rows[len(rows) // 4 :] if "mismatch/k3" in row]
    bypasses = run_dir.saved().get("correction", {}).get("mode") == "bypass"
    mismatch = abs(statistics.median(seen)) if seen and not bypasses else None
    return Measured(mean, summary["completions_per_s"], mismatch)


def accuracy_of(found: Measured) -> float:
    """The score by which a search compares trials: without held-out questions all are equal."""
    return found.accuracy if found.accuracy is not None else 0.0


def latest_accuracy(rows: Sequence[Mapping[str, Any]], *, of_samples: bool) -> tuple[int, float] | None:
    """(updates, accuracy) of the last evaluation in these rows of a run's metrics, by which trials are stopped early; None before it.

    of_samples: mean@n and not the greedy accuracy, in and after training alike.
    """
    key = "mean@" if of_samples else "greedy"
    found = [
        (row["update"], value)
        for row in rows
        if row.get("kind") in ("eval_quick", "eval_after")
        for name, value in row.items()
        if name.startswith(key) and isinstance(value, float)
    ]
    return found[-1] if found else None


def gathered(folder: SweepFolder) -> list[PointResult]:
    """All points of which a trial was started, in the order of their first trials."""
    points: dict[str, PointResult] = {}
    for record in folder.records():
        result = points.setdefault(json.dumps(record.point), PointResult(record.point))
        if record.status == "finished":
            result.runs.append(measured(folder.run_of(record.trial)))
        else:
            result.others.append(record)
    return list(points.values())


def front(results: Sequence[PointResult]) -> list[PointResult]:
    """The whole points that no other whole point beats: is at least as good in all that both have measured, and better in one."""
    means = [(result, result.mean) for result in results if result.is_whole]
    return [
        result
        for result, mine in means
        if not any(mine is not None and theirs is not None and _beats(theirs, mine) for _, theirs in means)
    ]


def chosen(results: Sequence[PointResult]) -> PointResult | None:
    """The fastest point of the front among those whose accuracy is within one standard deviation of the best one's.

    None without held-out questions, and if no point is whole.
    """
    known = [
        (result, mean) for result in front(results) if (mean := result.mean) is not None and mean.accuracy is not None
    ]
    if not known:
        return None
    best, at_best = max(known, key=lambda one: one[1].accuracy or 0.0)
    least = (at_best.accuracy or 0.0) - (best.spread("accuracy") or 0.0)
    near = [(result, mean) for result, mean in known if (mean.accuracy or 0.0) >= least]
    return max(near, key=lambda one: one[1].throughput)[0]


def _beats(one: Measured, other: Measured) -> bool:
    pairs = [
        (one.accuracy, other.accuracy),
        (one.throughput, other.throughput),
        (_negative(one.mismatch), _negative(other.mismatch)),
    ]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    return all(a >= b for a, b in both) and any(a > b for a, b in both)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
