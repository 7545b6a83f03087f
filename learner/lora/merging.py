"""Weights with an adapter merged in, W + scale * B A in float32, computed where they are read: the base weights stay as they are.

B A is computed in blocks of rows whose place and size depend on the weight alone. So an element has the same bits however a stream
or a file cuts the weight, and on any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corewarding.weights.stream import Shard

_CPU_BLOCK, _GPU_BLOCK = 2**18, 2**24
"""Elements of a block of B A, at least a row."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRank:
    """scale * B A, which is never whole in memory."""

    a: Tensor  # [rank, in] float32
    b: Tensor  # [out, rank] float32
    scale: float

    @torch.no_grad()
    def added_to(self, base: Tensor, first: int) -> Tensor:
        """base [n], of any float type, plus the elements first, first + 1, ... of the flattened product: [n] float32."""
        merged = base.float() if base.dtype != torch.float32 else base.clone()
        width = self.a.shape[1]
        rows = max(1, (_GPU_BLOCK if base.is_cuda else _CPU_BLOCK) // width)
        end = first + len(base)
        for row in range(first // width // rows * rows, -(-end // width), rows):
            begin = row * width
            product = (self.b[row : row + rows] @ self.a).mul_(self.scale).view(-1)
            low, high = max(first, begin), min(end, begin + len(product))
            merged[low - first : high - first] += product[low - begin : high - begin]
        return merged

    def merged_into(self, shard: Shard, *, offset: int) -> MergedShard:
        """offset: of the tensor's first element in the weight that this is added to."""
        return MergedShard(
            name=shard.name, shape=shard.shape, start=shard.start, local=shard.local, adapter=self, offset=offset
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MergedShard(Shard):
    """A part of a weight whose adapter is merged in when it is read. `local` holds the base weight."""

    adapter: LowRank
    offset: int  # of the tensor's first element in the weight that the adapter is added to

    def part(self, start: int, count: int) -> Tensor:
        base = Shard.part(self, start, count)  # a dataclass with slots has no argumentless super
        return self.adapter.added_to(base, self.offset + start)
