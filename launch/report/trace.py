"""The trace of a run: spans written while it runs, read back as a Perfetto trace and as a Gantt chart.

trace.jsonl in the run directory holds one JSON object per line: {"lane", "name", "started_s", "ended_s"}. Lanes are the learner, each
weight channel and each rollout actor. Times are of dataflow.spans: lanes of different machines may be shifted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from corewarding.dataflow.errors import UserError
from corewarding.dataflow.spans import Span
from corewarding.launch.report.files import drop_torn_line


class TraceLog:
    """Appends spans to a file."""

    def __init__(self, path: Path) -> None:
        drop_torn_line(path)
        self._file: TextIO = path.open("a")

    def write(self, spans: Iterable[Span]) -> None:
        self._file.write("".join(json.dumps(asdict(span)) + "\n" for span in spans))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_spans(path: Path) -> list[Span]:
    """Reads all spans, ordered by start. UserError if there is no trace."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: {path.parent} is no run directory, or the run made no update yet")
    spans = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break  # still being written, or cut off when the run was killed
        try:
            spans.append(Span(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {number} is damaged ({error}); remove the line") from error
    if not spans:
        raise UserError(f"{path} is empty: the run made no update yet")
    return sorted(spans, key=lambda span: span.started_s)


def chrome_trace(spans: Sequence[Span]) -> dict[str, Any]:
    """Spans in the trace event format, which Perfetto and chrome://tracing open. Overlapping spans of a lane get separate rows."""
    begin = min((span.started_s for span in spans), default=0.0)
    events: list[dict[str, Any]] = []
    for process, lane in enumerate(lanes(spans)):
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": lane}})
        ends: list[float] = []  # of the last span of each row
        for span in spans:
            if span.lane != lane:
                continue
            row = next((i for i, end in enumerate(ends) if end <= span.started_s), len(ends))
            ends[row : row + 1] = [span.ended_s]
            events.append(
                {
                    "ph": "X",
                    "name": span.name,
                    "pid": process,
                    "tid": row,
                    "ts": round((span.started_s - begin) * 1e6),
                    "dur": round((span.ended_s - span.started_s) * 1e6),
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def lanes(spans: Sequence[Span]) -> list[str]:
    """Names of the lanes: the learner first, the others by first appearance."""
    names = dict.fromkeys(span.lane for span in spans)
    return sorted(names, key=lambda name: name != "learner")


def busy(spans: Sequence[Span], lane: str) -> list[tuple[float, float]]:
    """Disjoint intervals in which at least one span of the lane ran."""
    return merged([(span.started_s, span.ended_s) for span in spans if span.lane == lane])


def merged(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of intervals as disjoint intervals, in order."""
    union: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def gantt(spans: Sequence[Span], path: Path, *, seconds: float = 30.0) -> None:
    """Draws the last `seconds`: one row per lane, with one strip per kind of span."""
    from matplotlib.figure import Figure

    end = max(span.ended_s for span in spans)
    shown = [span for span in spans if span.ended_s > end - seconds]
    names = lanes(shown)
    figure = Figure(figsize=(14, 0.9 + 0.55 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for row, lane in enumerate(names):
        kinds = sorted({_kind(span) for span in shown if span.lane == lane})
        for index, kind in enumerate(kinds):
            mine = merged((s.started_s, s.ended_s) for s in shown if s.lane == lane and _kind(s) == kind)
            height = 0.8 / len(kinds)
            bars = [(start - end + seconds, stop - start) for start, stop in mine]
            axes.broken_barh(bars, (row - 0.4 + index * height, height), facecolors=f"C{row}", alpha=1 / (1 + index))
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, seconds)
    axes.set_xlabel(f"seconds (the last {seconds:g} of the run)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)


def _kind(span: Span) -> str:
    """The kind is the first word of the name."""
    return span.name.split(" ")[0]


def write_trace(run_dir: Path, *, seconds: float) -> str:
    """Writes trace.json and trace.png into the run directory; returns a line that tells how to open them."""
    spans = read_spans(run_dir / "trace.jsonl")
    try:
        (run_dir / "trace.json").write_text(json.dumps(chrome_trace(spans)))
        gantt(spans, run_dir / "trace.png", seconds=seconds)
    except OSError as error:
        raise UserError(f"{run_dir} cannot be written: {error.strerror}") from error
    return f"{len(spans)} spans: open {run_dir / 'trace.json'} in https://ui.perfetto.dev, or look at {run_dir / 'trace.png'}"
