"""EVOL-RL (arXiv 2509.15194): the majority's answer decides the sign of a reward, the novelty of the reasoning its size. The paper
adds `loss.eps_high: 0.28` and an entropy bonus, which is not part of this rule."""

from __future__ import annotations

import numpy as np

from corewarding.dataflow.carriers import Float32, QuestionRollouts, ScoredGroup
from corewarding.rewards.rules.contract import GroupKind, RuleContext, judged
from corewarding.rewards.rules.labels import elect, label_rewards, trained_completions

WITHOUT_ANSWER = -1.0


def evol_rl(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: tuple[GroupKind, ...]
) -> ScoredGroup:
    """[0.5, 1] for the label's answer, [-1, -0.5] for others, -1 without an answer; within its band, novelty decides.

    A label that abstains gives the group no reward.
    """
    (group,) = voters
    if context.similarity is None:
        raise ValueError("reward rule evol_rl needs a similarity of completions, got none")
    elected = elect(rollouts, context, group)
    completions = rollouts.group(*trained)  # all are compared, also those that only vote
    rewards = np.zeros(len(completions), np.float32)
    if elected.winner is not None:
        rewards[:] = WITHOUT_ANSWER
        answered = [index for index, completion in enumerate(completions) if completion.answer is not None]
        if answered:
            valid = tuple(completions[index] for index in answered)
            right = label_rewards(valid, elected.winner, context) > 0
            rewards[answered] = banded(context.similarity(valid), right)
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=trained_completions(rollouts, context, trained),
        rewards=rewards[: context.train_size],
        label=elected.answer,
        vote=elected,
        abstained=elected.winner is None,
    )


def banded(similarity: Float32, right: np.ndarray) -> Float32:
    """[G] rewards by novelty within the bands of right and wrong answers. similarity: [G, G]. right: [G] bool.

    Novelty is 1 - (mean similarity to others of the own band + largest similarity to any other) / 2, scaled to [0, 1] within the
    band. A lone right answer gets 1, a lone wrong one -0.5, equally novel ones the middle of their band (as in the authors' code).
    """
    novelty = 1.0 - _likeness(similarity, right)
    rewards = np.empty(len(right), np.float32)
    for band, low, alone in ((right, 0.5, 1.0), (~right, -1.0, -0.5)):
        values = novelty[band]
        if len(values) == 1:
            rewards[band] = alone
        elif len(values):
            spread = values.max() - values.min()
            rewards[band] = low + 0.5 * ((values - values.min()) / spread if spread > 0 else 0.5)
    return rewards


def _likeness(similarity: Float32, right: np.ndarray) -> np.ndarray:
    """[G] (mean within the band + maximum over all) / 2, each without the completion itself; 0.5 for a completion alone."""
    num = len(right)
    others = ~np.eye(num, dtype=bool)
    found = np.full(num, 0.5)
    for index in range(num):
        band = others[index] & (right == right[index])
        compared = band if band.any() else others[index]
        if compared.any():
            found[index] = 0.5 * similarity[index, compared].mean() + 0.5 * similarity[index, others[index]].max()
    return found


RULES = (judged("evol_rl", evol_rl, "policy", needs=("similarity",)),)
