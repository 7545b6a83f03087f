"""Random draws that depend on the completion, not on slot, batch, attempt or weights.

Draw t of a completion is a function of (run seed, completion id, t). So an aborted and resumed completion continues its stream, and
two runs that ask the same questions of the same weights get the same tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(keys: NDArray[np.uint64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """[n] numbers in [0, 1): draw `draws[i]` of stream `keys[i]` (splitmix64, https://prng.di.unimi.it/splitmix64.c)."""
    with np.errstate(over="ignore"):
        z = keys + (draws.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample(logits: Tensor, temperatures: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """([n] token ids, [n] float32 logprobs of log_softmax(logits / temperature)) by inverse CDF.

    logits [n, V]; temperatures [n] float32, 0 is greedy (its logprob is at temperature 1); draws [n] float64 in [0, 1).
    """
    greedy = temperatures == 0
    scaled = logits.float() / torch.where(greedy, 1.0, temperatures)[:, None]
    logprobs = scaled.log_softmax(-1)
    cumulative = logprobs.double().exp().cumsum(-1)
    drawn = torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True).squeeze(-1)
    tokens = torch.where(greedy, scaled.argmax(-1), drawn.clamp(max=logits.shape[-1] - 1))
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)
