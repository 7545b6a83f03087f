"""Co-rewarding I, II and III (arXiv 2508.00410): the label of a group is elected by a *different* group, so that
a policy cannot raise its reward by agreeing with itself. Labels are votes; no rule here reads a data set's answer.
"""

from __future__ import annotations

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.rewards.rules.contract import RuleContext
from corewarding.rewards.rules.labels import judge_by_vote


def co_rewarding_i(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Each wording is judged by the policy's vote on the other wording."""
    return [
        judge_by_vote(rollouts, context, trained=("original", "policy"), voters=("rephrased", "policy")),
        judge_by_vote(rollouts, context, trained=("rephrased", "policy"), voters=("original", "policy")),
    ]


def co_rewarding_ii(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """The original wording is judged by the teacher's vote on it."""
    return [judge_by_vote(rollouts, context, trained=("original", "policy"), voters=("original", "teacher"))]


def co_rewarding_iii(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Each wording is judged by the teacher's vote on the other wording."""
    return [
        judge_by_vote(rollouts, context, trained=("original", "policy"), voters=("rephrased", "teacher")),
        judge_by_vote(rollouts, context, trained=("rephrased", "policy"), voters=("original", "teacher")),
    ]
