"""Short, real carriers for tests: completions with a given answer and version, and whole groups of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corewarding.dataflow.carriers import Completion, Timings
from corewarding.dataflow.ids import AskedId, Source, View


def fake_group(
    question_id: str,
    answers: Sequence[str | None],
    *,
    view: View = "original",
    source: Source = "policy",
    epoch: int = 0,
    version: int = 0,
    length: int = 3,
    incarnation: int = 0,
) -> list[Completion]:
    """One completion per answer, of `length` tokens, all sampled by the weights `version`."""
    group = AskedId(question_id=question_id, epoch=epoch).group(view, source)
    return [
        Completion(
            id=group.completion(index),
            incarnation=incarnation,
            attempt=0,
            prompt_token_ids=np.arange(1, 5),
            token_ids=np.arange(10, 10 + length),
            behavior_logprobs=np.full(length, -0.5),
            token_versions=np.full(length, version),
            temperature=1.0,
            text="no box" if answer is None else f"so \\boxed{{{answer}}}",
            answer=answer,
            finish_reason="stop",
            actor_id="fake",
            timings=Timings(submitted_s=1.0, started_s=2.0, finished_s=3.0),
        )
        for index, answer in enumerate(answers)
    ]
