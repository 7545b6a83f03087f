"""Short, real carriers for tests: tasks, completions with a given answer and versions, and groups of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corewarding.dataflow.carriers import Completion, FinishReason, Int32, RolloutTask, Timings
from corewarding.dataflow.ids import AskedId, CompletionId, Source, View


def fake_task(
    question_id: str,
    prompt_token_ids: Int32,
    *,
    group_size: int = 2,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    source: Source = "policy",
    attempt: int = 0,
    run_seed: int = 0,
) -> RolloutTask:
    return RolloutTask(
        id=AskedId(question_id=question_id, epoch=0).group("original", source),
        incarnation=0,
        attempt=attempt,
        group_size=group_size,
        prompt_token_ids=prompt_token_ids,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        run_seed=run_seed,
    )


def fake_completion(
    id_: CompletionId,
    answer: str | None,
    *,
    versions: Sequence[int] = (0, 0, 0),
    incarnation: int = 0,
    finish_reason: FinishReason = "stop",
) -> Completion:
    """One token for each of `versions`."""
    length = len(versions)
    return Completion(
        id=id_,
        incarnation=incarnation,
        attempt=0,
        prompt_token_ids=np.arange(1, 5),
        token_ids=np.arange(10, 10 + length),
        behavior_logprobs=np.full(length, -0.5),
        token_versions=np.array(versions),
        temperature=1.0,
        text="no box" if answer is None else f"so \\boxed{{{answer}}}",
        answer=answer,
        finish_reason=finish_reason,
        actor_id="fake",
        timings=Timings(submitted_s=1.0, started_s=2.0, finished_s=3.0),
    )


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
        fake_completion(group.completion(index), answer, versions=(version,) * length, incarnation=incarnation)
        for index, answer in enumerate(answers)
    ]
