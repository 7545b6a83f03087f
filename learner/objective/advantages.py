"""Turns scored groups into the samples of an update. An advantage compares a completion with its own group only, so it
does not depend on the other groups of the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from corewarding.dataflow.carriers import ScoredGroup, TrainingSample
from corewarding.rewards.advantages import Normalize, advantages_of

ZeroCause = Literal["all_right", "all_wrong", "abstained", "equal"]


def zero_cause(group: ScoredGroup) -> ZeroCause | None:
    """Why every advantage of the group is 0; None if some are not.

    "all_right" and "all_wrong" need a label; groups that are rewarded without one (random, confidence) are "equal".
    """
    if group.abstained:
        return "abstained"
    if group.offset or (group.advantages is not None and np.any(group.advantages)):
        return None
    if group.advantages is None and np.any(group.rewards != group.rewards[0]):
        return None
    if group.label is not None and group.rewards[0] == 1.0:
        return "all_right"
    if group.label is not None and group.rewards[0] == 0.0:
        return "all_wrong"
    return "equal"


def training_samples(
    groups: Sequence[ScoredGroup],
    *,
    normalize: Normalize,
    mask_truncated: bool,
    skip_zero_advantage: bool,
    mask_abstained: bool = False,
    oldest_version: int = 0,
) -> list[TrainingSample]:
    """The samples of `groups`, sorted by id.

    mask_truncated: completions that hit the token limit keep their place in the group's mean and deviation, but none of
    their tokens enters the loss.
    skip_zero_advantage: groups whose advantages are all 0 are left out; else their tokens stay in the denominator and
    the KL term.
    mask_abstained: groups whose label abstained are left out in the same way.
    oldest_version: completions with a token sampled by older weights are masked in the same way.
    """
    samples: list[TrainingSample] = []
    for group in groups:
        advantages = advantages_of(group, normalize=normalize)
        if (skip_zero_advantage and not np.any(advantages)) or (mask_abstained and group.abstained):
            continue
        weights = np.ones(len(advantages), np.float32) if group.weights is None else group.weights
        for completion, advantage, weight in zip(group.completions, advantages, weights, strict=True):
            stale = completion.oldest_version < oldest_version
            in_loss = not (stale or (mask_truncated and completion.truncated))
            samples.append(
                TrainingSample.of(completion, advantage=float(advantage), loss_mask=in_loss, weight=float(weight))
            )
    return sorted(samples, key=lambda sample: sample.id)
