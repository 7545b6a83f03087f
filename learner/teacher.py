"""The EMA teacher: the share of the policy that it absorbs, and the step itself, in float32 on the learner's shards.

bfloat16 cannot represent these steps: with alpha up to 0.005, no weight changed in 100 updates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from corewarding.learner.offload import Piece, stream
from corewarding.learner.settings import TeacherSettings


def alpha(update: int, *, settings: TeacherSettings, total_updates: int) -> float:
    """alpha_k after update k = 1, 2, ...: cosine from alpha_start to alpha_end over `total_updates` (arXiv 2508.00410)."""
    phase = math.cos(math.pi * min(update, total_updates) / total_updates)
    return settings.alpha_end + (settings.alpha_start - settings.alpha_end) / 2 * (1 + phase)


@torch.no_grad()
def absorb(teacher: Sequence[Tensor], policy: Sequence[Tensor], share: float, *, offloaded: bool = False) -> None:
    """teacher <- (1 - share) teacher + share policy, in place on local fp32 shards.

    offloaded: the teacher is in the host's memory, and is streamed over the policy's device.
    """
    assert all(t.dtype == torch.float32 for t in teacher), "the teacher is kept in float32"
    if not offloaded:
        torch._foreach_lerp_(list(teacher), list(policy), share)
        return

    def work(pieces: list[Piece], brought: list[list[Tensor]]) -> None:
        torch._foreach_lerp_(brought[0], [piece.of(policy[piece.index].view(-1)) for piece in pieces], share)

    stream([teacher], policy[0].device, work)
