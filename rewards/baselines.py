"""The baselines Co-rewarding is compared with: all train the policy's completions of the original wording."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from dataflow.types import Completion, QuestionRollouts, ScoredGroup, TokenStatistics
from rewards.context import RuleContext, judge


def ground_truth(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """GRPO / RLVR: the data set's answer. A question without one leaves its group without reward."""
    assert context.gold is not None, "ground_truth needs answers"
    gold = context.gold(rollouts.asked.question_id)
    winner = None if gold is None else context.key(gold)
    group = rollouts.group("original", "policy")
    return [judge(group, winner=winner, label=gold, elected_by=None, key=context.key)]


def majority_vote(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """TTRL / SRT: the group's own vote."""
    group = rollouts.group("original", "policy")
    elected = context.vote(group)
    return [judge(group, winner=elected.winner, label=elected.answer, elected_by=elected, key=context.key)]


def self_certainty(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Intuitor: mean over tokens of KL(uniform || p_t)."""
    return [_by_statistic(rollouts, context, lambda statistics: statistics.self_certainty)]


def entropy(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """RENT: minus the mean over tokens of H(p_t)."""
    return [_by_statistic(rollouts, context, lambda statistics: -statistics.entropy)]


def random(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Control: a fair coin that depends on the run's seed and the completion's id alone."""
    group = rollouts.group("original", "policy")
    return [_scored(group, [float(_coin(context.run_seed, c)) for c in group])]


def _coin(run_seed: int, completion: Completion) -> bool:
    return bool(hashlib.blake2b(f"{run_seed}/{completion.id}/coin".encode(), digest_size=8).digest()[0] & 1)


def _by_statistic(
    rollouts: QuestionRollouts, context: RuleContext, value: Callable[[TokenStatistics], float]
) -> ScoredGroup:
    statistics = context.statistics
    assert statistics is not None, "confidence rules need token statistics"
    group = rollouts.group("original", "policy")
    return _scored(group, [value(statistics[c.id]) for c in group])


def _scored(group: tuple[Completion, ...], rewards: list[float]) -> ScoredGroup:
    return ScoredGroup(
        group=group[0].id.group,
        completions=group,
        rewards=np.array(rewards, np.float32),
        label=None,
        vote=None,
        abstained=False,
    )
