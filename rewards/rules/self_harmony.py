"""Self-Harmony (arXiv 2511.01191): the label is the answer that both wordings give, by the harmonic mean of its shares. Both wordings
are trained. The paper's policy also writes the second wording; ours comes from the data set (`corewarding rephrase`)."""

from __future__ import annotations

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.votes import Vote
from corewarding.rewards.rules.contract import GroupKind, RuleContext, judged
from corewarding.rewards.rules.labels import class_shares, elect, label_rewards, trained_completions


def self_harmony(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: tuple[GroupKind, ...]
) -> ScoredGroup:
    """The label is the answer with the largest 2 p0 p1 / (p0 + p1), p0 and p1 its shares of the voters in the two wordings.

    Without an answer in common, or with a largest mean below vote.min_share, the label abstains. Ties go to the larger share in the
    original wording.
    """
    original, rephrased = voters
    first, second = class_shares(rollouts, context, original), class_shares(rollouts, context, rephrased)
    means = {key: 2 * p * second[key] / (p + second[key]) for key, p in first.items() if key in second}
    elected = elect(rollouts, context, original)
    other = elect(rollouts, context, rephrased)
    label_key = max(means, key=lambda key: means[key]) if means else None
    share = 0.0 if label_key is None else means[label_key]
    num_voters = min(elected.num_voters, other.num_voters)
    if share < context.min_share or num_voters < context.min_voters:
        label_key = None
    spellings = {context.key(one.answer): one.answer for one in elected.classes}
    label = None if label_key is None else spellings[label_key]
    completions = trained_completions(rollouts, context, trained)
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=completions,
        rewards=label_rewards(completions, label_key, context),
        label=label,
        vote=Vote(
            winner=label_key,
            answer=label,
            share=share,
            num_voters=num_voters,
            classes=elected.classes,
            version=min(elected.version, other.version),
        ),
        abstained=label_key is None,
    )


RULES = (judged("self_harmony", self_harmony, "policy", both_wordings=True),)
