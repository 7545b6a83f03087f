"""The run log: metrics.jsonl, samples files, trace.jsonl, trackers, and one line per update on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corewarding.dataflow.ids import Source
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span, now_s
from corewarding.evals.heldout import EvalResult
from corewarding.launch.report.board.tags import check
from corewarding.launch.report.files import drop_torn_line, whole_rows, write_whole
from corewarding.launch.report.run_directory import RunDir
from corewarding.launch.report.statistics import LogprobDifferences, Moment
from corewarding.launch.report.summary import accuracies
from corewarding.launch.report.terminal import Terminal
from corewarding.launch.report.trace import TraceLog
from corewarding.launch.report.trackers.threads import Trackers
from corewarding.launch.report.trackers.tracker import Report


class RunLog:
    """Writes what happens in a run. Rows of samples are those of learner/replay/sample_log.py."""

    def __init__(self, run_dir: RunDir, terminal: Terminal, trackers: Trackers, *, resumed_at: int = 0) -> None:
        """trackers: closed with the log. resumed_at: update of the checkpoint; what was logged after it is removed, because those
        updates happen again."""
        self._run_dir, self._terminal, self._trackers = run_dir, terminal, trackers
        drop_torn_line(run_dir.metrics)
        if resumed_at:
            self._keep_until(resumed_at)
        self._metrics = run_dir.metrics.open("a")
        self._trace = TraceLog(run_dir.trace)

    def _keep_until(self, update: int) -> None:
        finished = self._run_dir.summary.is_file()  # otherwise the evaluation after training is made again
        kept = [
            row
            for row in whole_rows(self._run_dir.metrics)
            if row.get("update", 0) <= update and (finished or row.get("kind") != "eval_after")
        ]
        write_whole(self._run_dir.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        for path in self._run_dir.samples.glob("update-*.jsonl"):
            if path.name > _samples_name(update):
                path.unlink()

    def phase(self, text: str) -> None:
        """Shows what the run is doing now."""
        self._terminal.phase(text)

    def training(self) -> None:
        """Shows that training starts; the time left is estimated from here."""
        self._terminal.training()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._terminal.say(text)

    def warn(self, text: str) -> None:
        """Prints a line that stays and is seen."""
        self._terminal.warn(text)

    def update(self, update: int, metrics: Metrics, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes one finished update and prints its line. Its row in metrics.jsonl comes last and says that the rest is there."""
        scalars = metrics.scalars
        check([*scalars, *metrics.histograms])
        self._trackers.report(Report(update=update, scalars=scalars, histograms=metrics.histograms, rows=rows))
        if rows:
            path = self._run_dir.samples / _samples_name(update)
            write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self._write({"update": update, "kind": "update", "time_s": now_s(), **scalars})
        self._terminal.update(update, scalars)

    def trace(self, spans: Iterable[Span]) -> None:
        """Appends spans to trace.jsonl."""
        self._trace.write(spans)

    def self_test(self, update: int, differences: Mapping[Source, LogprobDifferences]) -> None:
        """Writes how far the engines' log-probabilities are from the learner's; nothing if no engine was tested."""
        if not differences:
            return
        row: dict[str, Any] = {"update": update, "kind": "self_test", "time_s": now_s()}
        for source, found in differences.items():
            row |= {
                f"selftest/{source}_mean": found.mean,
                f"selftest/{source}_p99": found.p99,
                f"selftest/{source}_max": found.highest,
            }
        check(key for key in row if "/" in key)
        self._write(row)
        largest = max(found.highest for found in differences.values())
        self.say(f"self-test: log-probabilities of engines and learner agree within {largest:.1g}")

    def evaluation(self, update: int, result: EvalResult, *, moment: Moment) -> None:
        """Writes one held-out evaluation of the weights after `update`."""
        values = {key: value for key, value in result.as_dict().items() if value is not None}
        self._write({"update": update, "kind": f"eval_{moment}", "time_s": now_s(), **values})
        group = "eval_quick" if moment == "quick" else "eval"
        scalars = {f"{group}/{key}": value for key, value in values.items() if not isinstance(value, list)}
        check(scalars)
        self._trackers.report(Report(update=update, scalars=scalars))
        shown = "  ".join(f"{name} {value:.3f}" for name, value in accuracies(result, with_pass_at=False).items())
        self._terminal.say(f"held-out ({moment}, {result.num_questions} questions)  {shown}", style="bold")

    def earlier_updates(self) -> list[dict[str, Any]]:
        """The metrics of the updates before a resume, in order."""
        return [row for row in whole_rows(self._run_dir.metrics) if row.get("kind") == "update"]

    @property
    def continue_file(self) -> Path:
        """A user creates this file to let a paused run continue."""
        return self._run_dir.path / "continue"

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """summary: of a run that has finished, for its trackers."""
        self._metrics.close()
        self._trace.close()
        self._trackers.finish(summary or {})

    def _write(self, row: dict[str, Any]) -> None:
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()


def _samples_name(update: int) -> str:
    return f"update-{update:06d}.jsonl"
