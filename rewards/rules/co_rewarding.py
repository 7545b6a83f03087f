"""Co-rewarding I, II and III (arXiv 2508.00410): another group elects the label of each trained group, so a policy cannot raise its
reward by agreeing with itself. Labels are votes; no rule here reads the data set's answers.
"""

from __future__ import annotations

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.rewards.rules.contract import (
    POLICY_ORIGINAL,
    POLICY_REPHRASED,
    TEACHER_ORIGINAL,
    TEACHER_REPHRASED,
    RewardRule,
    RuleContext,
)
from corewarding.rewards.rules.labels import judge_by_vote


def co_rewarding_i(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Each wording is rewarded by the policy's vote on the other wording."""
    return [
        judge_by_vote(rollouts, context, trained=POLICY_ORIGINAL, voters=POLICY_REPHRASED),
        judge_by_vote(rollouts, context, trained=POLICY_REPHRASED, voters=POLICY_ORIGINAL),
    ]


def co_rewarding_ii(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """The original wording is rewarded by the teacher's vote on it."""
    return [judge_by_vote(rollouts, context, trained=POLICY_ORIGINAL, voters=TEACHER_ORIGINAL)]


def co_rewarding_iii(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Each wording is rewarded by the teacher's vote on the other wording."""
    return [
        judge_by_vote(rollouts, context, trained=POLICY_ORIGINAL, voters=TEACHER_REPHRASED),
        judge_by_vote(rollouts, context, trained=POLICY_REPHRASED, voters=TEACHER_ORIGINAL),
    ]


RULES = (
    RewardRule(
        name="co_rewarding_i",
        score=co_rewarding_i,
        groups=(POLICY_ORIGINAL, POLICY_REPHRASED),
        trained=(POLICY_ORIGINAL, POLICY_REPHRASED),
        kl_reference="initial",
        kl_coef=0.005,
    ),
    RewardRule(
        name="co_rewarding_ii",
        score=co_rewarding_ii,
        groups=(POLICY_ORIGINAL, TEACHER_ORIGINAL),
        trained=(POLICY_ORIGINAL,),
        kl_reference="teacher",
        kl_coef=0.001,
    ),
    RewardRule(
        name="co_rewarding_iii",
        score=co_rewarding_iii,
        groups=(POLICY_ORIGINAL, POLICY_REPHRASED, TEACHER_ORIGINAL, TEACHER_REPHRASED),
        trained=(POLICY_ORIGINAL, POLICY_REPHRASED),
        kl_reference="teacher",
        kl_coef=0.001,
    ),
)
