"""How two runs differ: keys of the configuration, environment, and results. Read from the files of the runs alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from corewarding.launch.report.changes import OWN, differences
from corewarding.launch.report.files import whole_rows
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.tables.runs import status_of, summary_of

LATE = 4
"""Numbers of updates are medians over the last quarter of the updates that both runs have made."""
FROM_UPDATES = ("reward/mean", "label/accuracy_frac", "vote/top_answer_frac", "policy/entropy", "mismatch/k3")
FROM_SUMMARY = ("completions_per_s", "learner_idle_frac", "staleness_mean", "labels_read", "train_wall_s")


@dataclass(frozen=True, slots=True)
class Difference:
    """A key or a number of two runs. None: the run has none."""

    kind: Literal["configuration", "environment", "result"]
    name: str
    first: Any
    second: Any

    @property
    def change(self) -> float | None:
        """Second minus first, of numbers."""
        numbers = isinstance(self.first, int | float) and isinstance(self.second, int | float)
        return self.second - self.first if numbers and self.kind == "result" else None

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"change": self.change}


def compare_runs(first: RunDir, second: RunDir) -> list[Difference]:
    """Keys and environment only where they differ; results always. RunDirError for a config.yaml that is garbled."""
    keys = [
        Difference("configuration", change.key, change.old, change.new)
        for change in differences(first.saved(), second.saved())
        if change.key not in OWN
    ]
    return [*keys, *_environments(first, second), *_results(first, second)]


def comparison_table(found: list[Difference], first: Path, second: Path) -> RenderableType:
    """Two tables for people: what was different, and what came out."""
    inputs = Table(title="what differs", title_justify="left", box=None, pad_edge=False)
    results = Table(title="\nwhat came out", title_justify="left", box=None, pad_edge=False)
    for column in ("key", str(first), str(second)):
        inputs.add_column(column, overflow="fold")
    for column in ("", str(first), str(second), "difference"):
        results.add_column(column, justify="right" if column else "left")
    for one in found:
        if one.kind == "result":
            change = "" if one.change is None else f"{one.change:+.4g}"
            results.add_row(one.name, _short(one.first), _short(one.second), change)
        else:
            inputs.add_row(Text(one.name), Text(_short(one.first)), Text(_short(one.second)))
    same = Text("configuration and environment are the same")
    return Group(inputs if inputs.row_count else same, results)


def _environments(first: RunDir, second: RunDir) -> Iterator[Difference]:
    before, after = (dict(_flat_environment(run_dir)) for run_dir in (first, second))
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Difference("environment", name, before.get(name), after.get(name))


def _flat_environment(run_dir: RunDir) -> Iterator[tuple[str, Any]]:
    environment = _json(run_dir.path / "environment.json")
    yield from ((name, environment.get(name)) for name in ("python", "machine", "revision"))
    yield from dict(environment.get("packages") or {}).items()
    model = _json(run_dir.path / "model.json")
    yield from ((f"model {name}", model.get(name)) for name in ("revision", "fingerprint"))


def _results(first: RunDir, second: RunDir) -> Iterator[Difference]:
    yield Difference("result", "status", status_of(first), status_of(second))
    rows = [[row for row in whole_rows(run_dir.metrics) if row.get("kind") == "update"] for run_dir in (first, second)]
    yield Difference("result", "updates", len(rows[0]), len(rows[1]))
    before, after = summary_of(first), summary_of(second)
    for moment in ("before", "after"):
        found = [_accuracies(summary.get(moment) or {}) for summary in (before, after)]
        for name in dict.fromkeys((*found[0], *found[1])):
            yield Difference("result", f"{name} {moment}", found[0].get(name), found[1].get(name))
    common = min(map(len, rows))
    late = [some[common - max(1, common // LATE) : common] for some in rows]
    for name in FROM_UPDATES if common else ():
        yield Difference("result", name, *(_median(some, name) for some in late))
    for name in FROM_SUMMARY:
        yield Difference("result", name, before.get(name), after.get(name))


def _accuracies(evaluation: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in evaluation.items() if "@" in name or name == "greedy"}


def _median(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return statistics.median(values) if values else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
