"""Random draws that depend on the completion, not on slot, batch, attempt or weights.

Draw t of a completion is a function of (run seed, completion id, t). So an aborted and resumed completion continues its stream, and
two runs that ask the same questions of the same weights get the same tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 512
"""Tokens of the vocabulary whose probabilities are summed first."""
ALMOST_1 = 1 - 2.0**-53
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

    The CDF has two levels, so that only sums need float64: a draw first falls into a block of the vocabulary, then on a token of it.
    """
    n, V = logits.shape
    greedy = temperatures == 0
    num_blocks = -(-V // BLOCK)
    padded = logits.new_zeros(n, num_blocks * BLOCK, dtype=torch.float32)  # padding has no probability
    scaled = padded[:, :V]
    torch.div(logits, torch.where(greedy, 1.0, temperatures)[:, None], out=scaled)
    top, best = scaled.max(-1)
    scaled.sub_(top[:, None]).exp_()
    blocks = padded.view(n, num_blocks, BLOCK)
    sums = blocks.sum(-1).double()
    total = sums.sum(-1)
    block, into = _drawn(sums, draws)
    token_in_block, _ = _drawn(blocks[torch.arange(n, device=block.device), block].double(), into)
    tokens = torch.where(greedy, best, block * BLOCK + token_in_block)
    return tokens, (scaled.gather(-1, tokens[:, None]).squeeze(-1).double().log() - total.log()).float()


def _drawn(weights: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of weights [n, m], both float64: the index that its draw falls on, and how far into its part, in [0, 1)."""
    cumulative = weights.cumsum(-1)
    aim = draws * cumulative[:, -1]
    last = (cumulative < cumulative[:, -1:]).sum(-1)  # with any weight
    index = torch.minimum(torch.searchsorted(cumulative, aim[:, None], right=True).squeeze(-1), last)
    own = weights.gather(-1, index[:, None]).squeeze(-1)
    into = (aim - (cumulative.gather(-1, index[:, None]).squeeze(-1) - own)) / own
    return index, into.clamp(0.0, ALMOST_1)
