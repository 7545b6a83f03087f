"""Baselines that reward the probability of the whole completion, under the weights that sampled it and at the sampling temperature.
Longer completions are less probable, so both favour short ones.
"""

from __future__ import annotations

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.rewards.advantages import group_advantages
from corewarding.rewards.rules.contract import POLICY_ORIGINAL, RewardRule, RuleContext


def trajectory_entropy(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """The sum of log p over the tokens: minus a one-sample estimate of the entropy of trajectories (EM-RL, arXiv 2505.15134)."""
    rewards = _log_probabilities(rollouts)
    return [_scored(rollouts, rewards, advantages=None)]


def trajectory_probability(rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """The product of p over the tokens (RLSC, arXiv 2506.06395).

    Products of long completions are below the smallest float32, so the advantages are those of p / max p, which have the same
    ratios; std-normalized advantages do not depend on the scale.
    """
    logs = _log_probabilities(rollouts)
    relative = np.exp(logs - logs.max()).astype(np.float32)
    advantages = group_advantages(relative, normalize="std") if context.normalize == "std" else None
    return [_scored(rollouts, np.exp(logs), advantages=advantages)]


def _log_probabilities(rollouts: QuestionRollouts) -> np.ndarray:
    """[G] float64"""
    return np.array([c.behavior_logprobs.astype(np.float64).sum() for c in rollouts.group(*POLICY_ORIGINAL)])


def _scored(rollouts: QuestionRollouts, rewards: np.ndarray, *, advantages: np.ndarray | None) -> ScoredGroup:
    return ScoredGroup(
        id=rollouts.asked.group(*POLICY_ORIGINAL),
        completions=rollouts.group(*POLICY_ORIGINAL),
        rewards=rewards.astype(np.float32),
        label=None,
        vote=None,
        abstained=False,
        advantages=advantages,
    )


RULES = (
    RewardRule(name="trajectory_entropy", score=trajectory_entropy, needs=frozenset({"sampled_logprobs"})),
    RewardRule(name="trajectory_probability", score=trajectory_probability, needs=frozenset({"sampled_logprobs"})),
)
