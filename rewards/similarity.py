"""How alike completions are, by their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from corewarding.dataflow.carriers import Completion, Float32


def ngram_similarity(completions: Sequence[Completion], *, n: int) -> Float32:
    """[G, G] cosines between the counts of token n-grams, 0 to 1. A completion shorter than n is one n-gram."""
    counts = [_ngrams(completion.token_ids.tolist(), n) for completion in completions]
    norms = [sum(times * times for times in count.values()) ** 0.5 for count in counts]
    similar = np.empty((len(counts), len(counts)), np.float32)
    for i, one in enumerate(counts):
        for j, other in enumerate(counts[: i + 1]):
            few, many = (one, other) if len(one) <= len(other) else (other, one)
            dot = sum(times * many[gram] for gram, times in few.items() if gram in many)
            similar[i, j] = similar[j, i] = min(1.0, dot / (norms[i] * norms[j]))
    return similar


def _ngrams(tokens: list[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(max(1, len(tokens) - n + 1)))
