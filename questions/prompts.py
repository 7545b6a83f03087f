"""Makes the templated prompts of a QuestionSet. A question is dropped if the prompt of any view is too long; no prompt is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corewarding.dataflow.carriers import Int32, Question
from corewarding.dataflow.errors import DataSetError
from corewarding.dataflow.ids import View
from corewarding.questions.load import QuestionSet
from corewarding.questions.template import PromptTemplate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedQuestions:
    """The questions that are asked, with their prompts."""

    questions: list[Question]  # in the order of the set
    prompts: dict[tuple[str, View], Int32]  # (question id, view) → [P]
    num_dropped: int
    longest: int  # tokens of the longest prompt that was kept


def prepare(
    question_set: QuestionSet,
    template: PromptTemplate,
    *,
    views: Sequence[View],
    max_prompt_tokens: int,
    max_model_len: int | None = None,
    max_new_tokens: int | None = None,
) -> PreparedQuestions:
    """Prompts of `views` for every question that has none longer than `max_prompt_tokens`.

    max_model_len: most tokens of prompt and completion together; checked with `max_new_tokens` where both are given.
    DataSetError: no question remains, or the longest prompt leaves room for fewer than `max_new_tokens`.
    DataError: a question has no wording for a view.
    """
    asked = question_set.questions
    columns = {view: template.batch_token_ids([question.wording(view) for question in asked]) for view in views}
    lengths = [max(len(columns[view][row]) for view in views) for row in range(len(asked))]
    kept = [row for row, length in enumerate(lengths) if length <= max_prompt_tokens]
    if not kept:
        shortest = f"the shortest has {min(lengths)} tokens" if lengths else "there are none"
        raise DataSetError(
            f"{question_set.source}: no question remains under data.max_prompt_tokens={max_prompt_tokens} (of "
            f"{len(lengths)}, templated, {shortest}); raise data.max_prompt_tokens"
        )
    longest = max(lengths[row] for row in kept)
    if max_model_len is not None and max_new_tokens is not None and longest + max_new_tokens > max_model_len:
        raise DataSetError(
            f"the longest prompt ({longest} tokens) and rollout.max_new_tokens={max_new_tokens} make "
            f"{longest + max_new_tokens} tokens, over the model's {max_model_len} (engine.max_model_len, or its "
            f"own max_position_embeddings); lower rollout.max_new_tokens to {max(0, max_model_len - longest)} or "
            "data.max_prompt_tokens, or raise engine.max_model_len"
        )
    questions = [asked[row] for row in kept]
    prompts = {(asked[row].id, view): columns[view][row] for row in kept for view in views}
    return PreparedQuestions(
        questions=questions, prompts=prompts, num_dropped=len(lengths) - len(kept), longest=longest
    )
