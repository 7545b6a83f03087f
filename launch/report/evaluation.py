"""What `corewarding eval` prints: progress, accuracies with intervals, disagreements with math-verify, a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from corewarding.evals.compare import Difference, compare
from corewarding.evals.heldout import EvalResult, Generation
from corewarding.evals.record import EvalRecord
from corewarding.launch.report.progress import progress_bar
from corewarding.launch.report.tables.output import json_line, print_rows
from corewarding.rewards.answers.grading import grade

SHOWN = 10  # disagreements printed


class EvalProgress:
    """A context with a progress bar: completions done, accuracy so far, tokens per second. Shows nothing without a terminal."""

    def __init__(self, console: Console, total: int, record: EvalRecord) -> None:
        self._gold = {question: row["answer"] for question, row in record.questions().items()}
        self._right = self._done = self._tokens = 0
        self._progress = progress_bar(console, "sampling")
        self._task = self._progress.add_task("sampling", total=total, state="")

    def __enter__(self) -> EvalProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, generations: Sequence[Generation]) -> None:
        self._done += len(generations)
        self._tokens += sum(g.num_tokens for g in generations)
        self._right += sum(grade(g.answer, self._gold[g.question_id]) for g in generations)
        elapsed = self._progress.tasks[0].elapsed or 0.0
        state = f"{self._right / max(1, self._done):.1%} right" + (
            f", {self._tokens / elapsed:,.0f} tok/s" if elapsed else ""
        )
        self._progress.update(self._task, completed=self._done, state=state)


def show_result(console: Console, result: EvalResult, record: EvalRecord, *, as_json: bool) -> None:
    """Prints the accuracies, a line each, with their 95% intervals; or all of the result as one JSON line on standard output."""
    if as_json:
        manifest = record.manifest
        about = {"model": manifest["model"], "data": manifest["data"]["source"], "folder": str(record.folder)}
        print(json_line(about | result.as_dict()), flush=True)
        return
    intervals = {"greedy": result.greedy_interval, f"mean@{result.n}": result.mean_interval}
    for key, value in result.as_dict().items():
        if value is None or isinstance(value, list):
            continue
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        if interval := intervals.get(key):
            shown += "  [{:.4f}, {:.4f}]".format(*interval)
        console.print(f"{key:<17} {shown}")


def show_second_opinion(console: Console, record: EvalRecord) -> None:
    """Grades with math-verify too; prints both counts, its outcomes and the answers on which the two graders differ."""
    from corewarding.evals.second_opinion import OUTCOMES, second_opinions

    generations, gold = record.generations(), {q: row["answer"] for q, row in record.questions().items()}
    with second_opinions() as other:
        opinions = other.grade([(g.answer, gold[g.question_id]) for g in generations])
    ours = [grade(g.answer, gold[g.question_id]) for g in generations]
    rows = [
        {**dataclasses.asdict(g), "gold": gold[g.question_id], "ours": mine, "theirs": o.right, "outcome": o.outcome}
        for g, mine, o in zip(generations, ours, opinions, strict=True)
        if bool(o.right) != mine
    ]
    path = record.write_disagreements(rows)
    counts = {outcome: sum(o.outcome == outcome for o in opinions) for outcome in OUTCOMES}
    theirs = sum(bool(o.right) for o in opinions)
    console.print(
        f"of {len(ours)} completions right: ours {sum(ours)}, math-verify {theirs}; they differ on {len(rows)}"
    )
    console.print("math-verify: " + ", ".join(f"{outcome} {number}" for outcome, number in counts.items() if number))
    different = dict.fromkeys((row["answer"], row["gold"], row["ours"], row["outcome"]) for row in rows)
    for answer, right, mine, outcome in list(different)[:SHOWN]:
        console.print(f"  {answer!r} for {right!r}: ours {'right' if mine else 'wrong'}, math-verify {outcome}")
    if rows:
        console.print(f"all of them: {path}")


def show_comparison(first: Path, second: Path, *, as_json: bool) -> None:
    """Prints the accuracies of two evaluations and their difference, paired by question."""
    rows = compare(EvalRecord.open(first), EvalRecord.open(second))
    print_rows(map(dataclasses.asdict, rows), lambda: _comparison(rows, first, second), as_json=as_json)


def _comparison(rows: Sequence[Difference], first: Path, second: Path) -> Table:
    table = Table(title="second against first, paired by question, 95% by bootstrap")
    for column in ("", str(first), str(second), "difference", "interval"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        low, high = row.interval
        table.add_row(
            row.name,
            f"{row.first:.3f}",
            f"{row.second:.3f}",
            f"{row.second - row.first:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
        )
    return table
