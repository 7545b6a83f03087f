"""EMPO (arXiv 2504.05812): a completion is rewarded by how common its answer is, so no single answer is declared right."""

from __future__ import annotations

import math

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.rewards.rules.contract import GroupKind, RuleContext, judged
from corewarding.rewards.rules.labels import class_shares, elect, trained_completions
from corewarding.rewards.voting import voter_weights


def empo(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: tuple[GroupKind, ...]
) -> ScoredGroup:
    """The share of the answer's class among all completions of the voters; 0 without an answer.

    All rewards are 0, and the group abstains, if the entropy of the classes is not below its bound: rule_options.empo_entropy_bound,
    or log G, the entropy of G different answers. A completion without an answer is a class of its own (as in the authors' code).
    """
    (group,) = voters
    shares = class_shares(rollouts, context, group, of="completions")
    asked = rollouts.group(*group)
    weights = voter_weights(asked, context.weights)
    alone = [weight / sum(weights) for one, weight in zip(asked, weights, strict=True) if one.answer is None]
    entropy = -sum(share * math.log(share) for share in (*shares.values(), *alone) if share > 0)
    bound = context.settings.empo_entropy_bound
    filtered = entropy >= (math.log(len(asked)) - 1e-9 if bound is None else bound)
    completions = trained_completions(rollouts, context, trained)
    keys = [None if one.answer is None else context.key(one.answer) for one in completions]
    elected = elect(rollouts, context, group)
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=completions,
        rewards=np.array([0.0 if filtered or key is None else shares.get(key, 0.0) for key in keys], np.float32),
        label=None if filtered else elected.answer,
        vote=elected,
        abstained=filtered,
    )


RULES = (judged("empo", empo, "policy"),)
