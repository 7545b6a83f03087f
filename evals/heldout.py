"""Scores completions against known answers. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from corewarding.dataflow.carriers import Completion, FinishReason
from corewarding.evals.estimates import bootstrap_interval, ks_of, pass_at_k
from corewarding.questions.gold import GoldAnswers
from corewarding.rewards.answers.grading import grade
from corewarding.rewards.answers.key import answer_key, canonical_key
from corewarding.rewards.answers.structure import Units
from corewarding.rewards.voting import majority_vote

GREEDY_EPOCH, SAMPLED_EPOCH = -1, -2  # never used by training, so its random streams are others


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The part of a completion that is kept for grading."""

    question_id: str
    greedy: bool  # at temperature 0; else one of the n samples
    sample_index: int
    text: str
    answer: str | None
    finish_reason: FinishReason
    num_tokens: int

    @classmethod
    def of(cls, completion: Completion) -> Generation:
        return cls(
            question_id=completion.id.question_id,
            greedy=completion.id.epoch == GREEDY_EPOCH,
            sample_index=completion.id.sample_index,
            text=completion.text,
            answer=completion.answer,
            finish_reason=completion.finish_reason,
            num_tokens=len(completion.token_ids),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionScore:
    """Which answers to one question are right."""

    question_id: str
    greedy: bool
    samples: tuple[bool, ...]  # by sample index; () if only a greedy answer was sampled
    elected: str | None  # the answer that the n samples vote for
    majority: bool

    @property
    def mean(self) -> float:
        return float(np.mean(self.samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Shares of right answers: `mean`, `maj` and `pass_at` of n samples at a temperature, `greedy` of one at temperature 0.

    Intervals are 95% intervals by bootstrap over questions; () if there is no value.
    """

    num_questions: int
    n: int
    greedy: float
    mean: float | None = None  # None if only a greedy answer was sampled
    maj: float | None = None
    pass_at: dict[int, float] = field(default_factory=dict)  # k → pass@k
    mean_interval: tuple[float, ...] = ()
    greedy_interval: tuple[float, ...] = ()
    no_answer_frac: float = 0.0
    text_answer_frac: float = 0.0  # share of answers that can only be compared as texts
    truncated_frac: float = 0.0
    mean_length: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            f"mean@{self.n}": self.mean,
            f"maj@{self.n}": self.maj,
            "greedy": self.greedy,
            **{f"pass@{k}": value for k, value in self.pass_at.items()},
            "mean_interval": list(self.mean_interval),
            "greedy_interval": list(self.greedy_interval),
            "num_questions": self.num_questions,
            "no_answer_frac": self.no_answer_frac,
            "text_answer_frac": self.text_answer_frac,
            "truncated_frac": self.truncated_frac,
            "mean_length": self.mean_length,
        }

    @property
    def score(self) -> float:
        """By which weights are compared: the mean of the samples, or the greedy accuracy if there are none."""
        return self.greedy if self.mean is None else self.mean

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalResult:
        """The result that `as_dict` described; lists from JSON become tuples."""
        n = next(int(key.removeprefix("mean@")) for key in values if key.startswith("mean@"))
        fields: dict[str, Any] = {
            k: tuple(v) if k.endswith("interval") else v for k, v in values.items() if "@" not in k
        }
        fields["pass_at"] = {int(k.removeprefix("pass@")): v for k, v in values.items() if k.startswith("pass@")}
        return cls(n=n, mean=values[f"mean@{n}"], maj=values[f"maj@{n}"], **fields)


def score_completions(
    completions: Sequence[Completion], gold: GoldAnswers, *, n: int, units: Units = "drop"
) -> EvalResult:
    """`summarize` of completions that are not scored yet. units: as in a run's votes."""
    generations = [Generation.of(completion) for completion in completions]
    return summarize(score_questions(generations, gold, units=units), generations, n=n)


def score_questions(
    generations: Sequence[Generation], gold: GoldAnswers, *, units: Units = "drop"
) -> list[QuestionScore]:
    """Scores by id of the questions that were asked greedily and have a known answer. ValueError if there are none."""
    key = partial(answer_key, units=units)
    groups: dict[str, list[Generation]] = defaultdict(list)
    for generation in sorted(generations, key=lambda g: (g.question_id, not g.greedy, g.sample_index)):
        groups[generation.question_id].append(generation)
    scores = []
    for question_id, (first, *others) in groups.items():
        right = gold.read(question_id, reader="eval") if first.greedy else None
        if right is not None:
            elected = majority_vote([g.answer for g in others], key=key).answer
            scores.append(
                QuestionScore(
                    question_id=question_id,
                    greedy=grade(first.answer, right, units=units),
                    samples=tuple(grade(g.answer, right, units=units) for g in others),
                    elected=elected,
                    majority=grade(elected, right, units=units),
                )
            )
    if not scores:
        raise ValueError("no held-out question has an answer: nothing can be evaluated")
    return scores


def summarize(scores: Sequence[QuestionScore], generations: Sequence[Generation], *, n: int) -> EvalResult:
    """Means over questions; lengths and other shares over all generations, those of questions without an answer included."""
    sampled = [score for score in scores if score.samples]
    answers = [g.answer for g in generations if g.answer is not None]
    untold = [canonical_key(answer).kind in ("text", "unevaluated") for answer in answers]
    greedy = [float(score.greedy) for score in scores]
    means = [score.mean for score in sampled]
    fewest = min((len(score.samples) for score in sampled), default=0)
    return EvalResult(
        num_questions=len(scores),
        n=n,
        greedy=float(np.mean(greedy)),
        mean=float(np.mean(means)) if means else None,
        maj=float(np.mean([score.majority for score in sampled])) if sampled else None,
        pass_at={
            k: float(np.mean([pass_at_k(len(score.samples), sum(score.samples), k) for score in sampled]))
            for k in ks_of(fewest)
        },
        mean_interval=bootstrap_interval(means) if means else (),
        greedy_interval=bootstrap_interval(greedy),
        no_answer_frac=float(np.mean([g.answer is None for g in generations])),
        text_answer_frac=float(np.mean(untold)) if untold else 0.0,
        truncated_frac=float(np.mean([g.finish_reason == "length" for g in generations])),
        mean_length=float(np.mean([g.num_tokens for g in generations])),
    )
