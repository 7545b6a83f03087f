"""RESTRAIN (arXiv 2510.02172): every answer is a label, common answers weigh more; a question without a majority is penalised as a
whole; and a question counts by how sure the initial model was of it. The authors' code is not public; the Gaussians are those of the
paper's text as we read it."""

from __future__ import annotations

import math

import numpy as np

from corewarding.dataflow.carriers import QuestionRollouts, ScoredGroup
from corewarding.dataflow.ids import View
from corewarding.rewards.advantages import group_advantages
from corewarding.rewards.rules.contract import GroupKind, RuleContext, judged
from corewarding.rewards.rules.labels import class_shares, elect, label_rewards, trained_completions
from corewarding.rewards.voting import majority_vote


def restrain(
    rollouts: QuestionRollouts, context: RuleContext, *, trained: GroupKind, voters: tuple[GroupKind, ...]
) -> ScoredGroup:
    """Advantage = sum over answers j of w_j A_j, where A_j are the group-relative advantages with answer j as the label and w_j is
    proportional to exp(-(f_j - 1)^2 / (2 sigma^2)), f_j the answer's share of all completions of the voters.

    If the most common answer has fewer than `restrain_min_votes` votes, all rewards are 0 and every advantage is -restrain_penalty.
    The loss of the question is weighted by a Gaussian of the same form, of the share of the initial model's majority.
    """
    (group,) = voters
    settings = context.settings
    elected = elect(rollouts, context, group)
    completions = trained_completions(rollouts, context, trained)
    votes = max((len(one.sample_indices) for one in elected.classes), default=0)
    penalised = votes < settings.restrain_min_votes
    rewards = np.zeros(len(completions), np.float32)
    advantages = np.zeros(len(completions), np.float32)
    if not penalised:
        shares = class_shares(rollouts, context, group, of="completions")
        gaussians = {key: gaussian(share, settings.restrain_sigma) for key, share in shares.items()}
        total = sum(gaussians.values())
        for key, value in gaussians.items():
            matching = label_rewards(completions, key, context)
            rewards += np.float32(value / total) * matching
            advantages += np.float32(value / total) * group_advantages(matching, normalize=context.normalize)
    weight = gaussian(initial_share(rollouts.asked.question_id, trained[0], context), settings.restrain_question_sigma)
    return ScoredGroup(
        id=rollouts.asked.group(*trained),
        completions=completions,
        rewards=rewards,
        label=None if penalised else elected.answer,
        vote=elected,
        abstained=False,
        advantages=advantages,
        weights=np.full(len(completions), weight, np.float32),
        offset=-settings.restrain_penalty if penalised else 0.0,
    )


def gaussian(share: float, sigma: float) -> float:
    """exp(-(share - 1)^2 / (2 sigma^2)): 1 for a share of 1."""
    return math.exp(-((share - 1.0) ** 2) / (2 * sigma**2))


def initial_share(question_id: str, view: View, context: RuleContext) -> float:
    """The share of the most common answer among all of the initial model's completions of this question."""
    answers = None if context.initial is None else context.initial(question_id, view)
    if answers is None:
        raise ValueError(
            f"reward rule restrain needs the initial model's answers to question {question_id} ({view}), got none: they are sampled "
            "once before training"
        )
    vote = majority_vote(answers, key=context.key)
    return len(vote.classes[0].sample_indices) / len(answers) if vote.classes else 0.0


RULES = (judged("restrain", restrain, "policy", needs=("initial_answers",)),)
