"""The result of a run: summary.json and the closing table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.files import write_whole
from corewarding.launch.report.plain import say
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.terminal import output_console


def build_summary(
    config: TrainConfig,
    *,
    updates: int,
    wall_s: float,
    labels_read: dict[str, int],
    before: EvalResult | None,
    after: EvalResult | None,
    measured: dict[str, Any],
) -> dict[str, Any]:
    """The content of summary.json. labels_read: answers read, by reader; only those of `reward` affect training."""
    return {
        "rule": config.rule,
        "updates": updates,
        "labels_read": labels_read["reward"],
        "labels_read_by": labels_read,
        "wall_s": wall_s,
        "before": None if before is None else before.as_dict(),
        "after": None if after is None else after.as_dict(),
        **measured,
    }


def write_summary(run_dir: RunDir, summary: dict[str, Any]) -> None:
    write_whole(run_dir.summary, json.dumps(summary, indent=1) + "\n")


def accuracies(result: EvalResult, *, with_pass_at: bool = True) -> dict[str, float]:
    """The measured accuracies of an evaluation, by the name that a user reads."""
    found: dict[str, float | None] = {
        f"mean@{result.n}": result.mean,
        f"maj@{result.n}": result.maj,
        "greedy": result.greedy,
    }
    if with_pass_at:
        found |= {f"pass@{k}": value for k, value in result.pass_at.items()}
    return {name: value for name, value in found.items() if value is not None}


def print_summary(
    run_dir: RunDir,
    summary: dict[str, Any],
    model: str,
    *,
    before: EvalResult | None,
    after: EvalResult | None,
    trackers: Mapping[str, str],
) -> None:
    """Prints the closing table and where to find the model and the samples. trackers: the command that opens each."""
    console = output_console()
    if before is not None and after is not None:
        table = Table(title=f"{summary['rule']}, {after.num_questions} held-out questions")
        for column in ("", "before", "after"):
            table.add_column(column, justify="left" if not column else "right")
        then = accuracies(before)
        for name, value in accuracies(after).items():
            table.add_row(name, f"{then[name]:.3f}" if name in then else "-", f"{value:.3f}")
        console.print(table)
    facts = Table(show_header=False, box=None)
    facts.add_row("labels read by the rule", str(summary["labels_read"]))
    facts.add_row("updates", f"{summary['updates']} in {summary['wall_s']:.0f} s")
    facts.add_row("completions per second", f"{summary['completions_per_s']:.1f}")
    console.print(facts)
    say(f"model: {model}")
    say(f"samples: {run_dir.samples}")
    for name, command in trackers.items():
        say(f"{name}:  {command}")
