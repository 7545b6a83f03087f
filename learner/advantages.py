"""Rewards of a group to advantages, and scored groups to the samples an update trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dataflow.types import Float32, ScoredGroup, TrainingSample

Normalize = Literal["std", "none"]
STD_EPS = 1e-6


def group_advantages(rewards: Float32, *, normalize: Normalize) -> Float32:
    """[G] `(r - mean) / (std + 1e-6)` with the unbiased std (GRPO, arXiv 2402.03300); exactly 0 where all rewards are equal.

    ValueError for fewer than two rewards: a group of one has no mean to be compared with.
    """
    if len(rewards) < 2:
        raise ValueError(f"a group needs at least 2 rewards, got {len(rewards)}: its advantage would always be zero")
    exact = np.asarray(rewards, np.float64)
    if np.all(exact == exact[0]):
        return np.zeros(len(rewards), np.float32)
    centred = exact - exact.mean()
    scaled = centred if normalize == "none" else centred / (exact.std(ddof=1) + STD_EPS)
    return np.asarray(scaled, np.float32)


def training_samples(
    groups: Sequence[ScoredGroup], *, normalize: Normalize, mask_truncated: bool, skip_zero_advantage: bool
) -> list[TrainingSample]:
    """The samples of one update, sorted by id.

    mask_truncated: completions cut by max_new_tokens keep their place in mean and std, but all their tokens are masked.
    skip_zero_advantage: groups of equal rewards are left out of gain, KL and denominator.
    """
    samples = []
    for group in groups:
        advantages = group_advantages(group.rewards, normalize=normalize)
        if skip_zero_advantage and not advantages.any():
            continue
        for completion, advantage in zip(group.completions, advantages, strict=True):
            masked = mask_truncated and completion.truncated
            samples.append(
                TrainingSample(
                    id=completion.id,
                    prompt_token_ids=completion.prompt_token_ids,
                    token_ids=completion.token_ids,
                    behavior_logprobs=completion.behavior_logprobs,
                    token_versions=completion.token_versions,
                    advantage=float(advantage),
                    loss_mask=np.full(len(completion.token_ids), not masked),
                    temperature=completion.temperature,
                    truncated=completion.truncated,
                )
            )
    return sorted(samples, key=lambda sample: sample.id)
