"""Turns scored groups into the samples of an update. An advantage compares a completion with its own group only, so it
does not depend on the other groups of the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from corewarding.dataflow.carriers import Float32, ScoredGroup, TrainingSample

Normalize = Literal["std", "none"]
ZeroCause = Literal["all_right", "all_wrong", "abstained", "equal"]

STD_EPS = 1e-6


def group_advantages(rewards: Float32, *, normalize: Normalize) -> Float32:
    """[G] group-relative advantages: (r - mean) / (std + 1e-6), or r - mean for "none" (GRPO, arXiv 2402.03300, 4.1).

    rewards: [G] of one group, G >= 2. The standard deviation is the unbiased one (ddof 1).
    Equal rewards give exactly 0. Raises ValueError for a group of fewer than two or a reward that is not finite.
    """
    if rewards.ndim != 1 or len(rewards) < 2:
        raise ValueError(
            f"group_size must be at least 2, got rewards of shape {rewards.shape}: a group of one has no other "
            "completion to compare with, so every advantage is zero"
        )
    if not np.all(np.isfinite(rewards)):
        raise ValueError(f"rewards must be finite, got {rewards.tolist()}: they would make the weights not finite")
    if np.all(rewards == rewards[0]):
        return np.zeros(len(rewards), np.float32)
    exact = rewards.astype(np.float64)
    centred = exact - exact.mean()
    scale = exact.std(ddof=1) + STD_EPS if normalize == "std" else 1.0
    return (centred / scale).astype(np.float32)


def zero_cause(group: ScoredGroup) -> ZeroCause | None:
    """Why every advantage of the group is 0; None if some are not.

    "all_right" and "all_wrong" need a label; groups that are rewarded without one (random, confidence) are "equal".
    """
    if group.abstained:
        return "abstained"
    if np.any(group.rewards != group.rewards[0]):
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
    oldest_version: int = 0,
) -> list[TrainingSample]:
    """The samples of `groups`, sorted by id.

    mask_truncated: completions that hit the token limit keep their place in the group's mean and deviation, but none of
    their tokens enters the loss.
    skip_zero_advantage: groups whose advantages are all 0 are left out; else their tokens stay in the denominator and
    the KL term.
    oldest_version: completions with a token sampled by older weights are masked in the same way.
    """
    samples: list[TrainingSample] = []
    for group in groups:
        advantages = group_advantages(group.rewards, normalize=normalize)
        if skip_zero_advantage and not np.any(advantages):
            continue
        for completion, advantage in zip(group.completions, advantages, strict=True):
            stale = completion.oldest_version < oldest_version
            in_loss = not (stale or (mask_truncated and completion.truncated))
            samples.append(TrainingSample.of(completion, advantage=float(advantage), loss_mask=in_loss))
    return sorted(samples, key=lambda sample: sample.id)
