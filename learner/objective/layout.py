"""Where prompts and completions lie in packed rows, as attention needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LONG = 512
"""Tokens of a segment that is worth a call of a kernel by itself."""


class Segment(NamedTuple):
    """A prompt, a completion or padding, and the prompt that its tokens see besides their own segment (empty but for completions)."""

    row: int
    start: int
    end: int
    prompt_start: int
    prompt_end: int


class PlacedTree(NamedTuple):
    """A prompt from `begin` to `start`, and its completions from there to `end`."""

    row: int
    begin: int
    start: int
    end: int


class Padded(NamedTuple):
    """Segments of similar length side by side, for kernels that take one length."""

    at: Tensor  # [N, L] int64 index of each token; behind the end of a segment its last token again
    is_own: Tensor  # [N, L] bool: not behind the end
    own: Tensor  # at[is_own]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where prompts and completions lie in R rows of C tokens. A position is a row and a column; an index is flat, row * C + column.

    The bounds and indices are for kernels that take all segments in one call: [start of each, and the end of the last].
    """

    length: int  # C
    segments: tuple[Segment, ...]  # in order and without gaps
    trees: tuple[PlacedTree, ...]  # those that have completions
    longest: int  # tokens of the longest segment
    longest_completions: int  # tokens of the longest run of completions of one prompt
    segment_bounds: Tensor  # [N + 1] int32
    completion_bounds: Tensor  # [trees + 1] int32, in completion_index
    prompt_bounds: Tensor  # [trees + 1] int32, in prompt_index
    completion_index: Tensor  # [tokens in completions] int64
    prompt_index: Tensor  # [tokens in prompts] int64
    long: tuple[slice, ...]  # segments of LONG tokens or more, by index
    padded: tuple[Padded, ...]  # the other segments; on the CPU

    @classmethod
    def of(cls, rows: Sequence[Sequence[tuple[int, Sequence[int]]]], length: int) -> Layout:
        """rows: of each row its trees, each the tokens of the prompt and of its completions. length: C."""
        segments: list[Segment] = []
        trees: list[PlacedTree] = []
        for row, lengths in enumerate(rows):
            end = 0
            for prompt, completions in lengths:
                begin, end = end, end + prompt
                segments.append(Segment(row, begin, end, begin, begin))
                for num in filter(None, completions):  # a completion of one token has none in the row
                    segments.append(Segment(row, end, end + num, begin, begin + prompt))
                    end += num
                if end > begin + prompt:
                    trees.append(PlacedTree(row, begin, begin + prompt, end))
            if end < length:
                segments.append(Segment(row, end, length, end, end))
        firsts = [(one.row * length + one.start, one.end - one.start) for one in segments]
        spans = [(row * length + start, row * length + end) for row, _, start, end in trees]
        prompts = [(row * length + begin, row * length + start) for row, begin, start, _ in trees]
        return cls(
            length=length,
            segments=tuple(segments),
            trees=tuple(trees),
            longest=max(one.end - one.start for one in segments),
            longest_completions=max((end - start for start, end in spans), default=0),
            segment_bounds=_bounds([one.end - one.start for one in segments]),
            completion_bounds=_bounds([end - start for start, end in spans]),
            prompt_bounds=_bounds([end - start for start, end in prompts]),
            completion_index=_joined_ranges(spans),
            prompt_index=_joined_ranges(prompts),
            long=tuple(slice(first, first + num) for first, num in firsts if num >= LONG),
            padded=_padded([(first, num) for first, num in firsts if num < LONG]),
        )


def _padded(segments: list[tuple[int, int]]) -> tuple[Padded, ...]:
    """segments: first index and length of each. At most an eighth of what is side by side is padding, or 7 tokens."""
    by_length: dict[int, list[tuple[int, int]]] = {}
    for first, num in segments:
        step = max(8, 1 << max(0, num.bit_length() - 4))
        by_length.setdefault(-(-num // step) * step, []).append((first, num))
    found = []
    for length, members in sorted(by_length.items()):
        first, num = np.array(members, np.int64).T[:, :, None]
        steps = np.arange(length)[None]
        at, is_own = first + np.minimum(steps, num - 1), steps < num
        found.append(Padded(*map(torch.from_numpy, (at, is_own, at[is_own]))))
    return tuple(found)


def _bounds(lengths: list[int]) -> Tensor:
    return torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32))


def _joined_ranges(spans: list[tuple[int, int]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *(np.arange(start, end) for start, end in spans)]))
