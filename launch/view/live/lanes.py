"""Who does what, and when: the newest spans of trace.jsonl as bars in one lane for each process, coloured by the weights' version.

An actor samples with the version whose publication on its channel ended last, so its bars are parted where one ended.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from corewarding.dataflow.spans import Span
from corewarding.launch.report.files import rows_in
from corewarding.launch.report.trace import lanes, merged

TAIL_BYTES = 2**21
"""About 13,000 spans: no more of the trace is read."""
FINEST = 1000
"""Bars of one version in a lane that are closer than this part of the shown time are drawn as one."""
_WEIGHTS = "weights to "
_NUMBERED = re.compile(r"(update|publish) (\d+)")


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that a lane did. version: of the weights that it made, sent or sampled with; None of a wait."""

    kind: str
    started_s: float
    ended_s: float
    version: int | None


def newest_spans(path: Path) -> list[Span]:
    """The spans in the last TAIL_BYTES, ordered by start; lines that are none are left out."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        rows = rows_in(file.read())
    names = {field.name for field in fields(Span)}
    whole = [row for row in rows if row.keys() == names and _is_span(row)]
    return sorted((Span(**row) for row in whole), key=lambda span: span.started_s)


def lanes_of(spans: Sequence[Span], updates: int) -> dict[str, Any]:
    """The lanes of the newest `updates` updates, JSON-ready: times are milliseconds since `began_s`."""
    made = [span for span in spans if span.lane == "learner" and span.name.startswith("update")]
    if not made:
        return {"began_s": 0.0, "length_ms": 0, "lanes": []}
    first = made[-min(updates, len(made))]
    waits = [span.started_s for span in spans if span.lane == "learner" and span.ended_s == first.started_s]
    began, ended = min([first.started_s, *waits]), max(span.ended_s for span in spans)
    published = _publications(spans)
    shown = [span for span in spans if span.ended_s > began]
    finest = (ended - began) / FINEST
    found = [
        {"lane": lane, "bars": [_row(bar, began) for bar in _bars(shown, lane, published, finest, began)]}
        for lane in lanes(shown)
    ]
    return {"began_s": began, "length_ms": round((ended - began) * 1000), "lanes": found}


def _is_span(row: dict[str, Any]) -> bool:
    return all(isinstance(row[name], str) for name in ("lane", "name")) and all(
        isinstance(row[name], int | float) for name in ("started_s", "ended_s")
    )


def _publications(spans: Iterable[Span]) -> dict[str, list[tuple[float, int]]]:
    """For each channel when its publications ended, and their versions, in order."""
    found: dict[str, list[tuple[float, int]]] = {}
    for span in spans:
        if span.lane.startswith(_WEIGHTS) and (number := _number(span)) is not None:
            found.setdefault(span.lane.removeprefix(_WEIGHTS), []).append((span.ended_s, number))
    return {channel: sorted(ends) for channel, ends in found.items()}


def _bars(
    spans: Sequence[Span], lane: str, published: dict[str, list[tuple[float, int]]], finest: float, began: float
) -> list[Bar]:
    mine = [span for span in spans if span.lane == lane]
    channel = next((name for name in published if lane.startswith(f"{name}-")), None)
    if channel is None:
        return [Bar(_kind(span), max(began, span.started_s), span.ended_s, _number(span)) for span in mine]
    busy = merged((max(began, span.started_s), span.ended_s) for span in mine)
    return _joined([bar for start, end in busy for bar in _parted(start, end, published[channel])], finest)


def _parted(start: float, end: float, published: Sequence[tuple[float, int]]) -> list[Bar]:
    """The interval, parted where a publication ended in it."""
    at = bisect_right(published, start, key=lambda one: one[0])
    version = published[at - 1][1] if at else None
    found = []
    for moment, next_version in published[at:]:
        if moment >= end:
            break
        found.append(Bar("sample", start, moment, version))
        start, version = moment, next_version
    return [*found, Bar("sample", start, end, version)]


def _joined(bars: Sequence[Bar], finest: float) -> list[Bar]:
    found: list[Bar] = []
    for bar in bars:
        if found and found[-1].version == bar.version and bar.started_s - found[-1].ended_s < finest:
            found[-1] = Bar(bar.kind, found[-1].started_s, bar.ended_s, bar.version)
        else:
            found.append(bar)
    return found


def _row(bar: Bar, began: float) -> list[Any]:
    return [bar.kind, round((bar.started_s - began) * 1000), round((bar.ended_s - began) * 1000), bar.version]


def _kind(span: Span) -> str:
    return span.name.split(" ")[0]


def _number(span: Span) -> int | None:
    found = _NUMBERED.fullmatch(span.name)
    return int(found[2]) if found else None
