"""Hand-made rollouts: a group is written as its answers in the order of sample index."""

from __future__ import annotations

from collections.abc import Sequence

from corewarding.dataflow.carriers import Completion, FinishReason, QuestionRollouts
from corewarding.dataflow.ids import AskedId, GroupId, Source, View
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.rules.contract import RuleContext
from corewarding.rewards.similarity import ngram_similarity
from tests.fakes import fake_completion


def key(answer: str) -> str:
    return answer_key(answer, equivalence="canonical")


def completion(
    group: GroupId,
    sample_index: int,
    answer: str | None,
    *,
    versions: Sequence[int] = (0, 0, 0),
    finish_reason: FinishReason = "stop",
) -> Completion:
    return fake_completion(group.completion(sample_index), answer, versions=versions, finish_reason=finish_reason)


def group_of(answers: Sequence[str | None], *, group: GroupId | None = None) -> tuple[Completion, ...]:
    group = group or AskedId(question_id="q", epoch=0).group("original", "policy")
    return tuple(completion(group, index, answer) for index, answer in enumerate(answers))


def rollouts_of(answers: dict[tuple[View, Source], Sequence[str | None]], *, question: str = "q") -> QuestionRollouts:
    groups = {AskedId(question_id=question, epoch=0).group(v, s): row for (v, s), row in answers.items()}
    return QuestionRollouts(
        asked=AskedId(question_id=question, epoch=0),
        groups={group: group_of(row, group=group) for group, row in groups.items()},
    )


def context_of(**changes: object) -> RuleContext:
    """Everything that a rule may need, but gold answers and statistics."""
    fields: dict[str, object] = {
        "key": key,
        "min_share": 0.0,
        "run_seed": 7,
        "initial": lambda question, view: ["1", "1", "2", None],
        "similarity": lambda completions: ngram_similarity(completions, n=3),
    }
    return RuleContext(**(fields | changes))  # type: ignore[arg-type]
