"""Held-out accuracy: pure scoring of completions against held answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataflow.types import Completion
from questions.gold import GoldAnswers
from rewards.canonical import answer_key
from rewards.grading import grade
from rewards.voting import vote

GREEDY_EPOCH, SAMPLED_EPOCH = -1, -2  # keep evaluation's streams apart from training's


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Shares of right answers. `mean` and `maj` are over n samples at a temperature, `greedy` over one at temperature 0."""

    num_questions: int
    n: int
    greedy: float
    mean: float | None = None  # None where only the greedy answer was taken
    maj: float | None = None
    no_answer_frac: float = 0.0
    truncated_frac: float = 0.0
    mean_length: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            f"mean@{self.n}": self.mean,
            f"maj@{self.n}": self.maj,
            "greedy": self.greedy,
            "num_questions": self.num_questions,
            "no_answer_frac": self.no_answer_frac,
            "truncated_frac": self.truncated_frac,
            "mean_length": self.mean_length,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EvalResult:
        n = next(int(key.removeprefix("mean@")) for key in values if key.startswith("mean@"))
        rest = {k: v for k, v in values.items() if "@" not in k}
        return cls(n=n, mean=values[f"mean@{n}"], maj=values[f"maj@{n}"], **rest)


def score_completions(completions: Sequence[Completion], gold: GoldAnswers, *, n: int) -> EvalResult:
    """Questions without a held answer are left out. ValueError where none has one."""
    greedy: dict[str, Completion] = {}
    sampled: dict[str, list[Completion]] = {}
    for completion in completions:
        if completion.id.epoch == GREEDY_EPOCH:
            greedy[completion.id.question_id] = completion
        else:
            sampled.setdefault(completion.id.question_id, []).append(completion)
    answers = {question: gold.read(question, reader="eval") for question in greedy}
    right = {question: answer for question, answer in answers.items() if answer is not None}
    if not right:
        raise ValueError("no held-out question has an answer: nothing can be evaluated")
    means = [np.mean([grade(c.answer, right[q]) for c in group]) for q, group in sampled.items() if q in right]
    votes = [
        grade(vote(group, key=answer_key, min_share=0).answer, right[q]) for q, group in sampled.items() if q in right
    ]
    return EvalResult(
        num_questions=len(right),
        n=n,
        greedy=float(np.mean([grade(greedy[q].answer, answer) for q, answer in right.items()])),
        mean=float(np.mean(means)) if means else None,
        maj=float(np.mean(votes)) if votes else None,
        no_answer_frac=float(np.mean([c.answer is None for c in completions])),
        truncated_frac=float(np.mean([c.truncated for c in completions])),
        mean_length=float(np.mean([len(c.token_ids) for c in completions])),
    )
