"""Compares two evaluations of the same questions: differences with intervals, or an error if they are not comparable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corewarding.evals.estimates import bootstrap_interval
from corewarding.evals.record import EvalError, EvalRecord, differences

_MAY_DIFFER = (
    "model.",
    "prompt.template",
    "sampling.seed",
)  # the models are compared; their templates and seeds may differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference of one quantity: second minus first, paired by question, with a 95% interval."""

    name: str
    first: float
    second: float
    interval: tuple[float, float]


def compare(first: EvalRecord, second: EvalRecord) -> list[Difference]:
    """Differences of the greedy accuracy and, if there are samples, of mean@n and maj@n.

    EvalError if data, system prompt, sampling or grading differ, because the result would not show a difference of the models.
    """
    found = [key for key in differences(first.manifest, second.manifest) if not key.startswith(_MAY_DIFFER)]
    if found:
        remedy = (
            f"`corewarding eval --regrade` both ({first.folder}, {second.folder})"
            if all(key.startswith("grading") for key in found)
            else "evaluate both in the same way"
        )
        raise EvalError(
            f"{first.folder} and {second.folder} cannot be compared: they differ in {', '.join(found)}; {remedy}"
        )
    scores = [{score.question_id: score for score in record.scores()} for record in (first, second)]
    if scores[0].keys() != scores[1].keys():
        raise EvalError(
            f"{first.folder} and {second.folder} have grades of different questions: one of them is not finished"
        )
    ids = sorted(scores[0])
    samples = first.manifest["sampling"]["samples"]
    quantities = {"greedy": lambda score: float(score.greedy)}
    if samples:
        quantities |= {
            f"mean@{samples}": lambda score: score.mean,
            f"maj@{samples}": lambda score: float(score.majority),
        }
    rows = []
    for name, value in quantities.items():
        one, other = (np.array([value(by_id[question]) for question in ids]) for by_id in scores)
        rows.append(
            Difference(name=name, first=one.mean(), second=other.mean(), interval=bootstrap_interval(list(other - one)))
        )
    return rows
