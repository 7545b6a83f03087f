"""Rewards of one trained group under one label: 1 if a completion's answer is in the label's class, else 0. If the label's vote
abstained, all rewards of the group are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corewarding.dataflow.carriers import Completion, Float32, QuestionRollouts, ScoredGroup, Vote
from corewarding.rewards.rules.contract import GroupKind, RuleContext
from corewarding.rewards.voting import vote


def matches(completion: Completion, label_key: str, context: RuleContext) -> bool:
    """Whether the completion has an answer with this key."""
    return completion.answer is not None and context.key(completion.answer) == label_key


def label_rewards(completions: tuple[Completion, ...], label_key: str | None, context: RuleContext) -> Float32:
    """[G] 1.0 if the answer is in the label's class, else 0.0; all 0.0 without a label."""
    return np.array(
        [label_key is not None and matches(completion, label_key, context) for completion in completions], np.float32
    )


def judge_by_vote(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: GroupKind
) -> ScoredGroup:
    """Rewards the `trained` group by the answer that the `voters` group elects."""
    elected = vote(rollouts.group(*voters), key=context.key, min_share=context.min_share, min_voters=context.min_voters)
    return _scored(rollouts, context, trained, label=elected.answer, label_key=elected.winner, elected=elected)


def judge_by_label(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, label: str | None
) -> ScoredGroup:
    """Rewards the `trained` group by an answer that is known; None abstains."""
    key = None if label is None else context.key(label)
    return _scored(rollouts, context, trained, label=label, label_key=key, elected=None)


def without_label(rollouts: QuestionRollouts, *, trained: GroupKind, rewards: Sequence[float]) -> ScoredGroup:
    """Gives the completions of the `trained` group their `rewards`, in the order of sample_index."""
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=rollouts.group(*trained),
        rewards=np.array(rewards, np.float32),
        label=None,
        vote=None,
        abstained=False,
    )


def _scored(
    rollouts: QuestionRollouts,
    context: RuleContext,
    trained: GroupKind,
    *,
    label: str | None,
    label_key: str | None,
    elected: Vote | None,
) -> ScoredGroup:
    completions = rollouts.group(*trained)
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=completions,
        rewards=label_rewards(completions, label_key, context),
        label=label,
        vote=elected,
        abstained=label_key is None,
    )
