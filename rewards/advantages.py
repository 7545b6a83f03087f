"""Group-relative advantages. A rule that combines several labels needs them for each label; the learner's side for all others."""

from __future__ import annotations

from typing import Literal

import numpy as np

from corewarding.dataflow.carriers import Float32, ScoredGroup

Normalize = Literal["std", "none"]

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
    advantages: Float32 = (centred / scale).astype(np.float32)
    return advantages


def advantages_of(group: ScoredGroup, *, normalize: Normalize) -> Float32:
    """[G] advantages of a scored group: the rule's own, or those of its rewards, plus the group's offset."""
    own = group_advantages(group.rewards, normalize=normalize) if group.advantages is None else group.advantages
    return np.asarray(own + group.offset, np.float32)
