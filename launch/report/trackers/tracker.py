"""The seam to a tracker: what it is told at the start, at each report, and at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a tracker must know of a run."""

    name: str
    project: str
    folder: Path  # the run directory
    config: Mapping[str, str | float | None]  # by section.key; secrets are masked
    resumed_at: int  # update after which the run goes on; 0 for a new run
    offline: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """What there is to show of one update, or of an evaluation after it."""

    update: int
    scalars: Mapping[str, float]  # by tag
    histograms: Mapping[str, NDArray[np.float32]] = field(
        default_factory=dict
    )  # by tag; [values] each, none of them empty
    rows: Sequence[Mapping[str, Any]] = ()  # of learner/replay/sample_log.py


class Tracker(Protocol):
    """One tracker. Its thread calls all methods but the last; what they raise ends the tracker, never the run."""

    def start(self) -> None: ...

    def report(self, report: Report) -> None: ...

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        """The end, after which nothing is called. summary: of summary.json, by section.key; empty if the run did not finish."""

    def abandon(self) -> None:
        """Ends, from another thread, what hangs."""


class Client(Protocol):
    """What a tracker's package needs in its own process, made of RunFacts. Methods as those of Tracker."""

    def report(self, report: Report) -> None: ...

    def finish(self, summary: Mapping[str, str | float | None]) -> None: ...


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | None]:
    """Nested keys joined by dots; a list becomes its text."""
    found: dict[str, str | float | None] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str | int | float) or value is None else str(value)
    return found
