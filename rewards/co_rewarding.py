"""Co-rewarding (arXiv 2508.00410): a view is labelled by the other view (I), by the teacher (II), or by both ideas (III)."""

from __future__ import annotations

from dataflow.types import QuestionRollouts, ScoredGroup, Source, View
from rewards.context import RuleContext, judge


def co_rewarding_i(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Each wording is judged by the policy's vote on the *other* wording."""
    return [
        _labelled(rollouts, context, trained="original", voting=("rephrased", "policy")),
        _labelled(rollouts, context, trained="rephrased", voting=("original", "policy")),
    ]


def co_rewarding_ii(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """The original wording is judged by the EMA teacher's vote on it."""
    return [_labelled(rollouts, context, trained="original", voting=("original", "teacher"))]


def co_rewarding_iii(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Each wording is judged by the EMA teacher's vote on the *other* wording."""
    return [
        _labelled(rollouts, context, trained="original", voting=("rephrased", "teacher")),
        _labelled(rollouts, context, trained="rephrased", voting=("original", "teacher")),
    ]


def _labelled(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: View, voting: tuple[View, Source]
) -> ScoredGroup:
    elected = context.vote(rollouts.group(*voting))
    return judge(
        rollouts.group(trained, "policy"),
        winner=elected.winner,
        label=elected.answer,
        elected_by=elected,
        key=context.key,
    )
