"""How a run ended: summary.json and the closing table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from corewarding.evals.heldout import EvalResult
from corewarding.launch.config.tree import TrainConfig
from corewarding.launch.report.run_directory import RunDir


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
    """What summary.json holds. `labels_read` counts answers by reader; the rule's are the ones that train."""
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
    run_dir.summary.write_text(json.dumps(summary, indent=1) + "\n")


def print_summary(run_dir: RunDir, summary: dict[str, Any], model: str) -> None:
    """The table a run ends with."""
    console = Console()
    before, after = summary["before"], summary["after"]
    if before and after:
        table = Table(title=f"{summary['rule']}, {after['num_questions']} held-out questions")
        for column in ("", "before", "after"):
            table.add_column(column, justify="left" if not column else "right")
        for key in before:
            if (key == "greedy" or "@" in key) and before[key] is not None:
                table.add_row(key, f"{before[key]:.3f}", f"{after[key]:.3f}")
        console.print(table)
    facts = Table(show_header=False, box=None)
    facts.add_row("labels read by the rule", str(summary["labels_read"]))
    facts.add_row("updates", f"{summary['updates']} in {summary['wall_s']:.0f} s")
    facts.add_row("completions per second", f"{summary['completions_per_s']:.1f}")
    console.print(facts)
    for name, value in (
        ("model", model),
        ("samples", run_dir.samples),
        (
            "TensorBoard",
            f"{run_dir.tensorboard}\nopen it with:  {Path(sys.executable).with_name('tensorboard')} --logdir {run_dir.tensorboard}",
        ),
    ):
        print(f"{name}: {value}")
