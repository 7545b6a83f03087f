"""Metrics and spans of an update's samples: ages, lengths by fate, why advantages are zero, and how long sampling took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from corewarding.dataflow.carriers import Completion, QuestionRollouts, ScoredGroup, TrainingSample
from corewarding.dataflow.ids import AskedId
from corewarding.dataflow.metrics import Metrics
from corewarding.dataflow.spans import Span
from corewarding.learner.objective.advantages import ZeroCause, zero_cause
from corewarding.learner.replay.events import Event, GroupAccepted, QuestionEvicted, UpdateScored

Fate = Literal["generated", "trained", "withheld", "dropped"]


class Lengths:
    """Tokens per completion since the last report, by fate. Dropping favours short completions; compare the distributions."""

    def __init__(self) -> None:
        self._tokens: dict[Fate, list[int]] = {fate: [] for fate in get_args(Fate)}

    def record(self, event: Event) -> None:
        """Notes the lengths of one event's completions. Refused groups and skipped completions are not included."""
        match event:
            case GroupAccepted(completions=completions):
                self._add("generated", completions)
            case QuestionEvicted(completions=completions):
                self._add("dropped", completions)
            case UpdateScored(trained=trained, withheld=withheld):
                self._add("trained", trained)
                self._add("withheld", withheld)

    def report(self) -> Metrics:
        """Histograms `length/<fate>_tokens` and their means; starts afresh."""
        metrics = Metrics(
            scalars={
                f"length/{fate}_tokens_mean": float(np.mean(values)) for fate, values in self._tokens.items() if values
            },
            histograms={f"length/{fate}_tokens": np.array(values, np.float32) for fate, values in self._tokens.items()},
        )
        self._tokens = {fate: [] for fate in self._tokens}
        return metrics

    def state(self) -> dict[str, Any]:
        """The lengths since the last report; JSON-ready."""
        return {fate: list(tokens) for fate, tokens in self._tokens.items()}

    @classmethod
    def of(cls, state: Mapping[str, list[int]]) -> Lengths:
        """The same lengths as those of `state()`."""
        lengths = cls()
        lengths._tokens = {fate: list(state[fate]) for fate in lengths._tokens}
        return lengths

    def _add(self, fate: Fate, completions: Sequence[Completion] | Sequence[TrainingSample]) -> None:
        self._tokens[fate] += [len(one.token_ids) for one in completions]


def staleness(
    trained: Sequence[TrainingSample],
    taken: Sequence[QuestionRollouts],
    ready_at: Mapping[AskedId, int],
    *,
    version: int,
) -> Metrics:
    """Ages in updates at the update that makes `version + 1`.

    staleness/token: of every trained token. staleness/question: of the oldest trained token of each question. It has two parts:
    staleness/in_flight until the question was ready, staleness/in_buffer from then on. staleness/label: of the oldest token of
    each label. ready_at: updates done when a question became ready.
    """
    tokens = np.concatenate([np.empty(0, np.float32), *(version - s.token_versions for s in trained)]).astype(
        np.float32
    )
    oldest: dict[AskedId, int] = {}
    for sample in trained:
        asked = sample.id.group.asked
        oldest[asked] = min(oldest.get(asked, version), int(sample.token_versions[0]))
    questions = np.array([version - v for v in oldest.values()], np.float32)
    in_flight = np.array([max(0, ready_at[asked] - v) for asked, v in oldest.items()], np.float32)
    histograms = {
        "staleness/token": tokens,
        "staleness/question": questions,
        "staleness/in_flight": in_flight,
        "staleness/in_buffer": questions - in_flight,
    }
    scalars = {f"{key}_mean": float(ages.mean()) if ages.size else 0.0 for key, ages in histograms.items()}
    scalars["staleness/max"] = float(questions.max()) if questions.size else 0.0
    teachers = [v for v in (rollouts.oldest_version("teacher") for rollouts in taken) if v is not None]
    if teachers:
        labels = np.array([version - v for v in teachers], np.float32)
        scalars |= {"staleness/label_mean": float(labels.mean()), "staleness/label_max": float(labels.max())}
        histograms["staleness/label"] = labels
    return Metrics(scalars=scalars, histograms=histograms)


def zero_advantages(groups: Sequence[ScoredGroup]) -> Metrics:
    """`advantage/num_zero_<cause>`: how many trained groups have only zero advantages, by cause."""
    causes = Counter(zero_cause(group) for group in groups)
    return Metrics(scalars={f"advantage/num_zero_{cause}": float(causes[cause]) for cause in get_args(ZeroCause)})


def rollout_times(taken: Sequence[QuestionRollouts]) -> Metrics:
    """Mean seconds from the start to the end of a completion's sampling, and the share of completions with tokens of two versions."""
    completions = [completion for rollouts in taken for completion in rollouts.completions]
    started = np.array([c.timings.started_s for c in completions])
    finished = np.array([c.timings.finished_s for c in completions])
    mixed = [c.token_versions[0] != c.token_versions[-1] for c in completions]
    return Metrics(
        scalars={
            "rollout/latency_s": float((finished - started).mean()),
            "rollout/mixed_version_frac": float(np.mean(mixed)),
        }
    )


def sampling_spans(taken: Sequence[QuestionRollouts]) -> tuple[Span, ...]:
    """One span per group, in the lane of the actor that sampled it."""
    return tuple(
        Span(
            lane=group[0].actor_id,
            name=f"sample {name}",
            started_s=min(c.timings.started_s for c in group),
            ended_s=max(c.timings.finished_s for c in group),
        )
        for rollouts in taken
        for name, group in rollouts.groups.items()
    )
