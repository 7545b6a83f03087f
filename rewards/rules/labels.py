"""Rewards of one trained group under one label: 1 if a completion's answer is in the label's class, else 0. If the label's vote
abstained, all rewards of the group are 0. And the building blocks of judges that use a vote in another way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corewarding.dataflow.carriers import Completion, Float32, QuestionRollouts, ScoredGroup
from corewarding.dataflow.votes import Vote
from corewarding.rewards.rules.contract import GroupKind, RewardRule, RuleContext
from corewarding.rewards.voting import vote, voter_weights


def matches(completion: Completion, label_key: str, context: RuleContext) -> bool:
    """Whether the completion has an answer with this key."""
    return completion.answer is not None and context.key(completion.answer) == label_key


def label_rewards(completions: tuple[Completion, ...], label_key: str | None, context: RuleContext) -> Float32:
    """[G] 1.0 if the answer is in the label's class, else 0.0; all 0.0 without a label."""
    return np.array(
        [label_key is not None and matches(completion, label_key, context) for completion in completions], np.float32
    )


def trained_completions(rollouts: QuestionRollouts, context: RuleContext, trained: GroupKind) -> tuple[Completion, ...]:
    """The completions of a trained group that are trained; if the group votes in a greater number, the first of them."""
    return rollouts.group(*trained)[: context.train_size]


def elect(rollouts: QuestionRollouts, context: RuleContext, voters: GroupKind) -> Vote:
    """The vote of a group, with all options of the context."""
    return vote(
        rollouts.group(*voters),
        key=context.key,
        min_share=context.min_share,
        min_voters=context.min_voters,
        weights=context.weights,
    )


def class_shares(
    rollouts: QuestionRollouts, context: RuleContext, voters: GroupKind, *, of: str = "voters"
) -> dict[str, float]:
    """Key of each answer of a group to its share, largest first (ties: as in a vote).

    of: "voters" divides by the weight of the completions with an answer, "completions" by that of all.
    """
    group = rollouts.group(*voters)
    weights = voter_weights(group, context.weights)
    shares: dict[str, float] = {}
    for completion, weight in zip(group, weights, strict=True):
        if completion.answer is not None:
            key = context.key(completion.answer)
            shares[key] = shares.get(key, 0.0) + weight
    total = sum(shares.values()) if of == "voters" else sum(weights)
    return {key: mass / total for key, mass in sorted(shares.items(), key=lambda item: -item[1])}


def judge_by_vote(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: GroupKind
) -> ScoredGroup:
    """Rewards the `trained` group by the answer that the `voters` group elects."""
    elected = elect(rollouts, context, voters)
    return _scored(rollouts, context, trained, label=elected.answer, label_key=elected.winner, elected=elected)


def majority(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: tuple[GroupKind, ...]
) -> ScoredGroup:
    """The judge of majority_vote and Co-rewarding: `judge_by_vote` with the one group of voters."""
    (group,) = voters
    return judge_by_vote(rollouts, context, trained=trained, voters=group)


def judge_by_label(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, label: str | None
) -> ScoredGroup:
    """Rewards the `trained` group by an answer that is known; None abstains."""
    key = None if label is None else context.key(label)
    return _scored(rollouts, context, trained, label=label, label_key=key, elected=None)


def without_label(rollouts: QuestionRollouts, *, trained: GroupKind, rewards: Sequence[float]) -> ScoredGroup:
    """Gives the completions of the `trained` group their `rewards`, in the order of sample_index: as many as there are rewards."""
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=rollouts.group(*trained)[: len(rewards)],
        rewards=np.array(rewards, np.float32),
        label=None,
        vote=None,
        abstained=False,
    )


def score_question(rule: RewardRule, rollouts: QuestionRollouts, context: RuleContext) -> list[ScoredGroup]:
    """The rule's groups; for a question whose answer labels.budget bought, each trained group is judged by that answer."""
    bought = None if context.known is None else context.known(rollouts.asked.question_id)
    if bought is None:
        return rule.score(rollouts, context)
    return [judge_by_label(rollouts, context, trained=trained, label=bought) for trained in rule.trained]


def _scored(
    rollouts: QuestionRollouts,
    context: RuleContext,
    trained: GroupKind,
    *,
    label: str | None,
    label_key: str | None,
    elected: Vote | None,
) -> ScoredGroup:
    completions = trained_completions(rollouts, context, trained)
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=completions,
        rewards=label_rewards(completions, label_key, context),
        label=label,
        vote=elected,
        abstained=label_key is None,
    )
