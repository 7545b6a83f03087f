"""Baselines whose reward is the policy's own confidence. They read whole-distribution statistics that the learner
computed for exactly these completions beforehand; sampled logprobs do not carry them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup, TokenStatistics
from corewarding.rewards.rules.contract import RuleContext
from corewarding.rewards.rules.labels import group_id


def self_certainty(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Mean over loss tokens of KL(uniform || p_t) (Intuitor, arXiv 2505.19590)."""
    return _confidence(rollouts, context, rule="self_certainty", reward=lambda statistics: statistics.self_certainty)


def entropy(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Minus the mean over loss tokens of the entropy H(p_t) (RENT, arXiv 2505.22660)."""
    return _confidence(rollouts, context, rule="entropy", reward=lambda statistics: -statistics.entropy)


def _confidence(
    rollouts: QuestionRollouts, context: RuleContext, *, rule: str, reward: Callable[[TokenStatistics], float]
) -> list[ScoredGroup]:
    completions = rollouts.group("original", "policy")
    statistics = context.statistics or {}
    missing = [completion.id for completion in completions if completion.id not in statistics]
    if missing:
        raise ValueError(
            f"reward rule {rule} needs token statistics of all {len(completions)} completions of {missing[0].group}, "
            f"but {len(missing)} have none: the learner computes them before a question is scored"
        )
    return [
        ScoredGroup(
            id=group_id(rollouts, ("original", "policy")),
            completions=completions,
            rewards=np.array([reward(statistics[completion.id]) for completion in completions], np.float32),
            label=None,
            vote=None,
            abstained=False,
        )
    ]
