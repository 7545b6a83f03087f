"""The runs below a folder, each with its status and headline numbers, read from its files alone.

    running      a process holds the lock of the folder
    failed       failure.txt says why; the next start removes it
    ended        summary.json is there, and no update was made after it
    interrupted  none of these: stopped by a signal, or killed

On a file system without locks a running run is shown as interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.files import first_and_last_rows
from corewarding.launch.report.run_directory import RunDir, RunDirError
from corewarding.launch.report.run_lock import RunLockedError, refuse_locked

Status = Literal["running", "ended", "failed", "interrupted"]
DEPTH = 3
"""How many folders below the root a run may lie: a sweep's trials are at sweeps/<sweep>/<trial>."""
_STYLE: dict[str, str] = {"running": "cyan", "ended": "green", "failed": "bold red", "interrupted": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run. Numbers are None where the run has not measured them."""

    name: str  # path below the root
    folder: str
    status: Status
    reason: str  # of a failed run: its message
    rule: str | None
    updates: int  # done
    total_updates: int | None  # of the configuration
    measure: str | None  # name of `before` and `after`: mean@8, or greedy
    before: float | None  # held-out accuracy before training
    after: float | None  # held-out accuracy after training
    reward: float | None  # mean reward of the last update
    label_accuracy_frac: float | None  # of the last update
    completions_per_s: float | None  # trained completions; of an ended run
    wall_s: float | None  # of an ended run
    written_s: float  # time of the last change, seconds since 1970


def find_runs(root: Path) -> Iterator[Path]:
    """The run folders at or below `root`. Does not look inside a run."""
    level = [root]
    for _ in range(DEPTH + 1):
        below = []
        for folder in level:
            if (folder / "config.yaml").is_file() and not (folder / "sweep.json").is_file():
                yield folder
            else:
                below += [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink()]
        level = below


def facts_of(folder: Path, *, root: Path) -> RunFacts:
    """What the files of a run say. A garbled config.yaml is named in `reason`."""
    run_dir = RunDir(folder.parent, folder.name)
    reason = failure_of(run_dir)
    try:
        saved = run_dir.saved()
    except RunDirError as error:
        saved, reason = {}, str(error)
    summary = summary_of(run_dir)
    first, last = first_and_last_rows(run_dir.metrics)
    update: Mapping[str, Any] = next((row for row in reversed(last) if row.get("kind") == "update"), {})
    before = summary.get("before") or next((row for row in first if row.get("kind") == "eval_before"), {})
    after = summary.get("after") or {}
    measure = next((key for key in (*after, *before) if key.startswith("mean@") or key == "greedy"), None)
    train = saved.get("train")
    status = status_of(run_dir)
    return RunFacts(
        name=folder.relative_to(root).as_posix() if folder != root else folder.name,
        folder=str(folder),
        status=status,
        reason=reason,
        rule=saved.get("rule", TrainConfig().rule) if saved else None,
        updates=int(update.get("update", summary.get("updates", 0))),
        total_updates=train.get("updates") if isinstance(train, dict) else None,
        measure=measure,
        before=before.get(measure) if measure else None,
        after=after.get(measure) if measure else None,
        reward=update.get("reward/mean"),
        label_accuracy_frac=update.get("label/accuracy_frac"),
        completions_per_s=summary.get("completions_per_s"),
        wall_s=summary.get("wall_s"),
        written_s=max(path.stat().st_mtime for path in (run_dir.metrics, run_dir.config) if path.exists()),
    )


def status_of(run_dir: RunDir) -> Status:
    """running, failed, ended or interrupted; see the head of this file."""
    try:
        refuse_locked(run_dir.path)
    except RunLockedError:
        return "running"
    if run_dir.failure.is_file():
        return "failed"
    summary, (_, last) = summary_of(run_dir), first_and_last_rows(run_dir.metrics)
    goes_beyond = any(row.get("update", 0) > summary.get("updates", 0) for row in last)
    return "ended" if summary and not goes_beyond else "interrupted"


def failure_of(run_dir: RunDir) -> str:
    """The message of a run that failed, else an empty text."""
    return run_dir.failure.read_text(encoding="utf-8", errors="replace").strip() if run_dir.failure.is_file() else ""


def summary_of(run_dir: RunDir) -> dict[str, Any]:
    """The content of summary.json; empty if there is none, or if it was cut."""
    try:
        content = json.loads(run_dir.summary.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def rows_of(facts: Sequence[RunFacts]) -> list[dict[str, Any]]:
    """The runs for `--json`."""
    return [asdict(one) for one in facts]


def table_of(facts: Sequence[RunFacts]) -> Table:
    """The runs for people, a row each; below a failed run the first line of its message."""
    table = Table(box=None, pad_edge=False)
    for column, justify in _COLUMNS.items():
        table.add_column(column, justify="right" if justify else "left", no_wrap=True)
    for one in facts:
        total = "?" if one.total_updates is None else one.total_updates
        table.add_row(
            Text(one.name),
            Text(one.status, style=_STYLE[one.status]),
            one.rule or "?",
            f"{one.updates}/{total}",
            _accuracy(one),
            _number(one.reward, ".2f"),
            _number(one.label_accuracy_frac, ".2f"),
            _number(one.completions_per_s, ".1f"),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.written_s)),
        )
    return table


_COLUMNS = {
    "run": 0,
    "status": 0,
    "rule": 0,
    "updates": 1,
    "held-out": 1,
    "reward": 1,
    "label": 1,
    "compl/s": 1,
    "written": 0,
}
"""Heads of the table; 1: of numbers."""


def _accuracy(one: RunFacts) -> str:
    if one.before is None and one.after is None:
        return "-"
    return f"{one.measure} {_number(one.before, '.3f')} -> {_number(one.after, '.3f')}"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else f"{value:{how}}"
