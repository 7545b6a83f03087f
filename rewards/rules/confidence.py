"""Baselines that reward the policy's own confidence. They read statistics of the whole next-token distribution, which the learner
computes for these completions before they are scored; the logprobs of sampled tokens are not enough.
"""

from __future__ import annotations

from collections.abc import Callable

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup, TokenStatistics
from corewarding.rewards.rules.contract import POLICY_ORIGINAL, RewardRule, RuleContext
from corewarding.rewards.rules.labels import without_label


def self_certainty(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Mean over loss tokens of KL(uniform || p_t) (Intuitor, arXiv 2505.19590)."""
    return _confidence(rollouts, context, rule="self_certainty", reward=lambda statistics: statistics.self_certainty)


def entropy(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """Minus the mean over loss tokens of the entropy H(p_t) (RENT, arXiv 2505.22660)."""
    return _confidence(rollouts, context, rule="entropy", reward=lambda statistics: -statistics.entropy)


def _confidence(
    rollouts: QuestionRollouts, context: RuleContext, *, rule: str, reward: Callable[[TokenStatistics], float]
) -> list[ScoredGroup]:
    completions = rollouts.group(*POLICY_ORIGINAL)
    statistics = context.statistics or {}
    missing = [completion.id for completion in completions if completion.id not in statistics]
    if missing:
        raise ValueError(
            f"reward rule {rule} needs token statistics of all {len(completions)} completions of {missing[0].group}, "
            f"but {len(missing)} have none: the learner computes them before a question is scored"
        )
    rewards = [reward(statistics[completion.id]) for completion in completions]
    return [without_label(rollouts, trained=POLICY_ORIGINAL, rewards=rewards)]


RULES = (
    RewardRule(name="self_certainty", score=self_certainty, needs=frozenset({"token_statistics"})),
    RewardRule(name="entropy", score=entropy, needs=frozenset({"token_statistics"})),
)
