"""What a user sees of a run: TensorBoard, metrics.jsonl, samples files, and one fixed line per update."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from corewarding.dataflow.metrics import Metrics
from corewarding.evals.heldout import EvalResult
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.terminal import Terminal
from corewarding.launch.report.trace import TraceLog

_LINE = (
    ("reward", "reward/mean", "{:.2f}"),
    ("label acc", "label/accuracy_frac", "{:.2f}"),
    ("vote", "label/share_mean", "{:.2f}"),
    ("entropy", "policy/entropy", "{:.3f}"),
    ("len", "length/tokens_mean", "{:.1f}"),
    ("stale", "staleness/question_mean", "{:.2f}"),
    ("max", "staleness/max", "{:.0f}"),
    ("compl/s", "throughput/completions_per_s", "{:.0f}"),
    ("idle", "time/learner_idle_frac", "{:.0%}"),
)


class Watch:
    """Writes every update to all four. `rows` are those of learner/replay/sample_log.py."""

    def __init__(self, run_dir: RunDir, terminal: Terminal, *, total_updates: int, resumed_at: int = 0) -> None:
        self._run_dir, self._total = run_dir, total_updates
        self.terminal = terminal
        self.num_updates_seen = resumed_at
        self.staleness: list[tuple[float, float]] = []  # mean and max of each update
        self.overlap: list[tuple[float, float]] = []
        if resumed_at and run_dir.metrics.exists():
            self._cut_metrics(resumed_at)
        self._metrics = run_dir.metrics.open("a")
        self.trace = TraceLog(run_dir.trace)
        self._board = SummaryWriter(str(run_dir.tensorboard), purge_step=resumed_at + 1 if resumed_at else None)

    def _cut_metrics(self, update: int) -> None:
        """What came after the checkpoint happens again."""
        lines = self._run_dir.metrics.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["update"] <= update]
        self._run_dir.metrics.write_text("".join(line + "\n" for line in kept))

    def update(self, update: int, metrics: Metrics, rows: list[dict[str, Any]]) -> None:
        """One finished update."""
        scalars = metrics.scalars
        self.num_updates_seen = update
        self.staleness.append((scalars["staleness/question_mean"], scalars["staleness/max"]))
        self._write({"update": update, "kind": "update", "time_s": time.time(), **scalars})
        for key, value in scalars.items():
            self._board.add_scalar(key, value, update)
        for key, values in metrics.histograms.items():
            if values.size:
                self._board.add_histogram(key, values, update)
        if rows:
            self._board.add_text("samples", _table(rows), update)
            path = self._run_dir.samples / f"update-{update:06d}.jsonl"
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self._print(update, scalars)

    def self_test(self, scalars: dict[str, float]) -> None:
        """How far apart engines and learner were before the first question."""
        if scalars:
            self._write({"update": self.num_updates_seen, "kind": "self_test", "time_s": time.time(), **scalars})
            largest = max(value for key, value in scalars.items() if key.endswith("max"))
            self.terminal.say(f"self-test: log-probabilities of engines and learner agree within {largest:.1g}")

    def evaluation(self, update: int, result: EvalResult, *, name: str) -> None:
        """One held-out evaluation."""
        values = {key: value for key, value in result.as_dict().items() if value is not None}
        self._write({"update": update, "kind": f"eval_{name}", "time_s": time.time(), **values})
        group = "eval_quick" if name == "quick" else "eval"
        for key, value in values.items():
            if not isinstance(value, list):
                self._board.add_scalar(f"{group}/{key}", value, update)
        shown = "  ".join(
            f"{key} {values[key]:.3f}"
            for key in values
            if key.startswith(("greedy", "mean@", "maj@")) and "_" not in key
        )
        self.terminal.say(f"held-out ({name}, {result.num_questions} questions)  {shown}")

    def earlier_updates(self) -> list[dict[str, Any]]:
        """Rows of the updates before a resume."""
        rows = [json.loads(line) for line in self._run_dir.metrics.read_text().splitlines()]
        return [row for row in rows if row["kind"] == "update"]

    @property
    def continue_file(self) -> Path:
        """What a person makes to let a paused run go on."""
        return self._run_dir.path / "continue"

    def close(self) -> None:
        self._metrics.close()
        self.trace.close()
        self._board.close()

    def _write(self, row: dict[str, Any]) -> None:
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()

    def _print(self, update: int, scalars: dict[str, float]) -> None:
        fields = "  ".join(f"{label} {form.format(scalars[key])}" for label, key, form in _LINE if key in scalars)
        sync = scalars.get("sync/policy_s", 0.0) + scalars.get("sync/teacher_s", 0.0)
        left = self.terminal.advance(update)
        self.terminal.say(f"update {update:>4}/{self._total}  {fields}  sync {sync:.2f}s  left {left}")


def _table(rows: list[dict[str, Any]]) -> str:
    """A markdown page: one table per question, with who voted what."""
    lines: list[str] = []
    for question in dict.fromkeys(row["question"] for row in rows):
        mine = [row for row in rows if row["question"] == question]
        label = next((row["label"] for row in mine if row.get("label") is not None), None)
        votes = next((row["votes"] for row in mine if row.get("votes")), {})
        lines += [f"### {question}", f"label **{label}** from votes {votes}", ""]
        lines += ["| who | answer | reward | versions | text |", "|---|---|---|---|---|"]
        for row in mine:
            text = row["text"].replace("|", "\\|").replace("\n", " ").replace("`", "'")
            who = f"{row['source']}/{row['view']}"
            lines.append(f"| {who} | {row['answer']} | {row.get('reward', '-')} | {row['versions']} | `{text[:300]}` |")
        lines.append("")
    return "\n".join(lines)
