"""What a sweep shows at its end: the table, the picture, and TensorBoard's HParams, all of the same three numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from corewarding.launch.report.files import write_whole
from corewarding.launch.report.plain import say
from corewarding.launch.report.terminal import output_console
from corewarding.launch.sweep.folder import Record, SweepFolder
from corewarding.launch.sweep.picture import draw
from corewarding.launch.sweep.plan import SweepPlan
from corewarding.launch.sweep.results import PointResult, chosen, front, gathered

COLUMNS = {"accuracy": ".3f", "throughput": ".1f", "mismatch": ".1e"}
"""The measured numbers, and how they are written."""
HEADS = {"accuracy": "accuracy", "throughput": "compl/s", "mismatch": "mismatch"}


def show(folder: SweepFolder, plan: SweepPlan) -> list[PointResult]:
    """Prints the table and what to do next; writes results.json and the picture. Returns the points."""
    results = gathered(folder)
    best, at_front = chosen(results), front(results)
    output_console().print(_table(plan, results, at_front, best))
    for record in (record for result in results for record in result.others):
        say(f"{record.trial.name} {_state(record)}: {record.reason or 'it goes on with the same command'}")
    write_whole(folder.results, json.dumps([_row(result, at_front, best) for result in results], indent=1) + "\n")
    if any(result.runs for result in results):
        draw(results, at_front, best, folder.picture)
        say(f"picture: {folder.picture}; TensorBoard: tensorboard --logdir {folder.path}, page HParams")
    if best is not None:
        values = " ".join(f"{key}={_quoted(text)}" for key, text in best.point.items())
        say(f"the chosen point (o) trains with: corewarding train {folder.config} {values}".rstrip())
    elif at_front:
        say("no point is chosen, because there were no held-out questions to compare")
    return results


def _table(
    plan: SweepPlan, results: Sequence[PointResult], at_front: Sequence[PointResult], best: PointResult | None
) -> Table:
    several = "; mean ± standard deviation over the seeds" if len(plan.seeds) > 1 else ""
    table = Table(title=f"{len(results)} points (* front, o chosen{several})", title_justify="left")
    table.add_column("")
    for key in plan.short_keys:
        table.add_column(key, justify="right")
    for name in ("seeds", *HEADS.values()):
        table.add_column(name, justify="right")
    order = sorted(results, key=lambda result: -(result.mean.accuracy or 0.0) if result.mean is not None else math.inf)
    for result in order:
        mark = "o*" if result is best else "*" if result in at_front else ""
        seeds = f"{len(result.runs)}/{len(plan.seeds)}"
        table.add_row(mark, *result.point.values(), seeds, *(_cell(result, name) for name in COLUMNS))
    return table


def _cell(result: PointResult, name: str) -> str:
    mean, spread = result.mean, result.spread(name)
    value = None if mean is None else getattr(mean, name)
    if value is None:
        return ", ".join(dict.fromkeys(map(_state, result.others))) if mean is None and name == "accuracy" else "-"
    return f"{value:{COLUMNS[name]}}" + (f" ± {spread:{COLUMNS[name]}}" if spread is not None else "")


def _state(record: Record) -> str:
    return "interrupted" if record.status == "running" else record.status


def _quoted(text: str) -> str:
    return (
        text
        if text.isascii() and not set(text) & set(" '\"$`\\[]{}()*?<>|&;#!~")
        else "'" + text.replace("'", "'\\''") + "'"
    )


def _row(result: PointResult, at_front: Sequence[PointResult], best: PointResult | None) -> dict[str, Any]:
    return {
        "point": dict(result.point),
        "front": result in at_front,
        "chosen": result is best,
        "mean": None if result.mean is None else asdict(result.mean),
        "spread": {name: result.spread(name) for name in COLUMNS},
        "runs": [asdict(run) for run in result.runs],
        "without_result": [asdict(record) for record in result.others],
    }
