"""Estimates of accuracy: pure functions of which answers are right."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

RESAMPLES, LEVEL = 2000, 0.95


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of k samples is right, from n samples with c right:
    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, eq. 1). ValueError if k > n."""
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {k} samples of a question, got {num_samples}")
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def bootstrap_interval(values: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over questions: [Q] values, one per question, resampled with replacement.

    Questions are resampled, because samples of one question are not independent. ValueError if there are no values.
    """
    values_Q = np.asarray(values, np.float64)
    if not values_Q.size:
        raise ValueError("an interval needs at least one question, got none")
    random = np.random.default_rng(seed)
    means = [random.choice(values_Q, values_Q.size).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ks_of(num_samples: int) -> list[int]:
    """The values of k for which pass@k is reported: powers of two up to n, and n."""
    return sorted({2**power for power in range(num_samples.bit_length())} | ({num_samples} if num_samples else set()))
