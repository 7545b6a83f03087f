"""Measures where a run's time goes: per update for the log, and over the run for summary.json.

All moments are of dataflow.spans.now_s, which no setting of the wall clock moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from corewarding.dataflow.ids import Source
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span, now_s
from corewarding.launch.report.trace import merged

Moment = Literal["before", "quick", "after"]
"""When an evaluation takes place: before or after training, or `quick` during it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateTimes:
    """The moments of one turn of the training loop, in seconds of `now_s`."""

    asked: float  # the learner is free and the loop asks for a batch
    began: float  # the batch is here and the update begins
    ended: float
    published: float  # the weights that were due have left the learner

    @property
    def wait_s(self) -> float:
        return self.began - self.asked

    @property
    def update_s(self) -> float:
        return self.ended - self.began

    @property
    def publish_s(self) -> float:
        return self.published - self.ended

    def metrics(self) -> Metrics:
        """Durations, and when the update began and ended."""
        return Metrics(
            scalars={
                "time/learner_wait_s": self.wait_s,
                "time/update_s": self.update_s,
                "time/update_started_s": self.began,
                "time/update_ended_s": self.ended,
                "time/publish_s": self.publish_s,
                "time/total_s": self.published - self.asked,
            }
        )

    def spans(self, update: int) -> list[Span]:
        """The learner's lane: its wait for the batch and the update."""
        return [
            Span("learner", "wait", self.asked, self.began),
            Span("learner", f"update {update}", self.began, self.ended),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobDifferences:
    """|engine - learner| of the log-probabilities of the self-test's tokens."""

    mean: float
    p99: float
    highest: float
    num_tokens: int


class RunStatistics:
    """Adds up the updates of this process; a resumed run starts from zero."""

    def __init__(self) -> None:
        self._started = self._stopped = now_s()
        self._running = False
        self._times: list[UpdateTimes] = []
        self._num_trained = 0
        self._waited_s = 0.0
        self._sampling: list[tuple[float, float]] = []  # per update
        self._idle: list[Mapping[Source, float]] = []  # per update, share of the time
        self._staleness: list[tuple[float, float]] = []  # per update: mean and max

    def start(self) -> None:
        """The training loop starts."""
        self._started, self._running = now_s(), True

    def stop(self) -> None:
        """The training loop ended."""
        self._stopped, self._running = now_s(), False

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far."""
        return (now_s() if self._running else self._stopped) - self._started

    @property
    def num_trained(self) -> int:
        """Samples trained on by this process."""
        return self._num_trained

    def updated(self, times: UpdateTimes, *, num_samples: int) -> None:
        """Counts one update."""
        self._times.append(times)
        self._waited_s += times.wait_s
        self._num_trained += num_samples

    def sampled(
        self, spans: Sequence[Span], *, idle: Mapping[Source, float], staleness_mean: float, staleness_max: float
    ) -> None:
        """Counts the samples of one update. spans: when its groups were sampled; idle: share of the time without work."""
        if spans:
            self._sampling.append((min(span.started_s for span in spans), max(span.ended_s for span in spans)))
        self._idle.append(idle)
        self._staleness.append((staleness_mean, staleness_max))

    def rates(self) -> Metrics:
        """Throughput and the learner's idle share since the start."""
        elapsed = max(self.elapsed_s, 1e-9)
        return Metrics(
            scalars={
                "throughput/completions_per_s": self._num_trained / elapsed,
                "time/learner_idle_frac": self._waited_s / elapsed,
            }
        )

    @property
    def overlap_frac(self) -> float:
        """Share of the updating time in which samples of some update were being made."""
        sampling = merged(self._sampling)
        updating = [(times.began, times.ended) for times in self._times]
        both = sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end in updating for start, stop in sampling)
        return both / max(sum(end - begin for begin, end in updating), 1e-9)

    def summary(self) -> dict[str, Any]:
        """The measured part of summary.json."""
        elapsed = max(self.elapsed_s, 1e-9)
        sources = self._idle[0] if self._idle else {}
        return {
            "train_wall_s": elapsed,
            "completions_per_s": self._num_trained / elapsed,
            "learner_idle_frac": self._waited_s / elapsed,
            "learner_update_s": sum(times.update_s for times in self._times),
            "publish_s": sum(times.publish_s for times in self._times),
            "actors_idle_frac": {
                source: sum(one[source] for one in self._idle) / len(self._idle) for source in sources
            },
            "overlap_frac": self.overlap_frac,
            "staleness_mean": sum(mean for mean, _ in self._staleness) / max(1, len(self._staleness)),
            "staleness_max": max((most for _, most in self._staleness), default=0.0),
        }
