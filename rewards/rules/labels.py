"""Judging one trained group by one label. A completion earns 1 if its answer is in the label's class, else 0; a label
that abstains leaves its group with rewards of 0.
"""

from __future__ import annotations

import numpy as np

from corewarding.dataflow.carriers import Completion, Float32, QuestionRollouts, ScoredGroup
from corewarding.dataflow.ids import GroupId
from corewarding.rewards.rules.contract import GroupKind, RuleContext
from corewarding.rewards.voting import vote


def matches(completion: Completion, label_key: str, context: RuleContext) -> bool:
    """Whether the completion has an answer and it is in the class of `label_key`."""
    return completion.answer is not None and context.key(completion.answer) == label_key


def label_rewards(completions: tuple[Completion, ...], label_key: str | None, context: RuleContext) -> Float32:
    """[G] 1.0 where the answer is in the label's class, else 0.0; all 0.0 without a label."""
    return np.array(
        [label_key is not None and matches(completion, label_key, context) for completion in completions], np.float32
    )


def judge_by_vote(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: GroupKind
) -> ScoredGroup:
    """The `trained` group, rewarded by the answer that the `voters` group elected."""
    label = vote(rollouts.group(*voters), key=context.key, min_share=context.min_share, min_voters=context.min_voters)
    completions = rollouts.group(*trained)
    return ScoredGroup(
        id=group_id(rollouts, trained),
        completions=completions,
        rewards=label_rewards(completions, label.winner, context),
        label=label.answer,
        vote=label,
        abstained=label.winner is None,
    )


def group_id(rollouts: QuestionRollouts, kind: GroupKind) -> GroupId:
    """The name of one group of this asking."""
    view, source = kind
    return rollouts.asked.group(view, source)
