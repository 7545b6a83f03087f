"""Prometheus, through the metrics of Ray: its agent answers whoever scrapes it, and Ray's dashboard shows the same numbers.

Ray's agent forgets a value as soon as it has handed it on. So all values are given to it again and again: those of a run that stalls
must stay to be seen.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ray.util.metrics import Gauge

from corewarding.launch.report.board.grafana import BOUND, UPDATE, metric
from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.trackers.tracker import Report, RunFacts

REPEAT_S = 2.0
"""Seconds after which every value is given again."""


class Prometheus:
    """A Tracker. A gauge for each tag, with the run's name as its label, keeps the value of the newest update."""

    def __init__(self, run: RunFacts) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[str, float] = {}
        self._lock, self._ends = threading.Lock(), threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._repeat, name="values for Prometheus", daemon=True).start()
        self._set(UPDATE, "The number of the newest update.", self._run.resumed_at)
        self._set(
            BOUND, "The bound of staleness, staleness.max, in updates.", float(self._run.config["staleness.max"] or 0)
        )

    def report(self, report: Report) -> None:
        for name, value in report.scalars.items():
            self._set(metric(name), tag(name).text, value)
        self._set(UPDATE, "The number of the newest update.", report.update)

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        self._ends.set()

    def abandon(self) -> None:
        self._ends.set()

    def _repeat(self) -> None:
        while not self._ends.wait(REPEAT_S):
            with self._lock:
                for name, value in self._values.items():
                    self._gauges[name].set(value, {"run": self._run.name})

    def _set(self, name: str, text: str, value: float) -> None:
        with self._lock:
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, description=text, tag_keys=("run",))
            self._values[name] = float(value)
            self._gauges[name].set(float(value), {"run": self._run.name})
