"""Majority votes over the answers of a group. The outcome depends only on answers and sample indices, not on the order of arrival."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from corewarding.dataflow.carriers import Completion
from corewarding.dataflow.votes import Vote, VoteClass
from corewarding.rewards.answers.key import answer_key
from corewarding.rewards.settings import VoterWeights


def majority_vote(
    answers: Sequence[str | None],
    *,
    key: Callable[[str], str] = answer_key,
    min_share: float = 0.0,
    min_voters: int = 1,
    weights: Sequence[float] | None = None,
    version: int = 0,
) -> Vote:
    """The most frequent class of equivalent answers (docs/algorithm.md, "Reward rules"; arXiv 2508.00410).

    answers: by sample index; None does not vote. key: equivalent answers have equal keys. weights: how much each
    answer counts, by sample index; None: all the same. version: the label's.
    The vote abstains (`winner` None) if there are fewer voters than min_voters or none, or if the winners' share of the voters' weight
    is below min_share. A tie goes to the class with the smallest sample index of a first member.
    """
    members: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            members.setdefault(key(answer), []).append(index)

    counted = [1.0] * len(answers) if weights is None else weights
    mass = {name: math.fsum(counted[index] for index in indices) for name, indices in members.items()}
    # Classes are in the order of their first members, and a stable sort keeps this order within a tie.
    ranked = sorted(members.items(), key=lambda item: -mass[item[0]])
    num_voters, total = sum(map(len, members.values())), math.fsum(mass.values())
    share = mass[ranked[0][0]] / total if total else 0.0
    elected = num_voters >= max(1, min_voters) and share >= min_share
    classes = tuple(VoteClass(answer=answers[indices[0]] or "", sample_indices=tuple(indices)) for _, indices in ranked)
    return Vote(
        winner=ranked[0][0] if elected else None,
        answer=classes[0].answer if elected else None,
        share=share,
        num_voters=num_voters,
        classes=classes,
        version=version,
    )


def voter_weights(completions: Sequence[Completion], weights: VoterWeights) -> list[float]:
    """How much each completion counts: 1, or for "confidence" the geometric mean of the probabilities of its tokens, exp(mean log p).

    Confidence-weighted votes are those of SCOPE (arXiv 2512.15146), which averages the largest probabilities of each step; ours needs
    those of the sampled tokens alone.
    """
    if weights == "equal":
        return [1.0] * len(completions)
    return [math.exp(float(completion.behavior_logprobs.mean())) for completion in completions]


def vote(
    completions: Sequence[Completion],
    *,
    key: Callable[[str], str],
    min_share: float = 0.0,
    min_voters: int = 1,
    weights: VoterWeights = "equal",
) -> Vote:
    """majority_vote of one complete group, in any order. The vote's version is the oldest token's in the voters' completions, or in
    all completions if none voted. Raises ValueError for an empty group.
    """
    if not completions:
        raise ValueError("a vote needs at least one completion, got none: an empty group has no version")
    group = sorted(completions, key=lambda completion: completion.id.sample_index)
    voters = [completion for completion in group if completion.answer is not None]
    return majority_vote(
        [completion.answer for completion in group],
        key=key,
        min_share=min_share,
        min_voters=min_voters,
        weights=voter_weights(group, weights),
        version=min(completion.oldest_version for completion in voters or group),
    )
