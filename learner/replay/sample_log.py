"""Rows of the sample log: for a few questions of an update, every completion with its answer, vote and reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.ids import CompletionId, drawn
from corewarding.rewards.advantages import Normalize, advantages_of


def sample_rows(
    taken: Sequence[QuestionRollouts],
    scored: Sequence[ScoredGroup],
    *,
    update: int,
    num_questions: int,
    normalize: Normalize = "std",
) -> list[dict[str, Any]]:
    """One JSON-ready row per completion of at most `num_questions` drawn questions, completions that only vote included.

    A row says which actor and weights wrote the completion and what it answered. If its group is trained, the row also has the
    label, the reward and the advantage.
    """
    judged: dict[CompletionId, tuple[ScoredGroup, float, float]] = {}
    shown = drawn((rollouts.asked for rollouts in taken), update=update, num=num_questions)
    for group in (group for group in scored if group.id.asked in shown):
        advantages = advantages_of(group, normalize=normalize)
        for completion, reward, advantage in zip(group.completions, group.rewards, advantages, strict=True):
            judged[completion.id] = (group, float(reward), float(advantage))
    rows = []
    for rollouts in (rollouts for rollouts in taken if rollouts.asked in shown):
        for completion in rollouts.completions:
            row: dict[str, Any] = {
                "update": update,
                "id": str(completion.id),
                "question": completion.id.question_id,
                "view": completion.id.view,
                "source": completion.id.source,
                "text": completion.text,
                "answer": completion.answer,
                "finish_reason": completion.finish_reason,
                "num_tokens": len(completion.token_ids),
                "versions": [int(completion.token_versions[0]), int(completion.token_versions[-1])],
                "actor": completion.actor_id,
                "started_s": completion.timings.started_s,
                "finished_s": completion.timings.finished_s,
            }
            if completion.id in judged:
                group, reward, advantage = judged[completion.id]
                row |= {"label": group.label, "reward": reward, "advantage": advantage, "abstained": group.abstained}
                if group.weights is not None:
                    row["weight"] = float(group.weights[0])
                if group.vote is not None:
                    row |= {
                        "vote_share": group.vote.share,
                        "votes": {c.answer: len(c.sample_indices) for c in group.vote.classes},
                    }
            rows.append(row)
    return rows
