"""How alike completions are, by their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from corewarding.dataflow.carriers import Completion, Float32, Int32

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # an odd number: hashes of different n-grams collide with probability 2^-64


def ngram_similarity(completions: Sequence[Completion], *, n: int) -> Float32:
    """[G, G] cosines between the counts of token n-grams, 0 to 1. A completion shorter than n is one n-gram."""
    hashes = [_hashes(completion.token_ids, n) for completion in completions]
    _, places = np.unique(np.concatenate(hashes), return_inverse=True)
    counts = np.zeros((len(hashes), int(places.max()) + 1), np.float32)
    rows = np.repeat(np.arange(len(hashes)), [len(one) for one in hashes])
    np.add.at(counts, (rows, places), 1.0)
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    similar: Float32 = np.clip(counts @ counts.T, 0.0, 1.0)
    return similar


def _hashes(tokens: Int32, n: int) -> NDArray[np.uint64]:
    """One number for each n-gram."""
    length = min(n, len(tokens))
    ids = tokens.astype(np.uint64) + np.uint64(1)
    found = np.zeros(len(tokens) - length + 1, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(length):
            found = (found ^ ids[offset : offset + len(found)]) * _FACTOR
            found ^= found >> np.uint64(29)
    return found
