"""Writes each update to the run log behind the training loop: while one update is written, the next is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from corewarding.dataflow.carriers import StepResult, UpdateReport
from corewarding.dataflow.ids import Source
from corewarding.dataflow.metrics import Metrics
from corewarding.launch.report.statistics import RunStatistics, UpdateTimes
from corewarding.launch.run.collapse_guard import CollapseGuard
from corewarding.launch.run.protocols import Log, RolloutWorkers


class UpdateWriter:
    """Invariant: updates are written in order, each once."""

    def __init__(
        self,
        log: Log,
        groups: Mapping[Source, RolloutWorkers],
        statistics: RunStatistics,
        collapse: CollapseGuard,
        start: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        """start: runs a task whose error ends the run."""
        self._log, self._groups, self._statistics, self._collapse, self._start = (
            log,
            groups,
            statistics,
            collapse,
            start,
        )
        self._last: asyncio.Task[None] | None = None

    def begin(
        self,
        result: StepResult,
        times: UpdateTimes,
        report: Awaitable[UpdateReport],
        published: Awaitable[Metrics] | None,
    ) -> None:
        """Starts to write an update. published: the publication that followed it, if one was due."""
        work = self._write(self._last, result, times, report, published, self._statistics.rates())
        self._last = self._start(work, f"log of update {result.version.updates}")

    async def written(self) -> None:
        """Returns when every update so far is in the log. Raises the error that kept one out of it."""
        if self._last is not None:
            await self._last

    async def _write(
        self,
        previous: asyncio.Task[None] | None,
        result: StepResult,
        times: UpdateTimes,
        reporting: Awaitable[UpdateReport],
        published: Awaitable[Metrics] | None,
        rates: Metrics,
    ) -> None:
        report = await reporting
        if previous is not None:
            await previous
        stats = {source: await group.stats() for source, group in self._groups.items()}
        sync = Metrics() if published is None else await published
        engines = [Metrics(scalars=one) for one in stats.values()]
        metrics = Metrics.union([result.metrics, report.metrics, times.metrics(), rates, sync, *engines])
        update = result.version.updates
        self._collapse.seen(update, metrics.scalars)
        self._statistics.sampled(
            report.spans,
            idle={source: one.get(f"rollout_{source}/idle_frac", 0.0) for source, one in stats.items()},
            staleness_mean=metrics.scalars["staleness/question_mean"],
            staleness_max=metrics.scalars["staleness/max"],
        )
        self._log.update(update, metrics, report.rows)
        self._log.trace([*times.spans(update), *report.spans])
