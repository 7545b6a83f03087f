"""Prometheus, through the metrics of Ray: its agent answers whoever scrapes it, and Ray's dashboard shows the same numbers."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

from corewarding.launch.report.board.grafana import BOUND, UPDATE, metric
from corewarding.launch.report.board.tags import tag
from corewarding.launch.report.trackers.tracker import Report, RunFacts


class Prometheus:
    """A Tracker. A gauge for each tag, with the run's name as its label, keeps the value of the newest update."""

    def __init__(self, run: RunFacts) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def start(self) -> None:
        self._set(UPDATE, "The number of the newest update.", self._run.resumed_at)
        self._set(
            BOUND, "The bound of staleness, staleness.max, in updates.", float(self._run.config["staleness.max"] or 0)
        )

    def report(self, report: Report) -> None:
        for name, value in report.scalars.items():
            self._set(metric(name), tag(name).text, value)
        self._set(UPDATE, "The number of the newest update.", report.update)

    def finish(self, summary: Mapping[str, str | float | None]) -> None:
        """Nothing is left to send."""

    def abandon(self) -> None:
        """Nothing is left: its thread ends with the run's process."""

    def _set(self, name: str, text: str, value: float) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description=text, tag_keys=("run",))
        self._gauges[name].set(float(value), {"run": self._run.name})
